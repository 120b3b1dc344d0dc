"""What the camera sees of a scene of the world v1, and the first draw in which every object is seen."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np

from ..errors import InputError
from .expressions import SeenObject, extent
from .render import Renderer, Rendering
from .scene import SceneObject, SceneSpec, sample_scene

# A scene is redrawn if an object covers less than this fraction of the image (60 pixels at 192 x 144).
LEAST_VISIBLE = 60 / (192 * 144)
REDRAWS = 50


def seen_objects(spec: SceneSpec, rendering: Rendering) -> list[SeenObject]:
    """The scene's objects as the camera sees them; an object out of sight has 0 pixels."""
    forward = np.array([math.cos(math.radians(spec.azimuth)), math.sin(math.radians(spec.azimuth))])
    found = []
    for number, thing in enumerate(spec.objects, start=1):
        rows, columns = np.nonzero(rendering.instances == number)
        offset = np.array([thing.x, thing.y]) - rendering.pose[:2, 3]
        found.append(
            SeenObject(
                number,
                thing.kind,
                thing.colour,
                thing.size,
                len(rows),
                *extent(rows, columns),
                round(float(offset @ forward), 4),
            )
        )
    return found


def visible_scene(
    seed: int, renderer: Renderer, allowed: Callable[[SceneObject], SceneObject] | None = None
) -> tuple[SceneSpec, Rendering, list[SeenObject]]:
    """The seed's first draw in which every object is visible.

    Args:
        allowed: replaces each object that is drawn; None: objects stay as drawn.

    Raises:
        InputError: objects were hidden in every redraw.
    """
    least = LEAST_VISIBLE * renderer.width * renderer.height
    for attempt in range(REDRAWS):
        spec = sample_scene(seed, attempt)
        if allowed:
            spec = replace(spec, objects=tuple(map(allowed, spec.objects)))
        rendering = renderer.render(spec)
        seen = seen_objects(spec, rendering)
        if all(thing.pixels >= least for thing in seen):
            return spec, rendering, seen
    raise InputError(
        f"seed {seed}: no scene with every object in sight in {REDRAWS} draws of "
        f"{renderer.width} x {renderer.height} pixels; choose a larger size"
    )
