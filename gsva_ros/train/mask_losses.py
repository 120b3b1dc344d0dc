"""GSVA's mask losses on labelled frames, and the IoU of masks."""

from __future__ import annotations

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor

from ..model.losses import mask_terms
from ..model.sam import SamPreprocessor, postprocess_masks
from ..model.schema import Sam


def mask_logits(low_res: Tensor, sam: Sam, frame_hw: Sequence[int]) -> Tensor:
    """Resize mask logits low_res [K, h, w] to the frame's size, [K, H, W]; sam: `GSVAConfig.sam`."""
    height, width = frame_hw
    resized = SamPreprocessor.of(sam).resized(height, width)
    return postprocess_masks(low_res, sam.image_size, resized, (height, width))


def mask_losses(low_res: Tensor, truth: Tensor, sam: Sam) -> tuple[Tensor, Tensor]:
    """GSVA's mask term, 2.0 BCE + 0.5 dice (paper, section 3.3), and each mask's IoU [K].

    Args:
        low_res: logits [K, h, w]. truth: bool [K, H, W], at the frames' size.
        sam: the model's `GSVAConfig.sam`.

    If the frames are much finer than the logits, truth is averaged over squares of pixels: a finer loss
    takes more time and teaches nothing more.
    """
    truth = F.avg_pool2d(truth.float(), max(1, round(truth.shape[2] / low_res.shape[2])))
    return drawn_losses(mask_logits(low_res, sam, truth.shape[1:]), truth)


def drawn_losses(logits: Tensor, truth: Tensor) -> tuple[Tensor, Tensor]:
    """As `mask_losses`, for logits and truth (0 to 1) of the same size, [K, H, W]."""
    bce, dice = mask_terms(logits, truth, len(truth))
    return bce + dice, iou_of(logits, truth)


def iou_of(logits: Tensor, truth: Tensor) -> Tensor:
    """IoU [K] of mask logits and truth (0 to 1), both [K, H, W]."""
    predicted, target = logits.detach() > 0, truth > 0.5
    union = (predicted | target).sum((1, 2)).clamp(min=1)
    return (predicted & target).sum((1, 2)) / union
