"""First stages: the CLIP-like and the SAM-like encoder, each by itself, on dense labels."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ..model.gsva import GSVA
from ..model.losses import BCE_WEIGHT, DICE_WEIGHT, dice_loss, sigmoid_bce_loss
from ..scenes import SceneSet
from .dense import DenseHead, dense_labels
from .frames import Frames, jitter
from .prompts import SymbolicPrompt, sample_prompt

#: The loss of a step's batch of so many scenes, and figures about it.
Losses = Callable[[int, int], tuple[Tensor, dict[str, float]]]


def mask_logits(low_res: Tensor, frame_hw: tuple[int, int], image_size: int) -> Tensor:
    """Mask logits at the frame's size: low_res [K, h, w] upsampled to the padded square, then cropped.

    The frame's longer side must equal image_size, as in the training renders.
    """
    full = F.interpolate(
        low_res[:, None].float(), (image_size, image_size), mode="bilinear", align_corners=False
    )[:, 0]
    return full[:, : frame_hw[0], : frame_hw[1]]


def mask_losses(logits: Tensor, truth: Tensor) -> tuple[Tensor, Tensor]:
    """GSVA's mask term, 2.0 BCE + 0.5 dice (paper, section 3.3), and each mask's IoU [K]."""
    count = len(truth)
    loss = BCE_WEIGHT * sigmoid_bce_loss(logits, truth, count)
    loss = loss + DICE_WEIGHT * dice_loss(logits, truth, count)
    predicted, target = logits.detach() > 0, truth > 0.5
    union = (predicted | target).sum((1, 2)).clamp(min=1)
    return loss, (predicted & target).sum((1, 2)) / union


def clip_losses(model: GSVA, scenes: SceneSet, frames: Frames, head: DenseHead) -> Losses:
    """`model`'s vision tower learns to tell kind, colour, size and place of what is under each patch."""
    grid = model.config.clip["image_size"] // model.config.clip["patch_size"]

    def losses(step: int, batch: int) -> tuple[Tensor, dict[str, float]]:
        device = model.device
        rng = np.random.default_rng([1, step])
        rows = rng.integers(len(scenes), size=batch)
        pixels = jitter(frames.clip(rows), rng).to(device)
        flip = torch.from_numpy(rng.random(len(rows)) < 0.5).to(device)
        pixels = torch.where(flip.view(-1, 1, 1, 1), pixels.flip(3), pixels)
        labels = dense_labels(scenes, rows, grid, grid).to(device).flipped(flip)
        with torch.autocast(device.type, torch.bfloat16):
            tokens = model.encode_clip(pixels)
        return head(tokens.float().unflatten(1, (grid, grid)), labels)

    return losses


def sam_losses(
    model: GSVA, scenes: SceneSet, frames: Frames, symbolic: SymbolicPrompt, head: DenseHead
) -> Losses:
    """Image encoder and mask decoder learn on symbolic prompts, with dense labels beside them."""
    size, patch = model.config.sam["image_size"], model.config.sam["patch_size"]
    frame_hw = scenes.instances.shape[1:]
    rows_h, columns = frame_hw[0] // patch, frame_hw[1] // patch
    per_frame = 3

    def losses(step: int, batch: int) -> tuple[Tensor, dict[str, float]]:
        device = model.device
        rng = np.random.default_rng([2, step])
        rows = rng.integers(len(scenes), size=batch)
        pixels = jitter(frames.sam(rows), rng, frame_hw[0]).to(device)
        labels = dense_labels(scenes, rows, rows_h, columns).to(device)
        picks = [
            (i, *sample_prompt(scenes, int(r), rng))
            for i, r in enumerate(rows)
            for _ in range(per_frame)
        ]
        of_frame, attributes, centroids, targets = zip(*picks, strict=True)
        truth = torch.from_numpy(scenes.target_masks(rows[list(of_frame)], targets))
        truth = truth.to(device).float()
        with torch.autocast(device.type, torch.bfloat16):
            embeddings = model.encode_sam(pixels)
            prompts = symbolic(
                torch.tensor(attributes, device=device), torch.tensor(centroids, device=device)
            )
            low_res, predicted_iou = model.decode_masks(embeddings[list(of_frame)], prompts)
        dense, figures = head(embeddings[:, :, :rows_h].permute(0, 2, 3, 1).float(), labels)
        masks, iou = mask_losses(mask_logits(low_res, frame_hw, size), truth)
        figures |= {"mask": masks.item(), "iou": iou.mean().item()}
        return masks + 0.5 * dense + 0.1 * F.mse_loss(predicted_iou.float(), iou), figures

    return losses
