"""Draws cameras, tables, rooms and lamps."""

from __future__ import annotations

import math

import numpy as np

from ..scene import direction
from .colours import Rgb
from .meshes import turn
from .panoramas import Backdrop
from .scene import Array, Camera, Lamp, Rng, Slab, on_table
from .shelf import GROUNDS, WALLS


def draw_camera(rng: Rng, across: float) -> tuple[Camera, float]:
    fov = math.radians(rng.uniform(35, 70))
    distance = max(across / (2 * math.tan(fov / 2)), 0.22)
    azimuth = rng.uniform(0, 2 * math.pi)
    elevation = math.radians(15 + 60 * rng.beta(1.6, 1.4))
    forward = direction(azimuth, -elevation)
    right = np.cross(forward, (0.0, 0.0, 1.0))
    right /= np.linalg.norm(right)
    down = np.cross(forward, right)
    roll = math.radians(rng.normal(0, 2.0))
    pose = np.eye(4)
    c, s = math.cos(roll), math.sin(roll)
    pose[:3, :3] = np.stack([c * right + s * down, c * down - s * right, forward], 1)
    target = np.array([*(rng.normal(0, 0.06, 2) * across), 0.03])
    pose[:3, 3] = target - distance * forward
    return Camera(fov, pose), distance


def draw_table(rng: Rng, across: float) -> Slab:
    draw = rng.random()
    tint = rng.uniform(0.85, 1.0)
    rgba = (float(tint), float(tint), float(tint), 1.0)
    material = f"ground{rng.integers(GROUNDS)}"
    yaw = turn("z", rng.uniform(0, 2 * math.pi))
    if draw < 0.35:
        return Slab("plane", (6, 6, 1), (0, 0, 0), yaw, material, rgba)
    half = max(0.3, across * rng.uniform(0.55, 1.3))
    if draw < 0.85:
        size = (half * float(rng.uniform(1.0, 1.5)), half, 0.02)
        return Slab("box", size, (0, 0, -0.02), yaw, material, rgba)
    return Slab("cylinder", (half * 1.1, 0.02, 0), (0, 0, -0.02), yaw, material, rgba)


WHITE = (1.0, 1.0, 1.0, 1.0)


def draw_room(rng: Rng, camera: Camera, reach: float, table: Slab) -> tuple[Slab, ...]:
    """Floor, walls and large objects out of reach, as background."""
    slabs = []
    on_floor = table.form != "plane"
    floor = -float(rng.uniform(0.4, 0.8)) if on_floor else 0.0
    if on_floor:
        turned = turn("z", rng.uniform(0, 3))
        slabs.append(Slab("plane", (8, 8, 1), (0, 0, floor), turned, _wall(rng), WHITE))
    eye = camera.pose[:3, 3]
    far = max(reach + float(np.hypot(*eye[:2])), 0.6) + float(rng.exponential(0.8)) + 0.15
    if on_floor:
        far = max(far, 1.4 * max(table.size[:2]))
    if rng.random() < 0.75:
        slabs += _walls(rng, far)
    forward = math.atan2(camera.pose[1, 2], camera.pose[0, 2])
    for _ in range(int(rng.integers(0, 6))):
        size = np.exp(rng.uniform(math.log(0.06), math.log(0.5), 3))
        angle = forward + rng.normal(0, 0.5)
        away = max(reach, 0.5) + float(size[:2].max()) * 1.5 + rng.uniform(0.05, 1.0)
        at = eye[:2] + away * np.array([math.cos(angle), math.sin(angle)])
        if not on_floor or not on_table(table, np.array([[*at, -2 * size[:2].max()]])):
            slabs.append(_large_object(rng, size, at, floor))
    return tuple(slabs)


def _wall(rng: Rng) -> str:
    """A material of walls and floors."""
    return f"wall{rng.integers(WALLS)}"


def _walls(rng: Rng, far: float) -> list[Slab]:
    """Four walls at a distance."""
    turned, material = turn("z", rng.uniform(0, math.pi / 2)), _wall(rng)
    slabs = []
    for k in range(4):
        # A plane's normal is its z axis: turn it inwards.
        facing = turned @ turn("z", k * math.pi / 2)
        tilt = facing @ turn("y", -math.pi / 2)
        x, y, _ = map(float, facing @ np.array([far, 0, 0]))
        slabs.append(Slab("plane", (8, 8, 1), (x, y, 0), tilt, material, WHITE))
    return slabs


def _large_object(rng: Rng, size: Array, at: Array, floor: float) -> Slab:
    """A box or a cylinder of half sizes [3] that stands on the floor."""
    colour = tuple(
        float(c) for c in np.clip(rng.uniform(0.05, 0.95) + rng.uniform(-0.3, 0.3, 3), 0, 1)
    )
    form = "box" if rng.random() < 0.7 else "cylinder"
    half = size if form == "box" else np.array([size[0], size[2], 0])
    place = (float(at[0]), float(at[1]), floor + float(size[2]))
    look = _wall(rng) if rng.random() < 0.4 else "matte"
    return Slab(form, _three(half), place, turn("z", rng.uniform(0, 3)), look, (*colour, 1.0))


BACKDROPS = 0.7  # of bounded tables have a panorama as background, if there are any panoramas


def draw_backdrop(rng: Rng, panoramas: int, table: Slab) -> Backdrop | None:
    if not panoramas or table.form == "plane" or rng.random() >= BACKDROPS:
        return None
    gain = float(np.exp(rng.uniform(math.log(0.5), math.log(1.4))))
    return Backdrop(int(rng.integers(panoramas)), float(rng.uniform(0, 2 * math.pi)), gain)


def draw_lamps(rng: Rng) -> tuple[tuple[Lamp, ...], Rgb, float]:
    count = 1 + int(rng.random() < 0.5) + int(rng.random() < 0.2)
    total = rng.uniform(0.45, 0.95)
    share = np.array([1.0, 0.45, 0.3])[:count]
    share = share / share.sum() * total
    lamps = []
    for part in share:
        elevation, azimuth = math.radians(rng.uniform(30, 85)), rng.uniform(0, 2 * math.pi)
        at = rng.uniform(1.0, 2.2) * direction(azimuth, elevation)
        aim = np.array([*rng.normal(0, 0.1, 2), 0]) - at
        warm = rng.normal(0, 0.06)
        # Compensates for the oblique incidence on the table: with a spot's falloff, its share remains.
        colour = part / max(math.sin(elevation), 0.55) * np.array([1 + warm, 1, 1 - warm])
        toward = aim / np.linalg.norm(aim)
        shine = float(rng.uniform(0.1, 0.8))
        lamps.append(Lamp(_three(at), _three(toward), _three(colour), shine))
    ambient = rng.uniform(0.2, 0.55) * (1 + rng.uniform(-0.08, 0.08, 3))
    return tuple(lamps), _three(ambient), float(rng.uniform(0.0, 0.3))


def _three(values: Array) -> tuple[float, float, float]:
    a, b, c = map(float, values)
    return a, b, c
