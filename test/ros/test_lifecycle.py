"""The managed node: configure, activate, deactivate, cleanup, and the action ~/follow."""

from __future__ import annotations

import itertools
import os
import signal
import sys
import threading
import time
from contextlib import closing
from types import SimpleNamespace

import harness
import numpy as np
import pytest
import rclpy
from fake_engine import FakeEngine
from gsva_ros.action import Follow
from gsva_ros.msg import Instruction, Outcome
from harness import FAKE, REAL, SUPPORT, Client, Manager, NodeProcess, blocks, outcomes
from lifecycle_msgs.msg import State, Transition
from rclpy.action import ActionClient, CancelResponse, get_action_names_and_types
from rclpy.exceptions import InvalidHandle
from rclpy.executors import ExternalShutdownException
from rclpy.lifecycle import TransitionCallbackReturn
from rclpy.task import Future
from rosgraph_msgs.msg import Clock
from std_msgs.msg import String

from gsva_ros.answer import Answer, Slot
from gsva_ros.ros import clocks, process
from gsva_ros.ros import node as node_module
from gsva_ros.ros.disposal import Disposal
from gsva_ros.ros.follow import ABANDONED, FollowServer, GoalServer
from gsva_ros.ros.node import GRACE, GsvaNode
from gsva_ros.ros.parameters import problem_with
from gsva_ros.ros.pending import Pending, awaited, delivered
from gsva_ros.ros.process import Executor, spin_beside
from gsva_ros.serving.requests import CameraFrame, Decision, Request, Result
from gsva_ros.serving.requests import Outcome as Ends
from gsva_ros.stamps import SECOND

harness.isolate()

SLOW = [sys.executable, str(SUPPORT / "slow_node.py")]


def test_the_whole_life(start):
    """Up by a manager; silent about nothing when inactive; reconfigured with another model."""
    node, client = start({"autostart": "false"}, connect=False)
    manager = Manager(client)
    assert manager.state() == State.PRIMARY_STATE_UNCONFIGURED
    assert client.set_parameter("model", "another").successful
    assert manager.change(Transition.TRANSITION_CONFIGURE)
    client.connect(node, listens=False)
    client.ask(["red"], id="early")
    assert outcomes(client.answer("early")) == [(Outcome.FAILED, Outcome.INACTIVE)]
    refused = client.set_parameter("model", "third")
    assert not refused.successful
    assert "unconfigured" in refused.reason
    assert manager.change(Transition.TRANSITION_ACTIVATE)
    assert manager.state() == State.PRIMARY_STATE_ACTIVE
    rgb, _ = blocks()
    client.wait(lambda: client.images.get_subscription_count() == 1, what="the camera's subscriber")
    client.ask(["red"], id="follow", mode=Instruction.EVERY_FRAME)

    def answered():
        client.frame(rgb)
        return any(a.instruction_id == "follow" for a in client.answers)

    client.wait(answered, what="an answer")
    later = Instruction(id="later", expressions=["red", "blue"])
    later.not_before.sec = 1000
    client.instructions.publish(later)
    client.ask(["green"], id="now")  # behind it, so that it has arrived
    client.wait(
        lambda: client.frame(rgb) and any(a.instruction_id == "now" for a in client.answers)
    )
    assert manager.change(Transition.TRANSITION_DEACTIVATE)
    assert outcomes(client.answer("later")) == [(Outcome.CANCELLED, Outcome.NONE)] * 2
    client.wait(
        lambda: any(
            a.instruction_id == "follow" and outcomes(a) == [(Outcome.CANCELLED, Outcome.NONE)]
            for a in client.answers
        ),
        what="the end of the repeated instruction",
    )
    assert not client.call(rgb, ["red"]).success
    client.ask(["red"], id="idle")
    assert outcomes(client.answer("idle")) == [(Outcome.FAILED, Outcome.INACTIVE)]

    client.wait(lambda: client.told().get("state") == "inactive", what="diagnostics that say so")
    assert manager.change(Transition.TRANSITION_CLEANUP)
    assert manager.state() == State.PRIMARY_STATE_UNCONFIGURED
    # Once more, from the beginning.
    assert manager.change(Transition.TRANSITION_CONFIGURE)
    assert manager.change(Transition.TRANSITION_ACTIVATE)
    client.connect(node)
    client.wait(lambda: client.images.get_subscription_count() == 1, what="the camera's subscriber")
    client.ask(["red"], id="again")
    client.wait(
        lambda: client.frame(rgb) and any(a.instruction_id == "again" for a in client.answers)
    )
    assert node.interrupt() == 0
    assert "Traceback" not in node.log


