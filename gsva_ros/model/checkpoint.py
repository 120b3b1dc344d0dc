"""Loading and saving models: converted directories, adapters on them, official weights."""

from __future__ import annotations

import hashlib
import logging
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor
from transformers import CLIPVisionConfig

from ..errors import InputError, one_line, validated
from ..files import check_writable
from . import schema
from .bundled import model_directory
from .config import (
    CONFIG_NAME,
    PREPROCESSOR_NAME,
    GSVAConfig,
    id_key,
    read_model_json,
    read_object,
)
from .families import FAMILIES
from .gsva import GSVA
from .prompt import Prompt
from .tokenizer import ADDED, TOKENIZER_NAME, Special, Tokenizer, read_pieces
from .weights import (
    ADAPTER_CONFIG,
    Adapter,
    CheckpointError,
    adapter,
    merge_lora,
    read_state,
    sam_sizes,
    with_vision_tower,
    write_state,
)

log = logging.getLogger(__name__)

Found = TypeVar("Found")
WEIGHTS_NAME = "model.safetensors"
# Left over from older transformers and from SAM's unused parts; they carry no information.
IGNORED_SUFFIXES = (".position_ids", ".rotary_emb.inv_freq")
#: What is taken from LLaVA's config.json and CLIP's; the rest of LLaVA's follows from the weights.
LLM_FIELDS = (
    "hidden_size",
    "intermediate_size",
    "num_hidden_layers",
    "num_attention_heads",
    "num_key_value_heads",
    "max_position_embeddings",
    "rms_norm_eps",
    "rope_theta",
    "hidden_act",
)
CLIP_FIELDS = (
    "image_size",
    "patch_size",
    "hidden_size",
    "intermediate_size",
    "num_hidden_layers",
    "num_attention_heads",
    "hidden_act",
    "layer_norm_eps",
)


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
        CheckpointError: the weights do not fit the config.
    """
    directory = Path(directory)
    found = adapter(directory)
    base = _base(directory, found)
    config = GSVAConfig.load(base)
    path = base / WEIGHTS_NAME
    state, hashed = read_state(path), [path]
    if found:
        _, changes, alpha = found
        with _naming(directory):
            state = merge_lora(state | changes, alpha)
        own = [*sorted(directory.glob("adapter_model.*")), directory / ADAPTER_CONFIG]
        path, hashed = directory, [path, *own]
    model = _fill(config, state, path)
    prompt = Prompt.load(base / TOKENIZER_NAME, config)
    return Checkpoint(model, prompt, sha256(hashed))


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
        CheckpointError: the weights do not fit.
    """
    weights, llava, vision_tower = Path(weights), Path(llava), Path(vision_tower)
    found = adapter(weights)
    base = _base(weights, found)
    state = read_state(base)  # of mapped files: what follows takes the time
    _check_part(llava, "the LLaVA that GSVA was trained from", CONFIG_NAME, TOKENIZER_NAME)
    _check_part(vision_tower, "CLIP (openai/clip-vit-large-patch14)", CONFIG_NAME)
    with _naming(weights):
        state = merge_lora(state, lora_alpha)
        if found:  # trained on the merged weights, with an alpha of its own
            _, changes, alpha = found
            state = merge_lora(state | changes, alpha)
        sizes = sam_sizes(state) | (sam or {})
    state = with_vision_tower(state, vision_tower)
    config = official_config(llava, vision_tower, sizes, conversation, state)
    _warn_unless_legacy(llava / TOKENIZER_CONFIG)
    model = _fill(config, state, weights)
    prompt = Prompt.load(llava / TOKENIZER_NAME, config)
    files = _files(weights) if base == weights else [*_files(base), *_files(weights)]
    return Checkpoint(model, prompt, sha256(files))


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


