"""Attacks on what the node promises: fairness, an end to everything accepted, no lie in diagnostics."""

from __future__ import annotations

import random
import re
import signal
import threading
import time
from collections import Counter
from contextlib import closing, contextmanager
from types import SimpleNamespace

import harness
import numpy as np
import pytest
from action_msgs.msg import GoalStatus
from diagnostic_msgs.msg import DiagnosticStatus
from gsva_ros.action import Follow
from gsva_ros.msg import Instruction, Outcome, Rejection
from gsva_ros.srv import Segment
from harness import FAKE, Client, Manager, NodeProcess, blocks, outcomes
from lifecycle_msgs.msg import Transition

from gsva_ros.ros import node as node_module
from gsva_ros.ros import qos
from gsva_ros.ros.cameras import Cameras

harness.isolate()

DECIDED = (Outcome.SEGMENTED, Outcome.REJECTED)


@contextmanager
def camera(client, period=0.02, stamps=None):
    """A camera that never stops, stamped with the time."""
    stop = threading.Event()
    rgb, _ = blocks()

    def stream():
        while not stop.wait(period):
            client.frame(rgb, stamp=time.time())

    thread = client.thread(stream)
    try:
        yield
    finally:
        stop.set()
        thread.join()


class Followers:
    """Goals of ~/follow: sent, cancelled, and what became of them."""

    def __init__(self, client):
        self.client = client
        self.action = client.action(
            Follow,
            "gsva/follow",
            goal_service_qos_profile=qos.SERVICE,
            result_service_qos_profile=qos.SERVICE,
            cancel_service_qos_profile=qos.SERVICE,
        )
        self.feedback = Counter()

    def send(self, name="red", **goal):
        """Send a goal; return the future of its acceptance."""

        def heard(_):
            self.feedback[name] += 1

        wanted = Follow.Goal(expressions=[name], **goal)
        return self.client.send(self.action, wanted, feedback_callback=heard)

    def accepted(self, future):
        """Wait for acceptance; return the goal's handle."""
        self.client.wait(future.done, what="the goal's acceptance")
        return future.result() if future.result().accepted else None


def test_expressions_of_the_parameter_wait_for_a_late_camera(start):
    """However short the deadline of what others ask: nobody would ask for these again."""
    _, client = start({"instructions": "[red]", "default_deadline": 0.2})
    client.ask(["red"], id="hurried")
    assert client.answer("hurried").outcomes[0].outcome == Outcome.EXPIRED
    with camera(client):
        assert client.answer("initial", count=5).outcomes[0].outcome == Outcome.SEGMENTED


def test_every_cancel_ends_the_goal_canceled(start):
    """At once, while it is being accepted, or later, on a node that is busy."""
    _, client = start(delay=0.05)
    follow = Followers(client)
    rng = random.Random(0)
    with camera(client):
        client.ask(["red"], id="busy", mode=Instruction.EVERY_FRAME)
        cancelled = []
        for _ in range(30):
            sent = follow.send()
            handle = []
            # From the acceptance's own callback: as early as a client can.
            sent.add_done_callback(lambda f, kept=handle: kept.append(f.result()))
            client.wait(lambda kept=handle: kept, what="the goal's acceptance")
            assert handle[0].accepted
            time.sleep(rng.choice([0.0, 0.0, 0.001, 0.01, 0.1]))
            result = client.between(handle[0].get_result_async, "a request for a result")
            answer = client.between(handle[0].cancel_goal_async, "a cancel")
            cancelled.append((answer, result))
        for answer, result in cancelled:
            client.wait(answer.done, what="the cancel's answer")
            client.wait(result.done, what="the end of a cancelled goal")
            assert len(answer.result().goals_canceling) == 1
            assert result.result().status == GoalStatus.STATUS_CANCELED


