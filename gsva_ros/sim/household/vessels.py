"""Vessels and dishes, each in many proportions and several designs. Metres."""

from __future__ import annotations

import math

import numpy as np

from .meshes import Mesh, box, panel, radius_at, tube, turn
from .shapes import Part, Pose, Room, Shape, lathed, lying, upright, upside_down
from .walls import Wall, decorated, disc, handle, smooth

Rng = np.random.Generator


def mug(rng: Rng, wall: Wall = decorated) -> Shape:
    """A mug with a handle, some filled."""
    h, r = rng.uniform(0.075, 0.115), rng.uniform(0.034, 0.047)
    foot, belly = r * rng.uniform(0.72, 1.05), r * rng.uniform(0.95, 1.15)
    outer = smooth([(foot, 0.003), ((foot + belly) / 2, h * 0.2), (belly, h * 0.55), (r, h)], 7)
    thick = 0.0035
    parts = wall(rng, outer, [(0, 0), (foot - 0.002, 0)], h * 0.12, h * 0.92)
    inner = [(radius - thick, z) for radius, z in outer if z > 0.012][::-1]
    parts.append(lathed("inside", [(r, h), *inner, (foot - thick, 0.008), (0, 0.008)]))
    low, high = h * rng.uniform(0.15, 0.3), h * rng.uniform(0.72, 0.92)
    reach, bar = rng.uniform(0.022, 0.034), rng.uniform(0.0035, 0.006)
    parts.append(Part(handle(rng, outer, low, high, reach, bar), "handle"))
    if rng.random() < 0.2:
        parts.append(Part(disc(min(foot, r) * 0.92, h * rng.uniform(0.6, 0.85)), "content"))
        return Shape("mug", parts, (upright(),))
    room = Room(0.008, min(foot, r) - thick, h)
    on_side = Pose("lying", turn("x", math.pi / 2))
    return Shape("mug", parts, (upright(hollow=room), upright(hollow=room), on_side, upside_down()))


def bowl(rng: Rng) -> Shape:
    """A bowl, some filled."""
    r, h = rng.uniform(0.055, 0.095), rng.uniform(0.034, 0.07)
    foot = r * rng.uniform(0.35, 0.6)
    bulge = rng.uniform(0.72, 0.93)
    outer = smooth([(foot, 0.004), (r * bulge, h * 0.45), (r, h)], 8)
    wall = rng.uniform(0.003, 0.006)
    parts = decorated(rng, outer, [(0, 0), (foot, 0)], h * 0.3, h * 0.95)
    inner = [(q - wall, z + 0.002) for q, z in outer if z < h - 0.004][::-1]
    parts.append(lathed("inside", [(r, h), (r - wall, h), *inner, (0, 0.007)]))
    if rng.random() < 0.12:
        z = h * rng.uniform(0.5, 0.8)
        parts.append(Part(disc(radius_at(outer, z) - wall, z), "content"))
        return Shape("bowl", parts, (upright(),))
    room = Room(0.009, r * 0.72, h)
    return Shape("bowl", parts, (upright(hollow=room),) * 4 + (upside_down(),))


def can(rng: Rng, wall: Wall = decorated) -> Shape:
    """A can: of a drink (style 0), or of food."""
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


def bottle(rng: Rng, wall: Wall = decorated) -> Shape:
    """A bottle with one of four shoulders, most with a cap."""
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
        upper = smooth(upper, 7)
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
    """A plate, some with a rim of another colour or a print in the middle."""
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


