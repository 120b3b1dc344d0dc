"""Image files to arrays and back.

OpenCV never gets a path: its Python bindings end the process on one that is not UTF-8.
"""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from .conversions import is_cut
from .errors import InputError, one_line


def read_bgr(path: Path, how: int, kind: type[InputError] = InputError) -> NDArray[Any] | None:
    """An image file as `cv2.imdecode` decodes it with its flags `how`; None: it is missing, or no image.

    Args:
        kind: the error's type.

    Raises:
        InputError: it is a PNG or JPEG file that ends too early, or too large an image; of type `kind`.
    """
    try:
        data = path.read_bytes()
    except OSError:
        return None
    if is_cut(data):
        raise kind(f"{path}: the end of the file is missing: fetch it again")
    try:
        return cv2.imdecode(np.frombuffer(data, np.uint8), how) if data else None
    except cv2.error as error:
        raise kind(f"{path}: cannot be read as an image: {one_line(error)}") from error


def check_format(path: Path) -> None:
    """Raise InputError if the path's suffix is not that of an image format that can be written."""
    if not cv2.haveImageWriter(f"x{path.suffix}".encode(errors="replace").decode()):
        raise InputError(f"{path}: an image format that cannot be written; use .png or .jpg")


def write_rgb(path: Path, rgb: NDArray[np.uint8], what: str = "image") -> None:
    """Write an image, uint8 [H, W, 3] RGB, in the format of its suffix, which `check_format` accepts.

    Args:
        what: what the image is, for the error's text.

    Raises:
        InputError: the format has no room for it, or the file cannot be written.
    """
    written = False
    with suppress(cv2.error):  # WebP is limited to 16,383 pixels, JPEG to 65,535
        written, data = cv2.imencode(path.suffix, cv2.cvtColor(rgb, cv2.COLOR_RGB2BGR))
    if not written:
        size = f"{rgb.shape[1]}x{rgb.shape[0]}"
        raise InputError(f"{path}: the {what}, {size}, could not be written; try .png")
    try:
        path.write_bytes(data.tobytes())
    except OSError as error:
        raise InputError(f"{path}: cannot be written ({error.strerror}); choose another") from error
