"""Tools along the x axis, each in many proportions and several designs. Metres."""

from __future__ import annotations

import math

import numpy as np

from .meshes import arc, box, joined, lathe, prism, tube, turn
from .shapes import Part, Pose, Shape, lathed, upright

Rng = np.random.Generator


def _other_side() -> Pose:
    """The pose of a tool along x turned onto its other side."""
    return Pose("other side", turn("x", math.pi))


def spoon(rng: Rng) -> Shape:
    """A spoon along x."""
    length, wide = rng.uniform(0.14, 0.22), rng.uniform(0.018, 0.03)
    deep, lobe = wide * rng.uniform(0.3, 0.5), wide * rng.uniform(1.2, 1.6)
    angle = np.linspace(0, math.pi / 2, 6)
    hull = [(math.sin(a), 1 - math.cos(a)) for a in angle]
    inner = [(0.9 * q, 0.12 + 0.88 * z) for q, z in hull][::-1]
    cup = lathe([*hull, *inner], 20).moved(np.diag([lobe, wide, deep]), (length / 2 - lobe, 0, 0))
    end = length / 2 - 2 * lobe + 0.004
    thick = rng.uniform(0.003, 0.005)
    t = np.linspace(0, 1, 7)
    lift = rng.uniform(0.005, 0.016)
    path = np.stack(
        [end + (-length / 2 - end) * t, 0 * t, deep * 0.85 + lift * np.sin(math.pi * t)], -1
    )
    radii = thick * (0.8 + 0.5 * t)
    bar = tube(path, radii.tolist()).moved(np.diag([1, rng.uniform(1.0, 1.9), 1]))
    parts = [Part(cup, "body"), Part(bar, "body" if rng.random() < 0.8 else "handle")]
    return Shape("spoon", parts, (upright(), upright(), _other_side()), long=length)


def screwdriver(rng: Rng) -> Shape:
    """A screwdriver along x."""
    grip, r = rng.uniform(0.075, 0.11), rng.uniform(0.011, 0.018)
    shaft, thin = rng.uniform(0.06, 0.12), rng.uniform(0.0028, 0.0045)
    profile = [
        (0, 0),
        (r * 0.8, 0.001),
        (r, 0.008),
        (r, grip * 0.55),
        (r * 0.72, grip * 0.8),
        (r * 0.85, grip * 0.95),
        (r * 0.5, grip),
        (0, grip),
    ]
    if rng.random() < 0.5:
        curve = ((0, 0), (0.7, 0), (1.05, 0.2), (0.9, 0.6), (0.62, 0.85), (0.7, 1), (0, 1))
        profile = [(r * q, grip * z) for q, z in curve]
    parts = [lathed("body", profile, int(rng.choice([6, 8, 16])))]
    if rng.random() < 0.4:
        band = [(r * 1.03, grip * 0.3), (r * 1.06, grip * 0.34), (r * 1.03, grip * 0.42)]
        parts.append(lathed("stripe", band, 16))
    length = grip + shaft
    bar = [(thin, grip - 0.002), (thin, grip + shaft * 0.92), (thin * 0.7, length), (0, length)]
    parts.append(lathed("metal", bar, 10))
    flat = turn("y", math.pi / 2)
    laid = [Part(p.mesh.moved(flat, (-length / 2, 0, 0)), p.role) for p in parts]
    tilt = Pose("upright", turn("y", math.atan2(r - thin, length * 0.75)))
    return Shape("screwdriver", laid, (tilt,), long=length)


