"""Interfaces: constants, round trips over DDS serialisation, and bags readable elsewhere."""

import array
from pathlib import Path

import numpy as np
import pytest
from builtin_interfaces.msg import Time
from gsva_ros.msg import Instruction, Provenance, Segmentation
from gsva_ros.msg import Outcome as OutcomeMsg
from rclpy.serialization import deserialize_message, serialize_message
from rosbags.rosbag2 import Reader
from rosbags.typesys import Stores, get_types_from_msg, get_typestore

from gsva_ros import msg as messages
from gsva_ros.answer import Rejection as Kind
from gsva_ros.conversions import mask_of
from gsva_ros.programs.results import ResultsBag
from gsva_ros.ros.answers import outcome_name, segmentation, targets_in
from gsva_ros.serving.requests import CameraFrame, Code, Decision, Outcome, Request, Result
from gsva_ros.stamps import SECOND, fill, nanoseconds


def answer():
    """Return a message with one of each outcome, and the mask in it."""
    from std_msgs.msg import Header

    mask = np.zeros((48, 64), bool)
    mask[5:9, 7:20] = True
    mask[6, 10] = False
    box = (7, 5, 20, 9)
    header = Header(frame_id="camera")
    header.stamp.sec, header.stamp.nanosec = 5, 123_456_789
    rgb = np.zeros((48, 64, 3), np.uint8)
    frame = CameraFrame(header, 5_123_456_789, "/camera/image", lambda: rgb)
    result = Result(
        Request("näme", expressions=["a", "b", "c", "d", "e"]),
        [
            Decision(0, "a", Outcome.SEGMENTED, p_seg=0.875, box=box, crop=mask[5:9, 7:20]),
            Decision(1, "b", Outcome.REJECTED, rejection=Kind.MODEL, p_seg=0.25),
            Decision(2, "c", Outcome.FAILED, Code.INTERNAL, "boom"),
            Decision(3, "d", Outcome.EXPIRED),
            Decision(4, "e", Outcome.CANCELLED),
        ],
        frame,
        rgb,
        "Sure, a:[SEG].",
        {"encode": 0.5, "decide": 0.25, "mask": 0.125, "total": 1.0, "queue": 0.0625},
    )
    return segmentation(result, Provenance(model="m", weights_hash="0" * 64), 6_123_456_789), mask


def test_stamps_at_the_end_of_time_are_answered():
    """Those of pictures may be anything: `nanosec` beyond a second, ages from one end to the other."""
    decision = Decision(0, "a", Outcome.EXPIRED, since=2**31 * SECOND + 7, age=2**32 * SECOND)
    (outcome,) = segmentation(Result(Request("late"), [decision]), Provenance(), 0).outcomes
    for time in (outcome.since, outcome.age):
        assert (time.sec, time.nanosec) == (2**31 - 1, 999_999_999)


def test_a_stamp_that_no_message_can_hold_is_the_nearest():
    """Others are as they were, also before 1970."""
    time = Time()
    for stamp in (0, 1, -1, -1_500_000_000, 1_700_000_000_123_456_789, -(2**31) * SECOND):
        fill(time, stamp)
        assert nanoseconds(time) == stamp
    fill(time, -(2**31) * SECOND - 1)
    assert (time.sec, time.nanosec) == (-(2**31), 0)


def test_enumerations_are_those_of_the_messages():
    assert {o.name: o.value for o in Outcome} == {
        o.name: getattr(OutcomeMsg, o.name) for o in Outcome
    }
    assert {c.name: c.value for c in Code} == {c.name: getattr(OutcomeMsg, c.name) for c in Code}
    assert outcome_name(OutcomeMsg.LOST) == "UNKNOWN"  # 9: no outcome
    assert [outcome_name(o) for o in (OutcomeMsg.UNKNOWN, OutcomeMsg.FAILED)] == [
        "UNKNOWN",
        "FAILED",
    ]
    assert (Instruction.ONCE, Instruction.EVERY_FRAME, Instruction.CANCEL) == (0, 1, 2)


def test_what_is_drawn_is_what_was_decided():
    message, mask = answer()
    found, rejected = targets_in(message)
    assert (found.slot, found.expression, found.p_seg) == (0, "a", 0.875)
    assert np.array_equal(found.mask, mask)
    assert (rejected.slot, rejected.expression, rejected.mask) == (1, "b", None)
    assert rejected.p_seg == 0.25


def test_answer_survives_serialisation():
    message, mask = answer()
    back = deserialize_message(serialize_message(message), Segmentation)
    assert back == message
    assert [o.outcome for o in back.outcomes] == [1, 2, 3, 4, 5]
    assert (len(back.instances), len(back.rejections)) == (1, 1)
    assert back.rejections[0].probability == pytest.approx(0.75)
    assert back.timings.frame_age == pytest.approx(1.0)
    assert (back.timings.encode, back.timings.mask) == (0.5, 0.125)
    assert back.instances[0].mask.encoding == "mono8"
    assert set(back.instances[0].mask.data) == {0, 255}
    assert np.array_equal(mask_of(back.instances[0], back.width, back.height), mask)


@pytest.mark.parametrize("name", [n for n in dir(messages) if n[0].isupper()])
def test_every_message_round_trips(name):
    kind = getattr(messages, name)
    message = kind()
    for field, type_name in kind.get_fields_and_field_types().items():
        value = {"string": "ä" * 40, "sequence<string>": ["", "b"]}.get(type_name)
        if value is None and type_name.startswith(("uint", "float")):
            value = 7
        if value is not None:
            setattr(message, field, float(value) if type_name.startswith("float") else value)
    assert deserialize_message(serialize_message(message), kind) == message


def test_results_bag_is_read_with_what_it_carries(tmp_path: Path):
    """A reader that has never seen this package decodes the bag from the definitions in it."""
    message, mask = answer()
    with ResultsBag(tmp_path / "bag") as bag:
        bag.write("/segmentation", message, 5)
        bag.write("/rejection", message.rejections[0], 6)
    store = get_typestore(Stores.ROS2_HUMBLE)
    with Reader(tmp_path / "bag") as reader:
        for connection in reader.connections:
            store.register(get_types_from_msg(connection.msgdef.data, connection.msgtype))
        read = {
            connection.topic: store.deserialize_cdr(raw, connection.msgtype)
            for connection, _, raw in reader.messages()
        }
    assert read["/rejection"].expression == "b"
    back = read["/segmentation"]
    assert back.instruction_id == "näme"
    assert np.array_equal(mask_of(back.instances[0], back.width, back.height), mask)
    assert array.array("B", back.instances[0].mask.data.tobytes()) == message.instances[0].mask.data
