"""What `gsva_view` takes for a camera, and what it keeps of frames and answers."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator

import harness
import numpy as np
import pytest
import rclpy
from gsva_ros.msg import Instruction, Outcome, Rejection, Segmentation
from harness import Client
from sensor_msgs.msg import Image

from gsva_ros.conversions import fill_image
from gsva_ros.programs import watcher as module
from gsva_ros.programs.watcher import CHARACTERS, FRAMES, Camera, Watcher
from gsva_ros.ros import qos
from gsva_ros.stamps import fill

harness.isolate()

SMALL = np.full((6, 8, 3), 120, np.uint8)


@pytest.fixture
def watcher() -> Iterator[Watcher]:
    """One with a camera, beside no node."""
    made = Watcher("/test/nobody")
    made._cameras["/image"] = Camera()
    yield made
    made.close()


def film(watcher: Watcher, stamps: range) -> None:
    for stamp in stamps:
        frame = fill_image(Image(), SMALL, "rgb8")
        fill(frame.header.stamp, stamp)
        watcher._on_frame("/image", frame)


def answer(stamp: int, expressions: list[str], instruction: str = "a") -> Segmentation:
    """Expressions rejected on the frame of that stamp."""
    msg = Segmentation(instruction_id=instruction, image_topic="/image", height=6, width=8)
    fill(msg.header.stamp, stamp)
    for slot, words in enumerate(expressions):
        rejected = Outcome(slot=slot, expression=words, outcome=Outcome.REJECTED)
        msg.outcomes.append(rejected)
        msg.rejections.append(Rejection(slot=slot, expression=words, probability=0.9))
    return msg


def test_a_thermal_camera_is_shown(watcher: Watcher) -> None:
    """Its images are mono16; depth images are told by their encodings (REP 118)."""
    del watcher._cameras["/image"]
    for encoding in ("mono16", "16UC1"):
        topic = f"/{encoding}"
        watcher._cameras[topic] = Camera()
        pixels = np.full((6, 8), 30_000, np.uint16)
        watcher._on_frame(topic, fill_image(Image(), pixels, encoding))
    assert watcher.cameras() == ["/mono16"]
    rgb, age = watcher.newest("/mono16")
    assert rgb is not None
    assert rgb.shape == (6, 8, 3)
    assert 0 <= age < 60


def test_an_answer_is_drawn_however_many_frames_later(watcher: Watcher) -> None:
    film(watcher, range(1, 20 * FRAMES))
    assert watcher.answered("/image")[0] is None
    frames = watcher._cameras["/image"].frames
    frames[1] = frames[1][0] - 7.0, frames[1][1]
    watcher._on_answer(answer(1, ["red"]))
    picture, stamp, age, undrawn = watcher.answered("/image")
    assert picture is not None
    assert stamp == 1e-9
    assert 7.0 <= age < 60.0, "since the frame arrived"
    assert math.isnan(undrawn)


@pytest.mark.parametrize(("bound", "value"), [("HELD", 20 * SMALL.size), ("AGE", -1.0)])
def test_frames_are_held_within_bounds(
    watcher: Watcher, monkeypatch: pytest.MonkeyPatch, bound: str, value: float
) -> None:
    """And an answer on one that is not is told, beside the picture before."""
    monkeypatch.setattr(module, bound, value)
    film(watcher, range(1, 100))
    held = list(watcher._cameras["/image"].frames)
    assert held == list(range(100 - (20 if bound == "HELD" else FRAMES), 100))
    watcher._on_answer(answer(1, ["red"]))
    picture, *_, undrawn = watcher.answered("/image")
    assert (picture, undrawn) == (None, 1e-9)
    watcher._on_answer(answer(99, ["red"]))
    watcher._on_answer(answer(2, ["red"]))
    picture, stamp, _, undrawn = watcher.answered("/image")
    assert picture is not None
    assert (stamp, undrawn) == (99e-9, 2e-9)


def test_a_single_answer_is_seen_beside_a_repeated_instruction(watcher: Watcher) -> None:
    """One row for each slot: the newest outcome, in its place unless it is news."""

    def seen() -> list[tuple[str, str]]:
        return [(each.instruction, each.expression) for each in watcher.outcomes()]

    many = [f"thing {number}" for number in range(20)]
    watcher._on_answer(answer(1, many, "repeated"))
    repeated = [("repeated", words) for words in many]
    assert seen() == repeated
    watcher._on_answer(answer(2, ["apple"], "once"))
    for stamp in range(3, 100):
        watcher._on_answer(answer(stamp, many, "repeated"))
    assert seen() == [("once", "apple"), *repeated]
    failed = answer(100, many, "repeated")
    failed.outcomes[1].outcome = Outcome.FAILED
    watcher._on_answer(failed)
    assert seen()[:3] == [repeated[1], ("once", "apple"), repeated[0]]
    watcher._on_answer(answer(101, ["pear"], "once"))
    assert seen()[:2] == [("once", "pear"), repeated[1]], "an id is used again"
    assert len(seen()) == 21
    ended = answer(0, many, "repeated")
    ended.image_topic = ""  # of no frame
    for outcome in ended.outcomes:
        outcome.outcome = Outcome.CANCELLED
    watcher._on_answer(ended)
    told = [each.outcome for each in watcher.outcomes() if each.instruction == "repeated"]
    assert told == ["CANCELLED"] * 20


def test_an_overlong_text_is_cut(watcher: Watcher) -> None:
    """A node refuses two million characters, but echoes them; pages are sent the list twice a second."""
    failed = Outcome(expression="x" * 2_000_000, outcome=Outcome.FAILED, reason="r" * 1000)
    watcher._on_answer(Segmentation(instruction_id="i" * 1000, outcomes=[failed]))
    (ended,) = watcher.outcomes()
    for text in (ended.instruction, ended.expression, ended.detail):
        assert text == text[0] * CHARACTERS + "…"
    watcher._on_answer(answer(1, ["x" * CHARACTERS]))
    assert watcher.outcomes()[0].expression == "x" * CHARACTERS


def test_only_what_is_looked_at_is_drawn(watcher: Watcher, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of many answers, the newest: while the watcher's thread draws, it loses frames."""
    drawn, draw = [], module.poster
    monkeypatch.setattr(module, "poster", lambda *a: drawn.append(a) or draw(*a))
    film(watcher, range(1, 10))
    for stamp in range(1, 10):
        watcher._on_answer(answer(stamp, ["red"]))
    assert drawn == []
    for _ in range(2):
        picture, stamp, *_ = watcher.answered("/image")
        assert picture is not None
        assert stamp == 9e-9
    assert len(drawn) == 1


