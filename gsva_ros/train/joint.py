"""Last stage: the encoders run and learn too, on the same losses, at small learning rates."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from .frames import Frames, jitter
from .language import LanguageLoss, language_groups
from .loop import Stage, decayed


def train_joint(loss: LanguageLoss, frames: Frames, steps: int, path: Path, batch: int = 24) -> None:
    """Train the whole model on jittered frames."""
    model = loss.model
    for parameter in model.parameters():
        parameter.requires_grad_(True)
    groups = language_groups(model, loss.matcher)
    for group in groups:
        group["lr"] = group["peak"] = 3e-4
    inner = model.model
    groups += [decayed([inner.vision_tower], 1e-4), decayed([inner.visual_model.image_encoder], 3e-4)]
    stage = Stage("joint", {"model": model, "matcher": loss.matcher}, groups, steps, path)

    def loss_of(step: int) -> tuple[Tensor, dict[str, float]]:
        rng = np.random.default_rng([4, step])
        rows = rng.integers(len(loss.scenes), size=batch)
        with torch.autocast(loss.device.type, torch.bfloat16):
            clip_tokens = model.encode_clip(jitter(frames.clip(rows), rng).to(loss.device))
            sam_pixels = jitter(frames.sam(rows), rng, frames.height).to(loss.device)
            embeddings = model.encode_sam(sam_pixels)
        return loss(rows, rng, clip_tokens.float(), lambda places: embeddings[places].float())

    stage.run(loss_of, report_every=50)
