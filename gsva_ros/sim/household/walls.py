"""Walls, handles and fillings of vessels. Metres."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from .meshes import Mesh, Profile, cut, lathe, radius_at, tube, wrapped
from .shapes import Part, lathed

Rng = np.random.Generator


def smooth(points: Profile, count: int) -> list[tuple[float, float]]:
    """A smooth curve through the points of a profile (Catmull-Rom)."""
    p = np.array(points, float)
    p = np.concatenate([2 * p[:1] - p[1:2], p, 2 * p[-1:] - p[-2:-1]])
    t = np.linspace(0, len(points) - 1, count)
    k = np.minimum(t.astype(int), len(points) - 2)
    f = (t - k)[:, None]
    a, b, c, d = p[k], p[k + 1], p[k + 2], p[k + 3]
    curve = 0.5 * (
        2 * b + (c - a) * f + (2 * a - 5 * b + 4 * c - d) * f**2 + (3 * b - a - 3 * c + d) * f**3
    )
    curve[:, 0] = np.maximum(curve[:, 0], 0.0)
    curve[:, 1] = np.maximum.accumulate(curve[:, 1])
    return [(float(r), float(z)) for r, z in curve]


#: Builds a lathed wall with its decoration, like `decorated`.
Wall = Callable[[Rng, Profile, Profile, float, float], list[Part]]


def decorated(rng: Rng, outer: Profile, base: Profile, low: float, high: float) -> list[Part]:
    """A lathed wall, decorated between two heights: plain, bands, a wrap, a print, or two colours.

    outer: rising profile of the wall. base: profile below the wall, starting at the axis.
    """
    draw = rng.random()
    bottom, top = outer[0][1], outer[-1][1]
    tall = high - low
    if draw < 0.45 or tall < 0.012:
        return [lathed("body", [*base, *outer])]
    if draw < 0.60:  # one to three bands
        count = int(rng.integers(1, 4))
        parts, last = [], bottom
        width = tall * rng.uniform(0.06, 0.16 if count > 1 else 0.3)
        for k in range(count):
            middle = low + tall * (k + 0.5) / count
            piece = cut(outer, last, middle - width / 2)
            parts.append(lathed("body", [*base, *piece] if last == bottom else piece))
            parts.append(lathed("stripe", cut(outer, middle - width / 2, middle + width / 2)))
            last = middle + width / 2
        return [*parts, lathed("body", cut(outer, last, top))]
    if draw < 0.72:  # two colours
        middle = low + tall * rng.uniform(0.4, 0.6)
        lower = lathed("body", [*base, *cut(outer, bottom, middle)])
        return [lower, lathed("second", cut(outer, middle, top))]
    body = lathed("body", [*base, *outer])
    if draw < 0.82:  # marks all over
        span = cut(outer, low, high)
        return [body, Part(wrapped(span, 0, 2 * math.pi, segments=24), "print")]
    if draw < 0.88:  # a print around
        span = tall * rng.uniform(0.25, 0.42)
        start = rng.uniform(low, high - span)
        print_ = wrapped(cut(outer, start, start + span), 0, 2 * math.pi, segments=24)
        return [body, Part(print_, "label")]
    span = tall * rng.uniform(0.4, 0.75)
    start = rng.uniform(low, high - span)
    around, at = rng.uniform(0.9, 1.9), rng.uniform(0.5, 2 * math.pi - 0.5)
    print_ = wrapped(cut(outer, start, start + span), at - around / 2, at + around / 2, segments=8)
    return [body, Part(print_, "label")]


def handle(rng: Rng, outer: Profile, low: float, high: float, reach: float, thick: float) -> Mesh:
    """A handle on a vessel's wall from one height to another, in the plane y = 0."""
    x0, x1 = radius_at(outer, low), radius_at(outer, high)
    style = rng.integers(3)
    if style == 0:  # a half ring
        a = np.linspace(-math.pi / 2, math.pi / 2, 11)
        middle, half = (low + high) / 2, (high - low) / 2
        foot = np.interp(middle + half * np.sin(a), [low, high], [x0, x1])
        path = np.stack([foot + reach * np.cos(a), 0 * a, middle + half * np.sin(a)], -1)
    elif style == 1:  # square
        path = np.array(
            [(x0, 0, low), (x0 + reach * 0.85, 0, low), (x0 + reach, 0, low + 0.15 * (high - low)),
             (x1 + reach, 0, high - 0.15 * (high - low)), (x1 + reach * 0.85, 0, high), (x1, 0, high)]
        )  # fmt: skip
    else:  # an ear, wider above
        t = np.linspace(0, 1, 11)
        out = reach * np.sin(math.pi * t) ** 0.7 * (0.55 + 0.6 * t)
        path = np.stack([x0 + (x1 - x0) * t + out, 0 * t, low + (high - low) * t], -1)
    path[0, 0] -= thick
    path[-1, 0] -= thick
    return tube(path, thick).moved(np.diag([1.0, rng.uniform(1.0, 2.0), 1.0]))


def disc(radius: float, z: float) -> Mesh:
    """A disc, as the surface of a filling."""
    return lathe([(0, z - 0.003), (radius, z - 0.003), (radius, z), (0, z)])