@pytest.mark.parametrize("end", ["SIGINT", "SIGTERM", "deactivate", "cleanup"])
def test_every_accepted_goal_and_call_gets_a_result(start, end):
    node, client = start(delay=0.3)
    follow = Followers(client)
    manager = Manager(client)
    rgb, _ = blocks()
    with camera(client):
        handles = [follow.accepted(follow.send()) for _ in range(3)]
        results = [client.between(handle.get_result_async, "a request") for handle in handles]
        client.wait(lambda: follow.feedback["red"] > 3, what="feedback")
        client.wait(lambda: client.told().get("instructions not finished") == "3", what="the goals")
        before = int(client.told()["instructions"])
        calls = [
            client.calls.call_async(Segment.Request(image=harness.image(rgb), expressions=["red"]))
            for _ in range(4)
        ]
        client.wait(lambda: int(client.told()["instructions"]) == before + 4, what="the calls")
        if end in ("deactivate", "cleanup"):
            assert manager.change(Transition.TRANSITION_DEACTIVATE)
            if end == "cleanup":
                assert manager.change(Transition.TRANSITION_CLEANUP)
        else:
            assert node.interrupt(number=getattr(signal, end)) == 0
        for future in (*results, *calls):
            client.wait(future.done, what="a result")
    assert all(r.result().status == GoalStatus.STATUS_ABORTED for r in results)
    assert all(r.result().result.message for r in results)
    assert all(c.result().success or c.result().message for c in calls)
    if end == "deactivate":
        assert node.interrupt() == 0
    assert "Traceback" not in node.log, node.log[-5000:]


def test_two_closed_loop_callers_starve_nobody(start):
    """Over DDS; the shares themselves are in test_schedule.py."""
    node, client = start(delay=0.05)
    follow = Followers(client)
    rgb, _ = blocks()
    stop = threading.Event()
    answered = Counter()

    def caller(name):
        with closing(Client()) as other:
            other.connect(node)
            while not stop.is_set():
                other.call(rgb, ["red"])
                answered[name] += 1

    with camera(client):
        follow.accepted(follow.send())
        client.ask(["red"], id="topic", mode=Instruction.EVERY_FRAME)
        threads = [client.thread(caller, name) for name in ("one", "two")]
        client.wait(lambda: answered["one"] + answered["two"] >= 5, what="the first calls")
        before = (answered.total(), follow.feedback["red"], len(client.answers))
        client.wait(lambda: answered.total() >= before[0] + 40, what="forty calls")
        stop.set()
        for thread in threads:
            thread.join()
    share = follow.feedback["red"] - before[1], len(client.answers) - before[2]
    # Alone each would have what all three have together.
    assert min(share) >= (40 + sum(share)) / 5


def test_an_expression_that_cannot_be_asked_fails_alone(start):
    _, client = start()
    rgb, _ = blocks()
    client.frame(rgb)
    words = ["red", "too long for the tokenizer", "blue", "", "not a number", "unmarked", "y" * 999]
    client.ask(words, id="mixed")
    assert outcomes(client.answer("mixed")) == [
        (Outcome.SEGMENTED, Outcome.NONE),
        (Outcome.FAILED, Outcome.INVALID_INSTRUCTION),
        (Outcome.REJECTED, Outcome.NONE),
        (Outcome.FAILED, Outcome.EMPTY_INSTRUCTION),
        (Outcome.FAILED, Outcome.INTERNAL),
        (Outcome.REJECTED, Outcome.NONE),
        (Outcome.FAILED, Outcome.INVALID_INSTRUCTION),
    ]
    kinds = {r.expression: r.kind for r in client.answers[0].rejections}
    assert kinds == {"blue": Rejection.MODEL, "unmarked": Rejection.EMPTY_MASK}


