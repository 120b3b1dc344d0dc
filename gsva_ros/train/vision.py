"""First stages: the CLIP-like and the SAM-like encoder, each trained separately on dense labels."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ..errors import InputError
from ..model.gsva import GSVA
from .contrast import WordContrast
from .dense import DenseHead, DenseLabels, dense_labels
from .frames import Frames, Pictures
from .mask_losses import mask_losses
from .movable import Movable
from .prompts import SymbolicPrompt, sample_prompt


@dataclass
class ClipBatch(Movable):
    """Pictures, and labels of each patch."""

    pictures: Pictures
    labels: DenseLabels


class ClipStage:
    """Trains the vision tower to predict what is under each patch, and to align it with word embeddings."""

    def __init__(
        self, model: GSVA, frames: Frames, head: DenseHead, contrast: WordContrast
    ) -> None:
        self._model, self._frames, self._head, self._contrast = model, frames, head, contrast
        self._grid = model.config.patch_grid

    def draw(self, step: int, batch: int, rng: np.random.Generator) -> ClipBatch:
        """The step's scenes."""
        scenes, grid = self._frames.scenes, self._grid
        rows = rng.integers(len(scenes), size=batch)
        return ClipBatch(self._frames.draw(rows, rng), dense_labels(scenes, rows, grid, grid))

    def losses(self, batch: ClipBatch) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss, and metrics."""
        model, grid = self._model, (self._grid, self._grid)
        pixels = self._frames.show(batch.pictures)
        with torch.autocast(pixels.device.type, torch.bfloat16):
            tokens = model.encode_clip(pixels)
            image_tokens = model.project(tokens, places=False)
        dense, figures = self._head(tokens.float().unflatten(1, grid), batch.labels)
        words, spoken = self._contrast(image_tokens.unflatten(1, grid), batch.labels)
        return dense + words, figures | spoken


@dataclass
class SamBatch(Movable):
    """Pictures, labels of each patch, and K prompts with their masks.

    image: int64 [K], index of the picture. attributes: int64 [K, 3], and centroids: float32 [K, 2], as
    `SymbolicPrompt` takes them. truth: bool [K, H, W].
    """

    pictures: Pictures
    labels: DenseLabels
    image: Tensor
    attributes: Tensor
    centroids: Tensor
    truth: Tensor


class SamStage:
    """Trains image encoder and mask decoder on symbolic prompts, with dense labels as an extra loss."""

    def __init__(
        self, model: GSVA, frames: Frames, symbolic: SymbolicPrompt, head: DenseHead, masks: int
    ) -> None:
        """Args: masks: per image."""
        self._model, self._frames, self._symbolic, self._head = model, frames, symbolic, head
        self._per_image = masks
        patch = model.config.sam.patch_size
        self._grid = [length // patch for length in frames.resized]
        # A scene may have no named object, or boxes instead of outlines.
        named = (frames.scenes.kind >= 0).any(1)
        self._named = np.flatnonzero(named & frames.scenes.outlined)
        if not len(self._named):
            places = ", ".join(str(folder) for folder, _ in frames.scenes.folders)
            raise InputError(
                f"{places}: no scene has the outline of a named thing, which the objective sam needs: "
                "add rendered scenes, or photographs with masks instead of boxes"
            )

    def draw(self, step: int, batch: int, rng: np.random.Generator) -> SamBatch:
        """The step's scenes and prompts."""
        scenes = self._frames.scenes
        rows = self._named[rng.integers(len(self._named), size=batch)]
        picks = [
            (i, *sample_prompt(scenes, int(r), rng))
            for i, r in enumerate(rows)
            for _ in range(self._per_image)
        ]
        image, attributes, centroids, targets = zip(*picks, strict=True)
        return SamBatch(
            self._frames.draw(rows, rng),
            dense_labels(scenes, rows, *self._grid),
            torch.tensor(image),
            torch.tensor(attributes),
            torch.tensor(centroids),
            torch.from_numpy(scenes.target_masks(rows[list(image)], targets)),
        )

    def losses(self, batch: SamBatch) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss, and metrics."""
        model, (height, width) = self._model, self._grid
        pixels = self._frames.show(batch.pictures)
        with torch.autocast(pixels.device.type, torch.bfloat16):
            embeddings = model.encode_sam(pixels)
            prompts = self._symbolic(batch.attributes, batch.centroids)
            low_res, predicted_iou = model.decode_masks(embeddings[batch.image], prompts)
        features = embeddings[:, :, :height, :width].permute(0, 2, 3, 1)
        dense, figures = self._head(features.float(), batch.labels)
        masks, iou = mask_losses(low_res, batch.truth, model.config.sam)
        figures |= {"mask": masks, "iou": iou.mean()}
        return masks + 0.5 * dense + 0.1 * F.mse_loss(predicted_iou.float(), iou), figures
