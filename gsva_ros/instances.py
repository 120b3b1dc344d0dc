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
    count, labels, stats, _ = cv2.connectedComponentsWithStats(mask.astype(np.uint8))
    areas = stats[1:, cv2.CC_STAT_AREA]
    large = np.flatnonzero(areas >= CRUMB * areas.max()) + 1
    owner = np.zeros(count, np.intp)
    owner[large] = large
    if len(large) < len(areas):
        _own_crumbs(owner, np.asarray(labels, np.intp))
    owned = owner[labels]
    order = sorted(large.tolist(), key=lambda label: stats[label, cv2.CC_STAT_LEFT])
    return (owned == label for label in order)


def _own_crumbs(owner: NDArray[np.intp], labels: NDArray[np.intp]) -> None:
    """Fill in who owns each crumb: the component with the pixel nearest to it.

    Not the one with the nearest middle: a long thing's own end may be further from that than another thing.

    Args:
        owner: [count], by component; 0 for crumbs and for the background, component 0.
        labels: each pixel's component [H, W].
    """
    kept = owner[labels] > 0
    distances, nearest = cv2.distanceTransformWithLabels(
        (~kept).astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_5, labelType=cv2.DIST_LABEL_PIXEL
    )
    # OpenCV 4 finds nothing nearest further away than 16,384 pixels (0): any will do there.
    component = np.full(nearest.max() + 1, labels[kept][0])
    component[nearest[kept]] = labels[kept]
    crumbs = (labels > 0) & ~kept
    nearest_last = np.argsort(-distances[crumbs], kind="stable")
    owner[labels[crumbs][nearest_last]] = component[nearest[crumbs][nearest_last]]
