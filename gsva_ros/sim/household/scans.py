"""Meshes of other makers, from a folder: things beside those that the shelf makes itself."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

from ...errors import InputError, one_line
from .meshes import Mesh, Points
from .shapes import KINDS, Part, Shape, upright

SIZE = 256  # pixels of a texture
#: What is longer than this was not measured in metres but in millimetres.
LONGEST = 2.0


@dataclass(frozen=True)
class Scan:
    """A mesh with a kind's name, or "", and a texture uint8 [SIZE, SIZE, 3] where it came with one."""

    kind: str
    mesh: Mesh
    picture: npt.NDArray[np.uint8] | None

    def shape(self, picture: str) -> Shape:
        """As a thing; picture: the name of the material with the scan's texture."""
        return Shape(
            self.kind,
            (Part(self.mesh, "body", picture if self.picture is not None else ""),),
            (upright(),),
        )


def load_scans(folder: Path) -> tuple[Scan, ...]:
    """The meshes `folder`/KIND/*.obj and *.stl, z up, in metres or millimetres.

    A folder whose name is no kind of the household world holds unnamed things. An OBJ file with texture
    coordinates gets the PNG file of its own name, or the folder's only one.

    Raises:
        InputError: there is no mesh, or one cannot be read.
    """
    files = sorted(p for p in folder.glob("*/*") if p.suffix.lower() in (".obj", ".stl"))
    if not files:
        raise InputError(f"{folder}: no meshes; they are looked for as KIND/NAME.obj or .stl")
    return tuple(_scan(path) for path in files)


def _scan(path: Path) -> Scan:
    try:
        mesh = _obj(path) if path.suffix.lower() == ".obj" else _stl(path)
    except (ValueError, IndexError, UnicodeDecodeError, OSError) as error:
        raise InputError(f"{path}: not a mesh that can be read: {one_line(error)}") from error
    if not len(mesh.faces):
        raise InputError(f"{path}: a mesh without faces")
    low, high = mesh.vertices.min(0), mesh.vertices.max(0)
    unit = 0.001 if (high - low).max() > LONGEST else 1.0
    middle = np.array([*(low + high)[:2] / 2, low[2]])
    mesh = Mesh((mesh.vertices - middle) * unit, mesh.faces, mesh.uv)
    kind = path.parent.name
    return Scan(
        kind if kind in KINDS else "", mesh, _picture(path) if mesh.uv is not None else None
    )


def _picture(path: Path) -> npt.NDArray[np.uint8] | None:
    pictures = sorted(path.parent.glob("*.png"))
    own = [p for p in pictures if p.stem == path.stem] or (pictures if len(pictures) == 1 else [])
    if not own:
        return None
    image = cv2.imread(str(own[0]), cv2.IMREAD_COLOR)
    if image is None:
        raise InputError(f"{own[0]}: not a picture that can be read")
    small = cv2.resize(image, (SIZE, SIZE), interpolation=cv2.INTER_AREA)
    return np.ascontiguousarray(small[..., ::-1])


def _obj(path: Path) -> Mesh:
    """Vertices, faces and texture coordinates of an OBJ file; larger faces are cut into triangles."""
    places: list[list[float]] = []
    marks: list[list[float]] = []
    corners: dict[tuple[int, int], int] = {}
    faces: list[tuple[int, int, int]] = []
    for line in path.read_text().splitlines():
        words = line.split()
        if not words:
            continue
        if words[0] == "v":
            places.append([float(w) for w in words[1:4]])
        elif words[0] == "vt":
            marks.append([float(w) for w in words[1:3]])
        elif words[0] == "f":
            ring = []
            for word in words[1:]:
                parts = word.split("/")
                # Numbers count from 1, negative ones from the end.
                place = int(parts[0]) - 1 if int(parts[0]) > 0 else len(places) + int(parts[0])
                mark = -1
                if len(parts) > 1 and parts[1]:
                    mark = int(parts[1]) - 1 if int(parts[1]) > 0 else len(marks) + int(parts[1])
                ring.append(corners.setdefault((place, mark), len(corners)))
            faces += [(ring[0], a, b) for a, b in pairwise(ring[1:])]
    vertices = np.array([places[place] for place, _ in corners], float).reshape(-1, 3)
    uv: Points | None = None
    if marks and all(mark >= 0 for _, mark in corners):
        uv = np.array([marks[mark] for _, mark in corners], float)
        uv[:, 1] = 1 - uv[:, 1]  # pictures begin at the top
    return Mesh(vertices, np.array(faces, np.int32).reshape(-1, 3), uv)


def _stl(path: Path) -> Mesh:
    """Vertices and faces of an STL file, binary or text."""
    data = path.read_bytes()
    count = int.from_bytes(data[80:84], "little")
    if len(data) == 84 + 50 * count:
        record = np.dtype([("normal", "<f4", 3), ("corners", "<f4", (3, 3)), ("more", "<u2")])
        corners = np.frombuffer(data, record, offset=84)["corners"].reshape(-1, 3).astype(float)
    else:
        words = [line.split() for line in data.decode().splitlines()]
        rows = [[float(w) for w in row[1:4]] for row in words if row and row[0] == "vertex"]
        corners = np.array(rows, float).reshape(-1, 3)
    vertices, index = np.unique(corners, axis=0, return_inverse=True)
    return Mesh(vertices, index.reshape(-1, 3).astype(np.int32))
