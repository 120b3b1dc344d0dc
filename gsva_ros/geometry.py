"""Masks in 3D: points, centroid and principal axes, from a depth image that is registered to the image.

Frame: the camera's optical frame (REP 103: x right, y down, z forward), metres. Rotations are
matrices; a message's quaternion is converted. NumPy and OpenCV only.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float32]

#: Metres; no camera measures larger depths.
FARTHEST = 1e4
#: Width in pixels of a mask's rim, which may be of what is behind the object: masks are off by one or two.
RIM = 2
#: Share of the depth by which what is behind is further away than the object. More than the noise of depth
#: cameras (1 to 2 %), and than the steps in a surface, unless it is seen at less than some 10 degrees.
BEHIND = 0.03


@dataclass(frozen=True)
class Shape:
    """An object's position, orientation and size.

    All values are float64: in a frame as large as UTM's, float32 would round them to half a metre.

    Attributes:
        centroid: mean of its points [3].
        axes: right-handed rotation [3, 3]; its columns are the principal axes, the longest first, `signed`.
        extents: size along each axis [3], from the 2nd to the 98th percentile.
        center: of the box with these extents [3]; in general not the centroid.
    """

    centroid: NDArray[np.float64]
    axes: NDArray[np.float64]
    extents: NDArray[np.float64]
    center: NDArray[np.float64]


def to_metres(depth: NDArray[np.generic]) -> Array:
    """Depth as float32 metres, NaN where it is missing (REP 118: uint16 millimetres, float32 metres).

    More than FARTHEST, and the largest uint16, count as missing: some drivers write the largest number
    where they measure nothing.

    Raises:
        ValueError: neither uint16 nor float32.
    """
    if depth.dtype == np.uint16:
        metres = depth.astype(np.float32) / np.float32(1000)
        metres[depth == np.iinfo(np.uint16).max] = np.nan
    elif depth.dtype == np.float32:
        metres = depth.astype(np.float32)
    else:
        raise ValueError(
            f"depth is {depth.dtype}; REP 118 defines uint16 millimetres and float32 metres"
        )
    metres[~((metres > 0) & (metres <= FARTHEST))] = np.nan
    return metres


def organised_points(
    depth: Array, intrinsics: NDArray[np.float64], mask: NDArray[np.bool_], corner: tuple[int, int]
) -> Array:
    """3D points of a region's pixels, NaN outside the mask and where depth is missing.

    NaN, too, where the mask's rim is of what is behind the object.

    Args:
        depth: metres [h, w], of the region. intrinsics: K [3, 3] of the whole image.
        mask: [h, w]. corner: x and y of the region's upper left pixel in the image.

    Returns:
        float32 [h, w, 3].
    """
    height, width = depth.shape
    u = np.arange(width, dtype=np.float32) + corner[0]
    v = np.arange(height, dtype=np.float32) + corner[1]
    z = np.where(_without_background(depth, mask), depth, np.float32(np.nan))
    x = (u[None, :] - intrinsics[0, 2]) / intrinsics[0, 0] * z
    y = (v[:, None] - intrinsics[1, 2]) / intrinsics[1, 1] * z
    return np.stack([x, y, z], -1).astype(np.float32)


def _without_background(depth: Array, mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """A mask [h, w] without the pixels of its rim that are behind all of its inner ones beside them.

    One row of them can be more than the share of points that `shape_of` leaves out, and a wall lies
    metres away. Where no inner pixel is beside, as on a thin handle, nothing tells and all are kept.
    """
    if not mask.any():
        return mask
    inner = cv2.erode(mask.astype(np.uint8), _square(RIM), borderValue=0)
    known = np.where((inner > 0) & np.isfinite(depth), depth, np.float32(0))
    beside = cv2.dilate(known, _square(RIM + 1))  # one more reaches the tips of corners
    return mask & ((beside == 0) | (depth <= beside * (1 + BEHIND)))


def _square(reach: int) -> NDArray[np.uint8]:
    return np.ones((2 * reach + 1, 2 * reach + 1), np.uint8)


def shape_of(points: Array) -> Shape | None:
    """Centroid and principal axes of points [..., 3]; None if fewer than three are finite."""
    flat = points.reshape(-1, 3)
    flat = flat[np.isfinite(flat).all(1)].astype(np.float64)
    if len(flat) < 3:
        return None
    centroid = flat.mean(0)
    centred = flat - centroid
    _, vectors = np.linalg.eigh(centred.T @ centred)
    axes = signed(vectors[:, ::-1])
    along = centred @ axes
    low, high = np.percentile(along, (2, 98), axis=0)
    return Shape(centroid, axes, high - low, centroid + axes @ (low + high) / 2)


def signed(axes: NDArray[np.float64]) -> NDArray[np.float64]:
    """Orthonormal axes (columns) [3, 3], right-handed, the largest component of the first two positive.

    Principal axes have no sign of their own: without a rule, it would change from frame to frame.
    """
    first, second = (axis * np.sign(axis[np.abs(axis).argmax()]) for axis in axes.T[:2])
    return np.stack([first, second, np.cross(first, second)], 1)


def quaternion(rotation: NDArray[np.float64]) -> tuple[float, float, float, float]:
    """x, y, z, w of a rotation matrix [3, 3], w >= 0.

    The eigenvector of the largest eigenvalue of a symmetric 4 x 4 matrix (Bar-Itzhack, 2000).
    """
    m = rotation
    k = np.array(
        [
            [m[0, 0] - m[1, 1] - m[2, 2], m[1, 0] + m[0, 1], m[2, 0] + m[0, 2], m[2, 1] - m[1, 2]],
            [m[1, 0] + m[0, 1], m[1, 1] - m[0, 0] - m[2, 2], m[2, 1] + m[1, 2], m[0, 2] - m[2, 0]],
            [m[2, 0] + m[0, 2], m[2, 1] + m[1, 2], m[2, 2] - m[0, 0] - m[1, 1], m[1, 0] - m[0, 1]],
            [m[2, 1] - m[1, 2], m[0, 2] - m[2, 0], m[1, 0] - m[0, 1], m[0, 0] + m[1, 1] + m[2, 2]],
        ]
    )
    q = np.linalg.eigh(k)[1][:, -1]
    q = q if q[3] >= 0 else -q
    return float(q[0]), float(q[1]), float(q[2]), float(q[3])


def rotation_of(x: float, y: float, z: float, w: float) -> NDArray[np.float64]:
    """The rotation matrix [3, 3] of a quaternion, which need not be normalised."""
    x, y, z, w = np.array([x, y, z, w]) / np.linalg.norm([x, y, z, w])
    return np.array(
        [
            [1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)],
            [2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)],
            [2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)],
        ]
    )
