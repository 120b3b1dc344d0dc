"""Dense labels: the properties of the object under every patch, to pre-train a vision encoder.

The real GSVA starts from pre-trained CLIP and SAM; gsva-mini's two encoders start from these labels.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..scenes import SceneSet, cell_objects, grid_samples
from .movable import Movable


@dataclass
class DenseLabels(Movable):
    """Labels per cell of an h x w grid; -1 in the class maps: no object, or no name for its class."""

    foreground: Tensor  # float32 [B, h, w], covered fraction
    known: Tensor  # bool [B, h, w]: an object is there
    kind: Tensor  # int64 [B, h, w]
    colour: Tensor
    size: Tensor
    place: Tensor  # float32 [B, h, w, 3]: offset from the cell to the centroid (fractions), distance (m)


def dense_labels(scenes: SceneSet, rows: np.ndarray, height: int, width: int) -> DenseLabels:
    """Labels of the scenes `rows` [B] on a height x width grid that covers the whole frame."""
    ids, foreground = cell_objects(grid_samples(scenes.instances[rows], height, width))
    batch = rows[:, None, None]
    y, x = np.meshgrid(
        (np.arange(height) + 0.5) / height, (np.arange(width) + 0.5) / width, indexing="ij"
    )
    place = scenes.position[batch, ids] - np.stack([x, y, np.zeros_like(x)], -1)
    return DenseLabels(
        torch.from_numpy(foreground),
        torch.from_numpy(ids > 0),
        torch.from_numpy(scenes.kind[batch, ids]),
        torch.from_numpy(scenes.colour[batch, ids]),
        torch.from_numpy(scenes.size[batch, ids]),
        torch.from_numpy(place.astype(np.float32)),
    )


class DenseHead(nn.Module):
    """Linear head that predicts `DenseLabels` from features [B, h, w, C]; discarded after pre-training."""

    def __init__(self, channels: int, kinds: int, colours: int, sizes: int) -> None:
        super().__init__()
        self.splits = [1, kinds, colours, sizes, 3]
        self.norm = nn.LayerNorm(channels)
        self.linear = nn.Linear(channels, sum(self.splits))

    def forward(self, features: Tensor, labels: DenseLabels) -> tuple[Tensor, dict[str, Tensor]]:
        """The summed loss, and metrics: accuracies on cells with a named object, and foreground IoU."""
        out = self.linear(self.norm(features)).float()
        foreground, kind, colour, size, place = out.split(self.splits, -1)
        loss = F.binary_cross_entropy_with_logits(foreground[..., 0], labels.foreground)
        figures = {}
        known = labels.known
        for name, logits, truth in (
            ("kind", kind, labels.kind),
            ("colour", colour, labels.colour),
            ("size", size, labels.size),
        ):
            named = truth >= 0
            if named.any():
                loss = loss + F.cross_entropy(logits[named], truth[named])
                figures[name] = (logits[named].argmax(-1) == truth[named]).float().mean()
        if known.any():
            loss = loss + 2.0 * F.l1_loss(place[known], labels.place[known])
        predicted, truth = foreground[..., 0] > 0, labels.foreground > 0.5
        figures["fg_iou"] = (predicted & truth).sum() / (predicted | truth).sum().clamp(min=1)
        return loss, figures
