"""An answer's instances in 3D: masks and registered depth as a Segmentation3D message."""

from __future__ import annotations

from typing import Any

import numpy as np
from geometry_msgs.msg import Point, Pose, Quaternion, Vector3
from sensor_msgs.msg import PointCloud2, PointField

from gsva_ros.conversions import MessageError, byte_array, cropped_mask
from gsva_ros.geometry import Shape, organised_points, quaternion, shape_of
from gsva_ros.msg import Instance3D, InstanceMask, Segmentation, Segmentation3D

from .transforms import Transform

_FIELDS = [
    PointField(name=name, offset=4 * i, datatype=PointField.FLOAT32, count=1)
    for i, name in enumerate("xyz")
]


def segmentation_3d(
    answer: Segmentation,
    depth: np.ndarray,
    intrinsics: np.ndarray,
    offset: float,
    topic: str,
    target: str = "",
    transform: Transform | None = None,
) -> Segmentation3D:
    """The answer's instances in 3D: in the image's optical frame, or transformed into another.

    Args:
        target, transform: that frame, and the transform into it; the header then names it.

    Raises:
        MessageError: depth and image differ in size, so the depth is not registered to the image.
    """
    if depth.shape != (answer.height, answer.width):
        raise MessageError(
            topic,
            f"depth is {depth.shape[1]}x{depth.shape[0]}, the image is {answer.width}x{answer.height}: "
            "use depth that is registered (aligned) to the image",
        )
    msg = Segmentation3D(instruction_id=answer.instruction_id)
    msg.header.stamp = answer.header.stamp
    msg.header.frame_id = target if transform else answer.header.frame_id
    msg.depth_offset = offset
    for instance in answer.instances:
        points = _points(instance, depth, intrinsics)
        shape = shape_of(points)
        if shape is None:
            continue
        if transform is not None:
            points, shape = transform.points(points), transform.shape(shape)
        msg.instances.append(_instance(instance, points, shape, msg.header))
    return msg


def _points(instance: InstanceMask, depth: np.ndarray, intrinsics: np.ndarray) -> np.ndarray:
    """The points of an instance's region, float32 [h, w, 3]; NaN outside its mask."""
    roi = instance.roi
    rows = slice(roi.y_offset, roi.y_offset + roi.height)
    columns = slice(roi.x_offset, roi.x_offset + roi.width)
    corner = (roi.x_offset, roi.y_offset)
    return organised_points(depth[rows, columns], intrinsics, cropped_mask(instance), corner)


def _instance(of: InstanceMask, points: np.ndarray, shape: Shape, header: Any) -> Instance3D:
    msg = Instance3D(slot=of.slot, instance=of.instance, expression=of.expression, roi=of.roi)
    msg.p_seg, msg.id = of.p_seg, of.id
    msg.pose = _pose(shape)
    msg.extents = Vector3(**_xyz(shape.extents))
    msg.center = Point(**_xyz(shape.center))
    msg.points = _cloud(points, header)
    return msg


def _pose(shape: Shape) -> Pose:
    x, y, z, w = quaternion(shape.axes)
    position = Point(**_xyz(shape.centroid))
    return Pose(position=position, orientation=Quaternion(x=x, y=y, z=z, w=w))


def _xyz(values: np.ndarray) -> dict[str, float]:
    return dict(zip("xyz", map(float, values), strict=True))


def _cloud(points: np.ndarray, header: Any) -> PointCloud2:
    msg = PointCloud2(header=header, fields=_FIELDS, is_bigendian=False, is_dense=False)
    msg.height, msg.width = points.shape[:2]
    msg.point_step = 12
    msg.row_step = 12 * msg.width
    msg.data = byte_array(np.ascontiguousarray(points, "<f4"))
    return msg
