"""Adapts a trained model to another image size by interpolating its position embeddings.

On larger images, small objects appear as large as those seen in training; some training at the new size
corrects the shift in statistics. Sources: "Fixing the train-test resolution discrepancy" (Touvron et al.,
NeurIPS 2019); position embeddings as in "An Image is Worth 16x16 Words" (ICLR 2021), section 3.2.
"""

from __future__ import annotations

import math
from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor

from ..errors import InputError
from ..model.checkpoint import Checkpoint
from ..model.config import GSVAConfig
from ..model.gsva import GSVA

CLIP_POSITIONS = "model.vision_tower.vision_tower.vision_model.embeddings.position_embedding.weight"
TOKEN_POSITIONS = "model.mm_position.weight"
SAM_ENCODER = "model.visual_model.image_encoder"


def enlarged(checkpoint: Checkpoint, side: int) -> Checkpoint:
    """The checkpoint with its model adapted to frames squashed to `side` x `side` pixels.

    Raises:
        InputError: the model keeps a frame's aspect ratio, its grids do not divide `side`, or the language
            model has no positions for that many image tokens.
    """
    before = checkpoint.model.config
    if before.sam.image_size == side:
        return checkpoint
    if not before.sam.squash or before.clip.image_size != before.sam.image_size:
        raise InputError(
            "side: the size can only be changed for a model whose two towers see the same squashed frame"
        )
    window = before.sam.patch_size * (before.sam.window_size or 1)  # 0: all blocks are global
    step = math.lcm(window, before.clip.patch_size)
    if side % step:
        raise InputError(
            f"side: {side} must be a multiple of {step} pixels, for SAM's windows and CLIP's patches"
        )
    after = _sized(before, side)
    most = before.positions
    if checkpoint.prompt.prefix_length(after.image_tokens) >= most:
        raise InputError(
            f"side: {side} makes {after.image_tokens} image tokens, but the language model has {most} "
            "positions for them and the words"
        )
    model = GSVA(after)
    model.load_state_dict(_laid_out(checkpoint.model.state_dict(), before, after))
    return replace(checkpoint, model=model)


def _sized(config: GSVAConfig, side: int) -> GSVAConfig:
    stored = config.to_dict()
    for tower in ("clip", "sam"):
        stored[tower] |= {"image_size": side}
    pixels = config.preprocessor.model_dump() | {"size": {"height": side, "width": side}}
    return GSVAConfig.of(stored, pixels, config.source)


def _laid_out(state: dict[str, Tensor], before: GSVAConfig, after: GSVAConfig) -> dict[str, Tensor]:
    """The state dict with all position embeddings interpolated to the new grids."""
    patches = before.patch_grid, after.patch_grid
    clip = state[CLIP_POSITIONS]
    found = {CLIP_POSITIONS: torch.cat([clip[:1], _table(clip[1:], *patches)])}
    if TOKEN_POSITIONS in state:
        found[TOKEN_POSITIONS] = _table(state[TOKEN_POSITIONS], *patches)
    grid = after.sam_grid
    name = f"{SAM_ENCODER}.pos_embed"
    found[name] = _grid(state[name].permute(0, 3, 1, 2), grid).permute(0, 2, 3, 1)
    for number in after.sam.global_attn_indexes:  # windows keep their size
        for axis in ("h", "w"):
            name = f"{SAM_ENCODER}.blocks.{number}.attn.rel_pos_{axis}"
            relative = state[name].T[None]
            wider = F.interpolate(relative, 2 * grid - 1, mode="linear", align_corners=True)
            found[name] = wider[0].T
    return state | {name: table.contiguous() for name, table in found.items()}


def _table(table: Tensor, before: int, after: int) -> Tensor:
    """Interpolate a square grid of vectors in row order, [before * before, C] to [after * after, C]."""
    return _grid(table.T.reshape(1, -1, before, before), after)[0].flatten(1).T


def _grid(places: Tensor, side: int) -> Tensor:
    """Interpolate [1, C, h, w] to [1, C, side, side]."""
    return F.interpolate(places, (side, side), mode="bicubic", align_corners=False)
