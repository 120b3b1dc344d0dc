"""Dense labels: the properties of the object under every patch, to pre-train a vision encoder.

The real GSVA starts from pre-trained CLIP and SAM; gsva-mini's two encoders start from these labels.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..scenes import MAX_OBJECTS, SceneSet
from .movable import Movable

#: Samples along each side of a cell.
PER_CELL = 4


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


def grid_samples(instances: np.ndarray, rows: int, columns: int) -> np.ndarray:
    """Object ids on a regular lattice, PER_CELL x PER_CELL in each cell of a rows x columns grid.

    Args:
        instances: uint8 [B, H, W].

    Returns:
        uint8 [B, rows, columns, PER_CELL ** 2].
    """
    height, width = instances.shape[1:]
    y = ((np.arange(rows * PER_CELL) + 0.5) * height / (rows * PER_CELL)).astype(int)
    x = ((np.arange(columns * PER_CELL) + 0.5) * width / (columns * PER_CELL)).astype(int)
    lattice = instances[:, y][:, :, x].reshape(len(instances), rows, PER_CELL, columns, PER_CELL)
    return lattice.transpose(0, 1, 3, 2, 4).reshape(len(instances), rows, columns, PER_CELL**2)


def cell_objects(samples: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The object that covers most of each cell, and the fraction of the cell that objects cover.

    Args:
        samples: uint8 [B, h, w, S] from `grid_samples`.

    Returns:
        ids int64 [B, h, w], 0 where objects cover less than a quarter of the cell; foreground
        float32 [B, h, w] in 0..1.
    """
    counts = np.stack([(samples == k).sum(-1) for k in range(1, MAX_OBJECTS + 1)], -1)
    foreground = counts.sum(-1) / samples.shape[-1]
    ids = np.where(foreground >= 0.25, counts.argmax(-1) + 1, 0)
    return ids.astype(np.int64), foreground.astype(np.float32)


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
