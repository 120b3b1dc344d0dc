"""A red object with a stripe on a textured background, for tests of tracking."""

from __future__ import annotations

import cv2
import numpy as np

GROUND = cv2.resize(np.random.default_rng(3).integers(40, 200, (30, 40, 3), np.uint8), (320, 240))


def picture(x: int, shade: float = 1.0) -> np.ndarray:
    """uint8 [240, 320, 3]: the object's left edge is at x; `shade` scales the background's brightness."""
    rgb = (GROUND * shade).astype(np.uint8)
    rgb[80:140, x : x + 60] = (255, 0, 0)
    rgb[100:106, x + 10 : x + 50] = (90, 0, 0)
    return rgb
