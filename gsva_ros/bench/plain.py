"""The plain path, for comparison: stock modules, one conversation, and a second pass for the masks.

This is how the official evaluation answers a frame (`model/official.py`), with segment-anything's own
image encoder and mask decoder on the same weights.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..engine import Engine
from ..model.clip import ClipPreprocessor
from ..model.official import expand_image, image_index, multimodal_embeds
from ..model.sam import SamPreprocessor, postprocess_masks
from ..model.segment_anything import modeling


@torch.inference_mode()
def answer(
    engine: Engine, rgb: NDArray[np.uint8], expressions: Sequence[str], passes: int = 2
) -> Tensor:
    """Mask logits [K, H, W] of one frame.

    Args:
        passes: 2, as in the official evaluation, which takes the masks from a second pass; 1: only the
            first, with its slots' own masks.
    """
    model, config = engine.model, engine.config
    sam = SamPreprocessor.of(config.sam)
    device, dtype = engine.device, engine.dtype
    pixels = ClipPreprocessor(config.preprocessor)(rgb)[None].contiguous().to(device, dtype)
    sam_pixels = sam(rgb)[None].contiguous().to(device, dtype)
    image_tokens = model.project(model.encode_clip(pixels))
    encoder = model.model.visual_model.image_encoder
    embeddings = modeling.ImageEncoderViT.forward(encoder, sam_pixels)
    turn = engine.prompt.segment_turn(expressions, [False] * len(expressions))
    ids = torch.tensor([engine.prompt.full(turn)], device=device)
    for _ in range(passes):
        x = multimodal_embeds(model, ids, image_tokens)
        hidden = model.language(x)[0]
        # At every position: the official code reads the slots from all of them.
        model.lm_head(hidden)
    at, count = image_index(ids), image_tokens.shape[1]
    slots = (expand_image(ids, at, count)[0] == config.seg_token_id).nonzero()[:, 0]
    low_res = stock_masks(engine, embeddings, model.mask_prompts(hidden[slots - 1]))
    height, width = rgb.shape[:2]
    side = config.sam.image_size
    return postprocess_masks(low_res, side, sam.resized(height, width), (height, width))


@torch.inference_mode()
def stock_masks(engine: Engine, embeddings: Tensor, prompts: Tensor) -> Tensor:
    """segment-anything's mask decoder: [1, C, h, w] and [K, C] to [K, 4h, 4w]."""
    visual = engine.model.model.visual_model
    height, width = embeddings.shape[2:]
    masks, _ = visual.mask_decoder.predict_masks(
        embeddings,
        visual._dense_positions(height, width).to(embeddings.dtype),
        prompts[:, None],
        visual.prompt_encoder.no_mask_embed.weight.view(1, -1, 1, 1).expand(
            len(prompts), -1, height, width
        ),
    )
    return masks[:, 0]
