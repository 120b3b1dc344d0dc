"""A shelf: the things and textures that the scenes of a block of seeds draw from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from . import textures
from .goods import BUILDERS as GOODS
from .kinds import BUILDERS, unnamed
from .meshes import Points
from .scans import SIZE as SCAN
from .scans import Scan
from .shapes import KINDS, Pose, Shape

BLOCK = 100  # seeds per shelf
EXTRA, UNNAMED, SCANS = 14, 8, 60
PACKED = 0.75  # with goods: fraction of things of their kinds that are packaged goods
GROUNDS, WALLS, LABELS, PRINTS, GRAINS, METALS = 7, 4, 9, 5, 3, 2
SURFACE, PRINT, GRAIN, SKY = 256, 128, 64, 128  # pixels
FACE = 256  # the same for a face of the sky that may show a panorama
Image = npt.NDArray[np.uint8]
BLANK = np.full((SCAN, SCAN, 3), 255, np.uint8)


@dataclass(frozen=True)
class Shelf:
    """Shapes and textures (uint8 [size, size, 3], prints with opacity as 4th channel) of one block.

    rests: for each shape and each of its poses, the footprint (circles [n, 3]: x, y, radius) and lowest z.
    """

    shapes: tuple[Shape, ...]
    grounds: tuple[Image, ...]
    walls: tuple[Image, ...]
    labels: tuple[Image, ...]
    prints: tuple[Image, ...]
    grains: tuple[Image, ...]
    metals: tuple[Image, ...]
    sky: Image
    scans: tuple[Image, ...]
    panoramas: tuple[Image, ...]
    rests: tuple[tuple[tuple[Points, float], ...], ...]
    shifted: bool


def draw_shelf(
    block: int,
    shifted: bool = False,
    scans: Sequence[Scan] = (),
    panoramas: Sequence[Image] = (),
    goods: bool = False,
) -> Shelf:
    """The shelf of a block of seeds.

    shifted: use proportions and textures that training never draws. scans: some of them are added.
    panoramas: from `panoramas.load_panoramas`. goods: a fraction PACKED of cans, boxes and the like are
    printed all around.
    """
    rng = np.random.default_rng([block, 7_919, int(shifted)])
    kinds = [*KINDS, *KINDS, *(str(k) for k in rng.choice(KINDS, EXTRA)), *[""] * UNNAMED]
    surfaces = [
        textures.surface(rng, SURFACE, shifted, k < GROUNDS) for k in range(GROUNDS + WALLS)
    ]
    shapes = [_shape(kind, rng, shifted, goods) for kind in kinds]
    chosen = [scans[k] for k in rng.permutation(len(scans))[:SCANS]]
    shapes += [scan.shape(f"scan{k}") for k, scan in enumerate(chosen)]
    return Shelf(
        tuple(shapes),
        tuple(surfaces[:GROUNDS]),
        tuple(surfaces[GROUNDS:]),
        tuple(
            textures.brand(rng, PRINT) if goods else textures.label(rng, PRINT, shifted)
            for _ in range(LABELS)
        ),
        tuple(textures.print_(rng, PRINT) for _ in range(PRINTS)),
        tuple(textures.grain(rng, GRAIN) for _ in range(GRAINS)),
        tuple(textures.metal(rng, GRAIN) for _ in range(METALS)),
        _sky(rng, FACE if panoramas else SKY),
        tuple(scan.picture if scan.picture is not None else BLANK for scan in chosen),
        tuple(panoramas),
        tuple(tuple(_rest(shape, pose) for pose in shape.poses) for shape in shapes),
        shifted,
    )


def _sky(rng: np.random.Generator, face: int) -> Image:
    drawn = textures.blur_scene(rng, SKY, textures.base_colour(rng, False))
    return np.asarray(cv2.resize(drawn, (face, face)))


def _shape(kind: str, rng: np.random.Generator, shifted: bool, goods: bool) -> Shape:
    packed = goods and kind in GOODS and rng.random() < PACKED
    build = GOODS[kind] if packed else BUILDERS[kind] if kind else unnamed
    shape = build(rng)
    scale = float(np.exp(rng.uniform(-0.35, 0.35)))
    # In training, proportions change by at most a seventh; in the shifted world, always by more.
    ratio = (
        float(rng.uniform(0.24, 0.36) * rng.choice([-1, 1]))
        if shifted
        else float(rng.uniform(-0.13, 0.13))
    )
    if kind == "ball":
        ratio = 0.0
    if shape.long:  # tools: stretching would invalidate the tilt of their pose
        ratio = 0.0
    wide, high = scale * np.exp(-ratio / 2), scale * np.exp(ratio / 2)
    return shape.stretched(float(wide), float(high))


def _rest(shape: Shape, pose: Pose) -> tuple[Points, float]:
    points = shape.points() @ pose.rotation.T
    return footprint(points), float(points[:, 2].min())


def footprint(points: Points) -> Points:
    """Circles [n, 3] along the longer side that cover the ground area of points [m, 3]."""
    low, high = points[:, :2].min(0), points[:, :2].max(0)
    middle, half = (low + high) / 2, (high - low) / 2
    long = int(half[1] > half[0])
    across, along = half[1 - long], half[long]
    if along < 1.15 * across:
        radius = np.linalg.norm(points[:, :2] - middle, axis=1).max()
        return np.array([[*middle, radius]])
    count = int(np.ceil(along / max(across, 0.006))) + 1
    offsets = np.linspace(-1, 1, count) * (along - across)
    circles = np.zeros((count, 3))
    circles[:, :2] = middle
    circles[:, long] += offsets
    circles[:, 2] = across * 1.12
    return circles
