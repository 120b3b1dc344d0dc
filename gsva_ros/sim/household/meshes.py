"""Procedural triangle meshes: lathed shapes, tubes, boxes, prisms. Metres; z points up."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Points = npt.NDArray[np.float64]
Profile = Sequence[tuple[float, float]]


@dataclass(frozen=True)
class Mesh:
    """vertices float64 [n, 3]; faces int32 [m, 3]; uv float64 [n, 2] or None."""

    vertices: Points
    faces: npt.NDArray[np.int32]
    uv: Points | None = None

    def moved(self, matrix: Points, offset: Sequence[float] = (0, 0, 0)) -> Mesh:
        """The mesh after a linear map [3, 3] and an offset; faces stay outward if the map mirrors."""
        faces = self.faces if np.linalg.det(matrix) > 0 else self.faces[:, ::-1]
        return Mesh(
            self.vertices @ matrix.T + np.asarray(offset), np.ascontiguousarray(faces), self.uv
        )


def joined(*meshes: Mesh) -> Mesh:
    """Several meshes as one, without texture coordinates."""
    starts = np.cumsum([0, *(len(m.vertices) for m in meshes)])
    faces = [m.faces + s for m, s in zip(meshes, starts, strict=False)]
    return Mesh(
        np.concatenate([m.vertices for m in meshes]), np.concatenate(faces).astype(np.int32)
    )


def _grid_faces(rows: int, columns: int, wrap: bool) -> npt.NDArray[np.int32]:
    """Two triangles per cell of a grid of vertices in row order; `wrap` closes the rows."""
    r, c = np.meshgrid(
        np.arange(rows - 1), np.arange(columns if wrap else columns - 1), indexing="ij"
    )
    a = r * columns + c
    b = r * columns + (c + 1) % columns
    quads = np.stack([a, b, b + columns, a, b + columns, a + columns], -1)
    return quads.reshape(-1, 3).astype(np.int32)


def _no_slivers(mesh: Mesh) -> Mesh:
    """Remove triangles without area, which poles and repeated points produce."""
    a, b, c = (mesh.vertices[mesh.faces[:, k]] for k in range(3))
    area = np.linalg.norm(np.cross(b - a, c - a), axis=1)
    return Mesh(mesh.vertices, mesh.faces[area > 1e-10], mesh.uv)


def lathe(profile: Profile, segments: int = 24) -> Mesh:
    """A profile of (radius, height), upwards on the outside, rotated about the z axis."""
    points = np.maximum(np.array(profile, float), (0.0, -np.inf))
    angle = np.linspace(0, 2 * math.pi, segments, endpoint=False)
    ring = np.stack([np.cos(angle), np.sin(angle)], -1)
    xy = points[:, None, :1] * ring[None]
    z = np.repeat(points[:, None, 1:], segments, 1)
    vertices = np.concatenate([xy, z], -1).reshape(-1, 3)
    return _no_slivers(Mesh(vertices, _grid_faces(len(points), segments, True)))


def wrapped(profile: Profile, start: float, end: float, segments: int) -> Mesh:
    """A piece of a lathed surface from one angle to another (radians), 0.8 mm above it.

    Its texture coordinates run from 0 to 1 around and up.
    """
    points = np.array(profile, float)
    angle = np.linspace(start, end, segments + 1)
    ring = np.stack([np.cos(angle), np.sin(angle)], -1)
    xy = (points[:, None, :1] + 0.0008) * ring[None]
    z = np.repeat(points[:, None, 1:], segments + 1, 1)
    rise = (points[:, 1] - points[0, 1]) / max(points[-1, 1] - points[0, 1], 1e-6)
    u, v = np.meshgrid(np.linspace(0, 1, segments + 1), 1 - rise)
    vertices = np.concatenate([xy, z], -1).reshape(-1, 3)
    faces = _grid_faces(len(points), segments + 1, False)
    return _no_slivers(Mesh(vertices, faces, np.stack([u, v], -1).reshape(-1, 2)))


def cut(profile: Profile, low: float, high: float) -> list[tuple[float, float]]:
    """The part of a rising profile between two heights."""
    points = np.array(profile, float)
    heights = np.maximum.accumulate(points[:, 1])
    inside = [(float(r), float(z)) for r, z in points if low < z < high]

    def at(z: float) -> tuple[float, float]:
        return float(np.interp(z, heights, points[:, 0])), z

    return [at(low), *inside, at(high)]


def radius_at(profile: Profile, height: float) -> float:
    """The radius of a rising profile at a height."""
    radii, heights = zip(*profile, strict=True)
    return float(np.interp(height, heights, radii))


def tube(path: Sequence[Sequence[float]], radius: float | Sequence[float], sides: int = 8) -> Mesh:
    """A round bar along a path [n, 3] with closed ends; one radius, or one per point."""
    points = np.array(path, float)
    radii = np.broadcast_to(np.asarray(radius, float), len(points))
    along = np.gradient(points, axis=0)
    along /= np.linalg.norm(along, axis=1, keepdims=True) + 1e-12
    spread = np.ptp(points, axis=0)
    side = np.eye(3)[int(np.argmin(spread))]
    angle = np.linspace(0, 2 * math.pi, sides, endpoint=False)
    rings = []
    for point, direction, r in zip(points, along, radii, strict=True):
        u = side - direction * (side @ direction)
        u /= np.linalg.norm(u) + 1e-12
        v = np.cross(direction, u)
        rings.append(point + r * (np.cos(angle)[:, None] * u + np.sin(angle)[:, None] * v))
    first, last = (np.repeat(points[k][None], sides, 0) for k in (0, -1))
    vertices = np.concatenate([first, *rings, last])
    return _no_slivers(Mesh(vertices, _grid_faces(len(points) + 2, sides, True)))


def box(size: Sequence[float], centre: Sequence[float]) -> Mesh:
    """An axis-aligned box; size: full lengths."""
    x, y = size[0] / 2, size[1] / 2
    base = [(-x, -y), (x, -y), (x, y), (-x, y)]
    shifted = [(a + centre[0], b + centre[1]) for a, b in base]
    return prism(shifted, centre[2] - size[2] / 2, centre[2] + size[2] / 2)


def prism(outline: Points | Profile, low: float, high: float) -> Mesh:
    """A prism between two heights; outline: counter-clockwise, star-shaped as seen from its mean."""
    points = np.array(outline, float)
    n = len(points)
    centre = points.mean(0)
    rings = []
    for flat, z in ((False, low), (True, low), (True, high), (False, high)):
        ring = points if flat else np.repeat(centre[None], n, 0)
        rings.append(np.concatenate([ring, np.full((n, 1), z)], 1))
    return _no_slivers(Mesh(np.concatenate(rings), _grid_faces(4, n, True)))


def arc(
    inner: float, outer: float, start: float, end: float, thick: float, steps: int = 16
) -> Mesh:
    """A flat piece of a ring between two angles, from z = 0 to `thick`."""
    angle = np.linspace(start, end, steps + 1)
    rows = [(inner, 0.0), (outer, 0.0), (outer, thick), (inner, thick), (inner, 0.0)]
    vertices = np.array(
        [(r * math.cos(a), r * math.sin(a), z) for r, z in rows for a in angle], float
    )
    faces = _grid_faces(len(rows), steps + 1, False)
    caps = []
    if end - start < 2 * math.pi - 1e-6:
        for k, flip in ((0, False), (steps, True)):
            a, b, c, d = (row * (steps + 1) + k for row in range(4))
            caps += [(a, c, b), (a, d, c)] if not flip else [(a, b, c), (a, c, d)]
    both = np.concatenate([faces[:, ::-1], np.array(caps, np.int32).reshape(-1, 3)])
    return _no_slivers(Mesh(vertices, np.ascontiguousarray(both[:, ::-1]).astype(np.int32)))


def sphere(radius: float, centre: Sequence[float]) -> Mesh:
    """A sphere."""
    angle = np.linspace(-math.pi / 2, math.pi / 2, 11)
    turned = lathe([(radius * math.cos(a), radius * math.sin(a)) for a in angle], 18)
    return turned.moved(np.eye(3), centre)


def panel(corner: Sequence[float], along: Sequence[float], up: Sequence[float]) -> Mesh:
    """A flat rectangle with texture coordinates, given by a corner and its two edges."""
    c, a, u = (np.asarray(v, float) for v in (corner, along, up))
    vertices = np.array([c, c + a, c + a + u, c + u])
    back = -1e-4 * np.cross(a, u) / np.linalg.norm(np.cross(a, u))
    # MuJoCo needs a volume for the mass, which a plane lacks; a point behind it adds one.
    vertices = np.concatenate([vertices, (c + a / 2 + u / 2 + 4 * back)[None]])
    faces = np.array([(0, 1, 2), (0, 2, 3), (1, 0, 4), (2, 1, 4), (3, 2, 4), (0, 3, 4)], np.int32)
    return Mesh(vertices, faces, np.array([(0, 1), (1, 1), (1, 0), (0, 0), (0.5, 0.5)], float))


def turn(axis: str, angle: float) -> Points:
    """The rotation matrix about a coordinate axis, radians."""
    c, s = math.cos(angle), math.sin(angle)
    return np.array(
        {
            "x": [[1, 0, 0], [0, c, -s], [0, s, c]],
            "y": [[c, 0, s], [0, 1, 0], [-s, 0, c]],
            "z": [[c, -s, 0], [s, c, 0], [0, 0, 1]],
        }[axis]
    )