def test_a_model_that_does_not_load_leaves_it_unconfigured(start, tmp_path):
    """Truncated, wrong-shaped and code-bearing files are refused with a sentence; then it recovers."""
    import shutil
    from pathlib import Path

    import torch
    from safetensors.torch import load_file, save_file

    import gsva_ros

    bundled = Path(gsva_ros.__file__).parent / "checkpoints" / "gsva-mini"
    cases = {}
    for name in ("truncated", "shapes", "missing"):
        cases[name] = tmp_path / name
        shutil.copytree(bundled, cases[name])
    weights = cases["truncated"] / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:100_000])
    tensors = load_file(cases["shapes"] / "model.safetensors")
    tensors["lm_head.weight"] = torch.zeros(3, 3)
    save_file(tensors, cases["shapes"] / "model.safetensors")
    del tensors["lm_head.weight"]
    save_file(tensors, cases["missing"] / "model.safetensors")
    parameters = {"autostart": "false", "device": "cpu"}
    node, client = start(parameters, connect=False, command=REAL)
    manager = Manager(client)
    for name, path in cases.items():
        assert client.set_parameter("model", str(path)).successful
        assert not manager.change(Transition.TRANSITION_CONFIGURE), name
        assert manager.state() == State.PRIMARY_STATE_UNCONFIGURED
        client.wait(lambda p=path: f"cannot load '{p}'" in node.log, what=f"a word about {name}")
    assert client.set_parameter("model", "gsva-mini").successful
    assert manager.change(Transition.TRANSITION_CONFIGURE)
    assert "Traceback" not in node.log


def test_a_bag_that_loops(start):
    """Under sim time, a jump back forgets the frames of the round before."""
    node, client = start({"use_sim_time": "true", "max_frame_age": 2.0})
    clock = client.node.create_publisher(Clock, "/clock", 10)
    client.wait(lambda: clock.get_subscription_count() >= 1, what="the clock's subscriber")
    rgb, _ = blocks()

    def at(seconds):
        msg = Clock()
        msg.clock.sec, msg.clock.nanosec = int(seconds), round(seconds % 1 * 1e9)
        clock.publish(msg)

    client.ask(["red"], id="follow", mode=Instruction.EVERY_FRAME)
    for number in range(2):
        for stamp in (100.0, 101.0, 102.0):

            def answered(stamp=stamp, wanted=number + 1):
                at(stamp)
                client.frame(rgb, stamp=stamp)
                stamps = [a.header.stamp.sec for a in client.answers]
                rounds = 1 + sum(b < a for a, b in itertools.pairwise(stamps))
                return stamps and stamps[-1] == stamp and rounds == wanted

            client.wait(answered, what=f"an answer at {stamp} in round {number + 1}")
    node.says("time jumped back")


