"""Masks as COCO's run lengths, written and read."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as rle

from .errors import InputError


class MaskError(InputError):
    """Run lengths that form no mask; the message says why."""


def coco_mask(mask: NDArray[np.bool_]) -> dict[str, Any]:
    """A mask, bool [H, W], as fields of a COCO annotation: area, bbox, and segmentation as run lengths."""
    coded = rle.encode(np.asfortranarray(mask.astype(np.uint8)))
    return {
        "area": int(mask.sum()),
        "bbox": rle.toBbox(coded).tolist(),
        "segmentation": coded | {"counts": coded["counts"].decode()},
    }


def run_lengths_mask(given: str | list[int], size: tuple[int, int]) -> NDArray[np.bool_]:
    """The mask of COCO's run lengths, compressed (text) or not, bool of `size` (height, width).

    Raises:
        MaskError: they are not run lengths, or do not form a mask of this size.
    """
    numbers = isinstance(given, list) and all(isinstance(count, int) for count in given)
    if not numbers and not isinstance(given, str):
        raise MaskError(f"its run lengths are {type(given).__name__}, neither text nor numbers")
    return rle.decode(_run_lengths(given, size)).astype(bool)


def _run_lengths(given: str | list[int], size: tuple[int, int]) -> dict[str, Any]:
    """Run lengths in pycocotools' format. Its C code trusts its input, so all of it is checked here."""
    counts = given if isinstance(given, list) else _unpacked(given)
    if (least := min(counts, default=0)) < 0:
        raise MaskError(f"its run lengths contain the negative number {least}")
    if sum(counts) != size[0] * size[1]:
        pixels = size[0] * size[1]
        raise MaskError(
            f"its run lengths add up to {sum(counts)}, not to the image's {pixels} pixels"
        )
    return rle.frPyObjects({"size": list(size), "counts": counts}, *size)


def _unpacked(text: str) -> list[int]:
    """Run lengths from COCO's compressed form.

    Each is a little-endian number with 5 bits per character (48 to 111; bit 32: more follow; bit 16 of the
    last: the sign); from the fourth on, it is the difference to the one before the last.
    Source: `rleFrString` of the COCO API.
    """
    counts: list[int] = []
    value = shift = 0
    for character in text:
        bits = ord(character) - 48
        if not 0 <= bits < 64 or shift > 30:
            raise MaskError(f"its run lengths contain the invalid character {character!r}")
        value |= (bits & 31) << shift
        shift += 5
        if bits & 32:
            continue
        if bits & 16:
            value -= 1 << shift
        counts.append(value + (counts[-2] if len(counts) > 2 else 0))
        value = shift = 0
    if shift:
        raise MaskError("its run lengths end inside a number")
    return counts