def _files(path: Path) -> list[Path]:
    """A file of weights, or all files of a folder; an index of shards stands for its folder."""
    path = path.parent if path.name.endswith(".index.json") else path
    return [path] if path.is_file() else sorted(p for p in path.iterdir() if p.is_file())


def official_config(
    llava: str | Path,
    vision_tower: str | Path,
    sam: dict[str, Any],
    conversation: str,
    state: dict[str, Tensor],
) -> GSVAConfig:
    """The config of official weights, from LLaVA's and CLIP's JSON files and the weights' shapes."""
    preprocessor_path = Path(vision_tower) / PREPROCESSOR_NAME
    preprocessor = read_model_json(preprocessor_path) if preprocessor_path.exists() else {}
    words = state.get("model.embed_tokens.weight")
    if words is None or words.dim() != 2:
        raise CheckpointError(
            "the weights have no matrix model.embed_tokens.weight: this is not a GSVA state dict"
        )
    vocabulary = words.shape[0]
    llama = _language(Path(llava) / CONFIG_NAME)
    fields = {k: llama[k] for k in LLM_FIELDS if k in llama} | {"vocab_size": vocabulary}
    llm = validated(schema.Llm, fields, str(Path(llava) / CONFIG_NAME), "give LLaVA's own folder")
    family, ids = _family(Path(llava), vocabulary, llama.get("vocab_size"))
    if not FAMILIES[family].strips:
        _check_whitespace(Path(llava) / TOKENIZER_CONFIG, {Special.BOS, Special.EOS, *ids})
    stored = {
        "llm": llm,
        "clip": _vision(Path(vision_tower) / CONFIG_NAME),
        "sam": sam,
        "family": family,
        **{id_key(token): ids.get(token) for token in ADDED},
        "conversation": conversation,
        "select_layer": llama.get("mm_vision_select_layer", -2),
        # Not LLaVA's own mm_use_im_start_end: the official GSVA and LISA override it when they train.
        "use_im_start_end": True,
    }
    return GSVAConfig.of(stored, preprocessor, f"{llava} with {vision_tower}")


def _language(path: Path) -> dict[str, Any]:
    """LLaVA's config.json, as transformers 4 or 5 writes it.

    Raises:
        CheckpointError: it requires something not implemented here, which the weights would not reveal.
    """
    llm = read_object(path)
    rope = llm.get("rope_parameters") or llm.get("rope_scaling") or {}
    if not isinstance(rope, dict):
        raise CheckpointError(f"{path}: rope_scaling is {rope!r}: neither null nor a JSON object")
    asked = {
        "rope_scaling": (rope.get("rope_type", rope.get("type", "default")), "default"),
        "mm_vision_select_feature": (llm.get("mm_vision_select_feature", "patch"), "patch"),
    }
    for name, (given, known) in asked.items():
        if given != known:
            raise CheckpointError(f"{path}: {name} is {given!r}; only {known!r} is supported")
    return llm | {k: v for k, v in rope.items() if k == "rope_theta"}


def _vision(path: Path) -> schema.Clip:
    """CLIP's sizes from its config.json, of the whole CLIP or of its vision tower.

    transformers leaves out what equals its defaults.

    Raises:
        CheckpointError: it is another model's.
    """
    data = read_object(path)
    clip = data.get("vision_config", data)
    if not isinstance(clip, dict):
        raise CheckpointError(f"{path}: its vision_config is not a JSON object")
    kind = data.get("model_type", "clip")
    if kind not in ("clip", "clip_vision_model"):
        raise CheckpointError(f"{path} is a {kind!r} model's, not CLIP's: give CLIP's own folder")
    clip = CLIPVisionConfig().to_dict() | clip
    return validated(schema.Clip, {k: clip[k] for k in CLIP_FIELDS}, str(path))


