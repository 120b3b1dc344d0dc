"""Answers drawn on the picture: one colour a target, rejections written on a darkened strip; where
nothing at all was found, the whole picture is darkened.

NumPy and OpenCV only, so that the node, the demo and the command share it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np

#: Distinct on most scenes and to most eyes (Okabe and Ito), RGB.
COLOURS = (
    (0, 114, 178),
    (230, 159, 0),
    (0, 158, 115),
    (204, 121, 167),
    (86, 180, 233),
    (213, 94, 0),
    (240, 228, 66),
)
REJECTED_COLOUR = (255, 120, 110)
#: What is left of the brightness of a picture in which nothing was found.
NOTHING_FOUND = 0.5

#: Pictures are enlarged to at least this width, in pixels, so that the words can be read.
MIN_WIDTH = 480


@dataclass
class Target:
    """One answered expression; `mask` is bool, height x width, or None where it was rejected."""

    slot: int
    expression: str
    mask: np.ndarray | None
    p_seg: float


def draw(rgb: np.ndarray, targets: Sequence[Target], opacity: float = 0.5) -> np.ndarray:
    """Return a copy of `rgb` (uint8, height x width x 3) with the targets drawn; same size."""
    picture = rgb.copy()
    for target in targets:
        if target.mask is not None:
            colour = np.array(COLOURS[target.slot % len(COLOURS)], np.float32)
            mixed = picture[target.mask] * (1.0 - opacity) + colour * opacity
            picture[target.mask] = mixed.astype(np.uint8)
    scale = max(0.35, min(picture.shape[:2]) / 900.0)
    for target in targets:
        if target.mask is not None:
            _outline(picture, target, scale)
    rejected = [t for t in targets if t.mask is None]
    if rejected and len(rejected) == len(targets):
        picture = (picture * NOTHING_FOUND).astype(np.uint8)
    if rejected:
        _strip(picture, rejected, scale)
    return picture


def poster(rgb: np.ndarray, targets: Sequence[Target], opacity: float = 0.5) -> np.ndarray:
    """Like `draw`, but a small picture is enlarged first, so that the words can be read."""
    factor = -(-MIN_WIDTH // rgb.shape[1])
    if factor <= 1:
        return draw(rgb, targets, opacity)
    size = (rgb.shape[1] * factor, rgb.shape[0] * factor)
    large = cv2.resize(rgb, size, interpolation=cv2.INTER_LINEAR)
    enlarged = []
    for target in targets:
        mask = target.mask
        if mask is not None:
            mask = cv2.resize(mask.astype(np.uint8), size, interpolation=cv2.INTER_NEAREST) > 0
        enlarged.append(Target(target.slot, target.expression, mask, target.p_seg))
    return draw(large, enlarged, opacity)


def label_image(shape: tuple[int, int], targets: Sequence[Target]) -> np.ndarray:
    """Return uint16, height x width: slot + 1, or 0; where masks overlap the later slot is seen."""
    labels = np.zeros(shape, np.uint16)
    for target in targets:
        if target.mask is not None:
            labels[target.mask] = target.slot + 1
    return labels


def _outline(picture: np.ndarray, target: Target, scale: float) -> None:
    assert target.mask is not None
    colour = COLOURS[target.slot % len(COLOURS)]
    contours, _ = cv2.findContours(
        target.mask.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE
    )
    if not contours:
        return
    cv2.drawContours(picture, contours, -1, colour, max(1, round(2 * scale)))
    x, y, _, _ = cv2.boundingRect(np.concatenate(contours))
    _write(picture, target.expression, (x, y - 3), scale, (255, 255, 255), background=colour)


def _strip(picture: np.ndarray, rejected: Sequence[Target], scale: float) -> None:
    line = round(28 * scale) + 4
    height = min(picture.shape[0], line * len(rejected) + 4)
    picture[-height:] = (picture[-height:] * 0.3).astype(np.uint8)
    for number, target in enumerate(rejected):
        text = f"not here: {target.expression} ({1.0 - target.p_seg:.0%})"
        y = picture.shape[0] - height + line * (number + 1) - 4
        _write(picture, text, (4, y), scale, REJECTED_COLOUR)


def _write(
    picture: np.ndarray,
    text: str,
    at: tuple[int, int],
    scale: float,
    colour: tuple[int, int, int],
    background: tuple[int, int, int] | None = None,
) -> None:
    """Write inside the picture; OpenCV's fonts know ASCII only, the rest becomes '?'."""
    text = text.encode("ascii", "replace").decode().replace("\n", " ")[:120]
    font = cv2.FONT_HERSHEY_SIMPLEX
    (width, height), below = cv2.getTextSize(text, font, scale, 1)
    x = int(max(0, min(at[0], picture.shape[1] - width - 1)))
    y = int(max(height + 1, min(at[1], picture.shape[0] - below)))
    if background is not None:
        cv2.rectangle(picture, (x, y - height - 1), (x + width, y + below), background, -1)
    cv2.putText(picture, text, (x, y), font, scale, colour, 1, cv2.LINE_AA)