@pytest.mark.parametrize(("hours", "which"), [(-1, "back"), (1, "forward")])
def test_the_computers_clock_is_set(monkeypatch, hours, which):
    """Deadlines keep what is left of them; frames and transforms from before are forgotten."""
    ahead, said = [0], []
    monkeypatch.setattr(node_module, "STARVED", 1e9)  # nothing else is said
    monkeypatch.setattr(clocks, "_set_ahead", lambda: ahead[0])
    monkeypatch.setattr(clocks.Clocks, "now", lambda self: time.monotonic_ns() + ahead[0])
    with harness.a_node() as node:
        node.trigger_configure()
        node.trigger_activate()
        request = Request("a", expressions=["red"], within=60 * SECOND, not_before=10**19)
        node._worker.submit(request)
        left = request.deadline - node._clocks.timer()
        node._offer(CameraFrame(None, 1, "/image", lambda: None))
        monkeypatch.setattr(node._views, "jumped", lambda: said.append("transforms"))
        monkeypatch.setattr(node.get_logger(), "warning", said.append)
        monkeypatch.setattr(node, "get_node_names_and_namespaces", list)  # an earlier test's, too
        node._on_timer()
        assert not said
        ahead[0] = hours * 3600 * SECOND
        node._on_timer()
        node._on_timer()
        assert said == [
            "transforms",
            f"the computer's clock was set {which} by 3600.0 s: earlier frames are discarded",
        ]
        assert 0 < left - (request.deadline - node._clocks.timer()) < 30 * SECOND
        assert not request.state.ended
        assert not node._worker._schedule._newest


def test_follow_two_clients_at_once(start):
    _, client = start(delay=0.02)
    rgb, _ = blocks()
    actions = [client.action(Follow, "gsva/follow") for _ in range(2)]
    feedback = [[], []]
    handles = []
    goals = [Follow.Goal(expressions=["red"], max_frames=5), Follow.Goal(expressions=["blue"])]
    for action, goal, kept in zip(actions, goals, feedback, strict=True):
        future = client.send(
            action,
            goal,
            feedback_callback=lambda m, kept=kept: kept.append(m.feedback.segmentation),
        )
        client.wait(future.done, what="the goal's acceptance")
        assert future.result().accepted
        handles.append(future.result())
    stop = threading.Event()

    def result_of(handle):
        return client.between(handle.get_result_async, "a request for a result")

    endless = result_of(handles[1])

    def stream():
        number = 0
        while not stop.wait(0.02):
            number += 1
            client.frame(rgb, stamp=1.0 + 0.02 * number)

    thread = client.thread(stream)
    try:
        # rclpy drops feedback that it reads after the result.
        client.wait(lambda: len(feedback[0]) >= 5, what="five frames")
        ended = result_of(handles[0])
        client.wait(ended.done, what="the end after five frames")
        first = ended.result()
        assert first.status == 4  # SUCCEEDED
        assert first.result.frames == 5
        assert first.result.message == "5 frames were asked for"
        assert outcomes(first.result.segmentation) == [(Outcome.SEGMENTED, 0)]
        client.wait(lambda: len(feedback[1]) >= 8, what="the other's feedback")
        assert not endless.done()
        cancelled = client.between(handles[1].cancel_goal_async, "a cancel")
        client.wait(endless.done, what="the end after a cancel")
        client.wait(cancelled.done, what="the cancel's answer")
    finally:
        stop.set()
        thread.join()
    second = endless.result()
    assert second.status == 5  # CANCELED
    assert second.result.frames >= 8
    assert "cancelled" in second.result.message
    for kept, wanted in zip(feedback, (Outcome.SEGMENTED, Outcome.REJECTED), strict=True):
        stamps = [(m.header.stamp.sec, m.header.stamp.nanosec) for m in kept]
        assert stamps == sorted(set(stamps))
        assert {o for m in kept for o, _ in outcomes(m)} == {wanted}
    assert len(feedback[0]) == 5
    # A goal that says nothing is refused, one that cannot be answered ends with its reason.
    future = client.send(actions[0], Follow.Goal())
    client.wait(future.done, what="the refusal")
    assert not future.result().accepted
    future = client.send(actions[0], Follow.Goal(expressions=["x" * 1000]))
    client.wait(future.done, what="the acceptance")
    result = result_of(future.result())
    client.wait(result.done, what="its end")
    assert result.result().status == 6  # ABORTED
    assert "1000 characters" in result.result().result.message
    assert np.array_equal(rgb, blocks()[0])


