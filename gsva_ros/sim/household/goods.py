"""Packaged goods: cans, bottles, jars, boxes and mugs printed all around, some of them flat or oval."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from functools import partial

import numpy as np

from . import vessels
from .meshes import Profile, box, cut, turn, wrapped
from .shapes import Part, Pose, Room, Shape, lathed, upright
from .solids import covered

Rng = np.random.Generator


def _labelled(rng: Rng, outer: Profile, base: Profile, low: float, high: float) -> list[Part]:
    """A lathed wall with one label that covers most of it; see `walls.decorated`."""
    tall = high - low
    span = cut(outer, low + tall * rng.uniform(0, 0.12), high - tall * rng.uniform(0, 0.12))
    start = rng.uniform(0, 2 * math.pi)
    around = 2 * math.pi if rng.random() < 0.8 else rng.uniform(3.8, 5.6)
    print_ = wrapped(span, start, start + around, segments=24)
    return [lathed("body", [*base, *outer]), Part(print_, "label")]


def _oval(build: Callable[[Rng], Shape], rng: Rng) -> Shape:
    """A thing that is flattened half of the time: its y extent is down to half of x."""
    shape = build(rng)
    if rng.random() < 0.5:
        return shape
    flat = np.diag([1.0, rng.uniform(0.5, 0.85), 1.0])
    parts = [replace(part, mesh=part.mesh.moved(flat)) for part in shape.parts]
    # Nothing can stand on it, and lying on its side it would balance on an edge.
    return replace(shape, parts=parts, poses=(upright(),))


def box_(rng: Rng) -> Shape:
    """A carton printed on all sides: flat, like a brick, or tall."""
    x, y, z = rng.uniform(0.06, 0.16), rng.uniform(0.02, 0.1), rng.uniform(0.03, 0.24)
    parts = [Part(box((x, y, z), (0, 0, z / 2)), "body"), *covered(x, y, z, "label")]
    flat = Pose("lying", turn("x", math.pi / 2), Room(y / 2, min(x, z) / 2))
    return Shape("box", parts, (upright(Room(z, min(x, y) / 2)), flat))


BUILDERS: dict[str, Callable[[Rng], Shape]] = {
    "can": partial(vessels.can, wall=_labelled),
    "bottle": partial(_oval, partial(vessels.bottle, wall=_labelled)),
    "jar": partial(_oval, partial(vessels.jar, wall=_labelled)),
    "mug": partial(vessels.mug, wall=_labelled),
    "box": box_,
}