def test_instructions_on_every_frame_end_with_the_view() -> None:
    """Else the node would answer them for nobody; the node would complain of those that have ended."""
    robot, heard = Client(), []
    robot.node.create_subscription(Instruction, "instruction", heard.append, qos.RELIABLE)
    view = Watcher("/test/nobody")
    robot.wait(
        lambda: view._instructions.get_subscription_count() == 1, what="the view's instructions"
    )
    names = [view.ask(["red"], "", "", every_frame) for every_frame in (True, True, False, True)]
    assert view.cancel(names[0])
    view._on_answer(answer(1, ["red"], names[1]))
    ended = Outcome(expression="red", outcome=Outcome.CANCELLED)
    view._on_answer(Segmentation(instruction_id=names[3], outcomes=[ended]))
    assert not view.cancel(names[3])
    view.close()
    robot.wait(lambda: len(heard) == 6, what="the instructions")
    cancelled = [msg.id for msg in heard if msg.mode == Instruction.CANCEL]
    assert cancelled == names[:2]
    robot.close()


def test_an_instruction_of_a_killed_node_is_not_stopped() -> None:
    """The next node has never heard of it, and would warn. Other subscribers do not matter."""
    robot, heard = Client(), []

    def node() -> rclpy.node.Node:
        made = rclpy.create_node("gsva", namespace="/test", context=robot.context)
        made.create_subscription(Instruction, "instruction", print, qos.RELIABLE)
        return made

    gsva, view = node(), Watcher("/test/gsva")
    robot.wait(lambda: len(view._receivers()) == 1, what="the node")
    early, running = (view.ask(["red"], "", "", True) for _ in range(2))
    robot.node.create_subscription(Instruction, "instruction", heard.append, qos.RELIABLE)
    robot.wait(lambda: view._instructions.get_subscription_count() == 2, what="a listener")
    assert view.cancel(running)
    robot.wait(lambda: heard, what="the end")
    another = node()  # that the one before is gone is noticed later
    robot.wait(lambda: len(view._receivers()) == 3, what="another node")
    late = view.ask(["red"], "", "", True)
    assert not view.cancel(early)
    gsva.destroy_node()
    robot.wait(lambda: len(view._receivers()) == 2, what="the end of the first")
    assert view.cancel(late)
    view.close()
    robot.wait(lambda: len(heard) == 3, what="the instructions")
    assert [msg.id for msg in heard] == [running, late, late]
    another.destroy_node()
    robot.close()


def test_a_camera_is_subscribed_to_as_by_the_node_until_nobody_has_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Best effort after a restart, for example: a reliable subscription gets nothing of such a camera."""
    monkeypatch.setattr(module, "LOOK_AROUND", 0.1)
    robot = Client()
    camera = robot.node.create_publisher(Image, "wrist", qos.IMAGES_IN["best_effort"])
    view = Watcher("/test/gsva")

    def node(reliability: str) -> rclpy.node.Node:
        made = rclpy.create_node("gsva", namespace="/test", context=robot.context)
        made.create_subscription(Image, "wrist", print, qos.IMAGES_IN[reliability])
        return made

    def shown() -> bool:
        camera.publish(harness.image(SMALL))
        return view.newest("/test/wrist")[0] is not None

    gsva = node("reliable")
    robot.wait(lambda: view.cameras() == ["/test/wrist"], what="the camera")
    assert not shown()
    gsva.destroy_node()
    gsva = node("best_effort")
    robot.wait(shown, what="a frame")
    gsva.destroy_node()
    gsva = rclpy.create_node("gsva", namespace="/test", context=robot.context)
    time.sleep(0.5)
    assert view.cameras() == ["/test/wrist"], "it is still published"
    robot.unpublish(camera)
    robot.wait(lambda: view.cameras() == [], what="the end of the camera")
    view.close()
    gsva.destroy_node()
    robot.close()