def test_a_clock_that_stands_still(start):
    """Before the first /clock: health is told, no deadline passes, and a hung model ends the node.

    Frames from before it are as good as any.
    """
    node, client = start({"use_sim_time": "true", "max_frame_lead": 0.0})
    rgb, _ = blocks()
    client.wait(lambda: len(client.health) >= 2, what="diagnostics")
    clock = client.node.create_publisher(Clock, "/clock", 10)
    client.wait(lambda: clock.get_subscription_count() >= 1, what="the clock's subscriber")
    early = Instruction(id="early", expressions=["red"])
    early.deadline.sec = 30
    early.not_before.sec = 1_700_000_001
    client.instructions.publish(early)
    client.frame(rgb, stamp=1_700_000_000.0)
    client.wait(
        lambda: (
            client.told().get("instructions not finished") == "1"
            and client.told().get("frames received") == "1"
        ),
        what="the instruction and the frame",
    )
    first = Clock()
    first.clock.sec = 1_700_000_000
    client.wait(
        lambda: clock.publish(first) or client.health[-1].header.stamp.sec == 1_700_000_000,
        what="the clock's beginning",
    )
    client.ask(["red"], id="kept")
    assert client.answer("kept").header.stamp.sec == 1_700_000_000
    client.frame(rgb, stamp=1_700_000_001.0)
    assert outcomes(client.answer("early")) == [(Outcome.SEGMENTED, 0)]
    assert client.set_parameter("inference_timeout", 1.0).successful
    client.frame(rgb, stamp=1_700_000_001.0)
    client.ask(["hang"], id="hung")
    assert outcomes(client.answer("hung")) == [(Outcome.FAILED, Outcome.INTERNAL)]
    assert node.ended() == 1


@pytest.mark.parametrize("by_itself", [True, False])
def test_it_can_be_stopped_while_it_loads(start, by_itself):
    """Which takes a large model minutes; whether it goes up by itself or a manager asks it to."""
    autostart = str(by_itself).lower()
    node, client = start({"autostart": autostart}, SLOW, delay=3600.0, connect=False)
    if not by_itself:
        Manager(client).ask(Transition.TRANSITION_CONFIGURE)
    node.says("loading")
    assert node.interrupt() == 0, node.log
    assert "stopped during start-up" in node.log
    assert "Traceback" not in node.log


@pytest.mark.parametrize("ending", [signal.SIGTERM, signal.SIGHUP])
def test_a_signal_before_it_loads_is_not_forgotten(monkeypatch, ending):
    """It comes while the node is made. A terminal that is closed sends SIGHUP."""
    loaded = []

    def make(*arguments):
        os.kill(os.getpid(), ending)
        return GsvaNode(*arguments)

    monkeypatch.setattr(process, "GsvaNode", make)
    monkeypatch.setattr(process, "through_ros", lambda logger: None)  # pytest's logging stays
    numbers = signal.SIGINT, signal.SIGTERM, signal.SIGHUP
    # Otherwise this process ignores what its parent ignores, as under nohup.
    handlers = {number: signal.signal(number, lambda *_: None) for number in numbers}
    try:
        assert process.run([], loader=loaded.append) == 0
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
    assert not loaded


def test_under_nohup_it_stays():
    numbers = signal.SIGINT, signal.SIGTERM, signal.SIGHUP
    handlers = {number: signal.signal(number, signal.SIG_IGN) for number in numbers}
    try:
        stop = process.Stop()
        os.kill(os.getpid(), signal.SIGHUP)
        assert not stop.asked
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)


def test_after_shutdown_it_listens_to_no_camera(start):
    _, client = start()
    manager = Manager(client)
    assert manager.change(Transition.TRANSITION_ACTIVE_SHUTDOWN)
    client.wait(lambda: not client.images.get_subscription_count(), what="no listener")
    client.wait(lambda: client.told().get("state") == "finalized", what="the state")
    action = client.action(Follow, "gsva/follow")
    goal = client.send(action, Follow.Goal(expressions=["red"]))
    client.wait(goal.done, what="the goal's refusal")
    assert not goal.result().accepted


