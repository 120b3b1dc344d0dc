"""Masks as a bounding box and the crop inside it, so that small ones take little memory. NumPy only."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

#: (x0, y0, x1, y1) in pixels; x1 and y1 exclusive.
Box = tuple[int, int, int, int]


@dataclass(frozen=True, eq=False)
class Region:
    """A mask with at least one pixel: bool [y1 - y0, x1 - x0] inside its bounding box in the frame."""

    box: Box
    crop: NDArray[np.bool_]

    @classmethod
    def within(cls, box: Box, mask: NDArray[np.bool_]) -> Region:
        """Crop a mask with at least one pixel, bool of the box's size."""
        found = trimmed(mask, *box[:2])
        assert found is not None
        return found

    @classmethod
    def around(cls, parts: Sequence[Region]) -> Region:
        """The union of at least one region."""
        corners = np.array([part.box for part in parts])
        (x0, y0), (x1, y1) = corners[:, :2].min(0).tolist(), corners[:, 2:].max(0).tolist()
        whole = np.zeros((y1 - y0, x1 - x0), np.bool_)
        for part in parts:
            left, top, right, bottom = part.box
            whole[top - y0 : bottom - y0, left - x0 : right - x0] |= part.crop
        return cls((x0, y0, x1, y1), whole)

    def placed(self, size: tuple[int, int]) -> NDArray[np.bool_]:
        """The mask at the frame's size (height, width)."""
        x0, y0, x1, y1 = self.box
        mask = np.zeros(size, bool)
        mask[y0:y1, x0:x1] = self.crop
        return mask


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


def trimmed(mask: NDArray[np.bool_], x: int = 0, y: int = 0) -> Region | None:
    """A mask as a region; None if no pixel is set.

    The crop is a copy, so that the whole mask can be freed.

    Args:
        mask: bool [h, w], of the part of the frame whose upper left pixel is at x, y.
    """
    box = mask_box(mask)
    if box is None:
        return None
    x0, y0, x1, y1 = box
    return Region((x + x0, y + y0, x + x1, y + y1), mask[y0:y1, x0:x1].copy())


def iou(a: Region, b: Region) -> float:
    """Intersection over union of two masks of one frame."""
    x0, y0 = max(a.box[0], b.box[0]), max(a.box[1], b.box[1])
    x1, y1 = min(a.box[2], b.box[2]), min(a.box[3], b.box[3])
    if x0 >= x1 or y0 >= y1:
        return 0.0
    common = [
        each.crop[y0 - each.box[1] : y1 - each.box[1], x0 - each.box[0] : x1 - each.box[0]]
        for each in (a, b)
    ]
    both = int((common[0] & common[1]).sum())
    return both / (int(a.crop.sum()) + int(b.crop.sum()) - both)
