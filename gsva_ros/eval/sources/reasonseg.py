"""ReasonSeg in the folder that the official code reads: ROOT/reason_seg/ReasonSeg/SPLIT/*.jpg and *.json.

Source: LISA's `get_mask_from_json`, which the official GSVA's ValDataset uses (commit 618dc79).
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from ...truth import Mask, Referring
from ..cases import Case
from .files import DatasetError, read_json, read_picture

NAME = "reasonseg"
RULES = "refcoco"


def cases(root: Path, split: str) -> list[Case]:
    """One case for each picture of a split.

    Raises:
        DatasetError: no pictures there.
    """
    return _reason_seg(root / "reason_seg" / "ReasonSeg" / split)


def _reason_seg(folder: Path) -> list[Case]:
    pictures = sorted(folder.glob("*.jpg"))
    if not pictures:
        raise DatasetError(f"{folder} holds no *.jpg")

    def reader(path: Path) -> Callable[[], tuple[NDArray[np.uint8], list[Referring]]]:
        def read() -> tuple[NDArray[np.uint8], list[Referring]]:
            rgb = read_picture(path)
            data = read_json(path.with_suffix(".json"))
            truth = _labelled(data["shapes"], rgb.shape[:2])
            kind = "sentence" if data["is_sentence"] else "phrase"
            return rgb, [Referring(data["text"][0].strip(), kind, 1, truth)]

        return read

    return [Case(f"{NAME} {folder.name} {path.stem}", reader(path)) for path in pictures]


def _labelled(shapes: list[dict[str, Any]], size: tuple[int, ...]) -> Mask:
    """The target's pixels: larger shapes first, so that what is cut out of them stays cut out."""
    drawn = []
    for shape in shapes:
        if shape["label"].lower() == "flag":
            continue
        canvas = np.zeros(size, np.uint8)
        points = np.array([shape["points"]], np.int32)
        cv2.polylines(canvas, points, True, 1, 1)
        cv2.fillPoly(canvas, points, 1)
        drawn.append((int(canvas.sum()), "ignore" in shape["label"].lower(), canvas > 0))
    truth = np.zeros(size, bool)
    for _, ignored, pixels in sorted(drawn, key=lambda d: -d[0]):
        truth[pixels] = not ignored
    return truth