def _family(llava: Path, rows: int, before: object) -> tuple[str, dict[Special, int]]:
    """The family whose special tokens make the tokenizer as large as the embeddings, and their ids.

    Training appends those that the tokenizer lacks to its vocabulary.

    Args:
        before: the vocab_size in LLaVA's config.json, its rows before that training.
    """
    listed = _vocabulary(llava)
    # More rows than the weights have are no tokens: LLaVA's embeddings were padded.
    if isinstance(before, int) and len(listed) < before <= rows:
        raise CheckpointError(
            f"{llava / CONFIG_NAME} has vocab_size {before}, but the tokenizer next to it {len(listed)} "
            "tokens: its added_tokens.json or tokenizer_config.json is missing, or another tokenizer's; "
            "copy all files of LLaVA's tokenizer"
        )
    sizes = {}
    for name, family in FAMILIES.items():
        ids = _appended(listed, [token.value for token in family.tokens])
        sizes[name] = len(ids)
        # If the tokenizer has a token of another family, it is not this family's.
        foreign = {t.value for f in FAMILIES.values() for t in f.tokens if t not in family.tokens}
        if len(ids) == rows and not foreign & set(listed):
            return name, {token: ids[token.value] for token in family.tokens}
    shown = ", ".join(f"{size} as {name}" for name, size in sizes.items())
    raise CheckpointError(
        f"the weights have {rows} embedding rows, but the tokenizer in {llava} makes {shown}: these are "
        "weights of LLaVA alone, or were trained with another tokenizer"
    )


def _appended(ids: dict[str, int], tokens: Sequence[str]) -> dict[str, int]:
    """The ids of a vocabulary to which those of the tokens are appended that it lacks."""
    new = [token for token in dict.fromkeys(tokens) if token not in ids]
    return ids | {token: len(ids) + k for k, token in enumerate(new)}


#: The roles of special tokens, in the order in which transformers appends those without an id.
ROLES = ("bos", "eos", "unk", "sep", "pad", "cls", "mask")
ROLE_KEYS = (*(f"{role}_token" for role in ROLES), "additional_special_tokens")
TOKENIZER_CONFIG = "tokenizer_config.json"
#: Files that name special tokens; a later one's replace those of the same role.
NAMING = (TOKENIZER_CONFIG, "special_tokens_map.json")
#: Files that list the tokens added after a tokenizer's pieces, with a parser for each format.
ADDED_TOKENS: dict[str, Callable[[Any], dict[str, int]]] = {
    TOKENIZER_CONFIG: lambda data: {
        token["content"]: int(number)
        for number, token in data.get("added_tokens_decoder", {}).items()
    },
    "added_tokens.json": lambda data: {str(name): int(number) for name, number in data.items()},
    "tokenizer.json": lambda data: {
        token["content"]: int(token["id"]) for token in data.get("added_tokens", [])
    },
}


def _vocabulary(llava: Path) -> dict[str, int]:
    """Ids of all tokens of LLaVA's tokenizer, as the slow one of transformers 4.44.2 has them.

    Special tokens without an id are appended.
    """
    pieces = read_pieces(llava / TOKENIZER_NAME)
    added = _added_tokens(_consulted(llava, ADDED_TOKENS))
    roles: dict[str, list[str]] = {}
    for path in _consulted(llava, NAMING):
        roles |= _parsed(path, _special_tokens)
    renamed = set(added.values())
    ids = {pieces.id_to_piece(i): i for i in range(pieces.vocab_size()) if i not in renamed}
    return _appended(ids | added, [token for key in ROLE_KEYS for token in roles.get(key, ())])


def _consulted(llava: Path, names: Iterable[str]) -> list[Path]:
    """Those of LLaVA's files that transformers reads: a tokenizer_config.json with added tokens, alone."""
    path = llava / TOKENIZER_CONFIG
    alone = path.exists() and "added_tokens_decoder" in read_object(path)
    paths = [path] if alone else [llava / name for name in names]
    return [path for path in paths if path.exists()]


