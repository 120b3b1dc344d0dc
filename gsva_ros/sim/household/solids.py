"""Boxes, books and other solids, each in many proportions and several designs. Metres."""

from __future__ import annotations

import math

import numpy as np

from .meshes import box, cut, joined, panel, turn
from .shapes import Part, Pose, Room, Shape, lathed, lying, upright
from .walls import decorated

Rng = np.random.Generator


def covered(x: float, y: float, z: float, role: str) -> list[Part]:
    """Panels that cover the sides and top of a box standing on z = 0."""
    parts, e = [], 0.0009
    for side in (-1, 1):
        front = (-side * x / 2, side * (-y / 2 - e), 0)
        parts.append(Part(panel(front, (side * x, 0, 0), (0, 0, z)), role))
        flank = (side * (x / 2 + e), -side * y / 2, 0)
        parts.append(Part(panel(flank, (0, side * y, 0), (0, 0, z)), role))
    return [*parts, Part(panel((-x / 2, -y / 2, z + e), (x, 0, 0), (0, y, 0)), role)]


def box_(rng: Rng) -> Shape:
    """A box: open, with a lid, or closed; some closed ones with adhesive tape or marks all over."""
    style = rng.integers(4)
    x, y, z = rng.uniform(0.05, 0.15), rng.uniform(0.04, 0.11), rng.uniform(0.03, 0.13)
    if style == 0:  # open on top
        t = 0.004
        walls = [
            box((x, y, t), (0, 0, t / 2)),
            box((x, t, z), (0, (y - t) / 2, z / 2)),
            box((x, t, z), (0, (t - y) / 2, z / 2)),
            box((t, y, z), ((x - t) / 2, 0, z / 2)),
            box((t, y, z), ((t - x) / 2, 0, z / 2)),
        ]
        parts = [Part(joined(*walls), "body")]
        if rng.random() < 0.4:  # flaps
            f = y * 0.45
            for side in (-1, 1):
                flap = box((x, f, t), (0, side * f / 2, 0)).moved(
                    turn("x", side * rng.uniform(-0.9, 0.3))
                )
                parts.append(Part(flap.moved(np.eye(3), (0, side * y / 2, z)), "body"))
        hollow = Room(t, min(x, y) / 2 - t, z)
        poses = [upright(hollow=hollow)]
    else:
        top = Room(z, min(x, y) / 2)
        parts = [Part(box((x, y, z), (0, 0, z / 2)), "body")]
        poses = [upright(top)]
        if style == 1:  # a lid
            d = z * rng.uniform(0.15, 0.35)
            parts.append(Part(box((x + 0.005, y + 0.005, d), (0, 0, z - d / 2 + 0.002)), "lid"))
            poses = [upright(Room(z + 0.002, top.radius))]
        elif style == 2:
            if rng.random() < 0.5:  # adhesive tape over it
                w = y * rng.uniform(0.12, 0.3)
                parts.append(Part(box((x + 0.001, w, z + 0.001), (0, 0, z / 2)), "stripe"))
            poses.append(Pose("lying", turn("y", math.pi / 2), Room(x, min(z, y) / 2)))
    if style in (2, 3) and rng.random() < 0.4:  # marks all over
        parts += covered(x, y, z, "print")
    elif rng.random() < 0.55 or style == 3:
        w, d = x * rng.uniform(0.4, 0.85), z * rng.uniform(0.4, 0.6)
        e = 0.0008 if style != 1 else 0.0035
        for side in (-1, 1):
            corner = (-side * w / 2, side * (-y / 2 - e), z / 2 - d / 2 - 0.1 * z)
            parts.append(Part(panel(corner, (side * w, 0, 0), (0, 0, d)), "label"))
        if style in (2, 3):
            v = y * rng.uniform(0.4, 0.75)
            parts.append(Part(panel((-w / 2, -v / 2, z + e), (w, 0, 0), (0, v, 0)), "label"))
    return Shape("box", parts, poses)


