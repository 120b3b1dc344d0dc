"""Labels: how large they are, where each is placed, and how they are written."""

from __future__ import annotations

import math
import textwrap
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from ..masks import Box, mask_box
from .target import DARK, Colour, Picture, Shape, Target, colour_of, line_width

REJECTED: Colour = (255, 150, 140)
WHITE: Colour = (255, 255, 255)
#: Below this scale, OpenCV's font is illegible.
SMALLEST_FONT = 0.4
#: Shorter side and width, in pixels, of an image with font scale 1: legible when displayed 320 wide. The
#: width counts in images that are wider than 16:9.
FONT_SIDE, FONT_WIDTH = 650.0, 1160.0
FONT = cv2.FONT_HERSHEY_SIMPLEX
#: Before version 5, OpenCV's letters are lines; since then they are areas.
DRAWN_AS_LINES = int(cv2.__version__.partition(".")[0]) < 5
#: Typographic characters that have no decomposition, as ASCII.
PLAIN = str.maketrans({"‘": "'", "’": "'", "“": '"', "”": '"', "–": "-", "—": "-", "ß": "ss"})
#: Maximum lines per label.
LINES = 3
#: Maximum labels below a poster: hundreds would leave little of the image on a page.
LISTED = 24


Sums = NDArray[Any]  # [H + 1, W + 1]: of the pixels above and to the left (`cv2.integral`)


@dataclass(frozen=True)
class Label:
    """Lines of text on a coloured background; width and height include its margin, in pixels."""

    lines: tuple[str, ...]
    scale: float
    ground: Colour
    ink: Colour
    width: int
    height: int


@dataclass(frozen=True)
class Placed:
    """A target's label and its upper left corner; `free`: it covers no object."""

    target: Target
    label: Label
    x: int
    y: int
    free: bool

    @property
    def area(self) -> tuple[slice, slice]:
        """The label's rows and columns in the image."""
        return np.s_[self.y : self.y + self.label.height, self.x : self.x + self.label.width]


def placed_labels(
    shape: Shape,
    targets: Sequence[Target],
    free_only: bool = False,
    before: Sequence[Placed] = (),
) -> list[Placed]:
    """A place for each target's label, as near to its object as possible; a rejection's at the lower left.

    No two labels overlap, nor do they those that were placed `before`. One that fits nowhere beside the
    others is left out; with `free_only`, also one that would cover an object.
    """
    things = cv2.integral(_things(shape, (*targets, *(each.target for each in before))))
    labels = np.zeros(shape, np.uint8)
    for each in before:
        labels[each.area] = 1
    placed = []
    for target in targets:
        found = _place(target, shape, things, cv2.integral(labels), free_only)
        if found is not None:
            labels[found.area] = 1
            placed.append(found)
    return placed


