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
from .household.panoramas import Image as Panorama
from .household.panoramas import load_panoramas
from .household.scans import Scan, load_scans
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
class More:
    """Folders of what a world can show beside its own: of other makers' meshes, and of panoramas."""

    meshes: Path | None = None
    panoramas: Path | None = None

    def load(self) -> tuple[tuple[Scan, ...], tuple[Panorama, ...]]:
        """What is in them.

        Raises:
            InputError: something cannot be read.
        """
        return (
            load_scans(self.meshes) if self.meshes else (),
            load_panoramas(self.panoramas) if self.panoramas else (),
        )

    def named(self) -> dict[str, list[str]]:
        """The names of the files, by what they are."""
        patterns = {"meshes": "*/*", "panoramas": "*"}
        folders = {name: getattr(self, name) for name in patterns}
        return {
            name: sorted(str(p.relative_to(folder)) for p in folder.glob(patterns[name]))
            for name, folder in folders.items()
            if folder
        }


@dataclass(frozen=True)
class World:
    """A world: its words, and how a process starts showing its scenes.

    open: takes the width and height in pixels, and folders of more to show, which must be empty (`More()`)
    unless `more`.
    block: this many consecutive seeds are best shown by one process.
    """

    kinds: tuple[str, ...]
    colours: tuple[str, ...]
    open: Callable[[int, int, More], Show]
    block: int
    expressions: Speak
    more: bool = True


def _v1(width: int, height: int, _: More) -> Show:
    from .dataset import visible_scene
    from .render import Renderer

    renderer = Renderer(width, height)

    def show(seed: int) -> Shown:
        _spec, view, seen = visible_scene(seed, renderer)
        return view.rgb, view.instances, seen

    return show


def _household(width: int, height: int, more: More) -> Show:
    from .household.world import mixed

    return mixed(width, height, *more.load())


def _alone(width: int, height: int, more: More, shifted: bool = False, goods: bool = False) -> Show:
    from .household.world import World as Household

    world = Household(width, height, shifted, *more.load(), goods)
    return lambda seed: world.scene(seed)[:3]


_shifted, _goods = partial(_alone, shifted=True), partial(_alone, goods=True)
_SPEAK_SHIFTED = partial(HouseholdExpressions, common=SHIFTED)
#: v1: eight clean kinds. household: many kinds, rooms and cameras. shifted: the same with proportions,
#: pictures and pairs of kind and colour that household never draws, to test with. goods: household's
#: things, but cans, bottles, jars, boxes and mugs mostly in print all around, as they are sold.
WORLDS = {
    "v1": World(KINDS, tuple(COLOURS), _v1, 16, Expressions, more=False),
    "household": World(HOUSEHOLD_KINDS, HOUSEHOLD_COLOURS, _household, 100, HouseholdExpressions),
    "goods": World(HOUSEHOLD_KINDS, HOUSEHOLD_COLOURS, _goods, 100, HouseholdExpressions),
    "shifted": World(HOUSEHOLD_KINDS, HOUSEHOLD_COLOURS, _shifted, 100, _SPEAK_SHIFTED),
}
