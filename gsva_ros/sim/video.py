"""Videos with truth: the camera sways, one thing crosses the table in front of the others, another turns.

They serve to evaluate masks in moving images. Everything depends on a seed and a frame's time alone, so
rendering a video again gives the same frames.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from ..truth import Referring
from .render import Renderer, Rendering
from .scene import SceneSpec
from .sight import visible_scene

#: The camera's motion: (amplitude, period in seconds) of azimuth in degrees, elevation in degrees, and
#: distance as a fraction.
SWAY, NOD, DOLLY = (10.0, 6.0), (4.0, 4.1), (0.06, 7.3)
#: The crossing thing: metres to either side of the table's centre, and the period in seconds.
CROSS = (0.22, 8.0)
#: The turning thing: radians per second, and the radius of its circle in metres.
TURN, WANDER = 0.8, 0.03


@dataclass(frozen=True)
class VideoFrame:
    """One frame of a video: seconds since its start, the scene, and its rendering."""

    seconds: float
    spec: SceneSpec
    view: Rendering


def video(seed: int, seconds: float, rate: float, renderer: Renderer) -> Iterator[VideoFrame]:
    """The scene of a seed in motion, at `rate` frames per second.

    The crossing thing passes between the camera and the other things and covers parts of them; the camera
    looks down at the table, so they are hardly ever hidden entirely.
    """
    start, _, _ = visible_scene(seed, renderer)
    rng = np.random.default_rng([seed, 1])
    phase = rng.uniform(0, 2 * math.pi, 3)
    for number in range(max(1, round(seconds * rate))):
        now = number / rate
        spec = scene_at(start, now, phase)
        yield VideoFrame(now, spec, renderer.render(spec))


def named_referrings(frame: VideoFrame) -> list[Referring]:
    """Expressions such as "the red mug" for things with a unique kind and colour, with visible masks."""
    kinds = [(thing.colour, thing.kind) for thing in frame.spec.objects]
    found = []
    for number, (colour, kind) in enumerate(kinds, start=1):
        if kinds.count((colour, kind)) == 1:
            mask = frame.view.instances == number
            found.append(Referring(f"the {colour} {kind}", "single", int(mask.any()), mask))
    return found


def scene_at(start: SceneSpec, now: float, phase: np.ndarray) -> SceneSpec:
    """The scene at `now` seconds. phase: of sway, nod and dolly, radians [3]."""
    wave = [
        size * (math.sin(2 * math.pi * now / period + p) - math.sin(p))
        for (size, period), p in zip((SWAY, NOD, DOLLY), phase, strict=True)
    ]
    things = list(start.objects)
    # The direction away from the camera on the table is the azimuth's.
    azimuth = math.radians(start.azimuth)
    ahead, side = (math.cos(azimuth), math.sin(azimuth)), (-math.sin(azimuth), math.cos(azimuth))
    width, period = CROSS
    across = width * math.cos(2 * math.pi * now / period)
    near = min(things, key=lambda t: t.x * ahead[0] + t.y * ahead[1])
    turning = 1 if things[0] is near else 0
    for number, thing in enumerate(things):
        if thing is near:
            back = near.x * ahead[0] + near.y * ahead[1]
            x, y = (back * a + across * s for a, s in zip(ahead, side, strict=True))
            things[number] = replace(thing, x=x, y=y)
        elif number == turning:
            turned = TURN * now
            things[number] = replace(
                thing,
                x=thing.x + WANDER * math.sin(turned),
                y=thing.y + WANDER * (math.cos(turned) - 1),
                yaw=thing.yaw + turned,
            )
    return replace(
        start,
        objects=tuple(things),
        azimuth=start.azimuth + wave[0],
        elevation=start.elevation + wave[1],
        distance=start.distance * (1 + wave[2]),
    )
