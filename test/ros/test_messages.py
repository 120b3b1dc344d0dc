"""Interfaces: constants, round trips over DDS serialisation, and bags readable elsewhere."""

import array
import math
from pathlib import Path

import numpy as np
import pytest
from builtin_interfaces.msg import Time
from fake_engine import FakeEngine
from gsva_ros.msg import Instruction, Provenance, Rejection, Segmentation
from gsva_ros.msg import Outcome as OutcomeMsg
from rclpy.serialization import deserialize_message, serialize_message
from rosbags.rosbag2 import Reader
from rosbags.typesys import Stores, get_types_from_msg, get_typestore
from sensor_msgs.msg import Image
from std_msgs.msg import Header

import gsva_ros
from gsva_ros import msg as messages
from gsva_ros.answer import Rejection as Kind
from gsva_ros.conversions import fill_image, mask_of
from gsva_ros.masks import Region
from gsva_ros.programs.results import ResultsBag
from gsva_ros.ros import cameras
from gsva_ros.ros.answers import outcome_name, provenance_of, segmentation, targets_in
from gsva_ros.ros.cameras import Cameras
from gsva_ros.serving.requests import (
    CameraFrame,
    Code,
    Decision,
    Instance,
    Outcome,
    Request,
    Result,
)
from gsva_ros.stamps import SECOND, fill, nanoseconds


def test_an_image_is_decoded_once_for_the_model_and_the_tracker(monkeypatch):
    msg = fill_image(Image(), np.full((4, 6, 3), 7, np.uint8), "bgr8")
    frame = Cameras(None, print, print, print).frame(msg, "/camera")
    decoded = []
    decode = cameras.to_rgb
    monkeypatch.setattr(cameras, "to_rgb", lambda *of: decoded.append(of) or decode(*of))
    assert not decoded
    assert frame.decode() is frame.decode()
    assert len(decoded) == 1
    assert frame.size == 4 * 6 * 3, "by which the images of waiting calls are limited"


def answer():
    """Return a message with one of each outcome, and the mask in it."""
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
            Decision(
                0,
                "a",
                Outcome.SEGMENTED,
                p_seg=0.875,
                predicted_iou=0.5,
                region=Region(box, mask[5:9, 7:20]),
            ),
            Decision(
                1, "b", Outcome.REJECTED, reason="not there", rejection=Kind.MODEL, p_seg=0.25
            ),
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
    message.instances[0].slot = 2
    assert [target.slot for target in targets_in(message)] == [1, 2]


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


def test_an_answer_tells_all_that_is_known():
    message, _ = answer()
    assert (message.instruction_id, message.image_topic) == ("näme", "/camera/image")
    assert (message.width, message.height) == (64, 48)
    assert message.text == "Sure, a:[SEG]."
    assert (message.provenance.model, message.provenance.weights_hash) == ("m", "0" * 64)
    assert (message.header.frame_id, message.header.stamp.nanosec) == ("camera", 123_456_789)
    (instance,), (rejection,) = message.instances, message.rejections
    assert message.header == instance.mask.header == rejection.header
    assert [(o.slot, o.expression) for o in message.outcomes] == list(enumerate("abcde"))
    failed = message.outcomes[2]
    assert (failed.code, failed.reason) == (OutcomeMsg.INTERNAL, "boom")
    assert (instance.slot, instance.instance, instance.expression) == (0, 0, "a")
    assert (instance.p_seg, instance.confidence, instance.predicted_iou) == (0.875, 1.0, 0.5)
    assert instance.id == 0, "not tracked"
    assert (rejection.instruction_id, rejection.slot, rejection.expression) == ("näme", 1, "b")
    assert (rejection.kind, rejection.reason) == (Rejection.MODEL, "not there")
    timings = message.timings
    assert (timings.decide, timings.total, timings.queue) == (0.25, 1.0, 0.0625)


