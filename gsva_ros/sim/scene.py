"""A scene drawn from a seed: what is on the table, and the camera."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ..chance import pick
from .shapes import COLOURS, KINDS, RADIUS, SIZES

MAX_OBJECTS = 8
SAME = 3  # bodies of one kind and size in the renderer's pool
TABLES = 10


@dataclass(frozen=True)
class SceneObject:
    """One object: position and yaw on the table (metres, radians), and its rendered colour."""

    kind: str
    colour: str
    size: str
    x: float
    y: float
    yaw: float
    rgb: tuple[float, float, float]


@dataclass(frozen=True)
class SceneSpec:
    """A complete description for the renderer.

    azimuth, elevation and fov in degrees, distance and target in metres; the world's z axis points up and
    the table top is z = 0.
    """

    seed: int
    objects: tuple[SceneObject, ...]
    azimuth: float
    elevation: float
    distance: float
    target: tuple[float, float]
    fov: float
    table: int
    table_tint: tuple[float, float, float]
    light_position: tuple[float, float, float]
    light_colour: tuple[float, float, float]
    ambient: float


def direction(azimuth: float, elevation: float) -> npt.NDArray[np.float64]:
    """The unit vector [3] in the world for angles in radians."""
    flat = math.cos(elevation)
    return np.array([flat * math.cos(azimuth), flat * math.sin(azimuth), math.sin(elevation)])


def sample_scene(seed: int, attempt: int = 0) -> SceneSpec:
    """Draw a scene; `attempt` counts the redraws of a seed whose earlier scenes hid an object."""
    rng = np.random.default_rng([seed, attempt])
    objects = _draw_objects(rng)
    grey = rng.uniform(0.55, 1.0)
    tint = np.clip(grey + rng.uniform(-0.06, 0.06, 3), 0, 1)
    warm = rng.uniform(-0.08, 0.08)
    power = rng.uniform(0.55, 0.85)
    return SceneSpec(
        seed=seed,
        objects=objects,
        azimuth=float(90 + rng.uniform(-40, 40)),
        elevation=float(rng.uniform(32, 62)),
        distance=float(rng.uniform(0.62, 0.80)),
        target=(float(rng.uniform(-0.03, 0.03)), float(rng.uniform(-0.03, 0.03))),
        fov=float(rng.uniform(40, 48)),
        table=int(rng.integers(TABLES)),
        table_tint=(float(tint[0]), float(tint[1]), float(tint[2])),
        light_position=(float(rng.uniform(-0.8, 0.8)), float(rng.uniform(-0.8, 0.5)), 1.5),
        light_colour=(float(power + warm), float(power), float(power - warm)),
        ambient=float(rng.uniform(0.25, 0.4)),
    )


def _draw_objects(rng: np.random.Generator) -> tuple[SceneObject, ...]:
    """Objects on the table, none in another's footprint."""
    wanted = int(rng.integers(3, MAX_OBJECTS + 1))
    objects: list[SceneObject] = []
    counts: dict[tuple[str, str], int] = {}
    half_x, half_y = 0.25, 0.19
    for _ in range(300):
        if len(objects) == wanted:
            break
        kind, colour = str(rng.choice(KINDS)), str(rng.choice(list(COLOURS)))
        # Repeated kinds and colours allow plural and hard absent expressions.
        if objects and rng.random() < 0.35:
            other = pick(objects, rng)
            if rng.random() < 0.6:
                kind = other.kind
            else:
                colour = other.colour
        size = str(rng.choice(list(SIZES)))
        if counts.get((kind, size), 0) == SAME:
            continue
        x, y = float(rng.uniform(-half_x, half_x)), float(rng.uniform(-half_y, half_y))
        radius = RADIUS[kind] * SIZES[size]
        if any(
            math.hypot(x - o.x, y - o.y) < radius + RADIUS[o.kind] * SIZES[o.size] + 0.008
            for o in objects
        ):
            continue
        rgb, yaw = _draw_rgb(colour, rng), float(rng.uniform(0, 2 * math.pi))
        objects.append(SceneObject(kind, colour, size, x, y, yaw, rgb))
        counts[kind, size] = counts.get((kind, size), 0) + 1
    return tuple(objects)


def _draw_rgb(colour: str, rng: np.random.Generator) -> tuple[float, float, float]:
    """A shade of a named colour."""
    shade = float(rng.uniform(0.88, 1.08))
    tint = np.clip(np.array(COLOURS[colour]) * shade + rng.uniform(-0.025, 0.025, 3), 0.02, 1.0)
    return float(tint[0]), float(tint[1]), float(tint[2])
