"""A top grasp for a parallel gripper from the visible points of a thing that stands on a table."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

SLICE = 0.02  # metres below the top that tell the outline
DEEP = 0.035  # metres below the top to which the tips go


@dataclass(frozen=True)
class Grasp:
    """Where the tips go, in the points' frame: metres, z up; they close along `yaw` (radians, about z).

    width: of the thing between the fingers, metres.
    """

    x: float
    y: float
    z: float
    yaw: float
    width: float


def top_grasp(points: NDArray[np.float32], floor: float = 0.0) -> Grasp | None:
    """The grasp whose fingers close along the shorter horizontal side of the thing's upper part.

    Args:
        points: [..., 3], z up; non-finite ones are left out. floor: height of the table.

    Returns:
        None where there are too few points to tell.
    """
    flat = points.reshape(-1, 3)
    flat = flat[np.isfinite(flat).all(1)]
    if len(flat) < 20:
        return None
    # A mask's edge takes pixels of what lies behind: far fewer than one in fifty.
    top = float(np.percentile(flat[:, 2], 98))
    upper = flat[(flat[:, 2] > top - SLICE) & (flat[:, 2] < top + 0.01), :2].astype(np.float64)
    if len(upper) < 10:
        return None
    _, vectors = np.linalg.eigh(np.cov(upper.T))
    short, long = vectors[:, 0], vectors[:, 1]
    sides = [np.percentile(upper @ axis, (2, 98)) for axis in (short, long)]
    middle = short * sides[0].mean() + long * sides[1].mean()
    yaw = math.atan2(short[1], short[0])
    yaw = (yaw + math.pi / 2) % math.pi - math.pi / 2  # a half turn is the same grasp
    z = max(floor + 0.008, top - DEEP)
    return Grasp(float(middle[0]), float(middle[1]), z, yaw, float(np.ptp(sides[0])))
