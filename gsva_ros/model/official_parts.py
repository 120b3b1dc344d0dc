"""The configuration of official weights, from the folders of LLaVA and CLIP that they were trained from.

LLaVA's tokenizer decides the ids of the special tokens that training appended to it, and so the family.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, TypeVar

from torch import Tensor
from transformers import CLIPVisionConfig

from ..errors import one_line, validated
from . import schema
from .config import CONFIG_NAME, PREPROCESSOR_NAME, GSVAConfig, id_key, read_model_json, read_object
from .families import FAMILIES
from .projector import KINDS
from .tokenizer import ADDED, TOKENIZER_NAME, Special, read_pieces
from .weights import CheckpointError

log = logging.getLogger(__name__)

Found = TypeVar("Found")

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
        "projector": llama["mm_projector_type"],
        # Not LLaVA's own mm_use_im_start_end: the official GSVA and LISA override it when they train.
        "use_im_start_end": True,
    }
    _warn_unless_legacy(Path(llava) / TOKENIZER_CONFIG)
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
    kind = llm.get("mm_projector_type", "linear")
    if not (isinstance(kind, str) and KINDS.fullmatch(kind)):
        raise CheckpointError(
            f"{path}: mm_projector_type is {kind!r}; only linear and mlpNx_gelu, of N = 1 to 9 layers, are "
            "supported: give the folder of the LLaVA that GSVA was trained from"
        )
    return llm | {"mm_projector_type": kind} | {k: v for k, v in rope.items() if k == "rope_theta"}


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
