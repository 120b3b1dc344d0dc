"""A slow model behind the node, over real DDS: masks on every frame with track, as before without."""

from __future__ import annotations

import time

import harness
import numpy as np
import pytest
from gsva_ros.action import Follow
from gsva_ros.msg import Instruction, Outcome
from harness import Manager
from lifecycle_msgs.msg import Transition
from moving import picture

from gsva_ros.conversions import mask_of
from gsva_ros.stamps import SECOND, nanoseconds

harness.isolate()

RATE = 10.0  # frames a second, for machines of any speed
DELAY = 0.4  # seconds of one answer


@pytest.fixture
def start(start):
    """Starts nodes with a slow model, which no frame is lost on the way to."""
    return lambda **parameters: start({"image_reliability": "reliable", **parameters}, delay=DELAY)


def play(client, count, first=1):
    for number in range(first, first + count):
        client.frame(picture(30 + 2 * number), stamp=number / RATE)
        time.sleep(1 / RATE)


def ages(answers):
    return [nanoseconds(a.outcomes[0].age) for a in answers]


def test_an_instances_id_is_not_used_again_after_the_model_was_changed(start):
    _, client = start(track="flow")
    manager = Manager(client)
    used = []
    for number, steps in enumerate(((), ("DEACTIVATE", "CLEANUP", "CONFIGURE", "ACTIVATE"))):
        for step in steps:
            assert manager.change(getattr(Transition, f"TRANSITION_{step}"))
        client.ask(["red"], id=f"look {number}", mode=Instruction.EVERY_FRAME)
        play(client, 1, first=1 + number)
        (instance,) = client.answer(f"look {number}").instances
        used.append(instance.id)
    assert used == [1, 2]


def test_every_frame_is_answered_and_marked_as_carried(start):
    _, client = start(track="flow")
    client.ask(["red", "blue"], id="look", mode=Instruction.EVERY_FRAME)
    for number in range(1, 41):  # each once the one before has been answered
        play(client, 1, first=number)
        client.wait(
            lambda last=number / RATE: (
                client.answers
                and nanoseconds(client.answers[-1].header.stamp) == round(last * SECOND)
            ),
            what=f"an answer on frame {number}",
        )
    stamps = [nanoseconds(a.header.stamp) for a in client.answers]
    assert stamps == sorted(set(stamps))
    assert len(stamps) == 40, "no frame is left out"
    assert all(
        a.outcomes[0].carried == (age > 0)
        for a, age in zip(client.answers, ages(client.answers), strict=True)
    )
    grown = np.diff(ages(client.answers))
    assert (grown > 0).any()
    assert (grown < 0).any()
    for answer in client.answers:
        assert [o.outcome for o in answer.outcomes] == [Outcome.SEGMENTED, Outcome.REJECTED]
        (instance,) = answer.instances
        assert instance.id == 1
        assert 0 < instance.confidence <= 1
        assert instance.mask.header == answer.header
        number = round(nanoseconds(answer.header.stamp) / SECOND * RATE)
        truth = picture(30 + 2 * number)[..., 1] == 0
        mask = mask_of(instance, 320, 240)
        assert (mask & truth).sum() / (mask | truth).sum() > 0.7
    client.ask(id="look", mode=Instruction.CANCEL)
    client.wait(lambda: client.answers[-1].outcomes[0].outcome == Outcome.CANCELLED)
    count = len(client.answers)
    play(client, 3, first=41)
    time.sleep(2 * DELAY)
    assert len(client.answers) == count


def test_off_answers_as_fast_as_the_model(start):
    _, client = start(track="off")  # false to YAML
    begun = time.monotonic()
    client.ask(["red"], id="look", mode=Instruction.EVERY_FRAME)
    play(client, 20)
    client.wait(lambda: len(client.answers) > 1, what="answers")
    assert len(client.answers) <= (time.monotonic() - begun) / DELAY
    for answer in client.answers:
        assert not answer.outcomes[0].carried
        assert ages([answer]) == [0]
        assert [(i.id, i.confidence) for i in answer.instances] == [(0, 1.0)]


def test_goals_get_carried_answers_and_the_switch_is_live(start):
    _, client = start()
    assert not client.set_parameter("track", "guess").successful
    assert not client.set_parameter("track", True).successful
    assert client.set_parameter("track", False).successful  # as YAML reads `ros2 param set … off`
    assert client.set_parameter("track", "flow").successful
    heard = []
    action = client.action(Follow, "gsva/follow")
    future = client.send(
        action,
        Follow.Goal(expressions=["red"], max_frames=12),
        feedback_callback=lambda m: heard.append(m.feedback.segmentation),
    )
    client.wait(future.done, what="the goal")
    play(client, 30)
    # Before the result is asked for: rclpy drops feedback that it reads after it.
    client.wait(lambda: len(heard) >= 12, what="feedback")
    result = client.between(future.result().get_result_async, "a request for the result")
    client.wait(result.done, what="the goal's end")
    assert result.result().result.frames == 12
    assert len(heard) == 12
    assert sum(s.outcomes[0].carried for s in heard) >= 8
    assert {i.id for s in heard for i in s.instances} == {1}


def test_a_scene_cut_is_lost_and_said(start):
    node, client = start(track="flow")
    client.ask(["red"], id="look", mode=Instruction.EVERY_FRAME)
    play(client, 8)
    client.wait(lambda: client.answers, what="an answer")
    node.hold()  # or the model might say that nothing is there
    client.answers.clear()
    client.frame(np.zeros((240, 320, 3), np.uint8), stamp=5.0)

    def dark_ones():
        return [a for a in client.answers if a.header.stamp.sec == 5]

    client.wait(dark_ones, what="an answer about the dark")
    dark = dark_ones()[0]
    (outcome,) = dark.outcomes
    assert (outcome.outcome, outcome.code) == (Outcome.FAILED, Outcome.LOST)
    assert "lost" in outcome.reason
    assert not dark.instances
