"""GSVA's losses, as the official implementation computes them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor

IGNORE = -100
CE_WEIGHT, BCE_WEIGHT, DICE_WEIGHT = 1.0, 2.0, 0.5


def token_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """Cross-entropy of logits [B, T, V] and the ids to predict at each position, labels int64 [B, T].

    0 if all labels are IGNORE, as when a sequence is truncated before its answer.
    """
    logits, labels = logits.flatten(0, 1).float(), labels.flatten()
    if (labels == IGNORE).all():
        return logits.sum() * 0.0
    return F.cross_entropy(logits, labels, ignore_index=IGNORE)


def sigmoid_bce_loss(logits: Tensor, truth: Tensor, count: float) -> Tensor:
    """Binary cross-entropy of masks [K, H, W]: mean over pixels, sum over masks divided by `count`."""
    loss = F.binary_cross_entropy_with_logits(logits, truth, reduction="none")
    return loss.flatten(1).mean(1).sum() / (count + 1e-8)


def dice_loss(logits: Tensor, truth: Tensor, count: float) -> Tensor:
    """Dice loss of masks [K, H, W], summed over masks and divided by `count`."""
    scale, eps = 1000.0, 1e-6
    predicted, truth = logits.sigmoid().flatten(1), truth.flatten(1)
    numerator = 2 * (predicted / scale * truth).sum(-1)
    denominator = (predicted / scale).sum(-1) + (truth / scale).sum(-1)
    loss = 1 - (numerator + eps) / (denominator + eps)
    return loss.sum() / (count + 1e-8)


def mask_terms(logits: Tensor, truth: Tensor, count: float) -> tuple[Tensor, Tensor]:
    """2.0 BCE and 0.5 dice of masks [K, H, W], summed over masks and divided by `count`."""
    return (
        BCE_WEIGHT * sigmoid_bce_loss(logits, truth, count),
        DICE_WEIGHT * dice_loss(logits, truth, count),
    )


@dataclass
class GSVALoss:
    """The weighted loss terms."""

    ce: Tensor
    mask_bce: Tensor
    mask_dice: Tensor

    @property
    def mask(self) -> Tensor:
        """mask_bce + mask_dice."""
        return self.mask_bce + self.mask_dice

    @property
    def total(self) -> Tensor:
        """The loss to minimise: ce + mask."""
        return self.ce + self.mask


def gsva_loss(
    logits: Tensor, labels: Tensor, pred_masks: Sequence[Tensor], gt_masks: Sequence[Tensor]
) -> GSVALoss:
    """1.0 cross-entropy + 2.0 BCE + 0.5 dice; the mask terms are averaged over all masks of the batch.

    Args:
        logits: [B, T, V]. labels: int64 [B, T], see `token_loss`; IGNORE where no loss is computed.
        pred_masks: for each image, mask logits [K, H, W], all zero at rejected slots.
        gt_masks: for each image, float masks [K, H, W].
    """
    bce, dice, count = logits.new_zeros(()), logits.new_zeros(()), 0
    for predicted, truth in zip(pred_masks, gt_masks, strict=True):
        here = len(truth)
        bce_here, dice_here = mask_terms(predicted, truth, here)
        bce, dice, count = bce + bce_here * here, dice + dice_here * here, count + here
    ce = CE_WEIGHT * token_loss(logits, labels)
    return GSVALoss(ce, bce / (count + 1e-8), dice / (count + 1e-8))


def place_masks(pred_masks: Tensor, slots_seg: Tensor) -> Tensor:
    """Scatter masks of the [SEG] slots [S, H, W] to all slots [K, H, W], zero at [REJ] slots.

    slots_seg: bool [K] with S True.
    """
    placed = pred_masks.new_zeros(len(slots_seg), *pred_masks.shape[1:])
    placed[slots_seg] = pred_masks
    return placed
