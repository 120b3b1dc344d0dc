"""Topics derived from an answer for subscribers: overlays, label images, detections, 3D points."""

from __future__ import annotations

import array
from collections.abc import Callable, Mapping
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from sensor_msgs.msg import CompressedImage, Image
from std_msgs.msg import Header

from gsva_ros.conversions import MessageError, fill_image
from gsva_ros.masks import placed
from gsva_ros.msg import Segmentation, Segmentation3D
from gsva_ros.overlay import Target, draw, label_image
from gsva_ros.serving.requests import Decision, Outcome, Result
from gsva_ros.stamps import nanoseconds

from . import qos
from .depth import DepthBuffer, depth_of, intrinsics_of, is_distorted, segmentation_3d
from .detections import Detections
from .transforms import Transform, TransformError, Transforms

#: The longest side of a JPEG that OpenCV writes, pixels.
JPEG_SIDE = 65_500


class Views:
    """Publishers of derived topics; each costs nothing while it has no subscriber.

    Args:
        value: returns a parameter's value by name. buffers: depth by image topic.
        warn: called with a problem's kind and what could not be derived.
    """

    def __init__(
        self,
        node: Any,
        value: Callable[[str], Any],
        buffers: Mapping[str, DepthBuffer],
        warn: Callable[[str, str], None],
    ) -> None:
        self._value, self._buffers, self._warn = value, buffers, warn
        create = node.create_publisher
        self._overlay = create(Image, "overlay", qos.PICTURE)
        self._compressed = create(CompressedImage, "overlay/compressed", qos.PICTURE)
        self._labels = create(Image, "label_image", qos.PICTURE)
        self._segmentation_3d = create(Segmentation3D, "segmentation_3d", qos.RELIABLE)
        self._detections = Detections.create(node)
        self._transforms = Transforms.of(node)

    def publish(self, result: Result, answer: Segmentation) -> None:
        """Publish the topics that have subscribers."""
        if result.rgb is None or result.frame is None:
            return
        self._publish_boxes_and_points(answer, result.frame.topic)
        # Images last: Fast DDS's shared memory may drop unread messages to make room for a large one.
        self._publish_pictures(result, result.rgb, result.frame.header)

    def _publish_boxes_and_points(self, answer: Segmentation, topic: str) -> None:
        boxes = self._detections
        numbers = {} if boxes is None else boxes.publish(answer)
        if _heard(self._segmentation_3d) or (boxes is not None and boxes.wants_3d):
            in_3d = self._in_3d(answer, topic)
            if in_3d is not None:
                self._segmentation_3d.publish(in_3d)
                if boxes is not None:
                    boxes.publish_3d(in_3d, numbers)

    def _publish_pictures(self, result: Result, rgb: NDArray[np.uint8], header: Header) -> None:
        raw, compressed = (_heard(p) for p in (self._overlay, self._compressed))
        if raw or compressed:
            opacity = float(self._value("overlay_opacity"))
            picture = draw(rgb, targets_of(result), opacity)
            if raw:
                msg = fill_image(Image(), picture, "rgb8")
                msg.header = header
                self._overlay.publish(msg)
            if compressed and max(rgb.shape) > JPEG_SIDE:
                self._warn(
                    "overlay",
                    f"overlay/compressed: {rgb.shape[1]}x{rgb.shape[0]} is too large for a JPEG, whose "
                    f"sides have at most {JPEG_SIDE} pixels: subscribe to overlay instead",
                )
            elif compressed:
                self._compressed.publish(_jpeg(picture, header))
        if _heard(self._labels):
            labels = label_image(rgb.shape[:2], targets_of(result))
            msg = fill_image(Image(), labels, "mono16")
            msg.header = header
            self._labels.publish(msg)

    def _in_3d(self, answer: Segmentation, topic: str) -> Segmentation3D | None:
        buffer = self._buffers.get(topic)
        tolerance = float(self._value("depth_tolerance"))
        wait = float(self._value("depth_wait"))
        stamp = nanoseconds(answer.header.stamp)
        found = buffer.beside(stamp, tolerance, wait) if buffer else None
        if found is None:
            message = f"no depth image and camera_info within {tolerance} s of the image"
            self._warn(
                "no depth", f"segmentation_3d: {topic}: {message if buffer else 'no depth topic'}"
            )
            return None
        image, info, offset = found
        target = str(self._value("target_frame"))
        transform = self._transform(target, answer.header)
        try:
            depth = depth_of(image, topic)
            intrinsics = intrinsics_of(info, answer.width, answer.height, topic)
            if is_distorted(info, topic):
                self._warn(
                    "distortion",
                    f"segmentation_3d: {topic}: camera_info reports lens distortion, which is not "
                    "corrected: points are displaced from their objects; rectify the images (image_proc)",
                )
            return segmentation_3d(answer, depth, intrinsics, offset, topic, target, transform)
        except MessageError as error:
            self._warn("bad depth", f"segmentation_3d: {error}")
            return None

    def _transform(self, target: str, header: Header) -> Transform | None:
        """The transform into the target frame; None if the points stay in the optical frame."""
        if not self._transforms.wanted(target, header):
            return None
        try:
            return self._transforms.between(target, header)
        except TransformError as error:
            self._warn("no transform", f"segmentation_3d: {error}; using the optical frame instead")
            return None


def targets_of(result: Result) -> list[Target]:
    """What the overlay draws for a result."""
    assert result.rgb is not None
    return [
        Target(d.slot, d.expression, _mask(d, result.rgb.shape[:2]), d.p_seg)
        for d in result.decisions
        if d.outcome in (Outcome.SEGMENTED, Outcome.REJECTED)
    ]


def _mask(decision: Decision, size: tuple[int, int]) -> NDArray[np.bool_] | None:
    if decision.box is None or decision.crop is None:
        return None
    return placed(decision.crop, decision.box, size)


def _heard(publisher: Any) -> bool:
    return bool(publisher.get_subscription_count() > 0)


def _jpeg(picture: Any, header: Any) -> CompressedImage:
    msg = CompressedImage(header=header, format="rgb8; jpeg compressed bgr8")
    _, data = cv2.imencode(".jpg", cv2.cvtColor(picture, cv2.COLOR_RGB2BGR))
    msg.data = array.array("B", data.tobytes())
    return msg