def _things(shape: Shape, targets: Sequence[Target]) -> NDArray[np.float32]:
    """What a label costs at each pixel [H, W]: 0 beside the objects; more, the smaller the object there.

    Covering all of an object costs the same, however large it is: a label is on a table, not on its screws.
    """
    things = np.zeros(shape, np.float32)
    for target in targets:
        if target.mask is not None and (box := mask_box(target.mask)):
            x0, y0, x1, y1 = box
            mask, here = target.mask[y0:y1, x0:x1], things[y0:y1, x0:x1]
            # Whole numbers, of which sums are exact.
            cost = np.float32(things.size // np.count_nonzero(mask))
            np.maximum(here, mask * cost, out=here)
    reach = 2 * line_width(shape) + 3  # the outline, and a small margin
    return np.asarray(cv2.dilate(things, np.ones((reach, reach), np.uint8)), np.float32)


def _place(
    target: Target, shape: Shape, things: Sums, labels: Sums, free_only: bool
) -> Placed | None:
    """A free place for the whole label, else for its first line, else the place that covers the least."""
    anchor = _anchor(target, shape)
    # Labels grow with the image, and so does the distance between the places that are tried.
    coarse, fine = (max(1, min(shape) // lines) for lines in (120, 480))
    found = None
    # Several lines leave room beside them; a single one may take almost the image's width.
    forms = [_label_of(target, shape, lines, share) for lines, share in ((LINES, 0.6), (1, 0.9))]
    for label in dict.fromkeys(forms):
        for step in dict.fromkeys((coarse, fine)):
            covering = found is None and not free_only
            placed = _best(target, label, anchor, things, labels, step, covering)
            if placed is not None and placed.free:
                return placed
            found = found or placed
    return found


def _best(
    target: Target,
    label: Label,
    anchor: Box,
    things: Sums,
    labels: Sums,
    step: int,
    covering: bool,
) -> Placed | None:
    """The best place among every step-th pixel; None if each would cover another label.

    Args:
        covering: whether the place may cover objects.
    """
    covered = _inside(things, label, step)
    blocked = _inside(labels, label, step) > 0
    if not covering:
        blocked |= covered > 0
    if blocked.all():
        return None
    xs, ys = (np.arange(n, dtype=np.float32) * step for n in covered.shape[::-1])
    left, top, right, bottom = anchor
    # Distance from the label's rectangle to the object's box; above and centred if several are as near,
    # to the step.
    dx = np.maximum(np.maximum(left - xs - label.width, xs - right), 0)[None, :]
    dy = np.maximum(np.maximum(top - ys - label.height, ys - bottom), 0)[:, None]
    aside = np.abs(xs + label.width / 2 - (left + right) / 2)[None, :]
    cost = np.hypot(dx, dy) + 0.05 * aside + 0.02 * np.maximum(ys - top, 0)[:, None]
    cost[ys > top] += step
    cost += covered * float(max(things.shape) - 1)
    cost[blocked] = np.inf
    row, column = np.unravel_index(int(cost.argmin()), cost.shape)
    return Placed(target, label, int(xs[column]), int(ys[row]), not covered[row, column])


def _inside(sums: Sums, label: Label, step: int) -> Sums:
    """The sum of what a label covers, with its corner at each step-th pixel."""
    top, bottom = sums[: -label.height : step], sums[label.height :: step]
    left, right = np.s_[:, : -label.width : step], np.s_[:, label.width :: step]
    inside = bottom[right] - bottom[left]
    inside -= top[right]
    inside += top[left]
    return inside


def _anchor(target: Target, shape: Shape) -> Box:
    """The box that a label should be near: the object's largest part, or the image's lower left corner."""
    contours = _contours(target)
    if not contours:
        return (0, shape[0], 0, shape[0])
    x, y, width, height = cv2.boundingRect(max(contours, key=cv2.contourArea))
    return x, y, x + width, y + height


def _contours(target: Target) -> Sequence[NDArray[np.int32]]:
    """The contours of a target's mask, each [N, 1, 2] as x, y; none for a rejection."""
    if target.mask is None:
        return ()
    mask = target.mask.astype(np.uint8)
    found, _ = cv2.findContours(mask, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    return [np.asarray(contour, np.int32) for contour in found]


def _label_of(target: Target, shape: Shape, lines: int, share: float) -> Label:
    """An object's label is its expression; a rejection's also says that it is one.

    If OpenCV's font lacks most of the expression's characters, its number (from 1) stands for it.

    Args:
        lines: at most. share: the label's maximum width, as a fraction of the image's.
    """
    words, missing = _ascii(target.expression)
    if 2 * missing > len(words):
        words = f"no. {target.slot + 1}"
    if target.mask is None:
        text = f"not here: {words} ({1.0 - target.p_seg:.0%})"
        return _label(text, shape, DARK, REJECTED, lines, share)
    ground = colour_of(target.slot)
    return _label(words, shape, ground, _ink(ground), lines, share)


def _ascii(text: str) -> tuple[str, int]:
    """Text in OpenCV's characters, without accents, and the number of those that became '?'."""
    parts = unicodedata.normalize("NFKD", text.translate(PLAIN))
    letters = [c for c in parts if not unicodedata.combining(c)]
    words = " ".join("".join(letters).encode("ascii", "replace").decode().split())
    return words, sum(not c.isascii() for c in letters)


def _label(text: str, shape: Shape, ground: Colour, ink: Colour, most: int, share: float) -> Label:
    """Text in at most `most` lines."""
    scale = max(SMALLEST_FONT, min(shape) / FONT_SIDE, shape[1] / FONT_WIDTH)

    def width_of(line: str) -> int:
        return int(cv2.getTextSize(line, FONT, scale, _stroke(scale))[0][0])

    limit = share * shape[1] - 6
    sample = "the red mug"
    room = max(8, int(limit * len(sample) / width_of(sample)))
    while True:  # letters differ in width
        lines = textwrap.wrap(text, room, max_lines=most, placeholder=" ...") or ["?"]
        width = max(map(width_of, lines))
        if width <= limit or room == 8:
            break
        room = max(8, min(room - 1, int(room * limit / width)))
    (_, height), below = cv2.getTextSize("lg", FONT, scale, _stroke(scale))
    return Label(tuple(lines), scale, ground, ink, width + 6, len(lines) * (height + below + 2) + 2)


def _stroke(scale: float) -> int:
    """The thickness of letters, so that they are still seen when the image is displayed 320 wide."""
    return math.ceil(2.0 * scale) if DRAWN_AS_LINES else 1


def _ink(ground: Colour) -> Colour:
    """Dark or white, whichever has the higher contrast with the background (WCAG)."""
    return max(DARK, WHITE, key=lambda ink: abs(math.log(_luminance(ink) / _luminance(ground))))


def _luminance(colour: Colour) -> float:
    """Relative luminance of sRGB, with the 0.05 that WCAG's contrast adds to both sides."""
    parts = (c / 255 / 12.92 if c <= 10 else ((c / 255 + 0.055) / 1.055) ** 2.4 for c in colour)
    return 0.05 + sum(w * p for w, p in zip((0.2126, 0.7152, 0.0722), parts, strict=True))


def write_labels(picture: Picture, placed: Sequence[Placed]) -> None:
    """Draw the labels, and beneath them the lines that lead to their objects."""
    line = line_width(picture.shape[:2])
    for each in placed:
        if each.free:
            _lead(picture, each, line)
    for each in placed:
        _print(picture, each.label, each.x, each.y)


def _lead(picture: Picture, placed: Placed, line: int) -> None:
    """Draw a line from a label to the nearest point of its object's outline."""
    contours = _contours(placed.target)
    if not contours:
        return
    edge = np.concatenate(contours)[:, 0].astype(np.float64)
    corner = np.array((placed.x, placed.y))
    size = np.array((placed.label.width, placed.label.height))
    starts = np.clip(edge, corner, corner + size - 1)
    lengths = np.hypot(*(starts - edge).T)
    nearest = int(lengths.argmin())
    start, length = starts[nearest], float(lengths[nearest])
    gap = line + 2  # the line's round end stays outside the object
    if length <= gap:
        return
    end = edge[nearest] + (start - edge[nearest]) * gap / length
    (x0, y0), (x1, y1) = np.rint((start, end)).astype(int).tolist()
    cv2.line(picture, (x0, y0), (x1, y1), DARK, line + 2, cv2.LINE_AA)
    cv2.line(picture, (x0, y0), (x1, y1), placed.label.ground, line, cv2.LINE_AA)


def _print(picture: Picture, label: Label, x: int, y: int) -> None:
    cv2.rectangle(
        picture, (x, y), (x + label.width - 1, y + label.height - 1), label.ground, cv2.FILLED
    )
    stroke = _stroke(label.scale)
    (_, height), below = cv2.getTextSize("lg", FONT, label.scale, stroke)
    for number, text in enumerate(label.lines):
        baseline = y + 1 + number * (height + below + 2) + height + 1
        at = (x + 3, baseline)
        cv2.putText(picture, text, at, FONT, label.scale, label.ink, stroke, cv2.LINE_AA)


def caption(targets: Sequence[Target], shape: Shape) -> Picture:
    """A dark strip of an image's width with the labels one below another; no rows without targets.

    Beyond LISTED labels, it says how many there are.
    """
    share = 1.0 - 8 / shape[1]
    labels = [_label_of(target, shape, LINES, share) for target in targets[:LISTED]]
    if more := len(targets) - len(labels):
        labels.append(_label(f"and {more} more", shape, DARK, WHITE, 1, share))
    if not labels:
        return np.zeros((0, shape[1], 3), np.uint8)
    height = sum(label.height + 4 for label in labels) + 4
    strip = np.full((height, shape[1], 3), DARK, np.uint8)
    y = 4
    for label in labels:
        _print(strip, label, 4, y)
        y += label.height + 4
    return strip
