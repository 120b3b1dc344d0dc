"""Loading and saving models: converted directories, adapters on them, official weights."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..errors import InputError, one_line
from ..files import check_writable
from . import schema
from .bundled import model_directory
from .config import AUXILIARY_NAME, CALIBRATION_NAME, CONFIG_NAME, GSVAConfig
from .gsva import GSVA
from .official_parts import official_config
from .prompt import Prompt
from .tokenizer import TOKENIZER_NAME, Tokenizer
from .weights import (
    ADAPTER_CONFIG,
    SHA256,
    Adapter,
    CheckpointError,
    adapter,
    merge_lora,
    read_state,
    sam_sizes,
    weight_files,
    with_vision_tower,
    write_state,
)

WEIGHTS_NAME = "model.safetensors"
# Left over from older transformers and from SAM's unused parts; they carry no information.
IGNORED_SUFFIXES = (".position_ids", ".rotary_emb.inv_freq")


@dataclass(frozen=True)
class Checkpoint:
    """A model, the prompt that its weights were trained with, and the weights' SHA-256."""

    model: GSVA
    prompt: Prompt
    weights_hash: str


def load_converted(directory: str | Path) -> Checkpoint:
    """Load a directory that `save_pretrained` wrote, or an adapter (peft) on such a directory.

    Raises:
        FileNotFoundError: a file is missing.
        CheckpointError: the weights do not fit the config, or the adapter was trained on another base.
    """
    directory = Path(directory)
    found = adapter(directory)
    base = base_of(directory, found)
    config = GSVAConfig.load(base)
    path = base / WEIGHTS_NAME
    state, digest = read_state(path), _digest([path])
    if found:
        _check_base(directory, found, path, digest)
        with _naming(directory):
            state = merge_lora(state | found.changes, found.alpha)
        path, digest = directory, _digest(_adapter_files(directory), digest)
    model = _fill(config, state, path)
    prompt = Prompt.load(base / TOKENIZER_NAME, config)
    return Checkpoint(model, prompt, digest.hexdigest())


def load_official(
    llava: str | Path,
    weights: str | Path,
    vision_tower: str | Path,
    sam: dict[str, Any] | None = None,
    conversation: str = "llava_v1",
    lora_alpha: float = 16.0,
) -> Checkpoint:
    """Load official GSVA weights, matched by parameter name.

    Args:
        llava: the LLaVA-layout directory (config.json, tokenizer.model) that GSVA was trained from.
        weights: GSVA's state dict, a file or a directory of shards (`weights.read_state`), complete or
            as saved from peft with separate LoRA factors, which are merged; or an adapter directory
            (peft), which names its base state dict and its own alpha.
        vision_tower: the CLIP directory (config.json, preprocessor_config.json, and the weights if the
            state dict lacks them).
        sam: SAM sizes that the weights' shapes do not determine (decoder_heads), or overrides.
        conversation: "llava_v1" or "llava_llama_2".
        lora_alpha: LoRA's alpha; its rank is taken from the weights.

    Raises:
        FileNotFoundError: a file is missing.
        CheckpointError: the weights do not fit, or the adapter was trained on another base.
    """
    weights, llava, vision_tower = Path(weights), Path(llava), Path(vision_tower)
    found = adapter(weights)
    base = base_of(weights, found)
    state = read_state(base)  # of mapped files: what follows takes the time
    _check_part(llava, "the LLaVA that GSVA was trained from", CONFIG_NAME, TOKENIZER_NAME)
    _check_part(vision_tower, "CLIP (openai/clip-vit-large-patch14)", CONFIG_NAME)
    digest = _digest(weight_files(base))
    if found:
        _check_base(weights, found, base, digest)
        digest = _digest(_adapter_files(weights), digest)
    with _naming(weights):
        state = merge_lora(state, lora_alpha)
        if found:  # trained on the merged weights, with an alpha of its own
            state = merge_lora(state | found.changes, found.alpha)
        sizes = sam_sizes(state) | (sam or {})
    state = with_vision_tower(state, vision_tower)
    config = official_config(llava, vision_tower, sizes, conversation, state)
    model = _fill(config, state, weights)
    prompt = Prompt.load(llava / TOKENIZER_NAME, config)
    return Checkpoint(model, prompt, digest.hexdigest())


@contextmanager
def _naming(weights: Path) -> Iterator[None]:
    """Add the path of the weights to errors that name only a tensor."""
    try:
        yield
    except CheckpointError as error:
        raise CheckpointError(f"{weights}: {error}") from error


def _check_part(directory: Path, part: str, *names: str) -> None:
    """Raise FileNotFoundError unless the directory holds these files of a part of official weights."""
    if not directory.is_dir():
        raise FileNotFoundError(
            f"{directory}: no such folder; download {part}, and give the folder it is in"
        )
    for name in names:
        if not (directory / name).is_file():
            raise FileNotFoundError(f"{directory} has no {name}: give the whole folder of {part}")


def _adapter_files(directory: Path) -> list[Path]:
    return [*sorted(directory.glob("adapter_model.*")), directory / ADAPTER_CONFIG]


def save_pretrained(model: GSVA, tokenizer: Tokenizer, directory: str | Path) -> None:
    """Write a directory that `load_converted` reads: config, preprocessor, tokenizer, weights.

    Raises:
        OSError: it cannot be written.
    """
    write_model(model.config, tokenizer, model.state_dict(), Path(directory))


