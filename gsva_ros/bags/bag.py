"""Reads rosbags directly from disk: frames, recorded instructions, and ground truth."""

from __future__ import annotations

import os
import shlex
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import zstandard
from numpy.typing import NDArray
from rosbags.highlevel import AnyReader
from rosbags.interfaces import Connection
from rosbags.typesys.store import Typestore

from ..conversions import to_rgb
from ..errors import InputError, one_line
from ..files import check_fetched
from ..instructions import camera_named, expressions_in
from ..interfaces import typestore
from ..stamps import nanoseconds
from ..truth import FrameTruth, parse_truth
from .ask import Ask
from .recovery import PACKED, bag_files, is_full, recover

IMAGE_TYPES = ("sensor_msgs/msg/Image", "sensor_msgs/msg/CompressedImage")
INSTRUCTION_TYPE = "gsva_ros/msg/Instruction"
STRING_TYPE = "std_msgs/msg/String"
TRUTH_TOPIC = "/ground_truth"
TEXT_TOPIC = "instruction_text"
EVERY_FRAME, CANCEL = 1, 2  # gsva_ros/Instruction
#: The first bytes of a compressed message (RFC 8878, 3.1.1); one in CDR begins with 0.
ZSTD = b"\x28\xb5\x2f\xfd"
T = TypeVar("T")


class BagError(InputError):
    """A bag cannot be used; the message names the file and the topic."""