def test_a_stuck_model_is_said_and_ends_the_node(start):
    node, client = start()
    rgb, _ = blocks()
    client.frame(rgb)
    client.ask(["red"], id="well")
    client.answer("well")
    assert client.set_parameter("inference_timeout", 1.0).successful
    client.ask(["hang"], id="stuck")
    client.ask([""], id="behind")  # answered at once: so the model has the one before
    client.answer("behind")
    client.ask(["red"], id="waits")
    call = client.calls.call_async(Segment.Request(image=harness.image(rgb), expressions=["red"]))

    def told():
        status = client.status()
        return status and status.level == DiagnosticStatus.ERROR and "stuck" in status.message

    client.wait(told, what="diagnostics that say so")
    for name in ("stuck", "waits"):
        assert outcomes(client.answer(name)) == [(Outcome.FAILED, Outcome.INTERNAL)]
    client.wait(call.done, what="the call's answer")
    assert not call.result().success
    assert node.ended() == 1
    assert "stuck" in node.log


def test_a_rate_that_is_next_to_nothing(start):
    _, client = start({"max_rate": 1e-12})
    rgb, _ = blocks()
    client.ask(["red"], id="slow", mode=Instruction.EVERY_FRAME)
    client.frame(rgb)
    client.answer("slow")
    for number in range(5):
        client.frame(rgb, stamp=2.0 + number)
        client.ask(["red"], id=f"n{number}")
        assert outcomes(client.answer(f"n{number}")) == [(Outcome.SEGMENTED, Outcome.NONE)]


def test_an_old_frame_does_not_answer_and_the_silence_is_explained(start):
    """A camera that died: its last picture answers nothing, and the log says what is missing."""
    node, client = start({"max_frame_lead": 0.3})
    elsewhere = client.node.create_publisher(harness.Image, "elsewhere", harness.qos.IMAGES_OUT)
    rgb, _ = blocks()
    client.frame(rgb, stamp=1.0)
    client.wait(lambda: client.told().get("frames received") == "1", what="the frame's arrival")
    time.sleep(0.4)
    client.ask(["red"], id="late")
    client.wait(lambda: "an instruction has waited" in node.log, what="a word about the silence")
    assert not client.answers
    assert "/test/image" in node.log
    assert "1 publisher" in node.log
    seconds = int(re.search(r"an instruction has waited (\d+) s", node.log)[1])
    assert 2 <= seconds < 1000
    client.unpublish(client.images)
    client.wait(lambda: "it has no publisher" in node.log, what="a word about the camera")
    named, *_ = re.findall(r"published image topics: ([^(\n]+)", node.log)
    named = set(named.strip().split(", "))
    assert "/test/elsewhere" in named
    assert not named & {"/test/overlay", "/test/label_image"}, "its own pictures are no camera's"
    client.unpublish(elsewhere)
    client.images = client.node.create_publisher(harness.Image, "image", harness.qos.IMAGES_OUT)
    client.wait(lambda: client.images.get_subscription_count(), what="the subscriber")

    def answered():
        client.frame(rgb, stamp=2.0)
        return client.answers

    client.wait(answered, what="the answer on a new frame")
    assert client.answers[0].header.stamp.sec == 2


def test_a_silent_camera_is_told_after_two_seconds_and_then_every_ten(monkeypatch):
    now = 100.0
    monkeypatch.setattr(node_module, "time", SimpleNamespace(monotonic=lambda: now))
    with harness.a_node("-p", "image_topics:=[left, right]") as node:
        node._cameras.find()
        told = []
        monkeypatch.setattr(node, "get_logger", lambda: SimpleNamespace(warning=told.append))
        waited = {"/left": 0.0}
        worker = SimpleNamespace(problem=lambda: "", starved=lambda: waited)
        when = []
        for _ in range(36):
            told.clear()
            node._watch(worker)
            when += [(words.split(":")[0], waited["/left"]) for words in told]
            now, waited["/left"] = now + 1.0, waited["/left"] + 1.0
        assert when == [("/left", seconds) for seconds in (2.0, 12.0, 22.0, 32.0)]
        waited = {"": 2.0}  # whichever camera: the other has not been told of yet
        told.clear()
        node._watch(worker)
        assert [words.split(":")[0] for words in told] == ["/right"]