def glass(rng: Rng) -> Shape:
    """A glass: on a stem (style 0), conical (1) or bellied, some filled."""
    style = rng.integers(3)
    wall = 0.002
    if style == 0:  # on a stem
        h, r = rng.uniform(0.13, 0.19), rng.uniform(0.03, 0.045)
        start = h * rng.uniform(0.4, 0.55)
        foot = r * rng.uniform(0.8, 1.0)
        bowl_ = smooth(
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
                else smooth([(foot, 0.003), (r * 1.08, h * 0.4), (r, h)], 6)
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


def jar(rng: Rng, wall: Wall = decorated) -> Shape:
    """A jar, with a flat lid, a lid with a knob, or open."""
    h, r = rng.uniform(0.075, 0.15), rng.uniform(0.03, 0.05)
    mouth = r * rng.uniform(0.72, 0.95)
    neck = h * rng.uniform(0.75, 0.86)
    outer = [(r * 0.97, 0.003), (r, 0.01), (r, neck * 0.85)]
    parts = wall(rng, outer, [(0, 0), (r * 0.9, 0)], neck * 0.1, neck * 0.82)
    if wall is decorated and rng.random() < 0.25:
        belly = smooth([(r * 0.75, 0.003), (r * 1.1, neck * 0.5), (r, neck * 0.85)], 7)
        parts = [lathed("body", [(0, 0), (r * 0.7, 0), *belly])]
    shoulder = [(r, neck * 0.85), (mouth * 1.02, neck * 0.98), (mouth, neck + 0.002)]
    parts.append(lathed("body", smooth(shoulder, 5)))
    if rng.random() < 0.72:
        lid = mouth * rng.uniform(1.04, 1.15)
        if rng.random() < 0.75:
            top = [(0, neck), (lid, neck), (lid, h - 0.002), (lid * 0.96, h), (0, h)]
        else:
            top = [
                (0, neck),
                (lid, neck),
                *smooth([(lid, neck + 0.004), (lid * 0.6, h - 0.008), (0.008, h)], 6),
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
    """A vase: bellied, or a flared cylinder; some with two handles."""
    h = rng.uniform(0.12, 0.24)
    foot, belly = rng.uniform(0.02, 0.035), rng.uniform(0.036, 0.06)
    neck = rng.uniform(0.012, 0.024)
    lip = neck * rng.uniform(1.15, 2.0)
    at = rng.uniform(0.28, 0.55)
    curve = [(foot, 0.002), (belly, h * at), (neck, h * rng.uniform(0.76, 0.86)), (lip, h)]
    if rng.random() < 0.2:  # a flared cylinder
        curve = [(foot, 0.002), (foot * 0.9, h * 0.35), (foot * 1.1, h * 0.7), (foot * 1.6, h)]
        lip = foot * 1.6
    outer = smooth(curve, 13)
    parts = decorated(rng, outer, [(0, 0), (foot, 0)], h * 0.15, h * 0.7)
    inner = [(max(q - 0.003, 0.002), z) for q, z in outer if z > h * 0.5][::-1]
    parts.append(lathed("inside", [(lip, h), *inner, (0, h * 0.5)]))
    if rng.random() < 0.25:
        ends = [(belly * 0.9, h * at), (neck, h * 0.85)]
        for side in (0.0, math.pi):
            bar = handle(rng, ends, h * at, h * 0.85, 0.022, 0.004)
            parts.append(Part(bar.moved(turn("z", side)), "handle"))
    return Shape("vase", parts, (upright(), upright(), lying()) if len(parts) < 3 else (upright(),))


def pot(rng: Rng) -> Shape:
    """A pot with two ears or one long handle, with a lid or open."""
    r, h = rng.uniform(0.065, 0.1), rng.uniform(0.06, 0.12)
    outer = [(r * rng.uniform(0.93, 1.0), 0.006), (r, h * 0.3), (r, h)]
    parts = decorated(rng, outer, [(0, 0), (r * 0.93, 0)], h * 0.1, h * 0.6)
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
            *smooth([(r * 0.9, h + 0.008), (r * 0.5, h + 0.02), (0.006, h + 0.024)], 5),
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
    """A pan with a long handle."""
    r, h = rng.uniform(0.075, 0.12), rng.uniform(0.022, 0.045)
    foot, wall = r * rng.uniform(0.75, 0.9), 0.003
    outer = smooth([(foot, 0.002), (foot + (r - foot) * 0.55, h * 0.35), (r, h)], 5)
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
    """A bucket, its bail up, tilted or hanging down."""
    h, r = rng.uniform(0.1, 0.17), rng.uniform(0.06, 0.085)
    foot, wall = r * rng.uniform(0.68, 0.85), 0.003
    outer = [(foot, 0.003), ((foot + r) / 2, h / 2), (r, h)]
    parts = decorated(rng, outer, [(0, 0), (foot, 0)], h * 0.15, h * 0.85)
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


def teapot(rng: Rng) -> Shape:
    """A teapot with lid and spout, its handle behind or over the top."""
    r, h = rng.uniform(0.05, 0.07), rng.uniform(0.065, 0.1)
    foot, mouth = r * rng.uniform(0.5, 0.75), r * rng.uniform(0.4, 0.6)
    outer = smooth([(foot, 0.003), (r, h * rng.uniform(0.4, 0.55)), (mouth, h)], 10)
    parts = decorated(rng, outer, [(0, 0), (foot, 0)], h * 0.15, h * 0.85)
    lid = [
        (mouth * 1.05, h - 0.001),
        (mouth * 1.05, h + 0.003),
        *smooth([(mouth * 0.9, h + 0.006), (0.007, h + 0.015)], 4),
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
    curve = smooth([(p[0], p[2]) for p in spout], 9)
    parts.append(
        Part(tube([(q, 0, z) for q, z in curve], np.linspace(0.014, 0.006, 9).tolist(), 10), "body")
    )
    top, bottom = h * 0.86, h * 0.3
    if rng.random() < 0.8:
        reach, thick = rng.uniform(0.028, 0.042), rng.uniform(0.004, 0.006)
        bar = handle(rng, outer, bottom, top, reach, thick).moved(turn("z", math.pi))
    else:  # over the top
        a = np.linspace(0, math.pi, 13)
        wide = radius_at(outer, top)
        path = np.stack([wide * np.cos(a), 0 * a, top + r * 1.15 * np.sin(a)], -1)
        bar = tube(path, 0.0045)
    parts.append(Part(bar, "handle"))
    return Shape("teapot", parts, (upright(),))


def pitcher(rng: Rng) -> Shape:
    """A pitcher with a lip and a handle."""
    h, r = rng.uniform(0.13, 0.21), rng.uniform(0.04, 0.058)
    foot, mouth = r * rng.uniform(0.7, 1.0), r * rng.uniform(0.65, 0.95)
    neck = mouth * rng.uniform(0.8, 1.0)
    outer = smooth([(foot, 0.003), (r, h * 0.3), (neck, h * 0.78), (mouth, h)], 11)
    parts = decorated(rng, outer, [(0, 0), (foot, 0)], h * 0.1, h * 0.7)
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
    parts.append(Part(handle(rng, outer, low, high, reach, thick), "handle"))
    return Shape("pitcher", parts, (upright(),))
