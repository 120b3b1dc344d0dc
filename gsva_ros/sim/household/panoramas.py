"""Panoramic photographs of rooms from a folder, as backgrounds behind the table."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

from ...errors import InputError
from ...image_files import read_bgr

SUFFIXES = (".hdr", ".jpg", ".jpeg", ".png")
#: Panoramas are resized to this width in pixels, and half this height.
WIDTH = 1024
#: Middle grey in linear light.
GREY = 0.18
Image = npt.NDArray[np.uint8]
Places = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Backdrop:
    """A panorama around a scene.

    number: its index. yaw: rotation about the vertical, radians. gain: factor on its light.
    """

    number: int
    yaw: float
    gain: float


def load_panoramas(folder: Path) -> tuple[Image, ...]:
    """The equirectangular panoramas of a folder, RGB uint8 [WIDTH / 2, WIDTH, 3], zenith at the top.

    Reads Radiance files (.hdr), whose linear light is tone-mapped, and ordinary images.

    Raises:
        InputError: there is none, or one cannot be read or is not twice as wide as high.
    """
    files = sorted(p for p in folder.glob("*") if p.suffix.lower() in SUFFIXES)
    if not files:
        raise InputError(f"{folder}: no panoramas found; expected files: *{', *'.join(SUFFIXES)}")
    return tuple(_panorama(path) for path in files)


def _panorama(path: Path) -> Image:
    image = read_bgr(path, cv2.IMREAD_COLOR | cv2.IMREAD_ANYDEPTH)
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
        raise InputError(
            f"{path}: {image.dtype} pixels are not supported; use 8 bits per channel, or Radiance's .hdr"
        )
    small = cv2.resize(image, (WIDTH, WIDTH // 2), interpolation=cv2.INTER_AREA)
    return np.ascontiguousarray(small[..., ::-1])


def _developed(light: npt.NDArray[np.float32]) -> Image:
    """Tone-map linear light: its geometric mean becomes middle grey, highlights are compressed to white.

    Source: Reinhard et al., Photographic Tone Reproduction for Digital Images (2002), equations 1 to 3.
    """
    grey = light.mean(-1)
    scaled = light * (GREY / np.exp(np.log(grey + 1e-4).mean()))
    shown = np.clip(scaled / (1 + scaled), 0, 1) ** (1 / 2.2)
    return np.round(255 * shown).astype(np.uint8)


def project(directions: npt.NDArray[np.float64]) -> tuple[Places, Places]:
    """Where a panorama shows directions [H, W, 3] of the world (z up).

    Returns fractions of its width and of its height, each [H, W]. Its centre is the x direction, with y to
    the left.
    """
    x, y, z = np.moveaxis(directions, -1, 0)
    turn = 0.5 - np.arctan2(y, x) / (2 * np.pi)
    fall = np.arccos(np.clip(z / np.linalg.norm(directions, axis=-1), -1, 1)) / np.pi
    return turn.astype(np.float32), fall.astype(np.float32)


def sample(panorama: Image, at: tuple[Places, Places], yaw: float) -> Image:
    """Sample a panorama rotated by `yaw` at the places from `project`, uint8 [H, W, 3]."""
    turn, fall = at
    height, width = panorama.shape[:2]
    across = (turn + np.float32(yaw / (2 * np.pi))) % 1 * width - np.float32(0.5)
    down = fall * height - np.float32(0.5)
    return cv2.remap(panorama, across, down, cv2.INTER_LINEAR, borderMode=cv2.BORDER_WRAP)


def skybox(panorama: Image, size: int, backdrop: Backdrop) -> Image:
    """The panorama as the six faces of MuJoCo's skybox, stacked vertically, uint8 [6 size, size, 3]."""
    return cv2.convertScaleAbs(sample(panorama, _faces(size), backdrop.yaw), alpha=backdrop.gain)


@cache
def _faces(size: int) -> tuple[Places, Places]:
    """`project` of the faces' pixels, [6 size, size]."""
    across = (np.arange(size) + 0.5) / size * 2 - 1
    u, v = np.meshgrid(across, across)
    one = np.ones_like(u)
    # MuJoCo's order: towards +x, -x, +z, -z, -y and +y, each seen from outside.
    cube = [(one, u, -v), (-one, -u, -v), (u, -v, one), (u, v, -one), (u, -one, -v), (-u, one, -v)]
    return project(np.concatenate([np.stack(face, -1) for face in cube]))
