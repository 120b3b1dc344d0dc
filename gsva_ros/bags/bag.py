"""Rosbags read straight from disk: frames, recorded instructions, and ground truth."""

from __future__ import annotations

import os
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray
from rosbags.highlevel import AnyReader
from rosbags.interfaces import Connection
from rosbags.typesys.store import Typestore

from ..conversions import camera_named, expressions_in, to_rgb
from ..errors import InputError, one_line
from ..interfaces import typestore
from ..stamps import nanoseconds
from ..truth import FrameTruth, parse_truth
from .ask import Ask
from .messages import plain
from .recovery import bag_files, recover, unpacked

IMAGE_TYPES = ("sensor_msgs/msg/Image", "sensor_msgs/msg/CompressedImage")
INSTRUCTION_TYPE = "gsva_ros/msg/Instruction"
STRING_TYPE = "std_msgs/msg/String"
TRUTH_TOPIC = "/ground_truth"
TEXT_TOPIC = "instruction_text"
EVERY_FRAME, CANCEL = 1, 2  # gsva_ros/Instruction
T = TypeVar("T")


class BagError(InputError):
    """A bag that cannot be used; names the file and the topic."""


class Bag:
    """A bag's messages, read one at a time: memory stays flat however long it is.

    rosbag2 in mcap or sqlite3, raw or compressed messages, raw or compressed images. Of a cut mcap file,
    everything before the cut. Use as a context manager, or close it.

    Attributes:
        problems: what could not be read, each with its file, topic and place.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._folder = tempfile.TemporaryDirectory(prefix="gsva-bag-")
        if not path.exists():
            raise BagError(f"{path}: no such bag")
        self._paths, self.problems = recover(path, Path(self._folder.name))
        try:
            self._opened, self._process = self._open(self._paths), os.getpid()
        except Exception as error:  # a damaged file makes rosbags raise whatever it meets
            self._folder.cleanup()
            message = "; ".join([*self.problems, f"{type(error).__name__}: {one_line(error)}"])
            raise BagError(f"{path} cannot be read as a bag: {message}") from error
        self._frames: dict[str, dict[int, int]] = {}
        if not self._reader.connections:
            self.close()
            raise BagError("; ".join([f"{path} holds no messages", *self.problems]))

    @property
    def _reader(self) -> AnyReader:
        """This process's own: forked ones, as of a DataLoader, would move one place in its files."""
        if self._process != os.getpid():
            self._opened, self._process = self._open(self._paths), os.getpid()
        return self._opened

    def _open(self, paths: list[Path]) -> AnyReader:
        ours = typestore()  # older bags do not carry their types
        reader = AnyReader(paths, default_typestore=ours)
        files = [f for folder in paths if folder.is_dir() for f in bag_files(folder)]
        try:
            reader.open()
            problem = _misdescribed(reader) if files else ""
        except Exception as error:
            if not files:
                raise
            problem = one_line(error)
        if problem:
            with suppress(Exception):  # where it did not open
                reader.close()
            self.problems.append(
                f"{self.path}: metadata.yaml cannot be used ({problem}); its files are "
                "read by themselves"
            )
            files = [unpacked(file, Path(self._folder.name)) for file in files]
            reader = AnyReader(files, default_typestore=ours)
            reader.open()
        # Of a bag that carries some, the reader knows no others.
        known = reader.typestore.fielddefs
        if any(c.msgtype not in known for c in reader.connections):
            reader.typestore.register({n: d for n, d in ours.fielddefs.items() if n not in known})
        return reader

    def __enter__(self) -> Bag:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the files."""
        self._reader.close()
        self._folder.cleanup()

    @property
    def types(self) -> Typestore:
        """Types of the bag's messages, as far as they are known."""
        return self._reader.typestore

    @property
    def image_topics(self) -> list[str]:
        """Names of the image topics."""
        return sorted({c.topic for c in self._reader.connections if c.msgtype in IMAGE_TYPES})

    def frames(self, topic: str) -> dict[int, int]:
        """Header stamp of every frame of an image topic, in the order recorded, and when it was received.

        Both are nanoseconds.

        A stamp is what a frame is known by: of several with one, the last is there, and `problems` counts
        the others.

        Raises:
            BagError: no such image topic; names those that there are.
        """
        if topic not in self._frames:
            if topic not in self.image_topics:
                topics = ", ".join(self.image_topics) or "none"
                raise BagError(f"{self.path}: no image topic {topic!r}; image topics: {topics}")
            found: dict[int, int] = {}
            hidden: Counter[int] = Counter()
            for _, at, msg in self._messages(lambda c: c.topic == topic):
                stamp = nanoseconds(msg.header.stamp)
                hidden[stamp] += stamp in found
                found[stamp] = at
            self._frames[topic] = found
            if count := hidden.total():
                stamp = next(stamp for stamp, others in hidden.items() if others)
                self.problems.append(
                    f"{self.path}: {topic}: {count} frames have the stamp of another one (first {stamp} "
                    "ns) and cannot be told from it: stamp each when it is taken"
                )
        return self._frames[topic]

    def rgb(self, topic: str, stamp: int) -> NDArray[np.uint8]:
        """One frame, uint8 [H, W, 3].

        Raises:
            MessageError: the message cannot be read as a picture.
        """
        _, _, msg = self._frame(topic, stamp)
        return to_rgb(msg, topic)

    def published(self, topic: str, stamp: int) -> tuple[str, bytes]:
        """The type of one frame's message, and the message as it was published (CDR)."""
        kind, raw, _ = self._frame(topic, stamp)
        return kind, raw

    def _frame(self, topic: str, stamp: int) -> tuple[str, bytes, Any]:
        """One frame's type, message as it was published, and what that says."""
        at = self.frames(topic)[stamp]
        connections = [c for c in self._reader.connections if c.topic == topic]
        try:
            for connection, _, raw in self._reader.messages(connections, start=at, stop=at + 1):
                msg = self._deserialized(connection, raw)
                if nanoseconds(msg.header.stamp) == stamp:
                    return connection.msgtype, plain(raw), msg
        except Exception as error:  # damage that the first pass did not meet
            message = f"{type(error).__name__}: {one_line(error)}"
            raise BagError(f"{self.path}: {topic} at {stamp} ns: {message}") from error
        raise BagError(f"{self.path}: {topic} at {stamp} ns was there and is gone")

    def asks(self, topic: str) -> list[Ask]:
        """What was asked while recording: gsva_ros/Instruction and strings on instruction_text.

        Args:
            topic: the camera that an instruction means which names none. A name is meant as the node takes
                it: a relative one in the root namespace, and compressed pictures where there are no others.
        """

        def asking(connection: Connection) -> bool:
            text = connection.msgtype == STRING_TYPE and connection.topic.endswith(TEXT_TOPIC)
            return text or connection.msgtype == INSTRUCTION_TYPE

        found = []
        for connection, at, msg in self._messages(asking):
            if connection.msgtype == STRING_TYPE:
                words = expressions_in(msg.data)
                found.append(Ask(f"{connection.topic} {at}", topic, at, tuple(words)))
                continue
            found.append(
                Ask(
                    msg.id or f"{connection.topic} {at}",
                    self._camera(msg.image_topic) if msg.image_topic else topic,
                    at,
                    tuple(msg.expressions),
                    msg.text,
                    nanoseconds(msg.not_before),
                    every_frame=msg.mode == EVERY_FRAME,
                    cancel=msg.mode == CANCEL,
                )
            )
        return found

    def _camera(self, name: str) -> str:
        return camera_named(f"/{name.lstrip('/')}", self.image_topics) or name

    def truth(self) -> list[FrameTruth]:
        """The truth that the bag carries, as `gsva record-truth` writes it.

        Raises:
            TruthError: a message of the truth topic is not COCO-style JSON.
        """
        frames: list[FrameTruth] = []
        for _, at, msg in self._messages(
            lambda c: (c.topic, c.msgtype) == (TRUTH_TOPIC, STRING_TYPE)
        ):
            frames += parse_truth(msg.data, f"{self.path}: {TRUTH_TOPIC} at {at} ns")
        return frames

    def stamp(self, connection: Connection, raw: bytes) -> int | None:
        """The header's stamp, nanoseconds, of a picture as it was recorded; None: it cannot be read."""
        try:
            return nanoseconds(self._deserialized(connection, raw).header.stamp)
        except Exception:  # as in `_read`
            return None

    def raw(self) -> Iterator[tuple[Connection, int, bytes]]:
        """Every message as it was published (CDR), in the order of time; see `problems`."""
        return self._read(lambda _: True, lambda _, raw: plain(raw))

    def _deserialized(self, connection: Connection, raw: bytes) -> Any:
        return self._reader.deserialize(plain(raw), connection.msgtype)

    def _messages(
        self, wanted: Callable[[Connection], bool]
    ) -> Iterator[tuple[Connection, int, Any]]:
        return self._read(wanted, self._deserialized)

    def _read(
        self, wanted: Callable[[Connection], bool], made: Callable[[Connection, bytes], T]
    ) -> Iterator[tuple[Connection, int, T]]:
        """What is made of each message of some topics; what cannot be read goes to `problems`."""
        connections = [c for c in self._reader.connections if wanted(c)]
        if not connections:
            return
        at = self._reader.start_time
        try:
            for connection, at, raw in self._reader.messages(connections):
                try:
                    msg = made(connection, raw)
                except Exception as error:  # rosbags raises what struct, numpy and str raise
                    message = f"{type(error).__name__}: {one_line(error)}"
                    place = f"{self.path}: {connection.topic} at {at} ns"
                    self.problems.append(f"{place}: not a {connection.msgtype}: {message}")
                    continue
                yield connection, at, msg
        except Exception as error:  # as above: what was read until here is kept
            topics = ", ".join(sorted({c.topic for c in connections}))
            self.problems.append(f"{self.path}: {topics}: lost after {at} ns: {one_line(error)}")


def _misdescribed(reader: AnyReader) -> str:
    """Which topics a bag's metadata.yaml describes otherwise than its files; "": none.

    rosbags finds no message of these: of one whose quality of service was edited for `ros2 bag play`.
    """
    topics = []
    for connection in reader.connections:
        with suppress(Exception):  # damaged, and told when it is read
            if connection.msgcount and next(reader.messages([connection]), None) is None:
                topics.append(connection.topic)
    return f"it describes {', '.join(topics)} otherwise than they do" if topics else ""