def write_model(
    config: GSVAConfig, tokenizer: Tokenizer, state: Mapping[str, Tensor], directory: Path
) -> None:
    """Write such a directory with the weights of a state dict.

    Raises:
        OSError: it cannot be written.
    """
    directory.mkdir(parents=True, exist_ok=True)
    # Without config.json it is no model: what ends meanwhile leaves no mixture with what was there.
    (directory / CONFIG_NAME).unlink(missing_ok=True)
    write_state(state, directory / WEIGHTS_NAME)
    (directory / TOKENIZER_NAME).write_bytes(tokenizer.model)
    config.save(directory)


def convert(directory: str | Path, llava: str | Path, **official: Any) -> None:
    """Write official weights as a directory that `load_converted` reads; see `load_official`.

    Raises:
        InputError: the directory cannot be written, or is or holds one of the inputs.
    """
    to, weights = Path(directory), Path(official["weights"])
    base = base_of(weights, adapter(weights))
    read = (Path(llava), Path(official["vision_tower"]), weights, base)
    if to.resolve() in [(p.parent if p.is_file() else p).resolve() for p in read]:
        raise InputError(f"{to} is an input, whose files would be overwritten: choose another")
    check_writable(to / CONFIG_NAME)
    checkpoint = load_official(llava, **official)
    for name in (CALIBRATION_NAME, AUXILIARY_NAME):  # of an earlier model there
        (to / name).unlink(missing_ok=True)
    save_pretrained(checkpoint.model, checkpoint.prompt.tokenizer, directory)


def base_of(directory: Path, found: Adapter | None) -> Path:
    """An adapter's base: a path relative to its own folder or the working directory, or a bundled name.

    Without an adapter, the weights themselves.

    Raises:
        CheckpointError: it is none of these.
    """
    if found is None:
        return directory
    for place in (directory / found.base, found.base):
        if Path(place).is_file():
            return Path(place)
        try:
            return model_directory(place)
        except FileNotFoundError:
            continue
    raise CheckpointError(
        f"{directory} is an adapter for {found.base!r}, which is neither bundled nor a path here: put the "
        "base there, or change base_model_name_or_path in adapter_config.json"
    )


def _check_base(directory: Path, found: Adapter, base: Path, digest: hashlib._Hash) -> None:
    """Check that an adapter's base has the weights that it was trained on, if it says which."""
    own = f"{SHA256}{digest.hexdigest()}"
    if found.revision.startswith(SHA256) and found.revision != own:
        raise CheckpointError(
            f"{directory} is an adapter for other weights than those of {base} (revision {found.revision} "
            f"in {ADAPTER_CONFIG}, not {own}): change base_model_name_or_path there to the folder or file "
            "that it was trained on; if the weights are the same, in another form or beside other files, "
            "remove the revision"
        )


def _fill(config: GSVAConfig, state: dict[str, Tensor], path: Path) -> GSVA:
    """A model with these weights; none may be missing, unexpected or of another shape.

    The model is created on the meta device and takes over the tensors, so that no second copy of a large
    one is needed.
    """
    _check_memory(config)
    try:
        with torch.device("meta"):
            model = GSVA(config)
    except Exception as error:  # transformers' and segment-anything's, of invalid sizes
        raise CheckpointError(
            f"{config.source}: no model can be built with these sizes: {one_line(error)}"
        ) from error
    wanted = model.state_dict()
    state = {k: v for k, v in state.items() if not k.endswith(IGNORED_SUFFIXES)}
    problems = [f"missing {name}" for name in wanted if name not in state]
    problems += [f"unexpected {name}" for name in state if name not in wanted]
    problems += [
        f"{name} is {tuple(state[name].shape)}, not {tuple(value.shape)}"
        for name, value in wanted.items()
        if name in state and state[name].shape != value.shape
    ]
    problems += [f"{name} {problem}" for name, value in state.items() if (problem := unfit(value))]
    if problems:
        shown = "; ".join(problems[:8]) + (f"; and {len(problems) - 8} more" * (len(problems) > 8))
        raise CheckpointError(f"{path} does not fit the model of {config.source}: {shown}")
    model.load_state_dict(_apart(state), assign=True)
    model.make_buffers()
    return model.eval()


def _apart(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Copy tensors that occur under several names, as tied weights do in a torch file."""
    seen: set[int] = set()
    apart = {}
    for name, value in state.items():
        apart[name] = value.clone() if value.data_ptr() in seen else value
        seen.add(value.data_ptr())
    return apart


def unfit(value: Tensor) -> str:
    """Why a tensor cannot be a weight; "" if it can."""
    if not value.is_floating_point():
        return f"is {str(value.dtype).removeprefix('torch.')}; weights are floating-point numbers"
    if not value.sum(dtype=torch.float32).isfinite() and not value.isfinite().all():
        return "holds inf or NaN: the file is damaged, or training diverged"
    return ""


def _check_memory(config: GSVAConfig) -> None:
    """Check that a model of these sizes fits into this machine's memory, before it is created."""
    weights = schema.parameters(config.llm, config.clip, config.sam)
    needed = 2 * weights  # at least 16 bits each
    available = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    if needed > available:
        raise CheckpointError(
            f"{config.source}: num_hidden_layers and the other sizes make a model of at least "
            f"{needed / 2**30:.0f} GiB, but this machine has {available / 2**30:.0f} GiB of memory"
        )


def sha256(paths: list[Path]) -> str:
    """SHA-256 of the files' contents, concatenated."""
    return _digest(paths).hexdigest()


def _digest(paths: list[Path], begun: hashlib._Hash | None = None) -> hashlib._Hash:
    """The files' contents, concatenated, after those with which a digest has begun."""
    digest = begun or hashlib.sha256()
    for path in paths:
        with path.open("rb") as file:
            while block := file.read(1 << 20):
                digest.update(block)
    return digest