class Bag:
    """A bag's messages, read one at a time: memory use does not depend on its length.

    Reads rosbag2 in mcap or sqlite3, raw or compressed messages, raw or compressed images. Of a truncated
    mcap file, everything before the cut is read. Use as a context manager, or close it.

    Attributes:
        problems: what could not be read, each with its file, topic and place.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.problems: list[str] = []
        _check(path)
        self._folder = tempfile.TemporaryDirectory(prefix="gsva-bag-")
        try:
            self._paths, self.problems = recover(path, Path(self._folder.name))
            self._opened, self._process = self._first(), os.getpid()
        except Exception as error:  # on damaged files rosbags raises any exception
            self._folder.cleanup()
            raise BagError(self._unopened(error)) from error
        self._frames: dict[str, dict[int, int]] = {}
        if not self._reader.connections:
            self.close()
            raise BagError("; ".join([f"{path} holds no messages", *self.problems]))

    def _unopened(self, error: Exception) -> str:
        """What to say of an error that keeps the bag from being opened."""
        if is_full(error):
            place = f"no space for a readable copy in {tempfile.gettempdir()}"
            return (
                f"{self.path}: {place} ({one_line(error)}): set TMPDIR to a folder with more space"
            )
        message = "; ".join([*self.problems, f"{type(error).__name__}: {one_line(error)}"])
        return f"{self.path} cannot be read as a bag: {message}"

    @property
    def _reader(self) -> AnyReader:
        """This process's own reader: forked processes (DataLoader) would share its file position."""
        if self._process != os.getpid():
            self._opened, self._process = self._open(), os.getpid()
        return self._opened

    def _first(self) -> AnyReader:
        """The reader by the bag's metadata.yaml; where that cannot be used, of each file by itself."""
        if not self._paths[0].is_dir():
            return self._open()
        try:
            reader = self._open()
            problem = _misdescribed(reader)
            if not problem:
                self.problems += _unlisted(self.path, reader)
                return reader
            reader.close()
        except Exception as error:  # see __init__
            problem = one_line(error)
        folder = Path(self._folder.name) / "files"
        folder.mkdir()
        self._paths, problems = recover(self.path, folder, described=False)
        told = f"metadata.yaml cannot be used ({problem}); the bag's files are read individually"
        self.problems = [f"{self.path}: {told}", *problems]
        return self._open()

    def _open(self) -> AnyReader:
        ours = typestore()  # older bags do not contain their types
        reader = AnyReader(self._paths, default_typestore=ours)
        reader.open()
        # If a bag contains types, the reader knows only those, even where they refer to others.
        known = reader.typestore.fielddefs
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
        """The known types of the bag's messages."""
        return self._reader.typestore

    @property
    def topics(self) -> dict[str, str]:
        """The message type of each topic."""
        return {c.topic: c.msgtype for c in map(_named, self._reader.connections)}

    @property
    def image_topics(self) -> list[str]:
        """Names of the image topics."""
        named = map(_named, self._reader.connections)
        return sorted({c.topic for c in named if c.msgtype in IMAGE_TYPES})

    @property
    def instruction_topics(self) -> list[str]:
        """Names of the topics that `asks` reads."""
        named = map(_named, self._reader.connections)
        return sorted({c.topic for c in named if _is_instruction(c)})

    @property
    def image_choice(self) -> str:
        """The image topics in words; without one, what is there in place of them."""
        if self.image_topics:
            return f"image topics: {', '.join(self.image_topics)}"
        videos = [f"{t} ({k})" for t, k in self.topics.items() if k.endswith(("Packet", "Video"))]
        told = "image topics (sensor_msgs/Image, CompressedImage): none"
        if videos:
            told += f"; video is not read, republish it as raw or compressed: {', '.join(videos)}"
        return told

    def frames(self, topic: str) -> dict[int, int]:
        """Time of receipt by header stamp, both in nanoseconds, of a topic's frames, in order of receipt.

        A frame is identified by its stamp: of several with the same one, the last is kept, and `problems`
        counts the others.

        Raises:
            BagError: no such image topic; lists the existing ones.
        """
        if topic not in self._frames:
            if topic not in self.image_topics:
                raise BagError(f"{self.path}: no image topic {topic!r}; {self.image_choice}")
            found: dict[int, int] = {}
            hidden: Counter[int] = Counter()
            for _, at, stamp in self._read(lambda c: _is_camera(c, topic), self._stamp):
                hidden[stamp] += found.pop(stamp, None) is not None
                found[stamp] = at
            self._frames[topic] = found
            if count := hidden.total():
                stamp = next(stamp for stamp, others in hidden.items() if others)
                self.problems.append(
                    f"{self.path}: {topic}: {count} frames have the stamp of another one (first {stamp} "
                    "ns) and are ignored: stamp each frame when it is captured"
                )
        return self._frames[topic]

    def rgb(self, topic: str, stamp: int) -> NDArray[np.uint8]:
        """One frame, uint8 [H, W, 3].

        Raises:
            MessageError: the message cannot be read as an image.
        """
        _, _, msg = self._frame(topic, stamp)
        return to_rgb(msg, topic)

    def is_usable(self, topic: str, stamp: int, size: tuple[int, int] | None) -> bool:
        """Whether a frame can be read and has this size, (height, width); if not, `problems` says why.

        Args:
            size: that of the frame's ground truth; None: any.

        Raises:
            BagError: no such image topic.
        """
        problem = ""
        if stamp not in self.frames(topic):
            problem = "no such frame"
        else:
            try:
                found = self.rgb(topic, stamp).shape[:2]
                if size not in (None, found):
                    problem = f"the frame is {found}, its truth {size} (height, width)"
            except InputError as error:
                problem = one_line(error)
        if problem:
            self.problems.append(f"{self.path}: {topic} at {stamp} ns: {problem}")
        return not problem

    def published(self, topic: str, stamp: int) -> tuple[str, bytes]:
        """The type of one frame's message, and the message as published (CDR)."""
        kind, raw, _ = self._frame(topic, stamp)
        return kind, raw

    def _frame(self, topic: str, stamp: int) -> tuple[str, bytes, Any]:
        """One frame's message type, its message as published, and the deserialised message."""
        at = self.frames(topic)[stamp]
        connections = [c for c in self._reader.connections if _is_camera(_named(c), topic)]
        try:
            for recorded, _, raw in self._reader.messages(connections, start=at, stop=at + 1):
                connection = _named(recorded)
                msg = self._deserialized(connection, raw)
                if nanoseconds(msg.header.stamp) == stamp:
                    return connection.msgtype, _plain(raw), msg
        except Exception as error:  # damage that the first pass did not reach
            message = f"{type(error).__name__}: {one_line(error)}"
            raise BagError(f"{self.path}: {topic} at {stamp} ns: {message}") from error
        raise BagError(
            f"{self.path}: {topic} at {stamp} ns has disappeared since the bag was opened"
        )

    def asks(self, topic: str) -> list[Ask]:
        """The recorded instructions: gsva_ros/Instruction and strings on instruction_text.

        Args:
            topic: the camera of instructions that name none. Names are resolved as in the node: relative
                ones in the root namespace, and to the compressed topic if there is no other.
        """

        found = self._read(_is_instruction, partial(self._ask, topic))
        return [replace(ask, id=ask.id or f"{c.topic} {at}", at=at) for c, at, ask in found]

    def _ask(self, topic: str, connection: Connection, raw: bytes) -> Ask:
        """An instruction as `asks` returns it, without the time of its receipt."""
        msg = self._deserialized(connection, raw)
        if connection.msgtype == STRING_TYPE:
            return Ask("", topic, 0, tuple(expressions_in(msg.data)))
        return Ask(
            msg.id,
            self._camera(msg.image_topic) if msg.image_topic else topic,
            0,
            tuple(msg.expressions),
            msg.text,
            nanoseconds(msg.not_before),
            every_frame=msg.mode == EVERY_FRAME,
            cancel=msg.mode == CANCEL,
        )

    def _camera(self, name: str) -> str:
        return camera_named(f"/{name.lstrip('/')}", self.image_topics) or name

    def truth(self) -> list[FrameTruth]:
        """The ground truth in the bag, as written by `gsva record-truth`.

        Raises:
            TruthError: a message of the truth topic is not COCO-style JSON.
        """
        frames: list[FrameTruth] = []
        for _, at, text in self._read(
            lambda c: (c.topic, c.msgtype) == (TRUTH_TOPIC, STRING_TYPE),
            lambda c, raw: self._deserialized(c, raw).data,
        ):
            frames += parse_truth(text, f"{self.path}: {TRUTH_TOPIC} at {at} ns")
        return frames

    def stamp(self, connection: Connection, raw: bytes) -> int | None:
        """The header's stamp, nanoseconds, of an image as recorded; None: it cannot be read."""
        try:
            return self._stamp(connection, raw)
        except Exception:  # as in `_read`
            return None

    def raw(
        self, wanted: Callable[[Connection], bool] = lambda _: True
    ) -> Iterator[tuple[Connection, int, bytes]]:
        """Every message on the wanted topics as published (CDR), in order of time; see `problems`."""
        return self._read(wanted, lambda _, raw: _plain(raw))

    def _deserialized(self, connection: Connection, raw: bytes) -> Any:
        return self._reader.deserialize(_plain(raw), connection.msgtype)

    def _stamp(self, connection: Connection, raw: bytes) -> int:
        return nanoseconds(self._deserialized(connection, raw).header.stamp)

    def _read(
        self, wanted: Callable[[Connection], bool], made: Callable[[Connection, bytes], T]
    ) -> Iterator[tuple[Connection, int, T]]:
        """`made` of each message on the wanted topics; what cannot be read goes to `problems`."""
        connections = [c for c in self._reader.connections if wanted(_named(c))]
        if not connections:
            return
        at = self._reader.start_time
        try:
            for recorded, at, raw in self._reader.messages(connections):
                connection = _named(recorded)
                try:
                    msg = made(connection, raw)
                except Exception as error:  # rosbags raises what struct, numpy and str raise
                    message = f"{type(error).__name__}: {one_line(error)}"
                    place = f"{self.path}: {connection.topic} at {at} ns"
                    self.problems.append(f"{place}: not a {connection.msgtype}: {message}")
                    continue
                yield connection, at, msg
        except Exception as error:  # as above: what was read until here is kept
            topics = ", ".join(sorted({_named(c).topic for c in connections}))
            self.problems.append(f"{self.path}: {topics}: lost after {at} ns: {one_line(error)}")


