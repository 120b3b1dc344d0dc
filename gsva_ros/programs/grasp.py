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
    """The grasp whose fingers close in the direction in which the object's upper part is `narrowest`.

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
    yaw = narrowest(upper)
    axes = np.array([[math.cos(yaw), -math.sin(yaw)], [math.sin(yaw), math.cos(yaw)]])
    sides = np.percentile(upper @ axes, (2, 98), axis=0)
    middle = axes @ sides.mean(0)
    z = max(0.008, top - DEEP)
    return Grasp(float(middle[0]), float(middle[1]), z, yaw, float(np.ptp(sides[:, 0])), top)


def narrowest(points: NDArray[np.float64]) -> float:
    """The direction in which points [N, 2] extend least: radians in [-pi/2, pi/2), to 2 degrees.

    Not a principal axis: of a nearly square thing, those can be its diagonals.
    """
    angles = np.radians(np.arange(-90, 90, 2))
    along = points @ np.stack([np.cos(angles), np.sin(angles)])
    extents = np.ptp(np.percentile(along, (2, 98), axis=0), axis=0)
    return float(angles[extents.argmin()])


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
