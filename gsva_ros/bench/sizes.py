"""Models to measure: a table of sizes, with random weights generated on demand."""

from __future__ import annotations

from typing import NamedTuple

import torch

from ..engine import PRECISIONS, Engine
from ..errors import InputError
from ..model.bundled import model_directory
from ..model.checkpoint import Checkpoint, load_converted
from ..model.config import GSVAConfig
from ..model.gsva import GSVA
from ..model.prompt import Prompt
from ..model.schema import Clip, Llm, Sam
from ..model.tokenizer import TOKENIZER_NAME

MINI = "gsva-mini"


def _llama(width: int, layers: int, heads: int, inner: int) -> Llm:
    return Llm(
        vocab_size=32004,
        hidden_size=width,
        intermediate_size=inner,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=heads,
        max_position_embeddings=2048,
    )


def _clip(width: int, layers: int, heads: int) -> Clip:
    return Clip(
        image_size=224,
        patch_size=14,
        hidden_size=width,
        intermediate_size=4 * width,
        num_hidden_layers=layers,
        num_attention_heads=heads,
    )


def _sam(side: int, width: int, depth: int, heads: int, whole: list[int]) -> Sam:
    return Sam(
        image_size=side,
        patch_size=16,
        embed_dim=width,
        depth=depth,
        num_heads=heads,
        global_attn_indexes=whole,
        window_size=14,
    )


VIT_B = (768, 12, 12, [2, 5, 8, 11])
VIT_H = (1280, 32, 16, [7, 15, 23, 31])
CLIP_L = (1024, 24, 16)


class Size(NamedTuple):
    """The parts of a model to measure."""

    llm: Llm
    clip: Clip
    sam: Sam


#: "7b-small": the 7B's distribution of time, on a CPU.
SIZES = {
    "7b-small": Size(_llama(1024, 16, 16, 2752), _clip(512, 12, 8), _sam(512, *VIT_B)),
    "mid": Size(_llama(512, 8, 8, 1376), _clip(512, 12, 8), _sam(1024, *VIT_B)),
    "7b": Size(_llama(4096, 32, 32, 11008), _clip(*CLIP_L), _sam(1024, *VIT_H)),
    "13b": Size(_llama(5120, 40, 40, 13824), _clip(*CLIP_L), _sam(1024, *VIT_H)),
}


def config_of(size: str) -> GSVAConfig:
    """The configuration of a size: gsva-mini's own for "mini"."""
    mini = GSVAConfig.load(model_directory(MINI))
    if size == "mini":
        return mini
    return GSVAConfig(
        **SIZES[size]._asdict(),
        # Text is tokenised by gsva-mini's tokenizer, so the slots' ids are its, too.
        seg_token_id=mini.seg_token_id,
        rej_token_id=mini.rej_token_id,
        im_start_token_id=mini.im_start_token_id,
        im_end_token_id=mini.im_end_token_id,
        conversation="llava_v1",
    )


def prompt_of(config: GSVAConfig) -> Prompt:
    """The prompt of a size, with gsva-mini's tokenizer."""
    return Prompt.load(model_directory(MINI) / TOKENIZER_NAME, config)


def engine_of(
    size: str,
    device: torch.device,
    precision: str,
    free_bytes: int,
    **how: bool,
) -> Engine:
    """An engine with random weights; precision, how (static, compiled): as for `Engine`.

    Raises:
        InputError: its weights would not fit into `free_bytes`.
    """
    if size == "mini":
        return Engine(load_converted(model_directory(MINI)), MINI, device, precision, **how)
    config, dtype = config_of(size), PRECISIONS[precision]
    with torch.device("meta"):
        needed = sum(p.numel() for p in GSVA(config).parameters()) * dtype.itemsize
    if needed > 0.8 * free_bytes:
        raise InputError(
            f"size {size} has {needed / 2**30:.1f} GiB of weights, {free_bytes / 2**30:.1f} GiB are free: "
            "use --count, which needs none, or a smaller size"
        )
    torch.manual_seed(0)
    with device:
        model = _of_dtype(config, dtype)
    with torch.no_grad():  # in a large vocabulary, only the tokenizer's tokens may be generated
        model.lm_head.weight[config.im_end_token_id + 1 :] = 0.0
    checkpoint = Checkpoint(model, prompt_of(config), weights_hash="")
    name = f"random weights of size {size}"
    return Engine(checkpoint, name, device, precision, **how)


def _of_dtype(config: GSVAConfig, dtype: torch.dtype) -> GSVA:
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        return GSVA(config)
    finally:
        torch.set_default_dtype(before)