def test_instructions_are_answered_while_the_model_goes(start):
    """Until nobody listens to them any more."""
    _, client = start()
    manager = Manager(client)
    assert manager.change(Transition.TRANSITION_DEACTIVATE)
    stop, asked = threading.Event(), []

    def flood():
        while not stop.wait(0.02):
            asked.append(f"i{len(asked)}")
            client.ask(["red"], id=asked[-1])

    thread = client.thread(flood)
    try:
        client.wait(lambda: client.answers, what="the first answer")
        assert manager.change(Transition.TRANSITION_CLEANUP)
    finally:
        stop.set()
        thread.join()
    client.wait(lambda: len(client.answers) >= 3, what=f"some answers to {len(asked)}")
    answered = [a.instruction_id for a in client.answers]
    # In order, and none left out before the last one that is answered.
    assert answered == asked[: len(answered)], asked


def test_what_has_arrived_is_read_before_the_endpoints_go(monkeypatch):
    """However long that takes: what is unread goes with its endpoint."""
    answered, unread = [], []
    monkeypatch.setattr(GsvaNode, "_publish", lambda _, result: answered.append(result))
    with harness.a_node() as node:
        for _ in range(3):
            unread.append(lambda: node._on_instruction(Instruction(expressions=["red"])))
            unread.append(lambda: node._on_text(String(data="red")))

        def wait(quiet):
            """As if one came within that time, while there is one."""
            assert quiet == GRACE
            assert node._endpoints, f"gone after {len(answered)} answers"
            return bool(unread and (unread.pop()(), True))

        assert node.trigger_configure() == TransitionCallbackReturn.SUCCESS
        monkeypatch.setattr(node._pending._changed, "wait", wait)
        cleanup = threading.Thread(target=node.trigger_cleanup)
        cleanup.start()
        while cleanup.is_alive():
            node.disposal.run()
            cleanup.join(0.05)
        assert len(answered) == 6
        assert not node._endpoints


def test_what_has_arrived_is_read_before_the_process_ends(monkeypatch):
    answered = []
    monkeypatch.setattr(GsvaNode, "_publish", lambda _, result: answered.append(result))
    rclpy.init()
    node = GsvaNode(lambda *_: FakeEngine())
    unread = [Instruction(expressions=["red"])] * 12
    wait = node._pending._changed.wait

    awaited_now = threading.Event()

    def spin_once(timeout_sec):
        if unread and awaited_now.is_set():
            node._on_instruction(unread.pop())

    def within(quiet):
        """As if what is unread came within that time, and not before."""
        assert quiet == GRACE
        awaited_now.set()
        return bool(unread) and wait()

    assert node.trigger_configure() == TransitionCallbackReturn.SUCCESS
    monkeypatch.setattr(node._pending._changed, "wait", within)
    process._end(node, SimpleNamespace(spin_once=spin_once, shutdown=lambda timeout_sec: None))
    assert len(answered) == 12


def test_a_goal_ends_after_its_client_has_gone(start):
    """Nobody is left who could cancel it, whoever has come since. A client that stays keeps its goal.

    Also where rclpy can remap the name of an action.
    """
    node, client = start(remap={"~/follow": "/test/robot/follow"})
    named = {types[0]: name for name, types in get_action_names_and_types(client.node)}

    def follow(by):
        action = by.action(Follow, named["gsva_ros/action/Follow"])
        goal = by.send(action, Follow.Goal(expressions=["red"]))
        by.wait(goal.done, what="the goal's acceptance")
        return goal.result().accepted

    def unfinished(count):
        client.wait(
            lambda: client.told().get("instructions not finished") == str(count),
            what=f"{count} goals",
        )

    def looked(times):
        """Wait until the node has looked for clients this often: it publishes its health after it."""
        seen = len(client.health) + 1  # one may be on its way
        client.wait(lambda: len(client.health) >= seen + times, what=f"{times} looks")

    with closing(Client()) as leaver:
        assert follow(leaver)
        looked(ABANDONED)
        assert follow(client)
        unfinished(2)
        assert "its client is gone" not in node.log
    node.says(f"its client is gone: for {ABANDONED} s")
    unfinished(1)
    looked(2)
    assert node.log.count("its client is gone") == 1
    unfinished(1)


