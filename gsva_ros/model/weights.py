"""Reads state dicts: one file or shards, safetensors or torch, from GSVA, LISA, peft or CLIP.

Nothing here unpickles code: safetensors, or torch.load with weights_only. Tensors are memory-mapped where
the format allows it, so that reading a large checkpoint takes no memory of its own.
"""

from __future__ import annotations

import re
import zipfile
from collections.abc import Mapping
from functools import partial, reduce
from pathlib import Path
from pickle import UnpicklingError
from typing import Any, NamedTuple

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from ..errors import InputError, one_line
from ..files import check_fetched, parse_json

PEFT_PREFIX = "base_model.model."
VISION_TOWER = "model.vision_tower.vision_tower."
SAM = "model.visual_model."
#: Weight files of a directory, in transformers' order. An index lists the shards next to it.
FILES = (
    "model.safetensors",
    "model.safetensors.index.json",
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
)
ADAPTER_CONFIG = "adapter_config.json"
#: What the revision in an adapter's config begins with if the base's SHA-256 follows.
SHA256 = "sha256:"
ADAPTER_FILES = ("adapter_model.safetensors", "adapter_model.bin")
#: Keys under which training frameworks nest the state dict.
NESTED = ("module", "state_dict", "model_state_dict")
# Prefixes that wrappers (DataParallel, torch.compile) add to every name.
WRAPPERS = re.compile(r"^(module\.|_orig_mod\.)+")
LORA_FACTOR = re.compile(r"(?P<module>.+)\.lora_(?P<factor>[AB])\.((?P<adapter>[^.]+)\.)?weight")


class CheckpointError(InputError):
    """Weights that do not fit; the message says which file and which names."""


def read_state(path: Path) -> dict[str, Tensor]:
    """Read a state dict from a file or a directory, under the model's own names.

    Prefixes of wrappers and of peft are removed; LoRA factors are kept (see `merge_lora`).

    Raises:
        FileNotFoundError: there is no such file.
        CheckpointError: the file is damaged, holds no weights or must be converted first, or shards are
            missing.
    """
    first, *shards = weight_files(path)
    state = _read_shards(first, shards) if shards else _read_file(first)
    return {
        _plain_name(name): value
        for name, value in state.items()
        if ".original_module." not in name  # peft's copy of a module that it replaced
    }