def ball(rng: Rng) -> Shape:
    """A ball of one colour, with a stripe, or of two colours."""
    r = rng.uniform(0.026, 0.05)
    angle = np.linspace(-math.pi / 2, math.pi / 2, 15)
    profile = [(r * math.cos(a), r + r * math.sin(a)) for a in angle]
    draw = rng.random()
    if draw < 0.7:
        parts = [lathed("body", profile)]
    elif draw < 0.9:
        w = r * rng.uniform(0.1, 0.3)
        pieces = ((0.0, r - w, "body"), (r - w, r + w, "stripe"), (r + w, 2 * r, "body"))
        parts = [lathed(role, cut(profile, a, b)) for a, b, role in pieces]
    else:
        pieces = ((0.0, r, "body"), (r, 2 * r, "second"))
        parts = [lathed(role, cut(profile, a, b)) for a, b, role in pieces]
    tilt = turn("x", rng.uniform(0, math.pi)) @ turn("y", rng.uniform(0, math.pi))
    return Shape("ball", parts, (Pose("upright", tilt),))


def cone(rng: Rng) -> Shape:
    """A cone, some on a square or round foot."""
    h, r = rng.uniform(0.08, 0.2), rng.uniform(0.03, 0.06)
    tip = r * rng.uniform(0.0, 0.16)
    parts = []
    if rng.random() < 0.6:  # on a foot
        side, t = r * rng.uniform(2.2, 2.8), 0.006
        if rng.random() < 0.6:
            parts.append(Part(box((side, side, t), (0, 0, t / 2)), "body"))
        else:
            parts.append(lathed("body", [(0, 0), (side / 2, 0), (side / 2, t), (0, t)]))
    parts += decorated(rng, [(r, 0.003), (tip, h)], [(0, 0), (r, 0)], h * 0.2, h * 0.8)
    parts.append(lathed("body", [(tip, h), (0, h + 0.001)]))
    poses = [upright(), upright()]
    if parts[0].mesh.vertices[:, 2].max() > h * 0.5:
        poses.append(lying(-math.atan2(r - tip, h)))
    return Shape("cone", parts, poses)


def book(rng: Rng) -> Shape:
    """A closed book, most with a title, some with one on the spine."""
    x, y, t = rng.uniform(0.11, 0.19), rng.uniform(0.08, 0.14), rng.uniform(0.012, 0.045)
    c = 0.002
    parts = [
        Part(box((x, y, c), (0, 0, c / 2)), "body"),
        Part(box((x, y, c), (0, 0, t - c / 2)), "body"),
        Part(box((x, c, t), (0, -y / 2 + c / 2, t / 2)), "body"),
        Part(box((x - 0.006, y - 0.005, t - 2 * c), (0, -0.0015, t / 2)), "pages"),
    ]
    if rng.random() < 0.8:  # a title
        w, d = x * rng.uniform(0.45, 0.85), y * rng.uniform(0.3, 0.8)
        ly = rng.uniform(-1, 1) * (y - d) / 2 * 0.7
        # Titles read along the spine's side: books are taller than wide.
        parts.append(
            Part(
                panel((d / 2, ly - w / 2, t + 0.0008), (0, w, 0), (-d, 0, 0))
                if w < y * 0.9 and d < x * 0.9
                else panel((-w / 2, ly - d / 2, t + 0.0008), (w, 0, 0), (0, d, 0)),
                "label",
            )
        )
    if rng.random() < 0.4:
        w = x * rng.uniform(0.5, 0.8)
        parts.append(
            Part(panel((-w / 2, -y / 2 - 0.0008, t * 0.2), (w, 0, 0), (0, 0, t * 0.6)), "label")
        )
    lies = upright(Room(t, y / 2))
    stands = Pose("standing", turn("y", -math.pi / 2))
    return Shape("book", parts, (lies, lies, lies, stands) if t > 0.025 else (lies,))


def tape(rng: Rng) -> Shape:
    """A roll of tape."""
    r, w = rng.uniform(0.03, 0.055), rng.uniform(0.014, 0.05)
    hole = r * rng.uniform(0.45, 0.78)
    core = 0.0025
    parts = [
        lathed("body", [(hole + core, 0), (r, 0), (r, w), (hole + core, w)], 28),
        lathed("core", [(hole + core, w), (hole, w), (hole, 0), (hole + core, 0)], 28),
    ]
    stands = Pose("lying", turn("y", math.pi / 2))
    return Shape("tape", parts, (upright(), upright(), stands) if w > 0.018 else (upright(),))