def test_a_goal_for_a_camera_that_there_is_not(start):
    _, client = start()
    action = client.action(Follow, "gsva/follow")
    goal = client.send(action, Follow.Goal(expressions=["red"], image_topic="nowhere"))
    client.wait(goal.done, what="the goal's acceptance")
    ended = client.between(goal.result().get_result_async, "a request for its result")
    client.wait(ended.done, what="the goal's end")
    assert "no camera 'nowhere'; image_topics: /test/image" in ended.result().result.message


def test_a_goal_follows_the_camera_that_it_names_until_the_node_is_inactive(start):
    _, client = start({"image_topics": "[image, other]"})
    other = client.node.create_publisher(harness.Image, "other", harness.qos.IMAGES_OUT)
    client.wait(other.get_subscription_count, what="the other camera's subscriber")
    action = client.action(Follow, "gsva/follow")
    cameras = []
    goal = client.send(
        action,
        Follow.Goal(expressions=["red"], image_topic="other"),
        feedback_callback=lambda m: cameras.append(m.feedback.segmentation.image_topic),
    )
    client.wait(goal.done, what="the goal's acceptance")
    ended = client.between(goal.result().get_result_async, "a request for its result")
    rgb, _ = blocks()

    def followed():
        client.frame(rgb)
        other.publish(harness.image(rgb))
        return len(cameras) >= 3

    client.wait(followed, what="three answers")
    assert set(cameras) == {"/test/other"}
    assert Manager(client).change(Transition.TRANSITION_DEACTIVATE)
    client.wait(ended.done, what="the goal's end")
    assert ended.result().status == 6  # ABORTED, however many frames were answered
    assert ended.result().result.frames >= 3
    assert ended.result().result.message.startswith("the node is not active")
    late = client.send(action, Follow.Goal(expressions=["red"]))
    client.wait(late.done, what="the answer to a goal")
    assert not late.result().accepted


def test_compressed_pictures_lie_beside_a_remapped_topic(start):
    how = {"image_transport": "compressed", "depth_topics": "[depth]"}
    node, client = start(how, connect=False, remap={"image": "/cam/color"})
    node.says("ready:")
    assert "frames from /cam/color/compressed" in node.log
    count = client.node.count_subscribers
    client.wait(lambda: count("/cam/camera_info"), what="camera_info, as beside the raw topic")


def test_two_cameras_change_places_by_remapping(start):
    """Names are remapped once: an answer names the topic that its image came from."""
    swapped = {"left": "right", "right": "left"}
    cameras = {"image_topics": "['left', 'right']"}
    _, client = start(cameras, remap=swapped, cameras=("left", "right"))
    for name in ("left", "right"):
        client.ask(["red"], id=name, image_topic=f"/test/{name}")
        client.frame(blocks()[0], frame_id=f"of {name}", camera=name)
        answer = client.answer(name)
        assert answer.header.frame_id == f"of {name}", answer.outcomes
        assert answer.image_topic == f"/test/{name}"


def test_an_activation_that_fails_says_why():
    with closing(NodeProcess(FAKE, {"image_topics": "['segmentation']"})) as node:
        node.says("cannot activate: ")
        assert node.ended() == 1
        assert "test/segmentation" in node.log


def test_a_node_without_a_camera_is_refused():
    with closing(NodeProcess(FAKE, {"image_topics": "['']"})) as node:
        node.says("image_topics")
        assert node.ended() == 1
    assert problem_with("image_topics", []) == "image_topics: names no camera; name at least one"


def test_a_goal_that_comes_as_the_server_goes_is_no_fault():
    """The executor may have seen it, and takes it only then."""
    rclpy.init()
    node = rclpy.create_node("goes")
    server = GoalServer(node, Follow, "follow", execute_callback=lambda handle: None)
    try:
        server._is_goal_request_ready = True
        server.destroy()
        assert not server.take_data()
        server.gone = False
        with pytest.raises(RuntimeError, match="take goal"):
            server.take_data()
    finally:
        node.destroy_node()
        rclpy.shutdown()


