"""Weights in and out: converted directories, official GSVA weights, LoRA merged on the way.

Nothing here unpickles code: safetensors, or torch.load with weights_only.
"""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import sentencepiece
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from ..errors import InputError, one_line
from .config import CLIP_PREPROCESSOR, CONFIG_NAME, PREPROCESSOR_NAME, GSVAConfig, read_json
from .gsva import GSVA
from .prompt import Prompt
from .schema import parameters
from .tokenizer import TOKENIZER_NAME, Tokenizer

WEIGHTS_NAME = "model.safetensors"
PEFT_PREFIX = "base_model.model."
# SAM ViT-H, which the official GSVA is built on (segment_anything/build_sam.py, "vit_h").
SAM_VIT_H: dict[str, Any] = {
    "image_size": 1024,
    "patch_size": 16,
    "embed_dim": 1280,
    "depth": 32,
    "num_heads": 16,
    "global_attn_indexes": [7, 15, 23, 31],
    "window_size": 14,
}
# Left over from older transformers and from SAM's unused parts; they carry no information.
IGNORED_SUFFIXES = (".position_ids", ".rotary_emb.inv_freq")


class CheckpointError(InputError):
    """Weights that do not fit: says which file and which names."""


@dataclass(frozen=True)
class Checkpoint:
    """A model with the prompt that its weights know, and the weights' SHA-256."""

    model: GSVA
    prompt: Prompt
    weights_hash: str


def load_converted(directory: str | Path) -> Checkpoint:
    """Load a directory that `save_pretrained` wrote.

    Raises:
        FileNotFoundError: a file is missing.
        CheckpointError: the weights do not fit the config.
    """
    directory = Path(directory)
    config = GSVAConfig.load(directory)
    path = directory / WEIGHTS_NAME
    model = _fill(config, read_state(path), path)
    prompt = Prompt.load(directory / TOKENIZER_NAME, config)
    return Checkpoint(model, prompt, _sha256(path))


def load_official(
    llava: str | Path,
    weights: str | Path,
    vision_tower: str | Path,
    sam: dict[str, Any] | None = None,
    conversation: str = "llava_v1",
    lora_alpha: float = 16.0,
) -> Checkpoint:
    """Load official GSVA weights by name.

    Args:
        llava: the LLaVA-layout directory (config.json, tokenizer.model) that GSVA was trained from.
        weights: GSVA's state dict, whole or as saved from peft with LoRA beside it, which is
            merged.
        vision_tower: the CLIP directory (config.json, preprocessor_config.json).
        sam: SAM's sizes; ViT-H where None.
        conversation: "llava_v1" or "llava_llama_2".
        lora_alpha: LoRA's alpha; its rank is read off the weights.

    Raises:
        FileNotFoundError: a file is missing.
        CheckpointError: the weights do not fit.
    """
    weights = Path(weights)
    state = merge_lora(read_state(weights), lora_alpha)
    config = official_config(llava, vision_tower, sam or SAM_VIT_H, conversation, state)
    model = _fill(config, state, weights)
    prompt = Prompt.load(Path(llava) / TOKENIZER_NAME, config)
    return Checkpoint(model, prompt, _sha256(weights))


