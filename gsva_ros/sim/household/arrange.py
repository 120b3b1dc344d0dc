"""Draws an arrangement: things on the table, on other things and in other things."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace

import numpy as np

from ...chance import pick
from .meshes import turn
from .paint import draw_paints
from .scene import Array, Camera, Placed, Rng, Slab, on_table
from .shapes import KINDS, Pose, Room, Shape
from .shelf import Shelf

MAX_OBJECTS = 10
#: Kinds that other things often stand on or in.
BASES = ("bowl", "box", "plate", "pot", "pan", "bucket", "book", "box", "mug", "jar")


@dataclass
class _Ground:
    """The occupied circles [n, 3] (x, y, radius)."""

    circles: Array = field(default_factory=lambda: np.zeros((0, 3)))

    def free(self, new: Array, gap: float) -> bool:
        """Whether every new circle keeps a distance of `gap` from the occupied ones."""
        apart = new[:, None, :2] - self.circles[None, :, :2]
        least = new[:, None, 2] + self.circles[None, :, 2] + gap
        return bool((np.einsum("ijk,ijk->ij", apart, apart) > least**2).all())

    def take(self, new: Array) -> None:
        self.circles = np.concatenate([self.circles, new])


def _turned(circles: Array, yaw: float, at: Array) -> Array:
    out = circles.copy()
    out[:, :2] = circles[:, :2] @ turn("z", yaw)[:2, :2].T + at[:2]
    return out


def draw_things(
    rng: Rng, shelf: Shelf, camera: Camera, distance: float, table: Slab, across: float
) -> list[Placed]:
    wanted = int(rng.integers(*((3, MAX_OBJECTS + 1) if across > 0.4 else (2, 7))))
    gap = float(rng.choice([0.002, 0.012, 0.03]))
    ground = _Ground()
    things: list[Placed] = []
    taken: set[int] = set()
    full: set[int] = set()
    piled = rng.random() < 0.6  # whether things may stand on or in others

    def drawn(kind: str) -> tuple[int, int] | None:
        """An unused thing of the kind on the shelf, and one of its poses."""
        left = [n for n, s in enumerate(shelf.shapes) if s.kind == kind and n not in taken]
        if not left:
            return None
        number = pick(left, rng)
        return number, int(rng.integers(len(shelf.shapes[number].poses)))

    for _ in range(wanted * 5):
        if len(things) == wanted:
            break
        thing = None
        if piled and things and rng.random() < 0.5:
            for _ in range(8):
                some = drawn(_draw_kind(rng, things))
                if some is not None:
                    shape = shelf.shapes[some[0]]
                    thing = _place_upon(rng, some[0], shape, shape.poses[some[1]], things, full)
                if thing is not None:
                    break
        if thing is None:
            base = piled and not things
            some = drawn(pick(BASES, rng) if base else _draw_kind(rng, things))
            if some is None:
                continue
            shape, (circles, lowest) = shelf.shapes[some[0]], shelf.rests[some[0]][some[1]]
            pose = shape.poses[some[1]]
            for _ in range(12):
                at = _draw_point(rng, camera, distance)
                yaw = float(rng.uniform(0, 2 * math.pi))
                if at is None:
                    continue
                here = _turned(circles, yaw, at)
                if on_table(table, here) and ground.free(here, gap):
                    ground.take(here)
                    position = np.array([at[0], at[1], -lowest])
                    thing = Placed(some[0], shape, pose, position, turn("z", yaw) @ pose.rotation)
                    break
        if thing is not None:
            colour, paints = draw_paints(rng, thing.shape, shelf.shifted, things)
            things.append(replace(thing, colour=colour, paints=paints))
            taken.add(thing.number)
    return things


def _draw_kind(rng: Rng, things: list[Placed]) -> str:
    draw = rng.random()
    named = [t.shape.kind for t in things if t.shape.kind]
    if named and draw < 0.25:
        return pick(named, rng)
    if draw < 0.35:
        return ""
    return pick(KINDS, rng)


def _draw_point(rng: Rng, camera: Camera, distance: float) -> Array | None:
    """A visible point on the table, not too far away."""
    tan = math.tan(camera.fov / 2)
    ray = np.array([rng.uniform(-0.9, 0.9) * tan, rng.uniform(-0.8, 0.9) * tan * 0.75, 1.0])
    world = camera.pose[:3, :3] @ ray
    if world[2] > -0.08:
        return None
    away = -camera.pose[2, 3] / world[2]
    if not 0.45 * distance < away < 1.9 * distance:
        return None
    return camera.pose[:3, 3] + away * world


def _place_upon(
    rng: Rng, number: int, shape: Shape, pose: Pose, things: list[Placed], full: set[int]
) -> Placed | None:
    """Place the thing on or in another one that stands on the table; None if none has room for it."""
    for index in map(int, rng.permutation(len(things))):
        base = things[index]
        hollow = base.pose.hollow is not None
        room = base.pose.hollow or base.pose.top
        if room is None or index in full or base.support is not None or base.inside is not None:
            continue
        fitted = _fit(rng, shape, pose, room, hollow)
        if fitted is None:
            continue
        rotation, offset = fitted
        # A room's z is relative to the table, on which its thing stands.
        position = np.array([*_middle(base), room.z]) + offset
        full.add(index)
        support, inside = (None, index) if hollow else (index, None)
        return Placed(number, shape, pose, position, rotation, support=support, inside=inside)
    return None


def _middle(base: Placed) -> Array:
    """Centre [2] of a thing's room: its origin or, for a thing on its side, the centre of its extent."""
    if base.pose.name in ("upright", "upside down"):
        return base.position[:2]
    points = base.points()[:, :2]
    return (points.min(0) + points.max(0)) / 2


def _fit(
    rng: Rng, shape: Shape, pose: Pose, room: Room, hollow: bool
) -> tuple[Array, Array] | None:
    """Rotation and offset from the centre of the room's floor; None if the thing does not fit."""
    yaw = turn("z", rng.uniform(0, 2 * math.pi))
    if hollow and shape.long and shape.long > 1.8 * room.radius:
        if shape.kind == "hammer" or room.depth < 0.05 or room.radius < 0.018:
            return None
        # A tool leans: one end on the floor at one side, and the other over the rim at the opposite side.
        rise = math.atan2(room.depth, 1.35 * room.radius)
        if shape.long < 1.15 * room.depth / math.sin(rise):
            return None
        lean = turn("y", -rise)
        flip = turn("z", math.pi) if rng.random() < 0.5 else np.eye(3)
        rotation = yaw @ lean @ flip
        points = shape.points() @ rotation.T
        lowest = points[points[:, 2].argmin()]
        foot = yaw @ np.array([-0.7 * room.radius, 0, 0])
        return rotation, foot - np.array([lowest[0], lowest[1], lowest[2]])
    rotation = yaw @ pose.rotation
    points = shape.points() @ rotation.T
    low, high = points.min(0), points.max(0)
    middle = (low + high) / 2
    radius = float(np.linalg.norm(points[:, :2] - middle[:2], axis=1).max())
    if radius > room.radius * (0.95 if hollow else 1.0):
        return None
    if hollow and high[2] - low[2] < room.depth * 0.45:
        return None  # it would hide in there
    spare = (room.radius - radius) * math.sqrt(rng.random())
    angle = rng.uniform(0, 2 * math.pi)
    shift = spare * np.array([math.cos(angle), math.sin(angle)])
    return rotation, np.array([*(shift - middle[:2]), -low[2]])
