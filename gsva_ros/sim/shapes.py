"""The kinds of objects as MuJoCo geometry: lathed meshes and primitives, standing on z = 0."""

from __future__ import annotations

import itertools
import math

KINDS = ("mug", "bowl", "box", "ball", "can", "bottle", "plate", "cone")
COLOURS: dict[str, tuple[float, float, float]] = {
    "red": (0.80, 0.07, 0.07),
    "green": (0.08, 0.55, 0.12),
    "blue": (0.07, 0.20, 0.80),
    "yellow": (0.95, 0.82, 0.08),
    "orange": (0.98, 0.42, 0.03),
    "purple": (0.45, 0.10, 0.62),
    "white": (0.95, 0.95, 0.95),
    "black": (0.06, 0.06, 0.06),
}
SIZES = {"small": 0.72, "large": 1.25}
# Footprint radius in metres at scale 1.
RADIUS = {
    "mug": 0.050, "bowl": 0.060, "box": 0.058, "ball": 0.036, "can": 0.034, "bottle": 0.034,
    "plate": 0.072, "cone": 0.046,
}  # fmt: skip
#: Factors of width and of height; a ball stays round.
Stretch = tuple[float, float]
AS_DRAWN: Stretch = (1.0, 1.0)
SEGMENTS = 28  # around a lathed mesh
# Profiles (radius, height) in metres, from the axis at the bottom outwards, up, and back to the axis.
PROFILES: dict[str, list[tuple[float, float]]] = {
    "mug": [
        (0, 0), (0.036, 0), (0.038, 0.003), (0.038, 0.085), (0.034, 0.085), (0.034, 0.008),
        (0, 0.008),
    ],
    "bowl": [
        (0, 0), (0.026, 0), (0.044, 0.014), (0.056, 0.032), (0.060, 0.050), (0.056, 0.050),
        (0.051, 0.033), (0.040, 0.018), (0.024, 0.007), (0, 0.007),
    ],
    "bottle": [
        (0, 0), (0.032, 0), (0.034, 0.004), (0.034, 0.085), (0.028, 0.105), (0.013, 0.122),
        (0.012, 0.150), (0.015, 0.152), (0.015, 0.164), (0, 0.164),
    ],
    "plate": [(0, 0), (0.045, 0), (0.072, 0.013), (0.070, 0.016), (0.044, 0.005), (0, 0.005)],
    "cone": [(0, 0), (0.046, 0), (0.046, 0.004), (0.003, 0.108), (0, 0.110)],
}  # fmt: skip


def lathe(profile: list[tuple[float, float]], scale: float) -> tuple[str, str]:
    """Vertices and faces (MJCF attribute strings) of a profile rotated about the z axis."""
    vertices: list[tuple[float, float, float]] = []
    rings: list[list[int]] = []
    for radius, height in profile:
        ring = []
        for s in range(1 if radius == 0 else SEGMENTS):
            angle = 2 * math.pi * s / SEGMENTS
            vertices.append(
                (radius * scale * math.cos(angle), radius * scale * math.sin(angle), height * scale)
            )
            ring.append(len(vertices) - 1)
        rings.append(ring)
    faces: list[tuple[int, int, int]] = []
    for lower, upper in itertools.pairwise(rings):
        for s in range(SEGMENTS):
            a, b = lower[s % len(lower)], lower[(s + 1) % len(lower)]
            c, d = upper[s % len(upper)], upper[(s + 1) % len(upper)]
            if a != b:
                faces.append((a, b, d))
            if c != d:
                faces.append((a, d, c))
    return (
        " ".join(f"{x:.5f} {y:.5f} {z:.5f}" for x, y, z in vertices),
        " ".join(f"{a} {b} {c}" for a, b, c in faces),
    )


def meshes(stretch: Stretch = AS_DRAWN) -> str:
    """MJCF assets: one mesh per lathed kind and size."""
    wide, high = stretch
    parts = []
    for kind, profile in PROFILES.items():
        for size, scale in SIZES.items():
            vertex, face = lathe(profile, scale)
            parts.append(
                f'<mesh name="{kind}_{size}" inertia="shell" scale="{wide} {wide} {high}" '
                f'vertex="{vertex}" face="{face}"/>'
            )
    return "\n".join(parts)


#: Visual geoms without contacts; hidden until they are placed.
SEEN_ONLY = 'contype="0" conaffinity="0" group="5"'


def geoms(kind: str, size: str, rest: str = SEEN_ONLY, stretch: Stretch = AS_DRAWN) -> str:
    """MJCF geoms of one object with its base at the body's origin; `rest`: further attributes."""
    k, w, h = SIZES[size], SIZES[size] * stretch[0], SIZES[size] * stretch[1]
    if kind == "box":
        return f'<geom type="box" size="{0.046 * w} {0.034 * w} {0.028 * h}" pos="0 0 {0.028 * h}" {rest}/>'
    if kind == "ball":
        return f'<geom type="sphere" size="{0.036 * k}" pos="0 0 {0.036 * k}" {rest}/>'
    if kind == "can":
        return (
            f'<geom type="cylinder" size="{0.033 * w} {0.045 * h}" pos="0 0 {0.045 * h}" {rest}/>'
            f'<geom type="cylinder" size="{0.028 * w} {0.002 * h}" pos="0 0 {0.0915 * h}" {rest}/>'
        )
    body = f'<geom type="mesh" mesh="{kind}_{size}" {rest}/>'
    if kind == "mug":
        corners = [(0.036, 0.068), (0.058, 0.066), (0.062, 0.044), (0.055, 0.024), (0.036, 0.020)]
        for (x0, z0), (x1, z1) in itertools.pairwise(corners):
            body += (
                f'<geom type="capsule" size="{0.0055 * k}" '
                f'fromto="{x0 * w} 0 {z0 * h} {x1 * w} 0 {z1 * h}" {rest}/>'
            )
    return body
