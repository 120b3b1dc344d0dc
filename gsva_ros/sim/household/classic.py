"""Scenes of the older world (v1) within the household world: eight kinds on plain tables."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from ..expressions import SeenObject
from ..render import Renderer, Rendering
from ..scene import SceneObject, SceneSpec
from ..shapes import COLOURS, SIZES
from ..sight import visible_scene
from .colours import held_out

Array = npt.NDArray[np.uint8]
#: Points along a mug's handle outside the body at scale 1: radius and height in metres.
HANDLE = ((0.058, 0.066), (0.061, 0.055), (0.062, 0.044), (0.058, 0.033))


class Classic:
    """Renders the older world's scenes and describes them like household scenes."""

    def __init__(self, width: int, height: int) -> None:
        self._renderer = Renderer(width, height)

    def scene(self, seed: int) -> tuple[Array, Array, list[SeenObject]]:
        """RGB [H, W, 3], instances [H, W] (both uint8) and the visible things.

        Raises:
            InputError: things were hidden in every draw.
        """
        spec, view, things = visible_scene(seed, self._renderer, _allowed)
        told = [_as_household(*pair, spec, view) for pair in zip(spec.objects, things, strict=True)]
        return view.rgb, view.instances, told


def _allowed(thing: SceneObject) -> SceneObject:
    """The thing; if its pair of kind and colour is held out of training, in the next allowed colour."""
    names = list(COLOURS)
    k = names.index(thing.colour)
    while held_out(thing.kind, names[k % len(names)]):
        k += 1
    colour = names[k % len(names)]
    return thing if colour == thing.colour else replace(thing, colour=colour, rgb=COLOURS[colour])


def _as_household(
    drawn: SceneObject, seen: SeenObject, spec: SceneSpec, view: Rendering
) -> SeenObject:
    offset = np.array([drawn.x, drawn.y]) - view.pose[:2, 3]
    azimuth = math.radians(spec.azimuth)
    across = offset @ np.array([math.sin(azimuth), -math.cos(azimuth)])
    return replace(
        seen,
        size="",
        parts=("handle",) if drawn.kind == "mug" and _handle_shows(drawn, seen.id, view) else (),
        scale=SIZES[drawn.size],
        place=(round(float(across), 4), seen.distance),
    )


def _handle_shows(drawn: SceneObject, number: int, view: Rendering) -> bool:
    """Whether at least half of the mug's handle is visible."""
    k = SIZES[drawn.size]
    shown = 0
    for radius, z in HANDLE:
        x, y = (k * radius * f(drawn.yaw) for f in (math.cos, math.sin))
        point = view.pose[:3, :3].T @ (
            np.array([drawn.x + x, drawn.y + y, k * z]) - view.pose[:3, 3]
        )
        column, row = np.rint(view.intrinsics @ point / point[2])[:2].astype(int)
        height, width = view.depth.shape
        if 0 <= row < height and 0 <= column < width:
            near = view.depth[row, column] > point[2] - 0.008 * k
            shown += int(near and view.instances[row, column] == number)
    return shown >= len(HANDLE) / 2