def test_a_carried_answer_tells_what_was_followed():
    header, one = Header(frame_id="camera"), np.ones((2, 3), bool)
    regions = Region((1, 2, 4, 4), one), Region((8, 2, 11, 4), one)
    tracked = (Instance(7, regions[0], 0.5), Instance(9, regions[1], 0.75))
    decision = Decision(
        3, "all", Outcome.SEGMENTED, p_seg=0.5, instances=tracked, carried=True, age=SECOND // 2,
        since=-5, answers=4, region=Region.around(regions),
    )  # fmt: skip
    frame = CameraFrame(header, 0, "/camera", lambda: None)
    rgb = np.zeros((6, 12, 3), np.uint8)
    result = Result(Request("look"), [decision], frame, rgb, threshold=0.25)
    provenance = Provenance(rejection_threshold=0.75)
    message = segmentation(result, provenance, 0)
    found = [(i.id, i.instance, i.confidence, i.roi.x_offset) for i in message.instances]
    assert found == [(7, 0, 0.5, 1), (9, 1, 0.75, 8)]
    (outcome,) = message.outcomes
    assert (outcome.carried, outcome.age.nanosec, outcome.answers) == (True, SECOND // 2, 4)
    assert (outcome.since.sec, outcome.since.nanosec) == (0, 0), "a Time is never negative"
    assert message.provenance.rejection_threshold == 0.25, "the one that it was decided by"
    assert provenance.rejection_threshold == 0.75
    told = segmentation(Result(Request("look"), [], threshold=0.0), provenance, 0).provenance
    assert told.rejection_threshold == 0.0
    assert (message.timings.total, message.timings.queue) == (0.0, 0.0)


def test_a_mask_is_one_instance_unless_its_parts_are_asked_for():
    region = Region((5, 1, 8, 2), np.array([[True, False, True]]))
    decision = Decision(0, "all", Outcome.SEGMENTED, region=region)
    result = Result(Request("look"), [decision])
    for split, expected in ((False, [(0, 5, 3)]), (True, [(0, 5, 1), (1, 7, 1)])):
        found = segmentation(result, Provenance(), 0, split_instances=split).instances
        assert [(i.instance, i.roi.x_offset, i.roi.width) for i in found] == expected
    assert len(segmentation(result, Provenance(), 0).instances) == 1


@pytest.mark.parametrize(
    ("ahead", "age"),
    [
        (0, 0.0),
        (-SECOND, -1.0),
        (86_399 * SECOND, 86_399.0),
        (86_401 * SECOND, None),
        (-86_401 * SECOND, None),
    ],
)
def test_the_age_of_a_frame_is_known_where_both_clocks_are_one(ahead, age):
    frame = CameraFrame(Header(), 10**18, "/camera", lambda: None)
    told = segmentation(Result(Request("a"), [], frame), Provenance(), 10**18 + ahead).timings
    assert math.isnan(told.frame_age) if age is None else told.frame_age == age
    assert math.isnan(segmentation(Result(Request("a"), []), Provenance(), 0).timings.frame_age)


def test_the_model_is_described_so_that_its_answers_can_be_repeated():
    engine = FakeEngine()
    engine.precision, engine.prompt_template, engine.device = "bfloat16", "v1", 0
    told = provenance_of(engine, 0.25)
    assert (told.model, told.weights_hash, told.precision) == ("fake", "0" * 64, "bfloat16")
    assert (told.device, told.prompt_template) == ("0", "v1")
    assert (told.rejection_threshold, told.version) == (0.25, gsva_ros.__version__)


@pytest.mark.parametrize("kind", ["<u2", ">u2", "u1"])
def test_pixels_are_written_as_the_message_says(kind):
    """Whatever their order in memory, and whatever the message held before."""
    pixels = np.arange(24, dtype=kind).reshape(4, 6)[:, ::2] * 10
    message = fill_image(Image(is_bigendian=1), pixels, "mono16" if kind.endswith("2") else "mono8")
    size = pixels.dtype.itemsize
    assert (message.height, message.width, message.step) == (4, 3, 3 * size)
    assert message.is_bigendian == 0
    back = np.frombuffer(message.data, f"<u{size}").reshape(4, 3)
    assert np.array_equal(back, pixels)


def test_a_mask_is_read_whatever_pads_its_rows():
    instance = messages.InstanceMask()
    instance.roi.x_offset, instance.roi.y_offset = 3, 1
    instance.roi.width, instance.roi.height = 2, 2
    rows = np.array([[1, 0, 255, 255], [0, 255, 255, 255]], np.uint8)
    fill_image(instance.mask, rows, "mono8")
    instance.mask.width = 2
    assert np.argwhere(mask_of(instance, 6, 4)).tolist() == [[1, 3], [2, 4]]


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
