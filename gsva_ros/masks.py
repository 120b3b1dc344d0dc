"""Masks as a bounding box and the crop inside it, so that small ones take little memory. NumPy only."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

#: (x0, y0, x1, y1) in pixels; x1 and y1 exclusive.
Box = tuple[int, int, int, int]
#: A mask's bounding box, and the mask inside it, bool [y1 - y0, x1 - x0].
Pixels = tuple[Box, NDArray[np.bool_]]


def mask_box(mask: NDArray[np.bool_]) -> Box | None:
    """The bounding box of a mask, bool [H, W]; None if no pixel is set."""
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    if not len(rows):
        return None
    return int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1


def box_text(box: Box) -> str:
    """A box in words, as pages and programs show it."""
    x0, y0, x1, y1 = box
    return f"box x {x0}, y {y0}, width {x1 - x0}, height {y1 - y0} px"


def trimmed(mask: NDArray[np.bool_], x: int = 0, y: int = 0) -> Pixels | None:
    """A mask's bounding box and the mask inside it; None if no pixel is set.

    The crop is a copy, so that the whole mask can be freed.

    Args:
        mask: bool [h, w], of the part of the frame whose upper left pixel is at x, y.
    """
    box = mask_box(mask)
    if box is None:
        return None
    x0, y0, x1, y1 = box
    return (x + x0, y + y0, x + x1, y + y1), np.ascontiguousarray(mask[y0:y1, x0:x1])


def joined(parts: Sequence[Pixels]) -> Pixels:
    """The union of the parts, of which there is at least one."""
    corners = np.array([box for box, _ in parts])
    (x0, y0), (x1, y1) = corners[:, :2].min(0).tolist(), corners[:, 2:].max(0).tolist()
    whole = np.zeros((y1 - y0, x1 - x0), np.bool_)
    for (left, top, right, bottom), crop in parts:
        whole[top - y0 : bottom - y0, left - x0 : right - x0] |= crop
    return (x0, y0, x1, y1), whole


def placed(crop: NDArray[np.bool_], box: Box, size: tuple[int, int]) -> NDArray[np.bool_]:
    """A mask of the frame's size (height, width) from the crop inside its box."""
    x0, y0, x1, y1 = box
    mask = np.zeros(size, bool)
    mask[y0:y1, x0:x1] = crop
    return mask
