"""Videos with truth: the camera sways, one thing crosses the table in front of the others, another turns.

What the masks of a moving picture are measured on: everything is drawn from a seed and a frame's time, so
a video is the same whenever it is rendered.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from ..truth import Referring
from .dataset import visible_scene
from .render import Renderer, Rendering
from .scene import SceneSpec

#: The camera's sway: degrees to either side, degrees up and down, share of the distance; each in seconds.
SWAY, NOD, DOLLY = (10.0, 6.0), (4.0, 4.1), (0.06, 7.3)
#: The thing that crosses: metres to either side of the table's middle, and seconds there and back.
CROSS = (0.22, 8.0)
#: Radians a second of the thing that turns and wanders, and the radius of its circle in metres.
TURN, WANDER = 0.8, 0.03


@dataclass(frozen=True)
class VideoFrame:
    """One picture of a video: seconds since its start, what stands where, and how it looks."""

    seconds: float
    spec: SceneSpec
    view: Rendering


def video(seed: int, seconds: float, rate: float, renderer: Renderer) -> Iterator[VideoFrame]:
    """The scene of a seed in motion, `rate` frames a second.

    The crossing thing passes between the camera and the rest, so that things are hidden for a while and
    come back.
    """
    start, _, _ = visible_scene(seed, renderer)
    rng = np.random.default_rng([seed, 1])
    phase = rng.uniform(0, 2 * math.pi, 3)
    for number in range(max(1, round(seconds * rate))):
        now = number / rate
        spec = scene_at(start, now, phase)
        yield VideoFrame(now, spec, renderer.render(spec))


def named_referrings(frame: VideoFrame) -> list[Referring]:
    """ "the red mug" and the like for what is one of a kind and colour, with its mask as it is seen."""
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
    # Towards the camera on the table: things of the scene are in front of it in the azimuth's direction.
    azimuth = math.radians(start.azimuth)
    ahead, side = (math.cos(azimuth), math.sin(azimuth)), (-math.sin(azimuth), math.cos(azimuth))
    width, period = CROSS
    across = width * math.cos(2 * math.pi * now / period)
    near = min(things, key=lambda t: t.x * ahead[0] + t.y * ahead[1])
    for number, thing in enumerate(things):
        if thing is near:
            back = near.x * ahead[0] + near.y * ahead[1]
            x, y = (back * a + across * s for a, s in zip(ahead, side, strict=True))
            things[number] = replace(thing, x=x, y=y)
        elif number == 0 or (things[0] is near and number == 1):
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
