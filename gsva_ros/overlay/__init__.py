"""Draws answers on the image: an outline and a light tint for what is found, text for what is not.

An object keeps its own colour. Expressions that share an object stay distinguishable, as many as there are
COLOURS: their outlines are nested, and their tints alternate in stripes. Labels never cover each other, and
they lie beside the objects as long as the image has room for them; a thin line leads from a label to its
object.

NumPy and OpenCV only, so that the node, the demo and the command can share it.
"""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import replace

import cv2
import numpy as np
from numpy.typing import NDArray

from .labels import caption, placed_labels, write_labels
from .marks import marked
from .target import COLOURS, DARK, Colour, Picture, Shape, Target, colour_of

__all__ = [
    "COLOURS",
    "TINT",
    "Colour",
    "Target",
    "colour_of",
    "draw",
    "fitted",
    "jpeg_text",
    "label_image",
    "poster",
]

#: The mask colour's share of a tinted pixel.
TINT = 0.2
#: Brightness factor of an image in which nothing was found.
NOTHING_FOUND = 0.5
#: `poster` enlarges images to at least this width, in pixels, so that the text is legible.
MIN_WIDTH = 480
#: But not beyond this height: a narrow image gets a dark margin instead.
MAX_HEIGHT = 2000


def draw(rgb: Picture, targets: Sequence[Target], opacity: float = TINT) -> Picture:
    """Draw the targets on a copy of `rgb` (uint8 [H, W, 3]), of the same size.

    If there is no room beside the objects, a label is placed where it covers the least of them. An image in
    which nothing was found is darkened.

    Args:
        opacity: of the masks' tint, 0 to 1.
    """
    picture = marked(rgb, targets, opacity)
    if targets and all(t.mask is None for t in targets):
        picture = (picture * NOTHING_FOUND).astype(np.uint8)
    # Objects before rejections: their labels have the least choice of place.
    in_order = sorted(targets, key=lambda t: t.mask is None)
    write_labels(picture, placed_labels(rgb.shape[:2], in_order))
    return picture


def poster(rgb: Picture, targets: Sequence[Target], opacity: float = TINT) -> Picture:
    """Like `draw`, for pages and files: larger than the image, so that no label covers an object.

    A small image is enlarged; labels for which it has no room, and rejections, are listed below it, each
    expression once. If those of several objects are, their numbers (from 1) stand there and at the objects.
    """
    factor = max(1, min(-(-MIN_WIDTH // rgb.shape[1]), MAX_HEIGHT // rgb.shape[0]))
    size = (rgb.shape[1] * factor, rgb.shape[0] * factor)
    if factor > 1:
        rgb = np.asarray(cv2.resize(rgb, size, interpolation=cv2.INTER_LINEAR), np.uint8)
    targets = [_resized(target, size, cv2.INTER_NEAREST) for target in targets]
    picture = marked(rgb, targets, opacity)
    shape = rgb.shape[:2]
    placed = placed_labels(shape, [t for t in targets if t.mask is not None], free_only=True)
    beside = {p.target.slot for p in placed}
    unlabelled = [t for t in targets if t.slot not in beside]
    # An expression may have several instances, each a target of its own.
    below = list({t.slot: t for t in unlabelled}.values())
    if sum(t.mask is not None for t in below) > 1:
        apart = [t for t in unlabelled if t.mask is not None]
        numbers = [replace(t, expression=f"{t.slot + 1}") for t in apart]
        placed += placed_labels(shape, numbers, before=placed)
        below = [_numbered(t) if t.mask is not None else t for t in below]
    write_labels(picture, placed)
    narrow = max(0, MIN_WIDTH - picture.shape[1])
    side = np.full((picture.shape[0], narrow, 3), DARK, np.uint8)
    picture = np.concatenate([picture, side], 1)
    return np.concatenate([picture, caption(below, picture.shape[:2])], 0)


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


def _numbered(target: Target) -> Target:
    return replace(target, expression=f"{target.slot + 1}: {target.expression}")


def _resized(target: Target, size: tuple[int, int], how: int) -> Target:
    """A target whose mask is size[0] wide and size[1] high; how: OpenCV's interpolation."""
    if target.mask is None or target.mask.shape == size[::-1]:
        return target
    mask = cv2.resize(target.mask.astype(np.float32), size, interpolation=how) > 0
    return replace(target, mask=mask)
