"""The demo's visible results: a verdict for each answer, and a page that opens without a network."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from gsva_ros.eval.metrics import iou, overlap
from gsva_ros.overlay import jpeg_text
from gsva_ros.pages import render_page
from gsva_ros.truth import Referring

TEMPLATE = Path(__file__).with_name("demo.html")
#: Minimum IoU of a right mask. Each connected part of mask and truth also has to lie half on the other.
RIGHT_IOU = 0.5
#: Parts that are smaller than this fraction of the truth are ignored.
SMALLEST_PART = 0.03


@dataclass(frozen=True)
class Verdict:
    """One answered expression, compared with the ground truth.

    right: None if the ground truth is unknown. text: the reason, in words.
    """

    right: bool | None
    text: str


@dataclass(frozen=True)
class Line:
    """One expression's row on the page: its slot's colour (RGB), outcome, details and verdict."""

    expression: str
    colour: tuple[int, int, int]
    outcome: str
    detail: str
    verdict: Verdict


@dataclass(frozen=True)
class Card:
    """One answer: an image (uint8 [H, W, 3] RGB, answers drawn on it; None: no image) and its rows.

    stamp: of the frame, in seconds. milliseconds: from the frame's receipt to the answer.
    """

    instruction: str
    stamp: float
    milliseconds: float
    picture: NDArray[np.uint8] | None
    lines: Sequence[Line]


def verdict(truth: Referring | None, mask: NDArray[np.bool_] | None, decided: bool) -> Verdict:
    """Judge one expression.

    Args:
        mask: bool [H, W] of the answer; None if it was rejected. decided: SEGMENTED or REJECTED.
    """
    if not decided:
        return Verdict(None if truth is None else False, "no answer")
    if truth is None or truth.mask is None:
        return Verdict(None, "no ground truth")
    if not truth.referents:
        return Verdict(mask is None, "the object is not in the image")
    if mask is None:
        return Verdict(False, "the object is in the image")
    if mask.shape != truth.mask.shape:
        return Verdict(None, "the ground truth is of another size")
    share = float(iou(*overlap(mask, truth.mask)))
    least = SMALLEST_PART * np.count_nonzero(truth.mask)
    faults = [
        words
        for words, part, whole in (
            ("mask lacks a part", truth.mask, mask),
            ("mask covers something else", mask, truth.mask),
        )
        if _stray(part, whole, least)
    ]
    text = ", ".join([f"IoU {share:.2f}", *faults])
    return Verdict(share >= RIGHT_IOU and not faults, text)


def _stray(mask: NDArray[np.bool_], other: NDArray[np.bool_], least: float) -> bool:
    """Whether a connected part of `mask`, of at least `least` pixels, lies less than half on `other`."""
    count, parts = cv2.connectedComponents(mask.astype(np.uint8))
    areas = np.bincount(parts.ravel(), minlength=count)
    shared = np.bincount(parts[other], minlength=count)
    return bool(((areas >= least) & (2 * shared < areas))[1:].any())


def headline(cards: Sequence[Card]) -> str:
    """How many of the expressions with known ground truth were answered right, and how many lack it."""
    verdicts = [line.verdict.right for card in cards for line in card.lines]
    known = [right for right in verdicts if right is not None]
    if not known:
        return "No ground truth for this bag: its answers are not judged"
    told = f"{sum(known)} of {len(known)} answers are right"
    unknown = len(verdicts) - len(known)
    return f"{told}, {unknown} not judged" if unknown else told


def write_page(path: Path, cards: Sequence[Card], facts: Mapping[str, Any]) -> None:
    """Write the page with its images embedded as JPEG. `facts`: values shown at the top, by name."""
    page = render_page(
        TEMPLATE,
        cards=[
            (card, "" if card.picture is None else jpeg_text(card.picture, 90)) for card in cards
        ],
        facts=facts,
        headline=headline(cards),
        right_iou=RIGHT_IOU,
    )
    path.write_text(page, encoding="utf-8")
