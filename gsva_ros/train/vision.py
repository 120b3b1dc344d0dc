"""First stages: the CLIP-like and the SAM-like encoder, each by itself, on dense labels."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ..model.gsva import GSVA
from ..model.losses import BCE_WEIGHT, DICE_WEIGHT, dice_loss, sigmoid_bce_loss
from ..model.sam import SamPreprocessor, postprocess_masks
from ..scenes import SceneSet
from .contrast import WordContrast
from .dense import DenseHead, dense_labels
from .frames import Frames
from .prompts import SymbolicPrompt, sample_prompt

#: The loss of a step's batch of so many scenes, and figures about it.
Losses = Callable[[int, int], tuple[Tensor, dict[str, float]]]


def mask_logits(low_res: Tensor, sam: dict[str, Any], frame_hw: Sequence[int]) -> Tensor:
    """Mask logits [K, H, W] at the frame's size, of low_res [K, h, w]; sam: `GSVAConfig.sam`."""
    height, width = frame_hw
    resized = SamPreprocessor.of(sam).resized(height, width)
    return postprocess_masks(low_res, sam["image_size"], resized, (height, width))


def mask_losses(low_res: Tensor, truth: Tensor, sam: dict[str, Any]) -> tuple[Tensor, Tensor]:
    """GSVA's mask term, 2.0 BCE + 0.5 dice (paper, section 3.3), and each mask's IoU [K].

    Args:
        low_res: logits [K, h, w]. truth: bool [K, H, W], the frames' own size.
        sam: the model's `GSVAConfig.sam`.

    Where the frames are much finer than the logits, truth is averaged over squares of pixels: finer costs
    time and teaches nothing.
    """
    truth = F.avg_pool2d(truth.float(), max(1, round(truth.shape[2] / low_res.shape[2])))
    logits, count = mask_logits(low_res, sam, truth.shape[1:]), len(truth)
    loss = BCE_WEIGHT * sigmoid_bce_loss(logits, truth, count)
    loss = loss + DICE_WEIGHT * dice_loss(logits, truth, count)
    predicted, target = logits.detach() > 0, truth > 0.5
    union = (predicted | target).sum((1, 2)).clamp(min=1)
    return loss, (predicted & target).sum((1, 2)) / union


def clip_losses(
    model: GSVA, scenes: SceneSet, frames: Frames, head: DenseHead, contrast: WordContrast
) -> Losses:
    """`model`'s vision tower learns what is under each patch, and to say it in the words' embeddings."""
    grid = model.config.clip["image_size"] // model.config.clip["patch_size"]

    def losses(step: int, batch: int) -> tuple[Tensor, dict[str, float]]:
        device = model.device
        rng = np.random.default_rng([1, step])
        rows = rng.integers(len(scenes), size=batch)
        pixels = frames.clip(rows).to(device)
        labels = dense_labels(scenes, rows, grid, grid).to(device)
        with torch.autocast(device.type, torch.bfloat16):
            tokens = model.encode_clip(pixels)
            image_tokens = model.project(tokens, places=False)
        dense, figures = head(tokens.float().unflatten(1, (grid, grid)), labels)
        words, spoken = contrast(image_tokens.unflatten(1, (grid, grid)), labels)
        return dense + words, figures | spoken

    return losses


def sam_losses(
    model: GSVA, scenes: SceneSet, frames: Frames, symbolic: SymbolicPrompt, head: DenseHead
) -> Losses:
    """Image encoder and mask decoder learn on symbolic prompts, with dense labels beside them."""
    patch = model.config.sam["patch_size"]
    rows_h, columns = (length // patch for length in frames.resized)
    per_frame = 3
    named = np.flatnonzero((scenes.kind >= 0).any(1))  # a scene may hold nothing that has a name

    def losses(step: int, batch: int) -> tuple[Tensor, dict[str, float]]:
        device = model.device
        rng = np.random.default_rng([2, step])
        rows = named[rng.integers(len(named), size=batch)]
        pixels = frames.sam(rows).to(device)
        labels = dense_labels(scenes, rows, rows_h, columns).to(device)
        picks = [
            (i, *sample_prompt(scenes, int(r), rng))
            for i, r in enumerate(rows)
            for _ in range(per_frame)
        ]
        of_frame, attributes, centroids, targets = zip(*picks, strict=True)
        truth = torch.from_numpy(scenes.target_masks(rows[list(of_frame)], targets)).to(device)
        with torch.autocast(device.type, torch.bfloat16):
            embeddings = model.encode_sam(pixels)
            prompts = symbolic(
                torch.tensor(attributes, device=device), torch.tensor(centroids, device=device)
            )
            low_res, predicted_iou = model.decode_masks(embeddings[list(of_frame)], prompts)
        dense, figures = head(
            embeddings[:, :, :rows_h, :columns].permute(0, 2, 3, 1).float(), labels
        )
        masks, iou = mask_losses(low_res, truth, model.config.sam)
        figures |= {"mask": masks.item(), "iou": iou.mean().item()}
        return masks + 0.5 * dense + 0.1 * F.mse_loss(predicted_iou.float(), iou), figures

    return losses
