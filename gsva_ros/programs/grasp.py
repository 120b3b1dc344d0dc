"""A top grasp for a parallel gripper, from the visible points of an object that stands on a table."""

from __future__ import annotations

import math
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

SPAN = 0.5  # metres: no graspable object extends this far
CELL = 0.008  # metres: cell size of the grid in which an object's parts are connected
SLICE = 0.02  # metres below the top that define the outline
DEEP = 0.035  # metres below the top that the fingertips reach


@dataclass(frozen=True)
class Grasp:
    """The fingertips' target in the points' frame: metres, z up; they close along `yaw` (radians, about z).

    width: of the object between the fingers, metres. height: of its top above the table, metres.
    """

    x: float
    y: float
    z: float
    yaw: float
    width: float
    height: float


def top_grasp(points: NDArray[np.float32]) -> Grasp | None:
    """The grasp whose fingers close along the shorter horizontal side of the object's upper part.

    Args:
        points: [..., 3], z up from the table's top; non-finite ones are ignored.

    Returns:
        None if there are too few points.
    """
    flat = points.reshape(-1, 3)
    flat = flat[np.isfinite(flat).all(1)]
    flat = flat[flat[:, 2] > 0.005]
    if len(flat) < 20:
        return None
    flat = main_part(flat)
    if not len(flat):
        return None
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
    z = max(0.008, top - DEEP)
    return Grasp(float(middle[0]), float(middle[1]), z, yaw, float(np.ptp(sides[0])), top)


def main_part(points: NDArray[np.float32]) -> NDArray[np.float32]:
    """The largest connected part of points [N, 3] near their median, seen from above; none if none is near.

    A mask can take in more of another object than its rim, which `organised_points` leaves out.
    """
    points = points[np.abs(points[:, :2] - np.median(points[:, :2], 0)).max(1) < SPAN]
    if not len(points):
        return points
    cells = np.floor(points[:, :2] / CELL).astype(np.intp)
    cells -= cells.min(0)
    plan = np.zeros(cells.max(0) + 1, np.uint8)
    plan[tuple(cells.T)] = 1
    _, parts = cv2.connectedComponents(plan, connectivity=8)
    part = parts[tuple(cells.T)]
    return points[part == np.bincount(part).argmax()]