@pytest.mark.parametrize(
    ("transport", "reliability", "lossy"),
    [
        ("raw", "best_effort", True),
        ("raw", "reliable", False),
        ("compressed", "best_effort", False),
    ],
)
def test_what_loses_large_frames_is_said_with_what_to_set(transport, reliability, lossy):
    values = {
        "image_topics": ["image"],
        "depth_topics": [],
        "image_transport": transport,
        "image_reliability": reliability,
    }
    kind = "CompressedImage" if transport == "compressed" else "Image"
    publisher = SimpleNamespace(topic_type=f"sensor_msgs/msg/{kind}")
    node = SimpleNamespace(
        get_parameter=lambda name: SimpleNamespace(value=values[name]),
        resolve_topic_name=lambda name: f"/{name}",
        get_publishers_info_by_topic=lambda name: [publisher],
    )
    cameras = Cameras(node, print, print, print)
    cameras.find()
    said = cameras.silence(cameras.topics[0], 3.0)
    assert "1 publisher" in said
    assert ("best effort loses large raw frames" in said) is lossy


def test_a_camera_of_another_type_is_named_with_what_to_set(start):
    node, client = start({"image_topics": "['image', 'squeezed']"})
    client.node.create_publisher(harness.CompressedImage, "squeezed", harness.qos.IMAGES_OUT)
    client.ask(["red"], id="waiting", image_topic="squeezed")
    client.wait(lambda: "it is published as" in node.log, what="a word about the type")
    assert "sensor_msgs/msg/CompressedImage: set image_transport to compressed" in node.log


def test_outcomes_say_how_steady_they_are(start):
    """And with hysteresis they stay until the probability has left the band."""
    _, client = start()
    wavering = [60, 45, 55, 52, 30, 45, 55, 65]

    def follow(name, base):
        asked = Instruction(id=name, expressions=["wavering"], mode=Instruction.EVERY_FRAME)
        asked.not_before.sec = base + 1
        client.instructions.publish(asked)
        told = []
        for number, hundredths in enumerate(wavering):
            rgb = np.full((8, 8, 3), hundredths, np.uint8)
            client.frame(rgb, stamp=float(base + number + 1))
            outcome = client.answer(name, count=number + 1).outcomes[0]
            told.append((outcome.outcome, outcome.since.sec - base, outcome.answers))
        client.ask(id=name, mode=Instruction.CANCEL)
        client.answer(name, count=len(wavering) + 1)
        return told

    yes, no = Outcome.SEGMENTED, Outcome.REJECTED
    assert follow("plain", 0) == [
        (yes, 1, 1),
        (no, 2, 1),
        (yes, 3, 1),
        (yes, 3, 2),
        (no, 5, 1),
        (no, 5, 2),
        (yes, 7, 1),
        (yes, 7, 2),
    ]
    assert client.set_parameter("hysteresis", 0.1).successful
    assert follow("steady", 100) == [
        (yes, 1, 1),
        (yes, 1, 2),
        (yes, 1, 3),
        (yes, 1, 4),
        (no, 5, 1),
        (no, 5, 2),
        (no, 5, 3),
        (yes, 8, 1),
    ]


def test_ids_of_a_megabyte_stay_out_of_the_log(start):
    node, client = start()
    client.ask(id="x" * 2**20, mode=Instruction.CANCEL)
    client.ask([""], id="y" * 2**20)
    client.wait(lambda: client.answers, what="the answer")
    assert len(client.answers[0].instruction_id) == 2**20
    client.wait(lambda: "nothing to cancel" in node.log, what="the log")
    told = len(client.health)
    client.wait(lambda: len(client.health) > told + 1, what="diagnostics of now")
    assert len(node.log) < 20_000
    assert all(len(v.value) < 1000 for v in client.status().values)


