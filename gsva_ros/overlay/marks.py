"""Marks on what is found: outlines and tints, which stay distinguishable where objects are shared."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

from ..masks import mask_box
from .target import Colour, Mask, Picture, Shape, Target, colour_of, line_width

#: Masks that share more than this fraction of the smaller one count as the same object.
SHARED = 0.05


def marked(rgb: Picture, targets: Sequence[Target], opacity: float) -> Picture:
    """A copy with tints and outlines."""
    seen = [(t.mask, colour_of(t.slot)) for t in targets if t.mask is not None and t.mask.any()]
    masks, colours = [mask for mask, _ in seen], [colour for _, colour in seen]
    line = line_width(rgb.shape[:2])
    picture = rgb.copy()
    _tint(picture, masks, colours, opacity, 4 * line)
    _outline(picture, masks, colours, line)
    return picture


def _tint(
    picture: Picture,
    masks: Sequence[Mask],
    colours: Sequence[Colour],
    opacity: float,
    stripe: int,
) -> None:
    """Blend colours into the masks; where n masks overlap, each gets every n-th diagonal stripe."""
    parts = [_part(mask) for mask in masks]
    count = np.zeros(picture.shape[:2], np.int32)
    for mask, part in zip(masks, parts, strict=True):
        count[part] += mask[part]
    seen = np.zeros_like(count)
    for mask, part, colour in zip(masks, parts, colours, strict=True):
        rows, columns = np.divmod(np.flatnonzero(mask[part]), part[1].stop - part[1].start)
        rows, columns = rows + part[0].start, columns + part[1].start
        turn = (rows + columns) // stripe % count[rows, columns]
        own = turn == seen[rows, columns]
        seen[rows, columns] += 1
        at = rows[own], columns[own]
        mixed = picture[at] * (1.0 - opacity) + np.array(colour, np.float32) * opacity
        picture[at] = mixed.astype(np.uint8)


def _outline(picture: Picture, masks: Sequence[Mask], colours: Sequence[Colour], line: int) -> None:
    """Draw a line around the outside of each mask; lines around a shared object are nested."""
    rings = []
    for mask, level in zip(masks, _levels(masks), strict=True):
        inner, outer = level * line, (level + 1) * line
        part = _part(mask, outer + 1)
        outside = (~mask[part]).astype(np.uint8)
        distance = np.asarray(cv2.distanceTransform(outside, cv2.DIST_L2, 3))
        # Where a mask touches the image's edge, there is no outside: the line lies inside it.
        distance = np.where(mask[part], _edge_distance(mask.shape, part), distance)
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
        part = _part(mask)
        own = mask[part]
        taken = {
            levels[j]
            for j in range(i)
            if np.count_nonzero(own & masks[j][part]) > SHARED * min(areas[i], areas[j])
        }
        levels.append(next(n for n in range(len(masks)) if n not in taken))
    return levels


def _part(mask: Mask, margin: int = 0) -> tuple[slice, slice]:
    """The rows and columns of a mask that is not empty, and `margin` pixels around them."""
    box = mask_box(mask)
    assert box is not None, "empty masks are left out"
    x0, y0 = max(0, box[0] - margin), max(0, box[1] - margin)
    return np.s_[y0 : box[3] + margin, x0 : box[2] + margin]
