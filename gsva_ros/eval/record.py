"""Bags that contain their own evaluation: frames, instructions about them, and ground truth."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rosbags.interfaces import Connection, ConnectionExtRosbag2, MessageDefinitionFormat
from rosbags.rosbag2 import Writer
from rosbags.typesys import TypesysError
from rosbags.typesys.store import Typestore

from ..bags.bag import INSTRUCTION_TYPE, STRING_TYPE, TRUTH_TOPIC, Bag
from ..interfaces import typestore, whole_bag
from ..stamps import SECOND
from ..truth import FrameTruth

INSTRUCTION_TOPIC = "/instruction"
#: Prefix of the instructions' ids, followed by the frame's stamp and topic: cameras may share stamps.
ID_PREFIX = "truth-"


def record_truth(bag: Bag, truth: Sequence[FrameTruth], out: Path) -> int:
    """Copy a bag into an mcap bag, with an instruction and the ground truth before each frame that has one.

    Topics added: /instruction (gsva_ros/Instruction: the frame's expressions, once, not before its stamp),
    which makes the node answer when the bag is played; /ground_truth (std_msgs/String: `gsva_ros.truth`).
    The bag's own instructions are left out, because they would be answered and scored as well; its problems
    name their topics.

    Returns:
        The number of frames with ground truth.

    Raises:
        BagError: the ground truth refers to an image topic that the bag lacks.
        InputError: `out` exists.
    """
    types = typestore()
    by_stamp, received = _of_frames(bag, truth)
    asking = bag.instruction_topics
    bag.problems += [
        f"{bag.path}: {topic}: left out of the copy, which asks for what its ground truth knows"
        for topic in asking
    ]
    replaced = {*asking, INSTRUCTION_TOPIC, TRUTH_TOPIC}
    copies: dict[tuple[str, str], Connection | None] = {}
    with whole_bag(out) as writer:
        asked = writer.add_connection(INSTRUCTION_TOPIC, INSTRUCTION_TYPE, typestore=types)
        known = writer.add_connection(TRUTH_TOPIC, STRING_TYPE, typestore=types)
        for connection, at, raw in bag.raw(lambda c: c.topic not in replaced):
            frame = None
            # Frames received at the same time differ in stamp.
            if (connection.topic, at) in received:
                stamp = bag.stamp(connection, raw)
                frame = None if stamp is None else by_stamp.get((connection.topic, stamp))
            if frame:
                # Before the frame, so that the request is in time when the bag is played.
                writer.write(asked, at, _instruction(types, frame))
                text = types.types[STRING_TYPE](frame.to_json())
                writer.write(known, at, types.serialize_cdr(text, STRING_TYPE))
            place = connection.topic, connection.msgtype
            if place not in copies:
                copies[place] = _copy(writer, connection, bag)
            if (copied := copies[place]) is not None:
                writer.write(copied, at, raw)
    return len(by_stamp)


def _of_frames(
    bag: Bag, truth: Sequence[FrameTruth]
) -> tuple[dict[tuple[str, int], FrameTruth], set[tuple[str, int]]]:
    """The truth of the bag's frames by topic and stamp, and those frames' topics and times of receipt."""
    by_stamp: dict[tuple[str, int], FrameTruth] = {}
    received: set[tuple[str, int]] = set()
    for frame in truth:
        if frame.annotations and bag.is_usable(frame.topic, frame.stamp, frame.size):
            by_stamp[frame.topic, frame.stamp] = frame
            received.add((frame.topic, bag.frames(frame.topic)[frame.stamp]))
    return by_stamp, received


def _instruction(types: Typestore, frame: FrameTruth) -> memoryview:
    """The serialised instruction that asks for all of a frame's expressions."""
    Instruction: Any = types.types[INSTRUCTION_TYPE]
    Header = types.types["std_msgs/msg/Header"]
    Time, Duration = (types.types[f"builtin_interfaces/msg/{n}"] for n in ("Time", "Duration"))
    stamp = Time(*divmod(frame.stamp, SECOND))
    instruction = Instruction(
        header=Header(stamp, ""),
        image_topic=frame.topic,
        id=f"{ID_PREFIX}{frame.stamp} {frame.topic}",
        mode=Instruction.ONCE,
        text="",
        expressions=[entry.caption for entry in frame.annotations],
        not_before=stamp,
        deadline=Duration(0, 0),
    )
    return types.serialize_cdr(instruction, INSTRUCTION_TYPE)


def _copy(writer: Writer, connection: Connection, bag: Bag) -> Connection | None:
    """A connection like one of the bag, with its own definition if it has one.

    A type without a definition cannot be written: None is returned, and the bag's problems name it.
    """
    described = connection.msgdef.format is not MessageDefinitionFormat.NONE
    described = described and bool(connection.digest)
    assert isinstance(connection.ext, ConnectionExtRosbag2), "Bag refuses those of ROS 1"
    try:
        return writer.add_connection(
            connection.topic,
            connection.msgtype,
            typestore=None if described else bag.types,
            msgdef=connection.msgdef.data if described else None,
            rihs01=connection.digest if described else None,
            offered_qos_profiles=connection.ext.offered_qos_profiles,
        )
    except (TypesysError, KeyError):
        bag.problems.append(
            f"{bag.path}: {connection.topic}: left out of the copy: the bag does not define "
            f"{connection.msgtype}"
        )
        return None