def weight_files(path: Path) -> list[Path]:
    """What `read_state` reads: a file, or an index and its shards.

    Raises:
        FileNotFoundError, CheckpointError: as `read_state`.
    """
    while path.is_dir():  # newer zero_to_fp32.py makes a folder of what is asked for as a file
        path = _main_file(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file of weights")
    if not path.name.endswith(".index.json"):
        return [path]
    names = sorted(set(_places(path).values()))
    if missing := [name for name in names if not (path.parent / name).is_file()]:
        shown = ", ".join(missing[:3])
        raise CheckpointError(
            f"{path.parent} lacks {len(missing)} of {len(names)} shards: {shown}; download them too"
        )
    return [path, *(path.parent / name for name in names)]


def write_state(state: Mapping[str, Tensor], path: Path) -> None:
    """Write a state dict as safetensors.

    Raises:
        OSError: it cannot be written.
    """
    # safetensors 0.8 puts a file in its place that only its owner may read.
    fresh = path.with_name(f".{path.name}.new")
    fresh.touch()
    mode = fresh.stat().st_mode
    fresh.unlink()
    try:
        save_file({name: value.cpu().contiguous() for name, value in state.items()}, path)
    except SafetensorError as error:  # a full disk, for one
        raise OSError(f"{path}: {one_line(error)}") from error
    path.chmod(mode)


def merge_lora(state: dict[str, Tensor], alpha: float) -> dict[str, Tensor]:
    """Fold LoRA factors into their weights, W + alpha / r * B A, one weight at a time.

    The result has the widest of the three dtypes: in bfloat16 most of a small update would be lost.

    Raises:
        CheckpointError: factors are incomplete, do not fit their weight, or belong to a variant of LoRA
            that this formula does not cover; none is silently ignored.
    """
    merged = {name: value for name, value in state.items() if ".lora_" not in name}
    for module, pair in sorted(_lora_factors(state).items()):
        target = f"{module}.weight"
        if target not in merged:
            raise CheckpointError(
                f"LoRA factors for {target}, which the weights do not have: give the whole state dict, or "
                f"the adapter's folder with its {ADAPTER_CONFIG}"
            )
        if lost := {"A", "B"} - set(pair):
            (here,), (gone,) = pair, lost
            raise CheckpointError(
                f"{module} has LoRA's factor {here} but not {gone}: the file is incomplete"
            )
        a, b, weight = pair["A"], pair["B"], merged[target]
        made = (*b.shape[:1], *a.shape[1:])
        if b.shape[1:] != a.shape[:1] or made != weight.shape or not a.numel():
            raise CheckpointError(
                f"LoRA factors A {tuple(a.shape)} and B {tuple(b.shape)} do not fit {target}, "
                f"{tuple(weight.shape)}"
            )
        update = (b.float() @ a.float()) * (alpha / a.shape[0])
        kinds = (weight.dtype, a.dtype, b.dtype)
        merged[target] = (weight.float() + update).to(reduce(torch.promote_types, kinds))
    return merged


def _lora_factors(state: dict[str, Tensor]) -> dict[str, dict[str, Tensor]]:
    """The factors "A" and "B" of the only adapter, by the module whose weight they change."""
    factors: dict[str, dict[str, Tensor]] = {}
    adapters = set()
    for name in (name for name in state if ".lora_" in name):
        found = LORA_FACTOR.fullmatch(name)
        if found is None:
            raise CheckpointError(
                f"{name} is of a LoRA variant that cannot be merged here (only lora_A and lora_B of "
                "weights can): merge it with peft, and give the result"
            )
        factors.setdefault(found["module"], {})[found["factor"]] = state[name]
        adapters.add(found["adapter"])
    if len(adapters) > 1:
        known = ", ".join(sorted(map(str, adapters)))
        raise CheckpointError(
            f"the weights hold {len(adapters)} adapters ({known}): merge one of them with peft, and give "
            "the result"
        )
    return factors


def with_vision_tower(state: dict[str, Tensor], clip: Path) -> dict[str, Tensor]:
    """Add CLIP's vision tower from its own directory to a state dict that lacks it."""
    if any(name.startswith(VISION_TOWER) for name in state):
        return state
    tower = {
        f"{VISION_TOWER}{name}": value
        for name, value in read_state(clip).items()
        if name.startswith("vision_model.")
    }
    if not tower:
        raise CheckpointError(
            f"the weights have no {VISION_TOWER}*, and {clip} has no vision_model.*: give CLIP's "
            "directory with its weights"
        )
    return state | tower


def sam_sizes(state: Mapping[str, Tensor]) -> dict[str, Any]:
    """SAM's sizes, derived from the shapes of GSVA's or LISA's weights.

    The mask decoder's number of heads does not show in shapes: segment-anything's default is assumed.

    Raises:
        CheckpointError: SAM is missing or incomplete.
    """
    encoder, blocks = "image_encoder.", "image_encoder.blocks."
    shape = partial(_shape, state)
    patch = shape(f"{encoder}patch_embed.proj.weight", 4)[-1]
    _, side, _, width = shape(f"{encoder}pos_embed", 4)
    inner = f"{SAM}{blocks}"
    places = (n.removeprefix(inner) for n in state if n.startswith(inner))
    numbers = {int(n.partition(".")[0]) for n in places if n.endswith("attn.rel_pos_h")}
    relative = {k: shape(f"{blocks}{k}.attn.rel_pos_h", 2) for k in sorted(numbers | {0})}
    hidden = shape(f"{blocks}0.mlp.lin1.weight", 2)[0]
    channels = shape(f"{encoder}neck.0.weight", 4)[0]
    mlp = shape("mask_decoder.transformer.layers.0.mlp.lin1.weight", 2)[0]
    iou = shape("mask_decoder.iou_prediction_head.layers.0.weight", 2)[0]
    masks = shape("prompt_encoder.mask_downscaling.6.weight", 4)[1]
    shortest = min(found[0] for found in relative.values())
    full = 2 * side - 1
    return {
        "image_size": side * patch,
        "patch_size": patch,
        "embed_dim": width,
        "depth": len(relative),
        "num_heads": width // relative[0][1],
        "global_attn_indexes": [k for k, found in relative.items() if found[0] == full],
        "window_size": 0 if shortest == full else (shortest + 1) // 2,
        "mlp_ratio": hidden / width if hidden % width else hidden // width,
        "prompt_embed_dim": channels,
        "decoder_mlp_dim": mlp,
        "iou_head_hidden_dim": iou,
        "mask_in_chans": masks,
    }


def _shape(state: Mapping[str, Tensor], name: str, axes: int) -> torch.Size:
    """The shape of one of SAM's weights; CheckpointError if it is missing or has other axes."""
    if SAM + name not in state:
        raise CheckpointError(
            f"the weights have no {SAM}{name}: LLaVA's own weights, one shard of several and "
            "trained parameters alone lack SAM; give GSVA's whole state dict (zero_to_fp32.py writes "
            "it, without --exclude_frozen_parameters)"
        )
    found = state[SAM + name].shape
    if len(found) != axes or 0 in found:
        raise CheckpointError(
            f"{SAM}{name} has shape {tuple(found)} instead of {axes} non-empty axes: weights that "
            "are sharded over processes (ZeRO-3) must be gathered first"
        )
    return found


#: Fields of peft's LoraConfig that change the formula of `merge_lora`.
VARIANTS = ("use_dora", "use_rslora", "use_qalora", "alpha_pattern", "alora_invocation_tokens")


class Adapter(NamedTuple):
    """An adapter (peft): its base's name and revision, its tensors, and LoRA's alpha."""

    base: str
    revision: str
    changes: dict[str, Tensor]
    alpha: float


def adapter(directory: Path) -> Adapter | None:
    """The adapter (peft) in a directory; None if it holds none.

    Raises:
        CheckpointError: the adapter is of a kind that cannot be merged.
    """
    config = directory / ADAPTER_CONFIG
    path = next((directory / name for name in ADAPTER_FILES if (directory / name).is_file()), None)
    whole = next((name for name in FILES if (directory / name).is_file()), None)
    if path and whole:
        raise CheckpointError(
            f"{directory} holds both {whole} and {path.name}: move the one to use into a folder of its own"
        )
    if whole or not config.is_file():
        return None
    try:
        data = parse_json(config.read_text(encoding="utf-8"))
        base, alpha = data["base_model_name_or_path"], float(data["lora_alpha"])
        revision = str(data.get("revision"))
        others = [k for k in VARIANTS if data.get(k)]
        # Others change the base's weights, too, which are not in the adapter.
        if data.get("init_lora_weights", True) not in (True, False, None, "gaussian"):
            others.append(f"init_lora_weights {data['init_lora_weights']!r}")
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise CheckpointError(f"{config}: not a peft config: {one_line(error)}") from error
    if others or not base:
        problem = f"{others[0]} is not supported" if others else "names no base_model_name_or_path"
        raise CheckpointError(f"{config}: {problem}; merge it with peft, and convert the result")
    if path is None:
        raise CheckpointError(
            f"{directory} has {ADAPTER_CONFIG} but no {' or '.join(ADAPTER_FILES)}"
        )
    return Adapter(str(base), revision, read_state(path), alpha)


def _main_file(directory: Path) -> Path:
    if (directory / "latest").is_file() or any(directory.rglob("*zero_pp_rank_*")):
        raise CheckpointError(
            f"{directory} is a DeepSpeed checkpoint, sharded over processes: run the zero_to_fp32.py that "
            "DeepSpeed put into it, and give what it writes"
        )
    found = next((directory / name for name in FILES if (directory / name).is_file()), None)
    if found:
        return found
    if (directory / ADAPTER_CONFIG).is_file():
        raise CheckpointError(
            f"{directory} holds an adapter, but its base is needed here: merge the two with peft, and give "
            "the result"
        )
    several = _matching(directory, "*.safetensors", "*.bin", "*.pth") or _matching(
        directory, "*.pt"
    )
    if len(several) == 1:
        return several[0]
    if several:
        shown = ", ".join(p.name for p in several[:3]) + ", ..." * (len(several) > 3)
        raise CheckpointError(
            f"{directory} holds {len(several)} files of weights ({shown}): give the one to use; if they "
            "are shards, put their index (*.index.json) next to them"
        )
    raise FileNotFoundError(
        f"{directory}: holds no weights: none of {', '.join(FILES)}, and no other .safetensors, .bin, .pth "
        "or .pt"
    )


def _matching(directory: Path, *patterns: str) -> list[Path]:
    return sorted(path for pattern in patterns for path in directory.glob(pattern))


def _places(index: Path) -> dict[str, str]:
    """The shard of each weight, by name."""
    try:
        places = parse_json(index.read_text(encoding="utf-8"))["weight_map"]
        if not places or not all(isinstance(name, str) for name in places.values()):
            raise ValueError("no shards, or a name that is no text")
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise CheckpointError(
            f"{index}: not an index of shards (weight_map): {one_line(error)}"
        ) from error
    return dict(places)


def _read_shards(index: Path, shards: list[Path]) -> dict[str, Tensor]:
    state: dict[str, Tensor] = {}
    for shard in shards:
        state |= _read_file(shard)
    if lost := sorted(set(_places(index)) - set(state)):
        raise CheckpointError(f"{index} names {lost[0]}, which its shard does not hold")
    return state


def _read_file(path: Path) -> dict[str, Tensor]:
    check_fetched(path, CheckpointError)
    with path.open("rb") as file:
        start = file.read(9)
    try:
        if start[8:9] == b"{":  # safetensors: the length of a JSON header, and the header
            with safe_open(path, "pt") as opened:
                return {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118
        mapped = start.startswith(b"PK")  # formats before torch 1.6 cannot be mapped
        state = torch.load(path, map_location="cpu", weights_only=True, mmap=mapped or None)
    except Exception as error:  # types of safetensors, torch, pickle, zipfile and struct
        raise CheckpointError(
            f"{path} cannot be read as weights: {_unreadable(path, error)}"
        ) from error
    for key in NESTED:
        if isinstance(state, dict) and isinstance(state.get(key), dict):
            state = state[key]
    if not (isinstance(state, dict) and all(isinstance(v, Tensor) for v in state.values())):
        raise CheckpointError(f"{path} is not a state dict: a dictionary of names and tensors")
    return state


def _unreadable(path: Path, error: Exception) -> str:
    """Why a file cannot be read, and what to do."""
    names = _archived(path)
    if names and not any(name.endswith("/data.pkl") for name in names):
        return "it is an archive of other files: unpack it"
    if names and path.suffix == ".safetensors":  # by which torch.load, too, chooses the format
        return "it is a torch file: rename it to .bin"
    if isinstance(error, UnpicklingError):  # not shown: torch advises to run the code in the file
        why = "neither safetensors nor a plain torch state dict"
    elif isinstance(error, EOFError):
        why = "it ends too early"
    else:
        why = one_line(error).partition(". ")[0]
    return f"{why}; if its download was interrupted, repeat it"


def _archived(path: Path) -> list[str]:
    """Names of the files in a zip archive; none if it is not a readable one."""
    try:
        with zipfile.ZipFile(path) as archive:
            return archive.namelist()
    except Exception:  # zipfile raises various types for damaged ones
        return []


def _plain_name(name: str) -> str:
    name = WRAPPERS.sub("", name).removeprefix(PEFT_PREFIX)
    return (
        WRAPPERS.sub("", name)
        .replace(".base_layer.", ".")
        .replace(".modules_to_save.default.", ".")
    )
