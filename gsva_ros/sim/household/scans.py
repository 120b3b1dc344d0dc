"""Meshes of other makers, from a folder: things beside those that the shelf makes itself."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from ...errors import InputError, one_line
from .meshes import Mesh
from .shapes import KINDS, Part, Shape, upright

SUFFIXES = (".obj", ".stl", ".ply", ".glb")
LEAST = 4  # vertices that MuJoCo makes a mesh of
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
    """The meshes `folder`/KIND/*.obj, .stl, .ply and .glb, in metres or millimetres; z up, in a .glb y up.

    A folder whose name is no kind of the household world holds unnamed things. Where there are texture
    coordinates, the PNG file of the mesh's own name, or the folder's only one, is the texture, else the one
    that the mesh file names or holds.

    Raises:
        InputError: there is no mesh, or one cannot be read.
    """
    files = sorted(p for p in folder.glob("*/*") if p.suffix.lower() in SUFFIXES)
    if not files:
        raise InputError(
            f"{folder}: no meshes; they are looked for as KIND/NAME.obj, .stl, .ply or .glb"
        )
    return tuple(_scan(path) for path in files)


def _scan(path: Path) -> Scan:
    import trimesh  # a quarter of a second that only those who bring meshes pay

    try:
        found = trimesh.load_mesh(path)  # several parts as one, their textures as one picture
        vertices, faces = np.array(found.vertices, float), np.array(found.faces, np.int32)
        uv = getattr(found.visual, "uv", None)
        picture = None if uv is None else _picture(path, found.visual.material)
    except InputError:
        raise
    except Exception as error:  # each format's reader stumbles over a broken file in its own way
        raise InputError(f"{path}: not a mesh that can be read: {one_line(error)}") from error
    if len(vertices) < LEAST or not len(faces):
        raise InputError(
            f"{path}: no body: {len(vertices)} vertices (at least {LEAST}) and {len(faces)} faces"
        )
    if path.suffix.lower() == ".glb":
        vertices = vertices[:, [0, 2, 1]] * (1, -1, 1)  # glTF's y points up
    low, high = vertices.min(0), vertices.max(0)
    unit = 0.001 if (high - low).max() > LONGEST else 1.0
    middle = np.array([*(low + high)[:2] / 2, low[2]])
    if uv is not None:
        uv = np.array(uv, float) * (1, -1) + (0, 1)  # pictures begin at the top
    kind = path.parent.name
    mesh = Mesh((vertices - middle) * unit, faces, uv)
    return Scan(kind if kind in KINDS else "", mesh, picture)


def _picture(path: Path, material: Any) -> npt.NDArray[np.uint8] | None:
    pictures = sorted(path.parent.glob("*.png"))
    own = [p for p in pictures if p.stem == path.stem] or (pictures if len(pictures) == 1 else [])
    if own:
        image = cv2.imread(str(own[0]), cv2.IMREAD_COLOR)
        if image is None:
            raise InputError(f"{own[0]}: not a picture that can be read")
        image = image[..., ::-1]
    else:
        held = getattr(material, "baseColorTexture", None) or getattr(material, "image", None)
        if held is None:
            return None
        image = np.asarray(held.convert("RGB"))
    small = cv2.resize(image, (SIZE, SIZE), interpolation=cv2.INTER_AREA)
    return np.ascontiguousarray(small)
