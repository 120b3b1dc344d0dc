"""Draws answers on the image: an outline and a light tint for what is found, text for what is not.

An object keeps its own colour. Expressions that share an object stay distinguishable: their outlines are
nested, and their tints alternate in stripes. Labels never cover each other, and they lie beside the objects
as long as the image has room for them; a thin line leads from a label to its object.

NumPy and OpenCV only, so that the node, the demo and the command can share it.
"""

from __future__ import annotations

import base64
import math
import textwrap
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass, replace

import cv2
import numpy as np
from numpy.typing import NDArray

from .answer import Slot
from .masks import Box, mask_box

Shape = tuple[int, int]  # height, width
Picture = NDArray[np.uint8]
Mask = NDArray[np.bool_]
Colour = tuple[int, int, int]

#: Distinct on most scenes and to most eyes (Okabe and Ito), RGB.
COLOURS: tuple[Colour, ...] = (
    (0, 114, 178),
    (230, 159, 0),
    (0, 158, 115),
    (204, 121, 167),
    (86, 180, 233),
    (213, 94, 0),
    (240, 228, 66),
)
REJECTED: Colour = (255, 150, 140)
DARK: Colour = (24, 24, 24)
WHITE: Colour = (255, 255, 255)
#: The mask colour's share of a tinted pixel.
TINT = 0.2
#: Brightness factor of an image in which nothing was found.
NOTHING_FOUND = 0.5
#: `poster` enlarges images to at least this width, in pixels, so that the text is legible.
MIN_WIDTH = 480
#: But not beyond this height: a narrow image gets a dark margin instead.
MAX_HEIGHT = 2000
#: Below this scale, OpenCV's font is illegible.
SMALLEST_FONT = 0.4
#: Shorter side, in pixels, of an image with font scale 1: legible when displayed 320 wide.
FONT_SIDE = 650.0
FONT = cv2.FONT_HERSHEY_SIMPLEX
#: Before version 5, OpenCV's letters are lines; since then they are areas.
DRAWN_AS_LINES = int(cv2.__version__.partition(".")[0]) < 5
#: Typographic characters that have no decomposition, as ASCII.
PLAIN = str.maketrans({"‘": "'", "’": "'", "“": '"', "”": '"', "–": "-", "—": "-", "ß": "ss"})
#: Maximum lines per label.
LINES = 3
#: Maximum labels below a poster: hundreds would leave little of the image on a page.
LISTED = 24
#: Masks that share more than this fraction of the smaller one count as the same object.
SHARED = 0.05


@dataclass(frozen=True)
class Target:
    """One answered expression; `mask` is bool [H, W], or None if it was rejected."""

    slot: int
    expression: str
    mask: Mask | None
    p_seg: float

    @classmethod
    def of(cls, number: int, slot: Slot) -> Target:
        """The `number`-th slot (from 0) of an engine's answer; if it is rejected, without its mask."""
        return cls(number, slot.expression, None if slot.rejected else slot.mask, slot.p_seg)


@dataclass(frozen=True)
class _Label:
    """Lines of text on a coloured background; width and height include its margin, in pixels."""

    lines: tuple[str, ...]
    scale: float
    ground: Colour
    ink: Colour
    width: int
    height: int


@dataclass(frozen=True)
class _Placed:
    """A target's label and its upper left corner; `free`: it covers no object."""

    target: Target
    label: _Label
    x: int
    y: int
    free: bool

    @property
    def area(self) -> tuple[slice, slice]:
        """The label's rows and columns in the image."""
        return np.s_[self.y : self.y + self.label.height, self.x : self.x + self.label.width]


def draw(rgb: Picture, targets: Sequence[Target], opacity: float = TINT) -> Picture:
    """Draw the targets on a copy of `rgb` (uint8 [H, W, 3]), of the same size.

    If there is no room beside the objects, a label is placed where it covers the least of them. An image in
    which nothing was found is darkened.

    Args:
        opacity: of the masks' tint, 0 to 1.
    """
    picture = _marked(rgb, targets, opacity)
    if targets and all(t.mask is None for t in targets):
        picture = (picture * NOTHING_FOUND).astype(np.uint8)
    # Objects before rejections: their labels have the least choice of place.
    in_order = sorted(targets, key=lambda t: t.mask is None)
    _write(picture, _placed(rgb.shape[:2], in_order))
    return picture


