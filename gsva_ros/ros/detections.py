"""An answer as vision_msgs messages, if that package is installed."""

from __future__ import annotations

import threading
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from gsva_ros.msg import Segmentation, Segmentation3D

from . import qos

try:
    import vision_msgs.msg as vision
except ImportError:
    vision = None

#: Maximum number of expressions in `label_info`: free-form requests keep adding new ones.
LABELS = 256
#: The largest VisionClass.class_id of a class: the largest uint16 means "UNLABELED".
LAST_NUMBER = 65_534


class Detections:
    """Publishes `detections`, `detections_3d` and `label_info` (the LABELS expressions found last).

    An expression keeps its number while it is among those or in the answer. A freed number is reused
    only after all other numbers.
    """

    def __init__(self, node: Any) -> None:
        self._detections = node.create_publisher(
            vision.Detection2DArray, "detections", qos.RELIABLE
        )
        self._detections_3d = node.create_publisher(
            vision.Detection3DArray, "detections_3d", qos.RELIABLE
        )
        self._labels = node.create_publisher(vision.LabelInfo, "label_info", qos.LATCHED)
        self._numbering = threading.Lock()  # answers come from more than one thread
        self._numbers: dict[str, int] = {}  # least recently found first
        self._last = 0

    @classmethod
    def create(cls, node: Any) -> Detections | None:
        """Create the publishers; None without vision_msgs."""
        return None if vision is None else cls(node)

    def publish(self, answer: Segmentation) -> dict[str, int]:
        """Publish boxes if there are subscribers, and the labels when an expression is new.

        Returns:
            The number of each expression.
        """
        with self._numbering:
            new = self._number([instance.expression for instance in answer.instances])
            numbers = self._numbers
        if new:
            info = vision.LabelInfo(header=answer.header)
            info.class_map = [
                vision.VisionClass(class_id=number, class_name=expression)
                for expression, number in numbers.items()
            ]
            self._labels.publish(info)
        if self._detections.get_subscription_count() > 0:
            array = vision.Detection2DArray(header=answer.header)
            array.detections = [
                self._detection(i, answer.header, numbers[i.expression]) for i in answer.instances
            ]
            self._detections.publish(array)
        return numbers

    def _number(self, expressions: Sequence[str]) -> bool:
        """Number an answer's expressions; return whether one is new."""
        known = self._numbers
        fresh = [e for e in dict.fromkeys(expressions) if e not in known]
        here = {e: known[e] for e in expressions if e in known}
        older = [e for e in known if e not in here]
        older = older[max(0, len(older) + len(here) + len(fresh) - LABELS) :]
        numbers = {e: known[e] for e in older} | here
        for expression in fresh:
            numbers[expression] = self._next(numbers.values())
        self._numbers = numbers
        return bool(fresh)

    def _next(self, taken: Collection[int]) -> int:
        """A number that is not taken."""
        self._last = self._last % LAST_NUMBER + 1
        while self._last in taken:
            self._last = self._last % LAST_NUMBER + 1
        return self._last

    @property
    def wants_3d(self) -> bool:
        """Whether `detections_3d` has subscribers."""
        return bool(self._detections_3d.get_subscription_count() > 0)

    def publish_3d(self, answer: Segmentation3D, numbers: Mapping[str, int]) -> None:
        """Publish 3D boxes if there are subscribers: pose and extents of each instance.

        Args:
            numbers: the number of each expression, from `publish`.
        """
        if not self.wants_3d:
            return
        array = vision.Detection3DArray(header=answer.header)
        for instance in answer.instances:
            detection = vision.Detection3D(header=answer.header)
            detection.id = _id(instance)
            result = vision.ObjectHypothesisWithPose()
            result.hypothesis.class_id = str(numbers[instance.expression])
            result.hypothesis.score = float(instance.p_seg)
            result.pose.pose = instance.pose
            detection.results = [result]
            detection.bbox.center.position = instance.center
            detection.bbox.center.orientation = instance.pose.orientation
            detection.bbox.size = instance.extents
            array.detections.append(detection)
        self._detections_3d.publish(array)

    @staticmethod
    def _detection(instance: Any, header: Any, number: int) -> Any:
        detection = vision.Detection2D(header=header)
        detection.id = _id(instance)
        result = vision.ObjectHypothesisWithPose()
        result.hypothesis.class_id = str(number)
        result.hypothesis.score = float(instance.p_seg)
        detection.results = [result]
        roi, box = instance.roi, detection.bbox
        box.center.position.x = roi.x_offset + roi.width / 2
        box.center.position.y = roi.y_offset + roi.height / 2
        box.size_x, box.size_y = float(roi.width), float(roi.height)
        return detection


def _id(instance: Any) -> str:
    """A tracked instance's id; else "", because vision_msgs takes one id in two messages for one object."""
    return str(instance.id) if instance.id else ""
