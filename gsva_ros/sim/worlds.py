"""The table of worlds that scenes can be rendered from, by name."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt

from .expressions import Expressions, SeenObject
from .household.colours import COLOURS as HOUSEHOLD_COLOURS
from .household.common import SHIFTED
from .household.expressions import Expressions as HouseholdExpressions
from .household.panoramas import Image as Panorama
from .household.panoramas import load_panoramas
from .household.scans import Scan, load_scans
from .household.shapes import KINDS as HOUSEHOLD_KINDS
from .shapes import COLOURS, KINDS

#: RGB [H, W, 3], instances [H, W] (both uint8) and the visible things.
Shown = tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint8], list[SeenObject]]
#: Renders a seed's scene. Not thread-safe.
Show = Callable[[int], Shown]
#: Takes the visible things, the image width in pixels and a random generator.
Speak = Callable[[list[SeenObject], int, np.random.Generator], Expressions | HouseholdExpressions]


@dataclass(frozen=True)
class Assets:
    """Folders of additional assets of a world: third-party meshes, and panoramas."""

    meshes: Path | None = None
    panoramas: Path | None = None

    def load(self) -> tuple[tuple[Scan, ...], tuple[Panorama, ...]]:
        """Load all assets.

        Raises:
            InputError: a file cannot be read.
        """
        return (
            load_scans(self.meshes) if self.meshes else (),
            load_panoramas(self.panoramas) if self.panoramas else (),
        )

    def files(self) -> dict[str, list[str]]:
        """The file names, by type of asset."""
        patterns = {"meshes": "*/*", "panoramas": "*"}
        folders = {name: getattr(self, name) for name in patterns}
        return {
            name: sorted(str(p.relative_to(folder)) for p in folder.glob(patterns[name]))
            for name, folder in folders.items()
            if folder
        }


@dataclass(frozen=True)
class World:
    """A world: its vocabulary, and how a process renders its scenes.

    open: takes the width and height in pixels, and assets, which are empty (`Assets()`) unless
    `takes_assets`. block: number of consecutive seeds that one process should render, for speed.
    """

    kinds: tuple[str, ...]
    colours: tuple[str, ...]
    open: Callable[[int, int, Assets], Show]
    block: int
    expressions: Speak
    takes_assets: bool = True


def _v1(width: int, height: int, _: Assets) -> Show:
    from .render import Renderer
    from .sight import visible_scene

    renderer = Renderer(width, height)

    def show(seed: int) -> Shown:
        _, view, seen = visible_scene(seed, renderer)
        return view.rgb, view.instances, seen

    return show


def _household(width: int, height: int, assets: Assets) -> Show:
    from .household.world import training_mixture

    return training_mixture(width, height, *assets.load())


def _alone(
    width: int, height: int, assets: Assets, shifted: bool = False, goods: bool = False
) -> Show:
    from .household.world import World as Household

    world = Household(width, height, shifted, *assets.load(), goods)
    return lambda seed: world.scene(seed)[:3]


_shifted, _goods = partial(_alone, shifted=True), partial(_alone, goods=True)
_SPEAK_SHIFTED = partial(HouseholdExpressions, common=SHIFTED)
#: v1: eight kinds on plain tables. household: many kinds, rooms and cameras. shifted: household with
#: proportions, textures and pairs of kind and colour that it never draws, for testing. goods: household's
#: things, but cans, bottles, jars, boxes and mugs are mostly printed all around, as in shops.
WORLDS = {
    "v1": World(KINDS, tuple(COLOURS), _v1, 16, Expressions, takes_assets=False),
    "household": World(HOUSEHOLD_KINDS, HOUSEHOLD_COLOURS, _household, 100, HouseholdExpressions),
    "goods": World(HOUSEHOLD_KINDS, HOUSEHOLD_COLOURS, _goods, 100, HouseholdExpressions),
    "shifted": World(HOUSEHOLD_KINDS, HOUSEHOLD_COLOURS, _shifted, 100, _SPEAK_SHIFTED),
}