def poster(rgb: Picture, targets: Sequence[Target], opacity: float = TINT) -> Picture:
    """Like `draw`, for pages and files: larger than the image, so that no label covers an object.

    A small image is enlarged; labels for which it has no room, and rejections, are listed below it. If
    those of several objects are, their numbers (from 1) stand there and at the objects.
    """
    factor = max(1, min(-(-MIN_WIDTH // rgb.shape[1]), MAX_HEIGHT // rgb.shape[0]))
    size = (rgb.shape[1] * factor, rgb.shape[0] * factor)
    if factor > 1:
        rgb = np.asarray(cv2.resize(rgb, size, interpolation=cv2.INTER_LINEAR), np.uint8)
    targets = [_resized(target, size, cv2.INTER_NEAREST) for target in targets]
    picture = _marked(rgb, targets, opacity)
    shape = rgb.shape[:2]
    placed = _placed(shape, [t for t in targets if t.mask is not None], free_only=True)
    beside = {p.target.slot for p in placed}
    below = [t for t in targets if t.slot not in beside]
    apart = [t for t in below if t.mask is not None]
    if len(apart) > 1:
        numbers = [replace(t, expression=f"{t.slot + 1}") for t in apart]
        placed += _placed(shape, numbers, before=placed)
        below = [_numbered(t) if t.mask is not None else t for t in below]
    _write(picture, placed)
    narrow = max(0, MIN_WIDTH - picture.shape[1])
    side = np.full((picture.shape[0], narrow, 3), DARK, np.uint8)
    picture = np.concatenate([picture, side], 1)
    return np.concatenate([picture, _caption(below, picture.shape[:2])], 0)


def fitted(rgb: Picture, targets: Sequence[Target], longest: int) -> tuple[Picture, list[Target]]:
    """An image and its targets, shrunk so that no side has more than `longest` pixels.

    A large image is drawn and sent faster so. A mask of few pixels stays visible.
    """
    height, width = rgb.shape[:2]
    factor = longest / max(height, width)
    if factor >= 1.0:
        return rgb, list(targets)
    size = max(1, round(width * factor)), max(1, round(height * factor))
    rgb = np.asarray(cv2.resize(rgb, size, interpolation=cv2.INTER_AREA), np.uint8)
    return rgb, [_resized(target, size, cv2.INTER_AREA) for target in targets]


def label_image(shape: Shape, targets: Sequence[Target]) -> NDArray[np.uint16]:
    """Return uint16 [H, W]: slot + 1, or 0; where masks overlap, the later slot wins."""
    labels = np.zeros(shape, np.uint16)
    for target in targets:
        if target.mask is not None:
            labels[target.mask] = target.slot + 1
    return labels


def jpeg_text(rgb: Picture, quality: int = 95) -> str:
    """An image as JPEG in base64, for a page; quality: 0 to 100."""
    bgr = cv2.cvtColor(rgb, cv2.COLOR_RGB2BGR)
    _, data = cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, quality])
    return base64.b64encode(data.tobytes()).decode()


def colour_of(slot: int) -> Colour:
    """The colour of a slot's outline and label, RGB."""
    return COLOURS[slot % len(COLOURS)]


def _numbered(target: Target) -> Target:
    return replace(target, expression=f"{target.slot + 1}: {target.expression}")


def _resized(target: Target, size: tuple[int, int], how: int) -> Target:
    """A target whose mask is size[0] wide and size[1] high; how: OpenCV's interpolation."""
    if target.mask is None or target.mask.shape == size[::-1]:
        return target
    mask = cv2.resize(target.mask.astype(np.float32), size, interpolation=how) > 0
    return replace(target, mask=mask)


# Marks on objects


def _marked(rgb: Picture, targets: Sequence[Target], opacity: float) -> Picture:
    """A copy with tints and outlines."""
    seen = [(t.mask, colour_of(t.slot)) for t in targets if t.mask is not None and t.mask.any()]
    masks, colours = [mask for mask, _ in seen], [colour for _, colour in seen]
    line = _line_width(rgb.shape[:2])
    picture = rgb.copy()
    _tint(picture, masks, colours, opacity, 4 * line)
    _outline(picture, masks, colours, line)
    return picture


def _line_width(shape: Shape) -> int:
    return max(1, round(min(shape) / 240))


def _tint(
    picture: Picture,
    masks: Sequence[Mask],
    colours: Sequence[Colour],
    opacity: float,
    stripe: int,
) -> None:
    """Blend colours into the masks; where n masks overlap, each gets every n-th diagonal stripe."""
    count = np.zeros(picture.shape[:2], np.int32)
    for mask in masks:
        count += mask
    seen = np.zeros_like(count)
    for mask, colour in zip(masks, colours, strict=True):
        rows, columns = np.nonzero(mask)
        turn = (rows + columns) // stripe % count[rows, columns]
        own = turn == seen[rows, columns]
        seen[rows, columns] += 1
        at = rows[own], columns[own]
        mixed = picture[at] * (1.0 - opacity) + np.array(colour, np.float32) * opacity
        picture[at] = mixed.astype(np.uint8)


def _outline(picture: Picture, masks: Sequence[Mask], colours: Sequence[Colour], line: int) -> None:
    """Draw a line around the outside of each mask; lines around a shared object are nested."""
    height, width = picture.shape[:2]
    rings = []
    for mask, level in zip(masks, _levels(masks), strict=True):
        inner, outer = level * line, (level + 1) * line
        box = mask_box(mask)
        assert box is not None, "empty masks are left out"
        x0, y0 = max(0, box[0] - outer - 1), max(0, box[1] - outer - 1)
        part = np.s_[y0 : min(height, box[3] + outer + 1), x0 : min(width, box[2] + outer + 1)]
        outside = (~mask[part]).astype(np.uint8)
        distance = np.asarray(cv2.distanceTransform(outside, cv2.DIST_L2, 3))
        # Where a mask touches the image's edge, there is no outside: the line lies inside it.
        distance = np.where(mask[part], _edge_distance((height, width), part), distance)
        halo = (distance > inner) & (distance <= outer + 1)
        region = picture[part]
        region[halo] = (region[halo] * 0.35).astype(np.uint8)
        rings.append((part, (distance > inner) & (distance <= outer)))
    for (part, ring), colour in zip(rings, colours, strict=True):
        picture[part][ring] = colour


def _edge_distance(shape: Shape, part: tuple[slice, slice]) -> NDArray[np.float32]:
    """Distance of each pixel of a part to the outside of an image of this shape; 1 at its edge."""
    rows, columns = (
        np.minimum(np.arange(n), np.arange(n)[::-1])[s] + 1
        for n, s in zip(shape, part, strict=True)
    )
    return np.minimum(rows[:, None], columns[None, :]).astype(np.float32)


def _levels(masks: Sequence[Mask]) -> list[int]:
    """For each mask, the lowest level that no earlier mask of the same object has."""
    levels: list[int] = []
    areas = [np.count_nonzero(mask) for mask in masks]
    for i, mask in enumerate(masks):
        taken = {
            levels[j]
            for j in range(i)
            if np.count_nonzero(mask & masks[j]) > SHARED * min(areas[i], areas[j])
        }
        levels.append(next(n for n in range(len(masks)) if n not in taken))
    return levels


# Labels


def _placed(
    shape: Shape,
    targets: Sequence[Target],
    free_only: bool = False,
    before: Sequence[_Placed] = (),
) -> list[_Placed]:
    """A place for each target's label, as near to its object as possible; a rejection's at the lower left.

    No two labels overlap, nor do they those that were placed `before`. One that fits nowhere beside the
    others is left out; with `free_only`, also one that would cover an object.
    """
    things = np.zeros(shape, np.uint8)
    for target in (*targets, *(each.target for each in before)):
        if target.mask is not None:
            things |= target.mask.astype(np.uint8)
    reach = 2 * _line_width(shape) + 3  # the outline, and a small margin
    things = np.asarray(cv2.dilate(things, np.ones((reach, reach), np.uint8)), np.uint8)
    labels = np.zeros(shape, np.uint8)
    for each in before:
        labels[each.area] = 1
    placed = []
    for target in targets:
        found = _place(target, things, labels)
        if found is None or (free_only and not found.free):
            continue
        labels[found.area] = 1
        placed.append(found)
    return placed


def _place(target: Target, things: NDArray[np.uint8], labels: NDArray[np.uint8]) -> _Placed | None:
    """A free place for the whole label, else for its first line, else the place that covers the least."""
    shape = things.shape
    anchor = _anchor(target, shape)
    coarse = max(1, min(shape) // 120)
    found = None
    # Several lines leave room beside them; a single one may take almost the image's width.
    for lines, share in ((LINES, 0.6), (1, 0.9)):
        label = _label_of(target, shape, lines, share)
        if label.width > shape[1] or label.height > shape[0]:
            continue
        for step in dict.fromkeys((coarse, 1)):
            placed = _best(target, label, anchor, things, labels, step)
            if placed is not None and placed.free:
                return placed
            found = found or placed
    return found


def _best(
    target: Target,
    label: _Label,
    anchor: Box,
    things: NDArray[np.uint8],
    labels: NDArray[np.uint8],
    step: int,
) -> _Placed | None:
    """The best place among every step-th pixel; None if each would cover another label."""
    blocked = _inside(labels, label, step) > 0
    if blocked.all():
        return None
    covered = _inside(things, label, step)
    xs, ys = (np.arange(n, dtype=np.float32) * step for n in covered.shape[::-1])
    left, top, right, bottom = anchor
    # Distance from the label's rectangle to the object's box; above and centred if several are as near,
    # to the step.
    dx = np.maximum(np.maximum(left - xs - label.width, xs - right), 0)[None, :]
    dy = np.maximum(np.maximum(top - ys - label.height, ys - bottom), 0)[:, None]
    aside = np.abs(xs + label.width / 2 - (left + right) / 2)[None, :]
    cost = np.hypot(dx, dy) + 0.05 * aside + 0.02 * np.maximum(ys - top, 0)[:, None]
    cost[ys > top] += step
    cost += covered * float(max(things.shape))
    cost[blocked] = np.inf
    row, column = np.unravel_index(int(cost.argmin()), cost.shape)
    return _Placed(target, label, int(xs[column]), int(ys[row]), not covered[row, column])


def _inside(marks: NDArray[np.uint8], label: _Label, step: int) -> NDArray[np.int32]:
    """How many marked pixels of [H, W] a label covers, with its corner at each step-th pixel."""
    sums = cv2.integral(marks)
    h, w = label.height, label.width
    inside = sums[h:, w:] - sums[:-h, w:] - sums[h:, :-w] + sums[:-h, :-w]
    return np.asarray(inside[::step, ::step], np.int32)


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


def _label_of(target: Target, shape: Shape, lines: int, share: float) -> _Label:
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


def _label(text: str, shape: Shape, ground: Colour, ink: Colour, most: int, share: float) -> _Label:
    """Text in at most `most` lines."""
    scale = max(SMALLEST_FONT, min(shape) / FONT_SIDE)

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
    return _Label(
        tuple(lines), scale, ground, ink, width + 6, len(lines) * (height + below + 2) + 2
    )


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


def _write(picture: Picture, placed: Sequence[_Placed]) -> None:
    """Draw the labels, and beneath them the lines that lead to their objects."""
    line = _line_width(picture.shape[:2])
    for each in placed:
        if each.free:
            _lead(picture, each, line)
    for each in placed:
        _print(picture, each.label, each.x, each.y)


def _lead(picture: Picture, placed: _Placed, line: int) -> None:
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


def _print(picture: Picture, label: _Label, x: int, y: int) -> None:
    cv2.rectangle(
        picture, (x, y), (x + label.width - 1, y + label.height - 1), label.ground, cv2.FILLED
    )
    stroke = _stroke(label.scale)
    (_, height), below = cv2.getTextSize("lg", FONT, label.scale, stroke)
    for number, text in enumerate(label.lines):
        baseline = y + 1 + number * (height + below + 2) + height + 1
        at = (x + 3, baseline)
        cv2.putText(picture, text, at, FONT, label.scale, label.ink, stroke, cv2.LINE_AA)


def _caption(targets: Sequence[Target], shape: Shape) -> Picture:
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
