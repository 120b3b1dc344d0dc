"""The parts and poses of a thing: built by the kinds, compiled for a shelf."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from .meshes import Mesh, Points, Profile, lathe, turn

#: Diagonal of the bounding box of a usual thing of each kind, as built, metres.
USUAL_SIZE = {
    "mug": 0.17, "bowl": 0.22, "box": 0.17, "ball": 0.13, "can": 0.15, "bottle": 0.23,
    "plate": 0.28, "cone": 0.20, "glass": 0.17, "jar": 0.17, "vase": 0.23, "pot": 0.31,
    "pan": 0.39, "bucket": 0.28, "book": 0.19, "teapot": 0.26, "pitcher": 0.25, "spoon": 0.19,
    "screwdriver": 0.19, "hammer": 0.25, "wrench": 0.19, "tape": 0.13,
}  # fmt: skip
#: What a seed draws depends on their number and order.
KINDS = tuple(USUAL_SIZE)
#: Nameable parts of a thing, by the role of its parts.
NAMED_PARTS = {
    "handle": "handle",
    "lid": "lid",
    "label": "label",
    "print": "label",
    "stripe": "stripes",
}


@dataclass(frozen=True)
class Part:
    """A mesh and its role in the thing; picture: the material, if the mesh has a texture of its own.

    Roles: body, inside, handle, lid, stripe, second (the other half of a two-coloured thing), label
    (printed, covering), print (marks, between which the body shows), metal, wood, dark, pages, content.
    """

    mesh: Mesh
    role: str
    picture: str = ""


def lathed(role: str, profile: Profile, segments: int = 24) -> Part:
    """A lathed part; see `meshes.lathe`."""
    return Part(lathe(profile, segments), role)


@dataclass(frozen=True)
class Room:
    """A round space on top of a thing or in it. Metres in the thing's pose; z: height of its floor."""

    z: float
    radius: float
    depth: float = 0.0


@dataclass(frozen=True)
class Pose:
    """A resting pose: a rotation [3, 3], and the room on top of the thing and in it."""

    name: str
    rotation: Points
    top: Room | None = None
    hollow: Room | None = None


@dataclass(frozen=True)
class Shape:
    """A thing's geometry. kind: "" if it has no name."""

    kind: str
    parts: Sequence[Part]
    poses: Sequence[Pose]
    long: float = 0.0  # length along x of a tool, which can lean in a vessel

    def points(self) -> Points:
        """All vertices, float64 [n, 3]."""
        return np.concatenate([part.mesh.vertices for part in self.parts])

    @property
    def scale(self) -> float:
        """Its size relative to a usual thing of its kind; 1 if it has no kind."""
        size = float(np.linalg.norm(np.ptp(self.points(), axis=0)))
        return size / USUAL_SIZE[self.kind] if self.kind else 1.0

    def stretched(self, wide: float, high: float) -> Shape:
        """The shape with x and y scaled by `wide` and z by `high`, with its poses."""
        matrix = np.diag([wide, wide, high])

        def room(old: Room | None, pose: Pose) -> Room | None:
            if old is None:
                return None
            up = abs(pose.rotation[2, 2]) > 0.9
            z, r = (high, wide) if up else (wide, min(wide, high))
            return Room(old.z * z, old.radius * r, old.depth * z)

        return replace(
            self,
            parts=[replace(p, mesh=p.mesh.moved(matrix)) for p in self.parts],
            poses=[replace(p, top=room(p.top, p), hollow=room(p.hollow, p)) for p in self.poses],
            long=self.long * wide,
        )


def upright(top: Room | None = None, hollow: Room | None = None) -> Pose:
    """As built."""
    return Pose("upright", np.eye(3), top, hollow)


def lying(tilt: float = 0.0) -> Pose:
    """Lying on its side along x; `tilt` (radians) lays a tapered side flat on the table."""
    return Pose("lying", turn("y", np.pi / 2 + tilt))


def upside_down() -> Pose:
    """Turned over."""
    return Pose("upside down", turn("x", np.pi))
