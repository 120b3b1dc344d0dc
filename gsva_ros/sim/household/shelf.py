"""What the scenes of a block of seeds draw from: a shelf of things, and pictures for rooms and prints."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from . import textures
from .kinds import BUILDERS, unnamed
from .shapes import KINDS, Shape

BLOCK = 100  # seeds of one shelf
EXTRA, UNNAMED = 14, 8
GROUNDS, WALLS, LABELS, GRAINS = 7, 4, 10, 3
SURFACE, PRINT, GRAIN, SKY = 256, 128, 64, 128  # pixels
Image = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class Shelf:
    """Shapes and pictures (uint8 [size, size, 3]) of one block."""

    shapes: tuple[Shape, ...]
    grounds: tuple[Image, ...]
    walls: tuple[Image, ...]
    labels: tuple[Image, ...]
    grains: tuple[Image, ...]
    sky: Image
    shifted: bool


def draw_shelf(block: int, shifted: bool = False) -> Shelf:
    """The shelf of a block of seeds; `shifted`: of proportions and pictures that training never draws."""
    rng = np.random.default_rng([block, 7_919, int(shifted)])
    kinds = [*KINDS, *KINDS, *(str(k) for k in rng.choice(KINDS, EXTRA)), *[""] * UNNAMED]
    surfaces = [
        textures.surface(rng, SURFACE, shifted, k < GROUNDS) for k in range(GROUNDS + WALLS)
    ]
    return Shelf(
        tuple(_shape(kind, rng, shifted) for kind in kinds),
        tuple(surfaces[:GROUNDS]),
        tuple(surfaces[GROUNDS:]),
        tuple(textures.label(rng, PRINT, shifted) for _ in range(LABELS)),
        tuple(textures.grain(rng, GRAIN) for _ in range(GRAINS)),
        textures.blur_scene(rng, SKY, textures.base_colour(rng, False)),
        shifted,
    )


def _shape(kind: str, rng: np.random.Generator, shifted: bool) -> Shape:
    shape = BUILDERS[kind](rng) if kind else unnamed(rng)
    scale = float(np.exp(rng.uniform(-0.35, 0.35)))
    # Training's stretch stays within a seventh of what was built; the shifted world's is beyond it.
    ratio = (
        float(rng.uniform(0.24, 0.36) * rng.choice([-1, 1]))
        if shifted
        else float(rng.uniform(-0.13, 0.13))
    )
    if kind == "ball":
        ratio = 0.0
    if shape.long:  # tools: a squeezed one stands no longer as it was tilted
        ratio = 0.0
    wide, high = scale * np.exp(-ratio / 2), scale * np.exp(ratio / 2)
    stretched = shape.stretched(float(wide), float(high))
    return Shape(kind, stretched.parts, stretched.poses, scale, stretched.long)
