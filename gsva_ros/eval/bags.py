"""Cases from a rosbag: recorded frames with ground truth beside them, read straight from disk."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rosbags.highlevel import AnyReader
from rosbags.highlevel.anyreader import AnyReaderError
from rosbags.interfaces import Connection
from rosbags.rosbag2 import ReaderError
from rosbags.typesys import Stores, get_typestore

from ..conversions import MessageError, to_rgb
from ..truth import FrameTruth
from .cases import Case, Query

IMAGE_TYPES = ("sensor_msgs/msg/Image", "sensor_msgs/msg/CompressedImage")


class BagError(ValueError):
    """A bag that cannot be used; names the file and the topic."""


class ImageBag:
    """The images of a bag's topics, read one at a time: memory stays flat however long it is.

    rosbag2 in mcap or sqlite3, raw or compressed messages, raw or compressed images.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            # Older bags do not carry their types.
            types = get_typestore(Stores.ROS2_HUMBLE)
            self._reader = AnyReader([path], default_typestore=types)
            self._reader.open()
        except (AnyReaderError, ReaderError, OSError, ValueError) as error:
            raise BagError(f"{path} cannot be read as a bag: {error}") from error
        self._images = [c for c in self._reader.connections if c.msgtype in IMAGE_TYPES]
        self._index: dict[str, dict[int, tuple[Connection, int]]] = {}

    def close(self) -> None:
        """Close the files."""
        self._reader.close()

    def topic(self, wanted: str) -> dict[int, tuple[Connection, int]]:
        """Header stamp (nanoseconds) of every frame of a topic, and where it is recorded.

        Raises:
            BagError: no such image topic; names those that there are.
        """
        if wanted not in self._index:
            connections = [c for c in self._images if c.topic == wanted]
            if not connections:
                there = ", ".join(sorted(c.topic for c in self._images)) or "none"
                raise BagError(f"{self.path}: no image topic {wanted!r}; image topics: {there}")
            self._index[wanted] = {
                _stamp(self._reader.deserialize(raw, connection.msgtype)): (connection, at)
                for connection, at, raw in self._reader.messages(connections)
            }
        return self._index[wanted]

    def rgb(self, topic: str, stamp: int) -> NDArray[np.uint8]:
        """One frame, uint8 [H, W, 3].

        Raises:
            MessageError: the message cannot be read as a picture.
        """
        connection, at = self.topic(topic)[stamp]
        for _, _, raw in self._reader.messages([connection], start=at, stop=at + 1):
            msg = self._reader.deserialize(raw, connection.msgtype)
            if _stamp(msg) == stamp:
                return to_rgb(msg, topic)
        raise BagError(f"{self.path}: {topic} at {stamp} ns was there and is gone")


def bag_cases(
    bag: ImageBag, truth: list[FrameTruth], topic: str | None = None
) -> tuple[list[Case], list[str]]:
    """One case for each frame of the truth, and what is wrong with those that could not be had.

    Args:
        topic: read the frames from this topic instead of the one that the truth names.

    Raises:
        BagError: an image topic is not in the bag.
    """
    cases, problems = [], []
    for frame in truth:
        name = topic or frame.topic
        where = f"{bag.path}: {name} at {frame.stamp} ns"
        if frame.stamp not in bag.topic(name):
            problems.append(f"{where}: no such frame")
            continue
        try:
            size = bag.rgb(name, frame.stamp).shape[:2]
        except MessageError as error:
            problems.append(f"{where}: {error.problem}")
            continue
        if size != frame.size:
            problems.append(f"{where}: the frame is {size}, its truth {frame.size} (height, width)")
            continue
        cases.append(Case(f"{name} {frame.stamp}", _reader(bag, name, frame)))
    return cases, problems


def _reader(
    bag: ImageBag, topic: str, frame: FrameTruth
) -> Callable[[], tuple[NDArray[np.uint8], list[Query]]]:
    def read() -> tuple[NDArray[np.uint8], list[Query]]:
        queries = [
            Query(e.expression, e.category, e.referents, e.mask) for e in frame.expressions()
        ]
        return bag.rgb(topic, frame.stamp), queries

    return read


def _stamp(msg: Any) -> int:
    return int(msg.header.stamp.sec) * 1_000_000_000 + int(msg.header.stamp.nanosec)
