"""The kinds of things, each in many proportions and several designs."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from .meshes import (
    Mesh,
    Points,
    Profile,
    arc,
    box,
    cut,
    joined,
    lathe,
    panel,
    prism,
    radius_at,
    sphere,
    tube,
    turn,
    wrapped,
)
from .shapes import Part, Pose, Room, Shape, lathed, lying, upright, upside_down

Rng = np.random.Generator


def _smooth(points: Profile, count: int) -> list[tuple[float, float]]:
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


#: Builds a lathed wall with its decoration, like `_wall`.
Wall = Callable[[Rng, Profile, Profile, float, float], list[Part]]


def _wall(rng: Rng, outer: Profile, base: Profile, low: float, high: float) -> list[Part]:
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


def _handle(rng: Rng, outer: Profile, low: float, high: float, reach: float, thick: float) -> Mesh:
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


def _disc(radius: float, z: float) -> Mesh:
    """A disc, as the surface of a filling."""
    return lathe([(0, z - 0.003), (radius, z - 0.003), (radius, z), (0, z)])


def mug(rng: Rng, wall: Wall = _wall) -> Shape:
    h, r = rng.uniform(0.075, 0.115), rng.uniform(0.034, 0.047)
    foot, belly = r * rng.uniform(0.72, 1.05), r * rng.uniform(0.95, 1.15)
    outer = _smooth([(foot, 0.003), ((foot + belly) / 2, h * 0.2), (belly, h * 0.55), (r, h)], 7)
    thick = 0.0035
    parts = wall(rng, outer, [(0, 0), (foot - 0.002, 0)], h * 0.12, h * 0.92)
    inner = [(radius - thick, z) for radius, z in outer if z > 0.012][::-1]
    parts.append(lathed("inside", [(r, h), *inner, (foot - thick, 0.008), (0, 0.008)]))
    low, high = h * rng.uniform(0.15, 0.3), h * rng.uniform(0.72, 0.92)
    reach, bar = rng.uniform(0.022, 0.034), rng.uniform(0.0035, 0.006)
    parts.append(Part(_handle(rng, outer, low, high, reach, bar), "handle"))
    if rng.random() < 0.2:
        parts.append(Part(_disc(min(foot, r) * 0.92, h * rng.uniform(0.6, 0.85)), "content"))
        return Shape("mug", parts, (upright(),))
    room = Room(0.008, min(foot, r) - thick, h)
    on_side = Pose("lying", turn("x", math.pi / 2))
    return Shape("mug", parts, (upright(hollow=room), upright(hollow=room), on_side, upside_down()))


def bowl(rng: Rng) -> Shape:
    r, h = rng.uniform(0.055, 0.095), rng.uniform(0.034, 0.07)
    foot = r * rng.uniform(0.35, 0.6)
    bulge = rng.uniform(0.72, 0.93)
    outer = _smooth([(foot, 0.004), (r * bulge, h * 0.45), (r, h)], 8)
    wall = rng.uniform(0.003, 0.006)
    parts = _wall(rng, outer, [(0, 0), (foot, 0)], h * 0.3, h * 0.95)
    inner = [(q - wall, z + 0.002) for q, z in outer if z < h - 0.004][::-1]
    parts.append(lathed("inside", [(r, h), (r - wall, h), *inner, (0, 0.007)]))
    if rng.random() < 0.12:
        z = h * rng.uniform(0.5, 0.8)
        parts.append(Part(_disc(radius_at(outer, z) - wall, z), "content"))
        return Shape("bowl", parts, (upright(),))
    room = Room(0.009, r * 0.72, h)
    return Shape("bowl", parts, (upright(hollow=room),) * 4 + (upside_down(),))


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


def can(rng: Rng, wall: Wall = _wall) -> Shape:
    style = rng.integers(3)
    if style == 0:  # a drink
        r, h = rng.uniform(0.027, 0.034), rng.uniform(0.09, 0.16)
        side = [(r, h * 0.07), (r, h * 0.5), (r, h * 0.9)]
        foot, neck = (
            [(0, 0.004), (r * 0.75, 0.0), (r * 0.82, 0.0)],
            [(r, h * 0.9), (r * 0.84, h * 0.97), (r * 0.84, h)],
        )
    else:  # food: flat to tall
        r, h = rng.uniform(0.03, 0.055), rng.uniform(0.035, 0.13)
        side = [(r, 0.004), (r, h / 2), (r, h - 0.004)]
        foot, neck = (
            [(0, 0.002), (r, 0.0), (r + 0.001, 0.003)],
            [(r + 0.001, h - 0.003), (r + 0.001, h)],
        )
    parts = [lathed("metal", [*foot, side[0]]), lathed("metal", neck)]
    parts += wall(rng, side, [], h * 0.08, h * 0.9)
    rim = neck[-1][0]
    parts.append(
        lathed("metal", [(rim, h), (rim - 0.003, h), (rim - 0.004, h - 0.004), (0, h - 0.004)])
    )
    if style == 0:
        parts.append(Part(box((r * 0.7, r * 0.35, 0.0015), (r * 0.2, 0, h - 0.001)), "metal"))
    return Shape("can", parts, (upright(Room(h, r)), upright(Room(h, r)), lying()))


def bottle(rng: Rng, wall: Wall = _wall) -> Shape:
    h, r = rng.uniform(0.15, 0.27), rng.uniform(0.026, 0.042)
    shoulder, neck = h * rng.uniform(0.5, 0.68), r * rng.uniform(0.3, 0.5)
    style = rng.integers(4)
    between = (
        [(r * 0.85, shoulder + 0.1 * h), (neck, h * 0.82)],  # a soft shoulder
        [(r * 0.96, shoulder + 0.03 * h), (neck, shoulder + 0.1 * h)],  # an edge
        [(r * 0.7, h * 0.72), (neck, h * 0.84)],  # a waist
        [(r * 0.9, h * 0.7), (r * 0.5, h * 0.85)],  # a slope
    )[style]
    upper = [(r, shoulder), *between, (neck, h * 0.92)]
    if style != 1:
        upper = _smooth(upper, 7)
    foot = [(0, 0.004), (r * 0.8, 0.0), (r * 0.95, 0.001)]
    waist = r * rng.uniform(0.86, 1.0) if style >= 2 else r
    lower = [(r, 0.006), (waist, shoulder * 0.5), (r, shoulder)]
    parts = wall(rng, lower, foot, shoulder * 0.08, shoulder * 0.97)
    parts.append(lathed("body", upper))
    if rng.random() < 0.8:
        cap = neck * rng.uniform(1.1, 1.45)
        top = [(0, h * 0.90), (cap, h * 0.90), (cap, h - 0.001), (cap * 0.93, h), (0, h)]
        parts.append(lathed("lid", top, 16))
    else:
        lip = [
            (neck, h * 0.92),
            (neck + 0.003, h * 0.93),
            (neck + 0.003, h),
            (neck - 0.003, h),
            (neck - 0.003, h * 0.8),
            (0, h * 0.8),
        ]
        parts.append(lathed("body", lip, 16))
    return Shape("bottle", parts, (upright(), upright(), lying()))


def plate(rng: Rng) -> Shape:
    r, h = rng.uniform(0.07, 0.125), rng.uniform(0.008, 0.022)
    flat = r * rng.uniform(0.55, 0.75)
    t = 0.004
    parts = [lathed("body", [(0, 0), (flat, 0), (r, h)], 32)]
    draw = rng.random()
    slope = [(r, h + t * 0.5), (flat, t), (0, t)]
    if draw < 0.3:  # a rim of another colour
        w = rng.uniform(0.72, 0.95)
        q = flat + (r - flat) * w
        z = float(np.interp(q, [flat, r], [t, h + t * 0.5]))
        parts.append(lathed("stripe", [(r, h), slope[0], (q, z)], 32))
        parts.append(lathed("body", [(q, z), *slope[1:]], 32))
    else:
        parts.append(lathed("body", [(r, h), *slope], 32))
    if 0.3 <= draw < 0.42:  # a print in the middle
        a = flat * rng.uniform(0.8, 1.0)
        parts.append(Part(panel((-a / 2, -a / 2, t + 0.0008), (a, 0, 0), (0, a, 0)), "label"))
    return Shape("plate", parts, (upright(Room(t, flat)),))


def cone(rng: Rng) -> Shape:
    h, r = rng.uniform(0.08, 0.2), rng.uniform(0.03, 0.06)
    tip = r * rng.uniform(0.0, 0.16)
    parts = []
    if rng.random() < 0.6:  # on a foot
        side, t = r * rng.uniform(2.2, 2.8), 0.006
        if rng.random() < 0.6:
            parts.append(Part(box((side, side, t), (0, 0, t / 2)), "body"))
        else:
            parts.append(lathed("body", [(0, 0), (side / 2, 0), (side / 2, t), (0, t)]))
    parts += _wall(rng, [(r, 0.003), (tip, h)], [(0, 0), (r, 0)], h * 0.2, h * 0.8)
    parts.append(lathed("body", [(tip, h), (0, h + 0.001)]))
    poses = [upright(), upright()]
    if parts[0].mesh.vertices[:, 2].max() > h * 0.5:
        poses.append(lying(-math.atan2(r - tip, h)))
    return Shape("cone", parts, poses)


def glass(rng: Rng) -> Shape:
    style = rng.integers(3)
    wall = 0.002
    if style == 0:  # on a stem
        h, r = rng.uniform(0.13, 0.19), rng.uniform(0.03, 0.045)
        start = h * rng.uniform(0.4, 0.55)
        foot = r * rng.uniform(0.8, 1.0)
        bowl_ = _smooth(
            [(0.006, start), (r, start + (h - start) * 0.45), (r * rng.uniform(0.75, 1.05), h)], 8
        )
        outer = [(0, 0), (foot, 0), (foot, 0.002), (0.005, 0.008), (0.004, start * 0.6), *bowl_]
        inside = [(q - wall, z + 0.002) for q, z in bowl_[1:]][::-1]
        floor, room = start + 0.003, None
    else:
        h = rng.uniform(0.08, 0.15)
        r = rng.uniform(0.028, 0.042)
        foot = r * (rng.uniform(0.65, 0.95) if style == 1 else 1.0)
        outer = [
            (0, 0),
            (foot, 0),
            *(
                [(foot, 0.004), (r, h)]
                if style == 1
                else _smooth([(foot, 0.003), (r * 1.08, h * 0.4), (r, h)], 6)
            ),
        ]
        inside = [(r - wall, h - 0.001), (foot - wall, 0.009)]
        floor, room = 0.009, Room(0.009, foot - wall, h)
    parts = [lathed("body", outer), lathed("inside", [outer[-1], *inside, (0, floor)])]
    if rng.random() < 0.4:
        z = floor + (h - floor) * rng.uniform(0.4, 0.8)
        wide = sorted(inside, key=lambda p: p[1])
        filled = [(p[0] - 0.001, p[1]) for p in wide if p[1] < z]
        top = (radius_at(wide, z) - 0.001, z)
        parts.append(lathed("content", [(0, floor + 0.001), *filled, top, (0, z)]))
        return Shape("glass", parts, (upright(),))
    return Shape("glass", parts, (upright(hollow=room), upright(hollow=room), upside_down()))


def jar(rng: Rng, wall: Wall = _wall) -> Shape:
    h, r = rng.uniform(0.075, 0.15), rng.uniform(0.03, 0.05)
    mouth = r * rng.uniform(0.72, 0.95)
    neck = h * rng.uniform(0.75, 0.86)
    outer = [(r * 0.97, 0.003), (r, 0.01), (r, neck * 0.85)]
    parts = wall(rng, outer, [(0, 0), (r * 0.9, 0)], neck * 0.1, neck * 0.82)
    if wall is _wall and rng.random() < 0.25:
        belly = _smooth([(r * 0.75, 0.003), (r * 1.1, neck * 0.5), (r, neck * 0.85)], 7)
        parts = [lathed("body", [(0, 0), (r * 0.7, 0), *belly])]
    shoulder = [(r, neck * 0.85), (mouth * 1.02, neck * 0.98), (mouth, neck + 0.002)]
    parts.append(lathed("body", _smooth(shoulder, 5)))
    if rng.random() < 0.72:
        lid = mouth * rng.uniform(1.04, 1.15)
        if rng.random() < 0.75:
            top = [(0, neck), (lid, neck), (lid, h - 0.002), (lid * 0.96, h), (0, h)]
        else:
            top = [
                (0, neck),
                (lid, neck),
                *_smooth([(lid, neck + 0.004), (lid * 0.6, h - 0.008), (0.008, h)], 6),
                (0.011, h + 0.007),
                (0, h + 0.014),
            ]
        parts.append(lathed("lid", top))
        on = Room(h, lid) if top[-1][1] == h else None
        return Shape("jar", parts, (upright(on), upright(on), lying()) if on else (upright(),))
    inside = [(mouth, neck), (mouth, h), (mouth - 0.003, h), (mouth - 0.004, 0.008), (0, 0.008)]
    parts.append(lathed("inside", inside))
    return Shape("jar", parts, (upright(hollow=Room(0.008, mouth - 0.004, h)), lying()))


def vase(rng: Rng) -> Shape:
    h = rng.uniform(0.12, 0.24)
    foot, belly = rng.uniform(0.02, 0.035), rng.uniform(0.036, 0.06)
    neck = rng.uniform(0.012, 0.024)
    lip = neck * rng.uniform(1.15, 2.0)
    at = rng.uniform(0.28, 0.55)
    curve = [(foot, 0.002), (belly, h * at), (neck, h * rng.uniform(0.76, 0.86)), (lip, h)]
    if rng.random() < 0.2:  # a flared cylinder
        curve = [(foot, 0.002), (foot * 0.9, h * 0.35), (foot * 1.1, h * 0.7), (foot * 1.6, h)]
        lip = foot * 1.6
    outer = _smooth(curve, 13)
    parts = _wall(rng, outer, [(0, 0), (foot, 0)], h * 0.15, h * 0.7)
    inner = [(max(q - 0.003, 0.002), z) for q, z in outer if z > h * 0.5][::-1]
    parts.append(lathed("inside", [(lip, h), *inner, (0, h * 0.5)]))
    if rng.random() < 0.25:
        ends = [(belly * 0.9, h * at), (neck, h * 0.85)]
        for side in (0.0, math.pi):
            bar = _handle(rng, ends, h * at, h * 0.85, 0.022, 0.004)
            parts.append(Part(bar.moved(turn("z", side)), "handle"))
    return Shape("vase", parts, (upright(), upright(), lying()) if len(parts) < 3 else (upright(),))


def pot(rng: Rng) -> Shape:
    r, h = rng.uniform(0.065, 0.1), rng.uniform(0.06, 0.12)
    outer = [(r * rng.uniform(0.93, 1.0), 0.006), (r, h * 0.3), (r, h)]
    parts = _wall(rng, outer, [(0, 0), (r * 0.93, 0)], h * 0.1, h * 0.6)
    if rng.random() < 0.75:  # two ears
        z, reach = h * rng.uniform(0.7, 0.88), rng.uniform(0.018, 0.028)
        half = rng.uniform(0.25, 0.4)
        for side in (0.0, math.pi):
            a = np.linspace(-half, half, 9)
            out = r + reach * np.sin(np.linspace(0, math.pi, 9)) ** 0.6 - 0.002
            path = np.stack([out * np.cos(a), out * np.sin(a), 0 * a + z], -1)
            parts.append(Part(tube(path, 0.005).moved(turn("z", side)), "handle"))
    else:
        z = h * 0.85
        bar = tube(
            [(r - 0.003, 0, z), (r + 0.05, 0, z + 0.006), (r + 0.13, 0, z + 0.012)],
            [0.006, 0.008, 0.009],
        )
        parts.append(Part(bar.moved(np.diag([1, 1.6, 1])), "handle"))
    if rng.random() < 0.55:
        top = [
            (r + 0.002, h),
            (r + 0.002, h + 0.004),
            *_smooth([(r * 0.9, h + 0.008), (r * 0.5, h + 0.02), (0.006, h + 0.024)], 5),
        ]
        knob = [
            (0.006, h + 0.022),
            (0.006, h + 0.028),
            (0.014, h + 0.032),
            (0.014, h + 0.038),
            (0, h + 0.041),
        ]
        parts += [lathed("lid", top), lathed("lid", knob, 14)]
        return Shape("pot", parts, (upright(),))
    wall = 0.004
    parts.append(lathed("inside", [(r, h), (r - wall, h), (r - wall, 0.006), (0, 0.006)]))
    return Shape("pot", parts, (upright(hollow=Room(0.006, r - wall, h)),))


def pan(rng: Rng) -> Shape:
    r, h = rng.uniform(0.075, 0.12), rng.uniform(0.022, 0.045)
    foot, wall = r * rng.uniform(0.75, 0.9), 0.003
    outer = _smooth([(foot, 0.002), (foot + (r - foot) * 0.55, h * 0.35), (r, h)], 5)
    parts = [lathed("body", [(0, 0), *outer], 32)]
    inside = [(q - wall, z + 0.002) for q, z in outer if z < h - 0.002][::-1]
    role = "inside" if rng.random() < 0.4 else "body"
    parts.append(lathed(role, [(r, h), (r - wall, h), *inside, (0, 0.005)], 32))
    length, thick = rng.uniform(0.1, 0.17), rng.uniform(0.005, 0.008)
    rise = rng.uniform(0.0, 0.03)
    path = [
        (r - 0.004, 0, h * 0.8),
        (r + length * 0.3, 0, h * 0.9 + rise * 0.5),
        (r + length * 0.7, 0, h + rise),
        (r + length, 0, h + rise),
    ]
    bar = tube(path, [thick * 0.7, thick * 0.9, thick * 1.1, thick])
    parts.append(Part(bar.moved(np.diag([1, rng.uniform(1.2, 2.0), 1])), "handle"))
    return Shape("pan", parts, (upright(hollow=Room(0.005, foot - wall, h)),))


def bucket(rng: Rng) -> Shape:
    h, r = rng.uniform(0.1, 0.17), rng.uniform(0.06, 0.085)
    foot, wall = r * rng.uniform(0.68, 0.85), 0.003
    outer = [(foot, 0.003), ((foot + r) / 2, h / 2), (r, h)]
    parts = _wall(rng, outer, [(0, 0), (foot, 0)], h * 0.15, h * 0.85)
    rim = [(r, h - 0.006), (r + 0.003, h - 0.006), (r + 0.003, h), (r - wall, h)]
    parts.append(lathed("body", rim))
    parts.append(lathed("inside", [(r - wall, h), (foot - wall, 0.006), (0, 0.006)]))
    a = np.linspace(0, math.pi, 13)
    bail = np.stack([r * 1.03 * np.cos(a), 0 * a, r * rng.uniform(0.9, 1.1) * np.sin(a)], -1)
    swing = rng.choice([0.0, rng.uniform(-0.6, 0.6), 1.75])
    bar = tube(bail, 0.0026, 6).moved(turn("x", float(swing)), (0, 0, h * 0.93))
    parts.append(Part(bar, "handle"))
    hollow = Room(0.006, foot - wall, h)
    poses = [upright(hollow=hollow), upright(hollow=hollow)]
    if swing > 1.0:
        poses.append(Pose("upside down", turn("x", math.pi), Room(h, foot)))
        poses.append(lying(-math.atan2(r - foot, h)))
    return Shape("bucket", parts, poses)


def book(rng: Rng) -> Shape:
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


def teapot(rng: Rng) -> Shape:
    r, h = rng.uniform(0.05, 0.07), rng.uniform(0.065, 0.1)
    foot, mouth = r * rng.uniform(0.5, 0.75), r * rng.uniform(0.4, 0.6)
    outer = _smooth([(foot, 0.003), (r, h * rng.uniform(0.4, 0.55)), (mouth, h)], 10)
    parts = _wall(rng, outer, [(0, 0), (foot, 0)], h * 0.15, h * 0.85)
    lid = [
        (mouth * 1.05, h - 0.001),
        (mouth * 1.05, h + 0.003),
        *_smooth([(mouth * 0.9, h + 0.006), (0.007, h + 0.015)], 4),
        (0.004, h + 0.017),
        (0.01, h + 0.022),
        (0.01, h + 0.028),
        (0, h + 0.032),
    ]
    parts.append(lathed("lid", lid))
    low = h * rng.uniform(0.3, 0.42)
    at = radius_at(outer, low)
    reach = rng.uniform(0.035, 0.055)
    spout = [
        (at - 0.01, 0, low),
        (at + reach * 0.45, 0, low + h * 0.18),
        (at + reach * 0.75, 0, low + h * 0.45),
        (at + reach, 0, h * rng.uniform(0.92, 1.08)),
    ]
    curve = _smooth([(p[0], p[2]) for p in spout], 9)
    parts.append(
        Part(tube([(q, 0, z) for q, z in curve], np.linspace(0.014, 0.006, 9).tolist(), 10), "body")
    )
    top, bottom = h * 0.86, h * 0.3
    if rng.random() < 0.8:
        reach, thick = rng.uniform(0.028, 0.042), rng.uniform(0.004, 0.006)
        bar = _handle(rng, outer, bottom, top, reach, thick).moved(turn("z", math.pi))
    else:  # over the top
        a = np.linspace(0, math.pi, 13)
        wide = radius_at(outer, top)
        path = np.stack([wide * np.cos(a), 0 * a, top + r * 1.15 * np.sin(a)], -1)
        bar = tube(path, 0.0045)
    parts.append(Part(bar, "handle"))
    return Shape("teapot", parts, (upright(),))


def pitcher(rng: Rng) -> Shape:
    h, r = rng.uniform(0.13, 0.21), rng.uniform(0.04, 0.058)
    foot, mouth = r * rng.uniform(0.7, 1.0), r * rng.uniform(0.65, 0.95)
    neck = mouth * rng.uniform(0.8, 1.0)
    outer = _smooth([(foot, 0.003), (r, h * 0.3), (neck, h * 0.78), (mouth, h)], 11)
    parts = _wall(rng, outer, [(0, 0), (foot, 0)], h * 0.1, h * 0.7)
    inner = [(q - 0.003, z) for q, z in outer if z > h * 0.25][::-1]
    parts.append(lathed("inside", [(mouth, h), *inner, (0, h * 0.25)]))
    # The lip: vertices near the rim and opposite the handle are pulled outwards.
    pull = rng.uniform(0.3, 0.55)

    def lipped(mesh: Mesh) -> Mesh:
        v = mesh.vertices.copy()
        radius = np.hypot(v[:, 0], v[:, 1]) + 1e-9
        near = np.clip((v[:, 2] / h - 0.8) / 0.2, 0, 1) ** 1.5
        ahead = np.clip(-v[:, 0] / radius, 0, 1) ** 6
        grow = 1 + pull * near * ahead
        v[:, 0] *= grow
        v[:, 2] += 0.012 * near * ahead
        return Mesh(v, mesh.faces, mesh.uv)

    parts = [Part(lipped(p.mesh), p.role) for p in parts]
    low, high = h * rng.uniform(0.2, 0.35), h * rng.uniform(0.82, 0.93)
    reach, thick = rng.uniform(0.03, 0.045), rng.uniform(0.005, 0.007)
    parts.append(Part(_handle(rng, outer, low, high, reach, thick), "handle"))
    return Shape("pitcher", parts, (upright(),))


def _other_side() -> Pose:
    """The pose of a tool along x turned onto its other side."""
    return Pose("other side", turn("x", math.pi))


def spoon(rng: Rng) -> Shape:
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


def tape(rng: Rng) -> Shape:
    r, w = rng.uniform(0.03, 0.055), rng.uniform(0.014, 0.05)
    hole = r * rng.uniform(0.45, 0.78)
    core = 0.0025
    parts = [
        lathed("body", [(hole + core, 0), (r, 0), (r, w), (hole + core, w)], 28),
        lathed("core", [(hole + core, w), (hole, w), (hole, 0), (hole + core, 0)], 28),
    ]
    stands = Pose("lying", turn("y", math.pi / 2))
    return Shape("tape", parts, (upright(), upright(), stands) if w > 0.018 else (upright(),))


BUILDERS: dict[str, Callable[[Rng], Shape]] = {
    "mug": mug, "bowl": bowl, "box": box_, "ball": ball, "can": can, "bottle": bottle,
    "plate": plate, "cone": cone, "glass": glass, "jar": jar, "vase": vase, "pot": pot, "pan": pan,
    "bucket": bucket, "book": book, "teapot": teapot, "pitcher": pitcher, "spoon": spoon,
    "screwdriver": screwdriver, "hammer": hammer, "wrench": wrench, "tape": tape,
}  # fmt: skip


def _outline(radii: Points) -> Points:
    """The corners [n, 2] of a polygon at equal angles and these distances [n] from its centre."""
    a = np.linspace(0, 2 * math.pi, len(radii), endpoint=False)
    return np.stack([radii * np.cos(a), radii * np.sin(a)], -1)


def unnamed(rng: Rng) -> Shape:
    """A thing that no kind's name fits."""
    style = int(rng.integers(8))
    s = rng.uniform(0.025, 0.05)
    if style == 0:  # a star
        n = int(rng.integers(4, 8))
        radii = np.where(np.arange(2 * n) % 2, rng.uniform(0.4, 0.6), 1.0) * s * 1.3
        meshes = [prism(_outline(radii), 0, s * rng.uniform(0.3, 0.9))]
    elif style == 1:  # a cross
        t = s * rng.uniform(0.4, 0.7)
        meshes = [box((2 * s, t, t), (0, 0, t / 2)), box((t, 2 * s, t), (0, 0, t / 2))]
    elif style == 2:  # a dumbbell
        b = s * rng.uniform(0.5, 0.8)
        meshes = [
            sphere(b, (-s, 0, b)),
            sphere(b, (s, 0, b)),
            tube([(-s, 0, b), (s, 0, b)], b * 0.4),
        ]
    elif style == 3:  # a pyramid
        n = int(rng.choice([3, 4]))
        meshes = [lathe([(0, 0), (s * 1.2, 0), (0, s * rng.uniform(0.9, 1.8))], n)]
    elif style == 4:  # a spring
        turns, n = int(rng.integers(3, 6)), 48
        a = np.linspace(0, 2 * math.pi * turns, n)
        path = np.stack([s * 0.8 * np.cos(a), s * 0.8 * np.sin(a), np.linspace(0, s * 2, n)], -1)
        meshes = [tube(path, s * 0.13, 6)]
    elif style == 5:  # an animal
        meshes = [
            sphere(s * 0.6, (0, 0, s * 1.2)).moved(np.diag([1.6, 1, 1])),
            sphere(s * 0.42, (s * 1.05, 0, s * 1.75)),
        ]
        for x in (-0.6, 0.6):
            for y in (-0.3, 0.3):
                meshes.append(tube([(x * s, y * s, 0), (x * s, y * s, s)], s * 0.16))
        meshes.append(tube([(-s * 0.9, 0, s * 1.3), (-s * 1.35, 0, s * 1.8)], s * 0.08))
    elif style == 6:  # a gear
        n = int(rng.integers(8, 13))
        radii = np.where(np.arange(4 * n) % 4 < 2, 1.0, 0.8) * s
        meshes = [
            prism(_outline(radii), 0, s * 0.4),
            lathe([(0, 0), (s * 0.35, 0), (s * 0.35, s * 0.7), (0, s * 0.7)], 14),
        ]
    else:  # steps of blocks
        meshes, z = [], 0.0
        for _ in range(int(rng.integers(2, 5))):
            w, d, t = rng.uniform(0.5, 1.6, 3) * s
            meshes.append(box((w, d, t * 0.6), (*(rng.uniform(-0.4, 0.4, 2) * s), z + t * 0.3)))
            z += t * 0.6
    parts = [Part(m, "body") for m in meshes]
    if rng.random() < 0.3 and len(parts) > 1:
        parts[-1] = Part(parts[-1].mesh, "second")
    return Shape("", parts, (upright(),))
