"""Symbolic mask prompts: an object's attributes and position, embedded in the space of mask prompts.

SAM is pre-trained with points and boxes; gsva-mini's SAM learns from these instead, and its language
model later learns to map [SEG] states into the same space.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn

from ..scenes import SceneSet

NONE = -1


class SymbolicPrompt(nn.Module):
    """(kind, colour, size, centroid), each of which may be absent, to a mask prompt [K, channels]."""

    def __init__(
        self, kinds: int, colours: int, sizes: int, channels: int, width: int = 192
    ) -> None:
        super().__init__()
        self.kind = nn.Embedding(kinds + 1, width)
        self.colour = nn.Embedding(colours + 1, width)
        self.size = nn.Embedding(sizes + 1, width)
        self.place = nn.Linear(32, width)
        self.no_place = nn.Parameter(torch.zeros(width))
        self.mlp = nn.Sequential(
            nn.LayerNorm(width), nn.Linear(width, width), nn.GELU(), nn.Linear(width, channels)
        )

    def forward(self, attributes: Tensor, centroid: Tensor) -> Tensor:
        """Args: attributes: int64 [K, 3], NONE: not given. centroid: float32 [K, 2], NaN: not given."""
        octaves = math.pi * 2.0 ** torch.arange(8, device=centroid.device)
        mentioned = ~torch.isnan(centroid[:, :1])
        angles = (torch.nan_to_num(centroid)[..., None] * octaves).flatten(1)
        place = self.place(torch.cat([angles.sin(), angles.cos()], -1))
        x = self.kind(attributes[:, 0] + 1) + self.colour(attributes[:, 1] + 1)
        x = x + self.size(attributes[:, 2] + 1) + torch.where(mentioned, place, self.no_place)
        return self.mlp(x)


def attributes_of(
    scenes: SceneSet, row: int, targets: Sequence[int]
) -> tuple[list[int], list[float]]:
    """The attributes that all targets share (NONE where they differ), and the centroid of a single one."""
    tables = (scenes.kind[row], scenes.colour[row], scenes.size[row])
    shared = []
    for table in tables:
        values = {int(table[k]) for k in targets}
        shared.append(values.pop() if len(values) == 1 else NONE)
    if len(targets) == 1:
        return shared, scenes.position[row, targets[0], :2].tolist()
    return shared, [math.nan, math.nan]


def sample_prompt(
    scenes: SceneSet, row: int, rng: np.random.Generator
) -> tuple[list[int], list[float], tuple[int, ...]]:
    """A random query on one scene: a single object by position, or all objects with some attributes."""
    present = np.flatnonzero(scenes.kind[row] >= 0)
    chosen = int(rng.choice(present))
    if rng.random() < 0.6:
        attributes, centroid = attributes_of(scenes, row, [chosen])
        attributes = [a if rng.random() < 0.8 else NONE for a in attributes]
        return attributes, centroid, (chosen,)
    tables = (scenes.kind[row], scenes.colour[row], scenes.size[row])
    mentioned = rng.random(3) < (0.7, 0.6, 0.25)
    if not mentioned.any():
        mentioned[int(rng.integers(3))] = True
    attributes = [int(t[chosen]) if s else NONE for t, s in zip(tables, mentioned, strict=True)]
    fits = np.ones(len(present), bool)
    for table, value in zip(tables, attributes, strict=True):
        if value != NONE:
            fits &= table[present] == value
    return attributes, [math.nan, math.nan], tuple(int(k) for k in present[fits])
