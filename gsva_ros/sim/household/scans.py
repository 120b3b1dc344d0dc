"""Third-party meshes from a folder, in addition to the shelf's procedural things."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from ...errors import InputError, one_line
from ...image_files import read_bgr
from .meshes import Mesh
from .shapes import KINDS, Part, Shape, upright

SUFFIXES = (".obj", ".stl", ".ply", ".glb")
LEAST = 4  # minimum number of vertices of a mesh in MuJoCo
SIZE = 256  # side of a texture in pixels
#: Meshes longer than this are taken to be in millimetres instead of metres.
LONGEST = 2.0


@dataclass(frozen=True)
class Scan:
    """A mesh with a kind's name or "", and its texture uint8 [SIZE, SIZE, 3], if it has one."""

    kind: str
    mesh: Mesh
    picture: npt.NDArray[np.uint8] | None

    def shape(self, picture: str) -> Shape:
        """The scan as a thing; picture: the name of the material with its texture."""
        return Shape(
            self.kind,
            (Part(self.mesh, "body", picture if self.picture is not None else ""),),
            (upright(),),
        )


def load_scans(folder: Path) -> tuple[Scan, ...]:
    """The meshes `folder`/KIND/*.obj, .stl, .ply and .glb, in metres or millimetres; z up, in a .glb y up.

    Folders whose name is not a kind of the household world hold unnamed things. For a mesh with texture
    coordinates, the texture is the PNG file with the mesh's name or the folder's only PNG file, else the
    one that the mesh file refers to or contains.

    Raises:
        InputError: there is no mesh, or one cannot be read.
    """
    files = sorted(p for p in folder.glob("*/*") if p.suffix.lower() in SUFFIXES)
    if not files:
        raise InputError(
            f"{folder}: no meshes found; expected files: KIND/NAME.obj, .stl, .ply or .glb"
        )
    return tuple(_scan(path) for path in files)


def _scan(path: Path) -> Scan:
    import trimesh  # here: it takes a quarter of a second, needed only with meshes

    try:
        found = trimesh.load_mesh(path)  # merges several parts into one mesh with one texture
        vertices, faces = np.array(found.vertices, float), np.array(found.faces, np.int32)
        uv = getattr(found.visual, "uv", None)
        picture = None if uv is None else _picture(path, found.visual.material)
    except InputError:
        raise
    except Exception as error:  # each format's reader raises its own types for a broken file
        raise InputError(f"{path}: not a mesh that can be read: {one_line(error)}") from error
    if len(vertices) < LEAST or not len(faces):
        raise InputError(
            f"{path}: not a solid: {len(vertices)} vertices (at least {LEAST}) and {len(faces)} faces"
        )
    if path.suffix.lower() == ".glb":
        vertices = vertices[:, [0, 2, 1]] * (1, -1, 1)  # glTF's y points up
    low, high = vertices.min(0), vertices.max(0)
    unit = 0.001 if (high - low).max() > LONGEST else 1.0
    middle = np.array([*(low + high)[:2] / 2, low[2]])
    if uv is not None:
        uv = np.array(uv, float) * (1, -1) + (0, 1)  # images start at the top
    kind = path.parent.name
    mesh = Mesh((vertices - middle) * unit, faces, uv)
    return Scan(kind if kind in KINDS else "", mesh, picture)


def _picture(path: Path, material: Any) -> npt.NDArray[np.uint8] | None:
    pictures = sorted(path.parent.glob("*.png"))
    own = [p for p in pictures if p.stem == path.stem] or (pictures if len(pictures) == 1 else [])
    if own:
        image = read_bgr(own[0], cv2.IMREAD_COLOR)
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