def test_nonsense_is_said_and_replaces(start):
    _, client = start()
    client.ask(["red"], id="a", mode=Instruction.EVERY_FRAME)
    client.ask(["red"], id="a", mode=77)
    client.wait(lambda: len(client.answers) == 2, what="both answers")
    assert sorted(outcomes(a)[0] for a in client.answers) == [
        (Outcome.FAILED, Outcome.INVALID_INSTRUCTION),
        (Outcome.CANCELLED, Outcome.NONE),
    ]
    assert "unknown mode 77" in {a.outcomes[0].reason for a in client.answers}
    for name, nanoseconds in (("b", 0), ("c", 999_999_999)):  # a second, and a nanosecond
        message = Instruction(id=name, expressions=["red"])
        message.deadline.sec, message.deadline.nanosec = -1, nanoseconds
        client.instructions.publish(message)
        answer = client.answer(name)
        assert outcomes(answer) == [(Outcome.FAILED, Outcome.INVALID_INSTRUCTION)]
        assert "negative" in answer.outcomes[0].reason


@pytest.mark.parametrize(
    ("parameter", "value"),
    [
        ("image_topics", "[image, image]"),
        ("image_topics", "[image, /test/image]"),
        ("image_topics", "['no topic!']"),
        ("image_topics", "[]"),
        ("max_rate", "[]"),
        ("depth_topics", "['9/9/']"),
        ("depth_topics", "[depth, other/depth]"),
        ("text_mode", "shout"),
        ("track", "on"),
    ],
)
def test_a_parameter_that_cannot_be_is_named(parameter, value):
    with closing(NodeProcess(FAKE, {parameter: value})) as node:
        assert node.ended() == 1
        assert f"parameter {parameter}" in node.log
        assert "Traceback" not in node.log, node.log[-5000:]


def test_an_empty_list_names_nothing(start):
    """YAML's `[]` has no type: rclpy calls a parameter that is given it not initialised."""
    _, client = start({"instructions": "[]", "depth_topics": "[]"})
    client.frame(blocks()[0])
    client.ask(["red"], id="red")
    client.answer("red")
    assert {answer.instruction_id for answer in client.answers} == {"red"}


def test_activate_and_deactivate_under_load(start):
    node, client = start(delay=0.01)
    manager = Manager(client)
    with camera(client, period=0.005):
        client.ask(["red"], id="follow", mode=Instruction.EVERY_FRAME)
        for _ in range(10):
            assert manager.change(Transition.TRANSITION_DEACTIVATE)
            assert manager.change(Transition.TRANSITION_ACTIVATE)
            client.ask(["red"], id="follow", mode=Instruction.EVERY_FRAME)
            time.sleep(0.05)
    assert node.interrupt() == 0
    assert "Traceback" not in node.log, node.log[-5000:]