def hammer(rng: Rng) -> Shape:
    """A hammer along x: with a claw (style 0), a wedge (1), or a mallet."""
    length, r = rng.uniform(0.18, 0.26), rng.uniform(0.009, 0.014)
    t = np.linspace(0, 1, 6)
    radii = r * np.interp(t, [0, 0.35, 0.6, 1], [1.15, 1.05, 0.8, 0.75])
    bar = tube(np.stack([-length / 2 + length * t, 0 * t, 0 * t], -1), radii.tolist(), 10)
    parts = [Part(bar.moved(np.diag([1, 0.8, 1.15])), "body")]
    head, k = rng.uniform(0.075, 0.11), rng.uniform(0.011, 0.016)
    x = length / 2 - k
    style = rng.integers(3)
    metal = [box((2 * k, head * 0.55, 2 * k), (x, 0, 0))]
    face = lathe(
        [(0, 0), (k * 1.2, 0), (k * 1.2, 0.014), (k * 0.8, 0.022), (k * 0.8, head * 0.3)], 14
    )
    metal.append(face.moved(turn("x", -math.pi / 2), (x, -head * 0.5, 0)))
    if style == 0:  # a claw
        for side in (-1, 1):
            claw = [
                (x, head * 0.2, side * k * 0.4),
                (x, head * 0.38, side * k * 0.6),
                (x - 0.012, head * 0.55, side * k * 0.8),
            ]
            metal.append(tube(claw, [k * 0.75, k * 0.5, k * 0.2], 6))
    elif style == 1:  # a wedge
        wedge = prism([(-k, 0), (k, 0), (k * 0.3, head * 0.3), (-k * 0.3, head * 0.3)], -k, k)
        metal.append(wedge.moved(np.eye(3), (x, head * 0.25, 0)))
    else:  # a mallet
        curve = ((0, 0), (1.7, 0), (1.8, 0.1), (1.8, 0.9), (1.7, 1), (0, 1))
        mallet = lathe([(k * q, head * z) for q, z in curve], 18)
        metal = [mallet.moved(turn("x", -math.pi / 2), (x, -head / 2, 0))]
    parts.append(Part(joined(*metal), "metal" if style < 2 or rng.random() < 0.4 else "dark"))
    if rng.random() < 0.3:
        grip = tube([(-length / 2 + length * q, 0, 0) for q in (0.02, 0.2, 0.34)], r * 1.25, 10)
        parts.append(Part(grip.moved(np.diag([1, 0.8, 1.15])), "stripe"))
    # Lying on the table: tilted so that the end of the handle touches it.
    tilt = Pose("upright", turn("y", math.atan2(k - r, length * 0.8)))
    return Shape("hammer", parts, (tilt,), long=length)


def wrench(rng: Rng) -> Shape:
    """A wrench along x, with one open jaw or two."""
    length, t = rng.uniform(0.14, 0.22), rng.uniform(0.005, 0.009)
    jaw = rng.uniform(0.015, 0.022)
    w = jaw * rng.uniform(0.55, 0.85)
    reach = length / 2 - jaw
    meshes = [box((2 * reach - jaw * 1.1, w, t * 0.8), (0, 0, t * 0.4))]
    gap = rng.uniform(0.45, 0.65)
    both = rng.random() < 0.4
    for side in (0.0, math.pi):
        skew = rng.uniform(-0.3, 0.3)
        if side == 0.0 or both:  # an open jaw
            prongs = [
                box((jaw * 0.75, jaw * 0.42, t), (jaw * 0.85, s * jaw * 0.72, t / 2))
                for s in (-1, 1)
            ]
            pieces = (arc(jaw * 0.5, jaw, gap, 2 * math.pi - gap, t), *prongs)
            end = joined(*(piece.moved(turn("z", skew)) for piece in pieces))
        else:
            end = arc(jaw * 0.55, jaw * 0.95, 0, 2 * math.pi, t, 20)
        meshes.append(end.moved(turn("z", side), (math.cos(side) * reach, 0, 0)))
    parts = [Part(joined(*meshes), "body")]
    if rng.random() < 0.25:
        parts.append(Part(box((reach * 0.9, w * 1.2, t * 1.1), (0, 0, t * 0.42)), "stripe"))
    return Shape("wrench", parts, (upright(), _other_side()), long=length)
