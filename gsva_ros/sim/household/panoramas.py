"""Photographs of whole rooms, from a folder, for what the camera sees behind the table."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

from ...errors import InputError

SUFFIXES = (".hdr", ".jpg", ".jpeg", ".png")
#: Panoramas are kept this many pixels wide, twice as wide as high.
WIDTH = 1024
#: What stands for middle grey in a picture of linear light.
GREY = 0.18
Image = npt.NDArray[np.uint8]
Places = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Backdrop:
    """A panorama around a scene.

    number: which one. yaw: how far it is turned about the vertical, radians. gain: factor of its light.
    """

    number: int
    yaw: float
    gain: float


def load_panoramas(folder: Path) -> tuple[Image, ...]:
    """The equirectangular panoramas of a folder, RGB uint8 [WIDTH / 2, WIDTH, 3], the zenith on top.

    Radiance files (.hdr), whose linear light is brought into range, and ordinary pictures.

    Raises:
        InputError: there is none, or one cannot be read, or is not twice as wide as high.
    """
    files = sorted(p for p in folder.glob("*") if p.suffix.lower() in SUFFIXES)
    if not files:
        raise InputError(f"{folder}: no panoramas; they are looked for as *{', *'.join(SUFFIXES)}")
    return tuple(_panorama(path) for path in files)


def _panorama(path: Path) -> Image:
    image = cv2.imread(str(path), cv2.IMREAD_COLOR | cv2.IMREAD_ANYDEPTH)
    if image is None:
        raise InputError(f"{path}: not a picture that can be read")
    height, width = image.shape[:2]
    if width != 2 * height:
        raise InputError(
            f"{path}: {width} x {height} pixels; an equirectangular panorama is twice as wide as high"
        )
    if image.dtype == np.float32:
        image = _developed(image)
    elif image.dtype != np.uint8:
        raise InputError(f"{path}: {image.dtype}; 8 bits a channel are read, or Radiance's .hdr")
    small = cv2.resize(image, (WIDTH, WIDTH // 2), interpolation=cv2.INTER_AREA)
    return np.ascontiguousarray(small[..., ::-1])


def _developed(light: npt.NDArray[np.float32]) -> Image:
    """Linear light as a picture: its geometric mean becomes middle grey, brighter light fades to white.

    Source: Reinhard et al., Photographic Tone Reproduction for Digital Images (2002), equations 1 to 3.
    """
    grey = light.mean(-1)
    scaled = light * (GREY / np.exp(np.log(grey + 1e-4).mean()))
    shown = np.clip(scaled / (1 + scaled), 0, 1) ** (1 / 2.2)
    return np.round(255 * shown).astype(np.uint8)


def project(directions: npt.NDArray[np.float64]) -> tuple[Places, Places]:
    """Where a panorama shows directions of the world [H, W, 3] (z up).

    Shares of its width and of its height, each [H, W]. Its middle looks along x, and y is left of that.
    """
    x, y, z = np.moveaxis(directions, -1, 0)
    turn = 0.5 - np.arctan2(y, x) / (2 * np.pi)
    fall = np.arccos(np.clip(z / np.linalg.norm(directions, axis=-1), -1, 1)) / np.pi
    return turn.astype(np.float32), fall.astype(np.float32)


def sample(panorama: Image, at: tuple[Places, Places], yaw: float) -> Image:
    """What a panorama, turned by `yaw`, shows at the places that `project` gives, uint8 [H, W, 3]."""
    turn, fall = at
    height, width = panorama.shape[:2]
    across = (turn + np.float32(yaw / (2 * np.pi))) % 1 * width - np.float32(0.5)
    down = fall * height - np.float32(0.5)
    return cv2.remap(panorama, across, down, cv2.INTER_LINEAR, borderMode=cv2.BORDER_WRAP)


def skybox(panorama: Image, size: int, backdrop: Backdrop) -> Image:
    """The panorama as the six faces of MuJoCo's skybox, one under another, uint8 [6 size, size, 3]."""
    return cv2.convertScaleAbs(sample(panorama, _faces(size), backdrop.yaw), alpha=backdrop.gain)


@cache
def _faces(size: int) -> tuple[Places, Places]:
    """What `project` gives for the faces' pixels, [6 size, size]."""
    across = (np.arange(size) + 0.5) / size * 2 - 1
    u, v = np.meshgrid(across, across)
    one = np.ones_like(u)
    # As MuJoCo shows them: towards +x, -x, +z, -z, -y and +y, each seen from outside.
    cube = [(one, u, -v), (-one, -u, -v), (u, -v, one), (u, v, -one), (u, -one, -v), (-u, one, -v)]
    return project(np.concatenate([np.stack(face, -1) for face in cube]))
