"""Last stage: masks. Everything runs and learns together, the encoders at small learning rates."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from .frames import Frames
from .language import LanguageLoss, Pass
from .prompts import SymbolicPrompt, attributes_of
from .vision import Losses, mask_losses


def slot_mask_loss(
    loss: LanguageLoss,
    symbolic: SymbolicPrompt,
    rows: np.ndarray,
    result: Pass,
    embeddings: Tensor,
    rng: np.random.Generator,
    most: int = 48,
) -> tuple[Tensor, dict[str, float]]:
    """2.0 BCE + 0.5 dice of at most `most` present slots, and what a small model is helped by:

    the distance of their mask prompts from the symbolic ones of their targets, which the mask decoder
    already understands, and the error of the predicted IoU.
    """
    model, packed, device = loss.model, result.packed, loss.device
    present = [k for k, targets in enumerate(packed.slot_targets) if targets]
    chosen = rng.permutation(present)[:most]
    image = packed.slot_at[:, 0].cpu().numpy()[chosen]
    targets = [packed.slot_targets[k] for k in chosen]
    with torch.autocast(device.type, torch.bfloat16):
        prompts = model.mask_prompts(result.slots[torch.from_numpy(chosen).to(device)])
        low_res, predicted_iou = model.decode_masks(embeddings[image], prompts)
    symbols = [
        attributes_of(loss.scenes, int(rows[i]), t) for i, t in zip(image, targets, strict=True)
    ]
    with torch.no_grad():
        wanted = symbolic(
            torch.tensor([s[0] for s in symbols], device=device),
            torch.tensor([s[1] for s in symbols], device=device),
        )
    distance = F.mse_loss(prompts.float(), wanted) / wanted.var()
    truth = torch.from_numpy(loss.scenes.target_masks(rows[image], targets)).to(device)
    masks, iou = mask_losses(low_res, truth, model.config.sam)
    total = masks + 0.1 * F.mse_loss(predicted_iou.float(), iou) + 0.5 * distance
    figures = {"mask": masks.item(), "iou": iou.mean().item(), "distance": distance.item()}
    return total, figures


def joint_losses(loss: LanguageLoss, symbolic: SymbolicPrompt, frames: Frames) -> Losses:
    """The whole model learns."""
    model = loss.model

    def losses(step: int, batch: int) -> tuple[Tensor, dict[str, float]]:
        rng = np.random.default_rng([4, step])
        rows = loss.rows(rng, batch)
        with torch.autocast(loss.device.type, torch.bfloat16):
            clip_tokens = model.encode_clip(frames.clip(rows).to(loss.device))
            embeddings = model.encode_sam(frames.sam(rows).to(loss.device))
        result = loss(rows, rng, clip_tokens.float())
        masks, figures = slot_mask_loss(loss, symbolic, rows, result, embeddings.float(), rng)
        return result.loss + masks, result.figures | figures

    return losses
