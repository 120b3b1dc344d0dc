"""The worlds that scenes are rendered of, by name: the one table of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt

from ..scenes import Expression
from .expressions import Expressions, SeenObject
from .household.colours import COLOURS as HOUSEHOLD_COLOURS
from .household.common import SHIFTED
from .household.expressions import Expressions as HouseholdExpressions
from .household.shapes import KINDS as HOUSEHOLD_KINDS
from .shapes import COLOURS, KINDS

#: RGB [H, W, 3], instances [H, W] (uint8) and the things seen.
Shown = tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint8], list[SeenObject]]
#: Shows a seed's scene. Not thread-safe.
Show = Callable[[int], Shown]


class Sampler(Protocol):
    """Draws expressions about one scene."""

    def sample(self, count: int) -> list[Expression]:
        """At most `count` different ones, as many absent as present."""


#: Takes what is seen, the picture's width in pixels and where chance comes from.
Speak = Callable[[list[SeenObject], int, np.random.Generator], Sampler]


@dataclass(frozen=True)
class World:
    """A world: its words, and how a process starts showing its scenes.

    open: takes the width and height in pixels, and a folder of meshes (`household.scans`) or None where
    `meshes` says that it takes one.
    block: this many consecutive seeds are best shown by one process.
    """

    kinds: tuple[str, ...]
    colours: tuple[str, ...]
    open: Callable[[int, int, Path | None], Show]
    block: int
    expressions: Speak
    meshes: bool = True


def _v1(width: int, height: int, _: Path | None) -> Show:
    from .dataset import visible_scene
    from .render import Renderer

    renderer = Renderer(width, height)

    def show(seed: int) -> Shown:
        _spec, view, seen = visible_scene(seed, renderer)
        return view.rgb, view.instances, seen

    return show


def _household(width: int, height: int, meshes: Path | None) -> Show:
    from .household.scans import load_scans
    from .household.world import mixed

    return mixed(width, height, load_scans(meshes) if meshes else ())


def _shifted(width: int, height: int, meshes: Path | None) -> Show:
    from .household.scans import load_scans
    from .household.world import World as Household

    world = Household(width, height, shifted=True, scans=load_scans(meshes) if meshes else ())
    return lambda seed: world.scene(seed)[:3]


_SPEAK_SHIFTED = partial(HouseholdExpressions, common=SHIFTED)
#: v1: eight clean kinds. household: many kinds, rooms and cameras. shifted: the same with proportions,
#: pictures and pairs of kind and colour that household never draws, to test with.
WORLDS = {
    "v1": World(KINDS, tuple(COLOURS), _v1, 16, Expressions, meshes=False),
    "household": World(HOUSEHOLD_KINDS, HOUSEHOLD_COLOURS, _household, 100, HouseholdExpressions),
    "shifted": World(HOUSEHOLD_KINDS, HOUSEHOLD_COLOURS, _shifted, 100, _SPEAK_SHIFTED),
}