def official_config(
    llava: str | Path,
    vision_tower: str | Path,
    sam: dict[str, Any],
    conversation: str,
    state: dict[str, Tensor],
) -> GSVAConfig:
    """The config of official weights: LLaVA's and CLIP's json files, and what the shapes say.

    Official training appends [SEG], [REJ], <im_start> and <im_end>, as far as they are new, to the
    tokenizer's vocabulary in this order, and resizes the embeddings to it.
    """
    llm = read_json(Path(llava) / CONFIG_NAME)
    clip = read_json(Path(vision_tower) / CONFIG_NAME)
    clip = clip.get("vision_config", clip)
    preprocessor_path = Path(vision_tower) / PREPROCESSOR_NAME
    preprocessor = CLIP_PREPROCESSOR
    if preprocessor_path.exists():
        preprocessor = read_json(preprocessor_path)
    if "model.embed_tokens.weight" not in state:
        raise CheckpointError(
            "the weights have no model.embed_tokens.weight: not a GSVA state dict"
        )
    llm_names = (
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
    clip_names = (
        "image_size",
        "patch_size",
        "hidden_size",
        "intermediate_size",
        "num_hidden_layers",
        "num_attention_heads",
        "hidden_act",
        "layer_norm_eps",
    )
    vocabulary = state["model.embed_tokens.weight"].shape[0]
    ids = _special_ids(Path(llava))
    if vocabulary != max(ids.values()) + 1:
        raise CheckpointError(
            f"the weights have {vocabulary} embedding rows, and the tokenizer in {llava} makes "
            f"{max(ids.values()) + 1} with [SEG], [REJ], <im_start> and <im_end>: weights of LLaVA or "
            "LISA, or another tokenizer than they were trained with"
        )
    return GSVAConfig(
        llm={k: llm[k] for k in llm_names if k in llm} | {"vocab_size": vocabulary},
        clip={k: clip[k] for k in clip_names if k in clip},
        sam={k: sam[k] for k in sam if k != "stem"},
        seg_token_id=ids["[SEG]"],
        rej_token_id=ids["[REJ]"],
        im_start_token_id=ids["<im_start>"],
        im_end_token_id=ids["<im_end>"],
        conversation=conversation,
        select_layer=llm.get("mm_vision_select_layer", -2),
        use_im_start_end=llm.get("mm_use_im_start_end", True),
        preprocessor=preprocessor,
    )


def _special_ids(llava: Path) -> dict[str, int]:
    """Ids of the tokens that official training adds behind those that the tokenizer has already."""
    pieces = sentencepiece.SentencePieceProcessor(model_file=str(llava / TOKENIZER_NAME))
    ids = _added_tokens(llava)
    following = max([pieces.vocab_size(), *(i + 1 for i in ids.values())])
    for name in ("[SEG]", "[REJ]", "<im_start>", "<im_end>"):
        if name not in ids:
            ids[name] = following
            following += 1
    return ids


def _added_tokens(llava: Path) -> dict[str, int]:
    """Tokens that the tokenizer has behind its pieces, from either of the files that say so."""
    ids: dict[str, int] = {}
    config = llava / "tokenizer_config.json"
    if config.exists():
        decoder = read_json(config).get("added_tokens_decoder", {})
        ids |= {token["content"]: int(number) for number, token in decoder.items()}
    added = llava / "added_tokens.json"
    return ids | (read_json(added) if added.exists() else {})


def merge_lora(state: dict[str, Tensor], alpha: float) -> dict[str, Tensor]:
    """Fold LoRA factors into their weights, W + alpha / r * B A; strip peft's prefix."""
    state = {name.removeprefix(PEFT_PREFIX): value for name, value in state.items()}
    merged = {name: value for name, value in state.items() if ".lora_" not in name}
    for name, a in state.items():
        if ".lora_A." not in name:
            continue
        module, adapter = name.split(".lora_A.")
        b = state[f"{module}.lora_B.{adapter}"]
        target = f"{module}.weight"
        if target not in merged:
            raise CheckpointError(f"LoRA factors for {target}, which the weights do not have")
        update = (b.float() @ a.float()) * (alpha / a.shape[0])
        merged[target] = (merged[target].float() + update).to(merged[target].dtype)
    return merged


def save_pretrained(model: GSVA, tokenizer: Tokenizer, directory: str | Path) -> None:
    """Write a directory that `load_converted` reads: config, preprocessor, tokenizer, weights."""
    directory = Path(directory)
    directory.mkdir(parents=True, exist_ok=True)
    model.config.save(directory)
    (directory / TOKENIZER_NAME).write_bytes(tokenizer.model)
    state = {name: value.contiguous().cpu() for name, value in model.state_dict().items()}
    save_file(state, directory / WEIGHTS_NAME)


def convert(directory: str | Path, llava: str | Path, **official: Any) -> None:
    """Write official weights as a directory that `load_converted` reads; see `load_official`."""
    checkpoint = load_official(llava, **official)
    save_pretrained(checkpoint.model, checkpoint.prompt.tokenizer, directory)


def read_state(path: Path) -> dict[str, Tensor]:
    """Read a state dict, safetensors or torch, without running anything in it.

    Raises:
        CheckpointError: the file is damaged, or no state dict.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file of weights")
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        state = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except Exception as error:  # safetensors and torch raise their own, zipfile's and struct's
        raise CheckpointError(f"{path} cannot be read as weights: {one_line(error)}") from error
    if not (isinstance(state, dict) and all(isinstance(v, Tensor) for v in state.values())):
        raise CheckpointError(f"{path} is not a state dict: a dictionary of names and tensors")
    return state


def _fill(config: GSVAConfig, state: dict[str, Tensor], path: Path) -> GSVA:
    """A model with these weights, none missing, left over, or of another shape.

    The model is made without memory of its own and takes over the tensors, so that loading a large
    one needs no second copy.
    """
    _check_memory(config)
    try:
        with torch.device("meta"):
            model = GSVA(config)
    except (
        Exception
    ) as error:  # transformers and segment-anything refuse combinations in their ways
        raise CheckpointError(
            f"{config.source}: no model can be made of these sizes: {one_line(error)}"
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
    problems += [f"{name} {problem}" for name, value in state.items() if (problem := _unfit(value))]
    if problems:
        shown = "; ".join(problems[:8]) + (f"; and {len(problems) - 8} more" * (len(problems) > 8))
        raise CheckpointError(f"{path} does not fit the model: {shown}")
    model.load_state_dict(state, assign=True)
    model.make_buffers()
    return model.eval()


def _unfit(value: Tensor) -> str:
    """Why a tensor cannot be a weight; "": it can."""
    if not value.is_floating_point():
        return f"is {str(value.dtype).removeprefix('torch.')}; weights are floating-point numbers"
    if not value.sum(dtype=torch.float32).isfinite() and not value.isfinite().all():
        return "holds inf or NaN: the file is damaged, or training diverged"
    return ""


def _check_memory(config: GSVAConfig) -> None:
    """See that a model of these sizes fits the machine, before it is made."""
    needed = 2 * parameters(config.llm, config.clip, config.sam)  # 16 bits a weight at the least
    available = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    if needed > available:
        raise CheckpointError(
            f"{config.source}: num_hidden_layers and the other sizes make a model of at least "
            f"{needed / 2**30:.0f} GiB, and this machine has {available / 2**30:.0f} GiB of memory"
        )


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()