def test_a_fault_while_answers_leave_does_not_keep_the_others():
    """Nor does it change the status that the process ends with."""
    disposed, faults = [], [RuntimeError("a callback's"), ExternalShutdownException()]

    class Executor:
        def spin_once(self, timeout_sec):
            if faults:
                raise faults.pop(0)

    with harness.a_node() as node:
        node.disposal.add(lambda: disposed.append(True))
        spin_beside(node, Executor(), lambda: harness.wait(lambda: not faults))
        assert disposed == [True]


def test_what_a_call_awaits_wakes_the_executor():
    """Or every call would take as long as the executor waits for something to come."""
    woken = []
    future = awaited(SimpleNamespace(executor=SimpleNamespace(wake=lambda: woken.append(True))))
    assert not woken
    future.set_result("an answer")
    assert woken == [True]
    assert future.result() == "an answer"


def test_waiting_for_acknowledgements_leaves_the_other_threads_their_turns():
    """rclpy keeps them all from running meanwhile: what arrives would be taken for what does not."""
    waits = []
    late = SimpleNamespace(
        wait_for_all_acked=lambda duration: waits.append(duration) or len(waits) == 5
    )
    assert delivered(late, harness.PATIENCE)
    assert len(waits) == 5
    assert max(duration.nanoseconds for duration in waits) <= 10_000_000
    assert not delivered(SimpleNamespace(wait_for_all_acked=lambda duration: False), 0.1)
    assert delivered(SimpleNamespace(wait_for_all_acked=lambda duration: True), 0.0)


def test_an_endpoint_that_goes_as_something_comes_is_no_fault(caplog):
    """Humble's executor raises where later ones take nothing."""
    gone = [InvalidHandle("destruction was requested")]

    def spin_once(timeout_sec):
        if gone:
            raise gone.pop()

    rclpy.init()
    try:
        node, executor = SimpleNamespace(disposal=Disposal()), SimpleNamespace(spin_once=spin_once)
        spin_beside(node, executor, lambda: harness.wait(lambda: not gone))
    finally:
        rclpy.shutdown()
    assert not [r for r in caplog.records if r.levelname == "ERROR"]


def test_a_callback_that_waits_long_is_kept_once():
    """Not once more for every other callback: calls wait for minutes. So its fault comes out once, too."""
    rclpy.init()
    executor = Executor(num_threads=2)
    over = Future(executor=executor)

    async def wait():
        await over
        raise RuntimeError("after all")

    raised = []

    def spun():
        executor.create_task(lambda: None)
        try:
            executor.spin_once(timeout_sec=1.0)
        except RuntimeError as error:
            raised.append(error)
        return raised

    try:
        executor.create_task(wait)
        for _ in range(20):
            executor.wake()
            executor.spin_once(timeout_sec=1.0)
        over.set_result(None)
        harness.wait(spun)
        for _ in range(20):
            spun()
        assert len(raised) == 1
    finally:
        executor.shutdown()
        rclpy.shutdown()


