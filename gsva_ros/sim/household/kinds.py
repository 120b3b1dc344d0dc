"""The kinds of things, and things that no kind's name fits. Metres."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from . import solids, tools, vessels
from .meshes import Points, box, lathe, prism, sphere, tube
from .shapes import Part, Shape, upright

Rng = np.random.Generator

BUILDERS: dict[str, Callable[[Rng], Shape]] = {
    "mug": vessels.mug,
    "bowl": vessels.bowl,
    "box": solids.box_,
    "ball": solids.ball,
    "can": vessels.can,
    "bottle": vessels.bottle,
    "plate": vessels.plate,
    "cone": solids.cone,
    "glass": vessels.glass,
    "jar": vessels.jar,
    "vase": vessels.vase,
    "pot": vessels.pot,
    "pan": vessels.pan,
    "bucket": vessels.bucket,
    "book": solids.book,
    "teapot": vessels.teapot,
    "pitcher": vessels.pitcher,
    "spoon": tools.spoon,
    "screwdriver": tools.screwdriver,
    "hammer": tools.hammer,
    "wrench": tools.wrench,
    "tape": solids.tape,
}


def _outline(radii: Points) -> Points:
    """The corners [n, 2] of a polygon at equal angles and these distances [n] from its centre."""
    a = np.linspace(0, 2 * math.pi, len(radii), endpoint=False)
    return np.stack([radii * np.cos(a), radii * np.sin(a)], -1)


def unnamed(rng: Rng) -> Shape:
    """A thing that no kind's name fits."""
    style = int(rng.integers(8))
    s = rng.uniform(0.025, 0.05)
    if style == 0:  # a star
        n = int(rng.integers(4, 8))
        radii = np.where(np.arange(2 * n) % 2, rng.uniform(0.4, 0.6), 1.0) * s * 1.3
        meshes = [prism(_outline(radii), 0, s * rng.uniform(0.3, 0.9))]
    elif style == 1:  # a cross
        t = s * rng.uniform(0.4, 0.7)
        meshes = [box((2 * s, t, t), (0, 0, t / 2)), box((t, 2 * s, t), (0, 0, t / 2))]
    elif style == 2:  # a dumbbell
        b = s * rng.uniform(0.5, 0.8)
        meshes = [
            sphere(b, (-s, 0, b)),
            sphere(b, (s, 0, b)),
            tube([(-s, 0, b), (s, 0, b)], b * 0.4),
        ]
    elif style == 3:  # a pyramid
        n = int(rng.choice([3, 4]))
        meshes = [lathe([(0, 0), (s * 1.2, 0), (0, s * rng.uniform(0.9, 1.8))], n)]
    elif style == 4:  # a spring
        turns, n = int(rng.integers(3, 6)), 48
        a = np.linspace(0, 2 * math.pi * turns, n)
        path = np.stack([s * 0.8 * np.cos(a), s * 0.8 * np.sin(a), np.linspace(0, s * 2, n)], -1)
        meshes = [tube(path, s * 0.13, 6)]
    elif style == 5:  # an animal
        meshes = [
            sphere(s * 0.6, (0, 0, s * 1.2)).moved(np.diag([1.6, 1, 1])),
            sphere(s * 0.42, (s * 1.05, 0, s * 1.75)),
        ]
        for x in (-0.6, 0.6):
            for y in (-0.3, 0.3):
                meshes.append(tube([(x * s, y * s, 0), (x * s, y * s, s)], s * 0.16))
        meshes.append(tube([(-s * 0.9, 0, s * 1.3), (-s * 1.35, 0, s * 1.8)], s * 0.08))
    elif style == 6:  # a gear
        n = int(rng.integers(8, 13))
        radii = np.where(np.arange(4 * n) % 4 < 2, 1.0, 0.8) * s
        meshes = [
            prism(_outline(radii), 0, s * 0.4),
            lathe([(0, 0), (s * 0.35, 0), (s * 0.35, s * 0.7), (0, s * 0.7)], 14),
        ]
    else:  # steps of blocks
        meshes, z = [], 0.0
        for _ in range(int(rng.integers(2, 5))):
            w, d, t = rng.uniform(0.5, 1.6, 3) * s
            meshes.append(box((w, d, t * 0.6), (*(rng.uniform(-0.4, 0.4, 2) * s), z + t * 0.3)))
            z += t * 0.6
    parts = [Part(m, "body") for m in meshes]
    if rng.random() < 0.3 and len(parts) > 1:
        parts[-1] = Part(parts[-1].mesh, "second")
    return Shape("", parts, (upright(),))