def _check(path: Path) -> None:
    """Raise BagError for what is no bag, or one of ROS 1, whose messages a node could not read."""
    if not path.exists():
        raise BagError(f"{path}: no such bag")
    files = bag_files(path) if path.is_dir() else [path]
    if not files and not (path / "metadata.yaml").exists():
        inside = ", ".join(sorted(str(f.parent) for f in path.glob("*/metadata.yaml"))[:3])
        found = f"bags in it: {inside}" if inside else "give a folder or file that `ros2 bag` wrote"
        raise BagError(f"{path}: no bag: the folder has no metadata.yaml, .mcap or .db3; {found}")
    for file in files:
        check_fetched(file, BagError, "recording")
    if path.suffix == ".bag" and path.is_file():
        source, target = (shlex.quote(str(each)) for each in (path, path.with_suffix("")))
        raise BagError(
            f"{path}: a bag of ROS 1: convert it with `rosbags-convert --src {source} --dst {target}`"
        )


def _named(connection: Connection) -> Connection:
    """A connection with its topic and type in full, as a node names them.

    Writers other than rosbag2 record relative topics ("camera/image"), or types as ROS 2 named them before
    Dashing ("sensor_msgs/Image").
    """
    topic, kind = connection.topic, connection.msgtype
    if kind.count("/") == 1:
        kind = kind.replace("/", "/msg/")
    return connection._replace(topic=f"/{topic.lstrip('/')}", msgtype=kind)


def _is_camera(connection: Connection, topic: str) -> bool:
    return connection.topic == topic and connection.msgtype in IMAGE_TYPES


def _is_instruction(connection: Connection) -> bool:
    text = connection.msgtype == STRING_TYPE and connection.topic.endswith(TEXT_TOPIC)
    return text or connection.msgtype == INSTRUCTION_TYPE


def _unlisted(folder: Path, reader: Any) -> list[str]:
    """A line for each file of a bag that its metadata.yaml, by which it was opened, does not list."""
    # A file and its packed copy are the same.
    listed = {file.path.name.removesuffix(PACKED) for file in reader.readers[0].storage.storages}
    return [
        f"{file}: not read: metadata.yaml does not list it (`ros2 bag reindex` lists all)"
        for file in bag_files(folder)
        if file.name.removesuffix(PACKED) not in listed
    ]


def _misdescribed(reader: AnyReader) -> str:
    """The topics that a bag's metadata.yaml describes differently from its files; "": none.

    rosbags finds no message on them, for example after their QoS was edited for `ros2 bag play`.
    """
    topics = []
    for connection in reader.connections:
        with suppress(Exception):  # damaged, which is reported when it is read
            if connection.msgcount and next(reader.messages([connection]), None) is None:
                topics.append(connection.topic)
    return f"it describes {', '.join(topics)} differently from the files" if topics else ""


def _plain(raw: bytes) -> bytes:
    """A message (CDR), decompressed if it was compressed individually.

    Only metadata.yaml records the compression: it is missing for a single file, or after a crash.

    Raises:
        zstandard.ZstdError: it is compressed, and damaged.
    """
    return zstandard.decompress(raw) if raw[: len(ZSTD)] == ZSTD else raw