def test_goals_that_go_on_run_no_callback():
    """rclpy's executor resumes what awaits at every wait: a hundred goals would delay everything else."""
    rclpy.init()
    node, submitted, cancelled = rclpy.create_node("follows"), [], []
    worker = SimpleNamespace(submit=submitted.append, cancel=lambda name, _: cancelled.append(name))
    pending = Pending()
    follow = FollowServer(node, worker, None, lambda topic: (topic, ""), lambda: True, pending)
    executor, run = Executor(num_threads=2), []
    found = executor.wait_for_ready_callbacks
    executor.wait_for_ready_callbacks = lambda *a, **k: run.append(found(*a, **k)) or run[-1]
    executor.add_node(node)
    client = Client()
    try:
        action = client.between(
            lambda: ActionClient(client.node, Follow, "/follows/follow"), "an action client"
        )
        client.wait(action.server_is_ready, what="the action")
        goals = [client.send(action, Follow.Goal(expressions=["red"])) for _ in range(5)]

        def spin_until(condition):
            client.wait(lambda: executor.spin_once(timeout_sec=0.05) or condition())

        def idle():
            """Three times woken, and nothing was to be done."""
            run.clear()
            for _ in range(3):
                executor.wake()
                executor.spin_once(timeout_sec=0.05)
            return not run

        spin_until(lambda: len(submitted) == 5 and all(goal.done() for goal in goals))
        ended = [client.between(goal.result().get_result_async, "a request") for goal in goals]
        client.wait(idle, what="an executor that has nothing to do")
        for request in submitted:
            request.done(Result(request, [Decision(0, "red", Ends.CANCELLED, reason="over")]))
        spin_until(lambda: all(each.done() for each in ended))
        assert [each.result().result.message for each in ended] == ["over"] * 5
        assert pending.wait(1.0)
        assert {*cancelled} == {request.id for request in submitted}, "no more is asked for them"
        client.between(action.destroy, "the action client's end")
    finally:
        client.close()
        executor.shutdown()
        follow.destroy()
        node.destroy_node()
        rclpy.shutdown()


def test_a_goal_can_be_cancelled_before_it_begins_and_not_once_it_has_ended():
    """rclpy lists several to be cancelled; one may end before its turn comes."""
    submitted, cancelled = [], []
    worker = SimpleNamespace(submit=submitted.append, cancel=lambda name, _: cancelled.append(name))

    class Handle:
        goal_id = Follow.Impl.SendGoalService.Request().goal_id
        request = Follow.Goal(expressions=["red"])
        execute = staticmethod(lambda: None)
        is_active = True

    class Gone(Handle):
        @property
        def goal_id(self):
            self.is_active = False
            return Handle.goal_id

    with harness.a_node() as node:
        follow = FollowServer(
            node, worker, None, lambda topic: (topic, ""), lambda: True, Pending()
        )
        assert follow._on_cancel(Gone()) == CancelResponse.REJECT
        assert not follow._goals
        assert follow._on_cancel(Handle()) == CancelResponse.ACCEPT
        cancelled.clear()
        follow._accepted(Handle())
        assert cancelled == [submitted[-1].id], "once more, for it was not submitted before"
        follow.destroy()


class Damaged(FakeEngine):
    """Loads, and gives no answer."""

    def segment(self, frame, expressions, **_):
        return Answer([Slot(expressions[0], 0.0, fault="its mask is not finite")])


def test_a_model_that_fails_its_first_answer_is_let_go():
    """Or the next one would have to fit beside it."""
    engine = Damaged()
    with harness.a_node() as node:
        node._loader = lambda *_: engine
        assert node.trigger_configure() == TransitionCallbackReturn.FAILURE
        assert engine.released == 1


def test_an_endpoint_that_cannot_be_destroyed_does_not_keep_the_others(caplog):
    disposal, destroyed = Disposal(), []
    disposal.add(lambda: destroyed.append(1), lambda: [].remove(0), lambda: destroyed.append(2))
    disposal.run()
    disposal.run()
    assert destroyed == [1, 2]
    assert disposal.wait(0.0)
    assert "could not be destroyed" in caplog.text


def test_calls_that_wait_end_before_the_model_does(start):
    """Whoever has started the node kills it some seconds after SIGINT: the model may take longer."""
    node, client = start()
    rgb, _ = blocks()
    node.hold()
    calls = [
        client.calls.call_async(
            client.calls.srv_type.Request(image=harness.image(rgb), expressions=["red"])
        )
        for _ in range(3)
    ]
    client.wait(lambda: client.told().get("instructions not finished") == "3", what="the calls")
    node.process.send_signal(signal.SIGINT)
    client.wait(lambda: sum(c.done() for c in calls) == 2, what="the results of those that wait")
    assert node.process.poll() is None, "the third is still being answered"
    node.let_go()
    client.wait(lambda: all(c.done() for c in calls), what="the third's result")
    assert sorted(c.result().success for c in calls) == [False, False, True]
    assert node.ended() == 0
