"""Bags that carry their own evaluation: frames, what is asked of them, and the truth."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from rosbags.interfaces import Connection, MessageDefinitionFormat

from ..bags.bag import INSTRUCTION_TYPE, STRING_TYPE, TRUTH_TOPIC, Bag
from ..interfaces import typestore, whole_bag
from ..stamps import SECOND
from ..truth import FrameTruth

INSTRUCTION_TOPIC = "/instruction"
#: How the instructions are named; the frame's stamp follows.
ASKED = "truth-"


def record_truth(bag: Bag, truth: Sequence[FrameTruth], out: Path) -> int:
    """Copy a bag into an mcap bag, with an instruction and the truth before each frame it is known for.

    Topics added: /instruction (gsva_ros/Instruction: the frame's expressions, once, not before its stamp),
    which makes the node answer when the bag is played; /ground_truth (std_msgs/String: `gsva_ros.truth`).

    Returns:
        The number of frames that got a truth.

    Raises:
        BagError: the truth is of an image topic that the bag lacks.
        InputError: `out` exists.
    """
    types = typestore()
    Instruction, Header = types.types[INSTRUCTION_TYPE], types.types["std_msgs/msg/Header"]
    Time, Duration = (types.types[f"builtin_interfaces/msg/{n}"] for n in ("Time", "Duration"))
    String = types.types[STRING_TYPE]
    by_stamp: dict[tuple[str, int], FrameTruth] = {}
    places: set[tuple[str, int]] = set()
    for frame in truth:
        stamps = bag.frames(frame.topic)
        if frame.stamp in stamps:
            by_stamp[frame.topic, frame.stamp] = frame
            places.add((frame.topic, stamps[frame.stamp]))
        else:
            where = f"{bag.path}: {frame.topic} at {frame.stamp} ns"
            bag.problems.append(f"{where}: no such frame")
    copies: dict[str, Connection] = {}
    with whole_bag(out) as writer:
        asked = writer.add_connection(INSTRUCTION_TOPIC, INSTRUCTION_TYPE, typestore=types)
        known = writer.add_connection(TRUTH_TOPIC, STRING_TYPE, typestore=types)
        for connection, at, raw in bag.raw():
            if connection.topic in (INSTRUCTION_TOPIC, TRUTH_TOPIC):
                continue  # these are being written anew
            # Ahead of the frame, so that whoever plays the bag asks in time.
            frame = None
            if (connection.topic, at) in places:  # of frames received at once, each has its own
                frame = by_stamp.get((connection.topic, bag.stamp(connection, raw)))
            if frame:
                stamp = Time(*divmod(frame.stamp, SECOND))
                instruction = Instruction(
                    header=Header(stamp, ""),
                    image_topic=frame.topic,
                    id=f"{ASKED}{frame.stamp}",
                    mode=Instruction.ONCE,
                    text="",
                    expressions=[entry.caption for entry in frame.annotations],
                    not_before=stamp,
                    deadline=Duration(0, 0),
                )
                writer.write(asked, at, types.serialize_cdr(instruction, INSTRUCTION_TYPE))
                writer.write(known, at, types.serialize_cdr(String(frame.to_json()), STRING_TYPE))
            if connection.topic not in copies:
                described = connection.msgdef.format is not MessageDefinitionFormat.NONE
                described = described and bool(connection.digest)
                copies[connection.topic] = writer.add_connection(
                    connection.topic,
                    connection.msgtype,
                    typestore=None if described else types,
                    msgdef=connection.msgdef.data if described else None,
                    rihs01=connection.digest if described else None,
                    offered_qos_profiles=connection.ext.offered_qos_profiles,
                )
            writer.write(copies[connection.topic], at, raw)
    return len(by_stamp)
