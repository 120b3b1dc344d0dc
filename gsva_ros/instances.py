"""Splits the single mask of a plural expression ("all cans") into connected instances."""

from __future__ import annotations

from collections.abc import Iterator

import cv2
import numpy as np
from numpy.typing import NDArray

from .masks import Region

#: A component smaller than this fraction of the largest is merged into the nearest larger one.
CRUMB = 0.05


def parts(region: Region | None, connected: bool) -> list[Region]:
    """A mask's instances: all of it or, if `connected`, each of its components; none if it is None."""
    if region is None:
        return []
    if not connected:
        return [region]
    return [Region.within(region.box, mask) for mask in split(region.crop)]


def split(mask: NDArray[np.bool_]) -> Iterator[NDArray[np.bool_]]:
    """The mask's 8-connected components, from left to right; their union is the mask.

    They are created one at a time, because a noisy mask has thousands.

    Args:
        mask: bool [H, W], not empty. Objects that touch in the image stay one instance.
    """
    count, labels, stats, centres = cv2.connectedComponentsWithStats(mask.astype(np.uint8))
    areas = stats[1:, cv2.CC_STAT_AREA]
    large = np.flatnonzero(areas >= CRUMB * areas.max()) + 1
    owner = np.zeros(count, int)
    owner[large] = large
    for crumb in set(range(1, count)) - set(large.tolist()):
        distances = np.linalg.norm(centres[large] - centres[crumb], axis=1)
        owner[crumb] = large[distances.argmin()]
    owned = owner[labels]
    order = sorted(large.tolist(), key=lambda label: stats[label, cv2.CC_STAT_LEFT])
    return (owned == label for label in order)