def test_a_thousand_random_steps_end_everything_exactly_once(start):
    """Submit, cancel, replace, follow, call, deactivate and activate in random order; then SIGTERM."""
    node, client = start(delay=0.004)
    other = Client()
    follow = Followers(client)
    manager = Manager(client)
    rng = random.Random(20)
    rgb, _ = blocks()
    submitted, calls, goals, results = Counter(), [], [], []

    def submit():
        kind, mode = rng.choice([("once", Instruction.ONCE), ("every", Instruction.EVERY_FRAME)])
        name = f"{kind}-{rng.randrange(8)}"
        submitted[name] += 1
        client.ask(["red", "blue"], id=name, mode=mode if rng.random() < 0.9 else 99)

    def cancel():
        name = f"{rng.choice(['once', 'every'])}-{rng.randrange(8)}"
        client.ask(id=name, mode=Instruction.CANCEL)

    def call():
        request = Segment.Request(image=harness.image(rgb), expressions=["red"])
        calls.append(rng.choice([client, other]).calls.call_async(request))

    def goal():
        goals.append(follow.send(max_frames=rng.choice([0, 0, 1, 3])))
        goals[-1].add_done_callback(wait_for_result)

    def wait_for_result(sent):
        if sent.result().accepted:
            results.append(sent.result().get_result_async())  # in the executor's thread

    def cancel_goal():
        ready = [g for g in goals if g.done() and g.result().accepted]
        if ready:
            client.between(rng.choice(ready).result().cancel_goal_async, "a cancel")

    def toggle():
        for transition in (Transition.TRANSITION_DEACTIVATE, Transition.TRANSITION_ACTIVATE):
            assert manager.change(transition)

    steps = {submit: 40, cancel: 12, call: 12, goal: 10, cancel_goal: 8, toggle: 0.7}
    other.connect(node)
    try:
        with camera(client, period=0.01):
            for _ in range(1000):
                rng.choices(list(steps), list(steps.values()))[0]()
                time.sleep(rng.choice([0.0, 0.0, 0.001, 0.01]))
            for sent in goals:
                client.wait(sent.done, what="a goal's acceptance")
            client.ask([""], id="last")  # behind all others, so that the node has taken them
            client.answer("last")
            assert node.interrupt(number=signal.SIGTERM) == 0

        def open_ones():
            return [[i for i, f in enumerate(group) if not f.done()] for group in (calls, results)]

        client.wait(lambda: open_ones() == [[], []], what="every result")

        def ends():
            """Answers that end an instruction: all of a single one's, the last of a repeated one's."""
            counts = Counter()
            for answer in client.answers:
                decided = all(o.outcome in DECIDED for o in answer.outcomes)
                last = not decided or answer.instruction_id.startswith("once")
                counts[answer.instruction_id] += last
            del counts["last"]
            return counts

        client.wait(lambda: ends().total() >= submitted.total(), what="every answer")
        time.sleep(0.3)
        assert ends() == submitted
        finished = {
            GoalStatus.STATUS_SUCCEEDED,
            GoalStatus.STATUS_CANCELED,
            GoalStatus.STATUS_ABORTED,
        }
        assert {r.result().status for r in results} <= finished
        assert "Traceback" not in node.log, node.log[-5000:]
    finally:
        other.close()


def test_the_console_has_one_style(start):
    """Also for what is logged with Python's logging: by the worker, about an engine that raises."""
    node, client = start()
    rgb, _ = blocks()
    client.frame(rgb)
    client.ask(["raise"], id="bad")
    client.answer("bad")
    client.wait(lambda: "inference failed" in node.log, what="the log")
    (line,) = [each for each in node.log.splitlines() if "inference failed" in each]
    assert re.match(r"\[ERROR\] \[\d+\.\d+\] \[test\.gsva\]: inference failed", line)


def test_a_camera_that_answers_keep_up_with_is_not_called_silent(start):
    """An instruction on every frame waits for the next one all the time; one for another camera does."""
    node, client = start({"image_topics": "[image, other]"}, cameras=("image", "other"))
    rgb, _ = blocks()
    client.ask(["red"], id="steady", mode=Instruction.EVERY_FRAME, image_topic="image")
    for number in range(40):
        client.frame(rgb, stamp=1.0 + number / 10, camera="image")
        time.sleep(0.1)
    assert len([a for a in client.answers if a.instruction_id == "steady"]) > 20
    assert "waits" not in node.log
    client.ask(["red"], id="silent", image_topic="other")

    def said():
        client.frame(rgb, stamp=time.monotonic(), camera="image")
        time.sleep(0.05)
        return "/test/other: an instruction has waited" in node.log

    client.wait(said, what="a word about the other camera")
    assert "/test/image: an instruction has waited" not in node.log


def test_an_answer_tells_the_threshold_that_it_was_decided_by(start):
    """Not the one that was set while the model worked."""
    node, client = start()
    rgb, _ = blocks()
    client.frame(rgb)
    client.ask(["red"], id="first")  # so that the frame is there
    client.answer("first")
    node.hold()
    client.ask(["red"], id="slow")
    client.wait(lambda: client.told().get("instructions not finished") == "1")
    assert client.set_parameter("rejection_threshold", 0.99).successful
    node.let_go()
    answer = client.answer("slow")
    assert [o.outcome for o in answer.outcomes] == [Outcome.SEGMENTED]
    assert answer.provenance.rejection_threshold == pytest.approx(0.5)
    client.frame(rgb, stamp=2.0)
    client.ask(["red"], id="next")
    assert client.answer("next").provenance.rejection_threshold == pytest.approx(0.99)
