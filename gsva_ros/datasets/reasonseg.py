"""Reads ReasonSeg in the official code's layout: ROOT/reason_seg/ReasonSeg/SPLIT/*.jpg and *.json.

Source: LISA's `get_mask_from_json`, which the official GSVA's ValDataset uses (commit 618dc79).
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from ..errors import one_line
from ..scoring import Rules
from ..truth import Mask, Referring
from .files import DatasetError, Picture, Skip, read_dataset_json, read_picture

NAME = "reasonseg"
RULES: Rules = "refcoco"


def pictures(
    root: Path, split: str, skip: Skip, count_ignored: bool = False, all_texts: bool = False
) -> list[Picture]:
    """The images of a split.

    Args:
        skip: what is done with an image that cannot be used.
        count_ignored: pixels labelled "ignore" count as the target's, as in GSVA's code; otherwise they
            are excluded, as in LISA's.
        all_texts: use all phrasings of a question, not only the first.

    Raises:
        DatasetError: there are no images, or one cannot be used and is not skipped.
    """
    folder = root / "reason_seg" / "ReasonSeg" / split
    pictures = sorted(folder.glob("*.jpg"))
    if not pictures:
        raise DatasetError(f"{folder} holds no *.jpg")
    found = []
    for path in pictures:
        with skip(path.with_suffix(".json")):
            data = _labels(path.with_suffix(".json"))
            texts = [text for text in data["texts"] if text] if all_texts else data["texts"][:1]
            read = partial(_read, path, data, texts, count_ignored)
            found.append(Picture(f"{NAME} {folder.name} {path.stem}", path, read, texts))
    return found


def files(root: Path, split: str) -> list[Path]:
    """The files that the truth is read from."""
    return sorted((root / "reason_seg" / "ReasonSeg" / split).glob("*.json"))


def _labels(path: Path) -> dict[str, Any]:
    """An image's labels, validated as far as its cases need them."""
    data = read_dataset_json(path)
    try:
        if not isinstance(data["text"], list):
            raise DatasetError(f"{path}: its text is not a list")
        texts = [text.strip() for text in data["text"]]
        "".join(texts).encode()
        if not texts[0]:
            raise DatasetError(f"{path}: its first text is empty")
        shapes = [shape for shape in data["shapes"] if shape["label"].lower() != "flag"]
        for shape in shapes:
            _points(shape)
            if (kind := shape.get("shape_type")) in ("rectangle", "circle"):
                raise DatasetError(f"{path}: a shape is a {kind}: make it a polygon")
        is_sentence = bool(data["is_sentence"])
    except (LookupError, TypeError, AttributeError, ValueError, OverflowError) as error:
        if isinstance(error, DatasetError):
            raise
        raise DatasetError(f"{path}: not ReasonSeg's labels: {one_line(error)}") from error
    return {"texts": texts, "shapes": shapes, "is_sentence": is_sentence}


def _points(shape: dict[str, Any]) -> NDArray[np.int32]:
    """A shape's corners, int32 [1, N, 2] with N of at least 1; ValueError if they are invalid."""
    points = np.array([shape["points"]], np.int32)
    if points.ndim != 3 or points.shape[2] != 2:
        raise ValueError(f"points of {shape['label']!r} are not pairs of x and y")
    return points


def _read(
    path: Path, data: dict[str, Any], texts: list[str], count_ignored: bool
) -> tuple[NDArray[np.uint8], list[Referring]]:
    rgb = read_picture(path)
    truth, ignore = _labelled(data["shapes"], rgb.shape[:2])
    if count_ignored:
        truth, ignore = truth | ignore, np.zeros_like(ignore)
    kind = "sentence" if data["is_sentence"] else "phrase"
    return rgb, [Referring(text, kind, 1, truth, ignore, region=kind) for text in texts]


def _labelled(shapes: list[dict[str, Any]], size: tuple[int, ...]) -> tuple[Mask, Mask]:
    """The target's pixels and the ignored ones.

    Larger shapes are drawn first, so that parts cut out of them stay cut out; of equally large ones, those
    labelled later first, as in LISA's reversed sort.
    """
    drawn = []
    for shape in shapes:
        canvas = np.zeros(size, np.uint8)
        points = _points(shape)
        cv2.polylines(canvas, [*points], True, 1, 1)
        cv2.fillPoly(canvas, [*points], 1)
        drawn.append(("ignore" in shape["label"].lower(), canvas > 0))
    truth, ignore = np.zeros(size, bool), np.zeros(size, bool)
    for at in np.argsort([pixels.sum() for _, pixels in drawn])[::-1]:
        ignored, pixels = drawn[at]
        truth[pixels], ignore[pixels] = not ignored, ignored
    return truth, ignore
