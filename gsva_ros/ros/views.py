"""Topics derived from an answer for subscribers: overlays, label images, detections, 3D points.

Made from the finished answer, its frame and that frame's depth: nothing is asked of the model.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from sensor_msgs.msg import CameraInfo
from std_msgs.msg import Header

from gsva_ros.conversions import MessageError
from gsva_ros.msg import Segmentation, Segmentation3D
from gsva_ros.serving.requests import Result
from gsva_ros.stamps import nanoseconds

from . import qos
from .depth import DepthBuffer, depth_of, intrinsics_of, is_distorted
from .detections import Detections
from .instances_3d import segmentation_3d
from .pictures import Pictures
from .transforms import Transform, TransformError, Transforms


class Views:
    """Publishers of derived topics; each costs nothing while it has no subscriber.

    Args:
        value: returns a parameter's value by name. buffers: depth by image topic.
        warn: called with a problem's kind and what could not be derived.
        pictures: shows the answers' images; closed with the views.
    """

    def __init__(
        self,
        node: Any,
        value: Callable[[str], Any],
        buffers: Mapping[str, DepthBuffer],
        warn: Callable[[str, str], None],
        pictures: Pictures,
    ) -> None:
        self._value, self._buffers, self._warn = value, buffers, warn
        self._pictures = pictures
        self._segmentation_3d = node.create_publisher(
            Segmentation3D, "segmentation_3d", qos.RELIABLE
        )
        self._detections = Detections.create(node)
        self._node = node
        self._transforms = Transforms.create()
        self.listen_to_tf(value("target_frame"))

    def listen_to_tf(self, target: str) -> None:
        """Listen to tf from now on, or no longer if there is no target frame: it costs CPU time."""
        if target:
            self._transforms.listen(self._node)
        else:
            self._transforms.close()

    def publish(self, result: Result, answer: Segmentation) -> None:
        """Publish the topics that have subscribers."""
        if result.rgb is None or result.frame is None:
            return
        self._publish_boxes_and_points(answer, result.frame.topic)
        self._pictures.publish(result)

    def close(self) -> None:
        """Send the last images, and stop listening to tf; nothing is published afterwards."""
        self._pictures.close()
        self._transforms.close()

    def jumped(self) -> None:
        """The clock jumped: transforms and depth from before are of another time."""
        self._transforms.clear()
        for buffer in list(self._buffers.values()):  # cameras may be unsubscribed meanwhile
            buffer.forget()

    def _publish_boxes_and_points(self, answer: Segmentation, topic: str) -> None:
        boxes = self._detections
        numbers = {} if boxes is None else boxes.publish(answer)
        if _heard(self._segmentation_3d) or (boxes is not None and boxes.wants_3d):
            in_3d = self._in_3d(answer, topic)
            if in_3d is not None:
                self._segmentation_3d.publish(in_3d)
                if boxes is not None:
                    boxes.publish_3d(in_3d, numbers)

    def _in_3d(self, answer: Segmentation, topic: str) -> Segmentation3D | None:
        buffer = self._buffers.get(topic)
        if buffer is None:
            self._warn("no depth", f"segmentation_3d: {topic}: no depth topic (depth_topics)")
            return None
        tolerance = float(self._value("depth_tolerance"))
        wait = float(self._value("depth_wait"))
        stamp = nanoseconds(answer.header.stamp)
        found = buffer.beside(stamp, tolerance, wait)
        if found is None:
            problem = buffer.missing(stamp, tolerance) or "depth came later than depth_wait"
            self._warn("no depth", f"segmentation_3d: {topic}: {problem}")
            return None
        image, info, offset = found
        target = str(self._value("target_frame"))
        transform = self._transform(target, answer.header)
        try:
            depth = depth_of(image, topic)
            intrinsics = intrinsics_of(info, answer.width, answer.height, topic)
            self._warn_of_displacement(answer.header, image.header, info, topic)
            return segmentation_3d(answer, depth, intrinsics, offset, topic, target, transform)
        except MessageError as error:
            self._warn("bad depth", f"segmentation_3d: {error}")
            return None

    def _warn_of_displacement(
        self, image: Header, depth: Header, info: CameraInfo, topic: str
    ) -> None:
        """Warn of what displaces points from their objects, although nothing is missing."""
        if image.frame_id and depth.frame_id and image.frame_id != depth.frame_id:
            self._warn(
                "unregistered depth",
                f"segmentation_3d: {topic}: depth is in frame {depth.frame_id!r}, the image in "
                f"{image.frame_id!r}: use depth that is registered (aligned) to the image",
            )
        if is_distorted(info, topic):
            self._warn(
                "distortion",
                f"segmentation_3d: {topic}: camera_info reports lens distortion, which is not "
                "corrected: points are displaced from their objects; rectify the images (image_proc)",
            )

    def _transform(self, target: str, header: Header) -> Transform | None:
        """The transform into the target frame; None if the points stay in the optical frame."""
        if target in ("", header.frame_id):
            return None
        try:
            return self._transforms.between(target, header)
        except TransformError as error:
            self._warn("no transform", f"segmentation_3d: {error}; using the optical frame instead")
            return None


def _heard(publisher: Any) -> bool:
    return bool(publisher.get_subscription_count() > 0)