def _added_tokens(paths: Sequence[Path]) -> dict[str, int]:
    """The tokens added after the tokenizer's pieces, from all these files; they must agree."""
    ids: dict[str, int] = {}
    for path in paths:
        for token, number in _parsed(path, ADDED_TOKENS[path.name]).items():
            if ids.setdefault(token, number) != number:
                raise CheckpointError(
                    f"{path} gives {token} the id {number}, but another file next to it {ids[token]}: "
                    "these are files of two tokenizers; copy all from one"
                )
    return ids


def _special_tokens(data: Any) -> dict[str, list[str]]:
    """The special tokens that a file names, by the keys of their roles."""
    given = {key: data[key] or [] for key in ROLE_KEYS if key in data}
    return {
        key: [
            str(token["content"] if isinstance(token, dict) else token)
            for token in (tokens if isinstance(tokens, list) else [tokens])
        ]
        for key, tokens in given.items()
    }


def _parsed(path: Path, parse: Callable[[Any], dict[str, Found]]) -> dict[str, Found]:
    """What one of a tokenizer's JSON files says of its tokens; CheckpointError if it cannot be read."""
    data = read_model_json(path)
    try:
        return parse(data)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise CheckpointError(
            f"{path}: its added tokens cannot be read: {one_line(error)}"
        ) from error


def _check_whitespace(path: Path, used: set[Special]) -> None:
    """Raise CheckpointError if a tokenizer_config.json drops whitespace next to one of these tokens."""
    config = read_object(path) if path.exists() else {}
    names = {token.value for token in used}
    for token in config.get("added_tokens_decoder", {}).values():
        stripping = [flag for flag in ("lstrip", "rstrip") if token.get(flag)]
        if stripping and token["content"] in names:
            raise CheckpointError(
                f"{path}: {stripping[0]} of {token['content']} is true; only false is supported: spaces "
                "next to it are kept here; give the tokenizer that the weights were trained with"
            )


def _warn_unless_legacy(path: Path) -> None:
    if path.exists() and read_object(path).get("legacy") is False:
        log.warning(
            '%s has "legacy": false; it is read as true: text after added tokens begins with a space',
            path,
        )


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
    config.save(directory)
    (directory / TOKENIZER_NAME).write_bytes(tokenizer.model)
    write_state(state, directory / WEIGHTS_NAME)


def convert(directory: str | Path, llava: str | Path, **official: Any) -> None:
    """Write official weights as a directory that `load_converted` reads; see `load_official`.

    Raises:
        InputError: the directory cannot be written, or is or holds one of the inputs.
    """
    to, weights = Path(directory), Path(official["weights"])
    read = (Path(llava), Path(official["vision_tower"]), weights, _base(weights, adapter(weights)))
    if to.resolve() in [(p.parent if p.is_file() else p).resolve() for p in read]:
        raise InputError(f"{to} is an input, whose files would be overwritten: choose another")
    check_writable(to / CONFIG_NAME)
    checkpoint = load_official(llava, **official)
    save_pretrained(checkpoint.model, checkpoint.prompt.tokenizer, directory)


def _base(directory: Path, found: Adapter | None) -> Path:
    """An adapter's base: a path relative to its own folder or the working directory, or a bundled name.

    Without an adapter, the weights themselves.
    """
    if found is None:
        return directory
    name, *_ = found
    for place in (directory / name, name):
        if Path(place).is_file():
            return Path(place)
        try:
            return model_directory(place)
        except FileNotFoundError:
            continue
    raise CheckpointError(
        f"{directory} is an adapter for {name!r}, which is neither bundled nor a path here: put the "
        "base there, or change base_model_name_or_path in adapter_config.json"
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
    except (
        Exception
    ) as error:  # transformers and segment-anything raise various types for invalid sizes
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
    digest = hashlib.sha256()
    for path in paths:
        with path.open("rb") as file:
            while block := file.read(1 << 20):
                digest.update(block)
    return digest.hexdigest()
