"""The node and tf2: a stand-in for it and, where it is installed, tf2_ros itself."""

from __future__ import annotations

import threading
import types
from contextlib import suppress
from typing import Any
from weakref import WeakSet

import harness
import numpy as np
import pytest
import rclpy
from geometry_msgs.msg import TransformStamped
from harness import a_node, wait
from rclpy.duration import Duration
from rclpy.parameter import Parameter
from std_msgs.msg import Header, String

from gsva_ros.ros import patience, transforms
from gsva_ros.ros.patience import AGAIN, PATIENCE, Patience
from gsva_ros.ros.transforms import FRAMES, TransformError, Transforms

harness.isolate()


class Buffer:
    """tf2's buffer, of which the calls are counted."""

    def __init__(self, cache_time: Duration | None = None) -> None:
        self.cache_time = cache_time
        self.listeners: list[TransformListener] = []
        self.cleared = 0
        self.known: dict[str, TransformStamped] = {}  # by the frame they are from
        self.timeouts: list[float] = []  # of what was asked for, seconds

    def lookup_transform(self, target: str, source: str, at: Any, timeout: Duration) -> Any:
        self.timeouts.append(timeout.nanoseconds / 1e9)
        if source not in self.known:
            raise LookupError(
                f'"{source}" passed to lookupTransform argument source_frame does not exist. '
            )
        return self.known[source]

    def clear(self) -> None:
        self.cleared += 1


class TransformListener:
    """Keeps the thread that a message on /tf arrives in; raises at the first one."""

    def __init__(self, buffer: Buffer, node: Any) -> None:
        self.threads: list[str] = []
        buffer.listeners.append(self)
        node.create_subscription(String, "/tf", self.hear, 10)

    def hear(self, _: String) -> None:
        self.threads.append(threading.current_thread().name)
        if len(self.threads) == 1:
            raise ValueError("this one cannot be read")


def test_tf_is_heard_beside_the_node_and_only_for_a_target_frame(monkeypatch) -> None:
    """In the node's executor, some hundred messages a second would take a whole CPU core."""
    stand_in = types.SimpleNamespace(Buffer=Buffer, TransformListener=TransformListener)
    monkeypatch.setattr(transforms, "tf2_ros", stand_in)
    with a_node("-r", "__node:=eye", "-r", "__ns:=/robot", "-r", "/tf:=tf") as node:
        heard = node._views._transforms._buffer.listeners
        sender = node.create_publisher(String, "tf", 10)
        assert not heard
        for frame, listeners in (("base", 1), ("map", 1), ("", 1), ("", 1), ("odom", 2)):
            node.set_parameters([Parameter("target_frame", value=frame)])
            assert len(heard) == listeners
            running = [thread.name for thread in threading.enumerate()].count("gsva-tf")
            assert running == bool(frame)
        # Or tf2 would interpolate over the time in which nobody listened.
        assert node._views._transforms._buffer.cleared == 1
        listener = heard[-1]
        wait(lambda: sender.get_subscription_count() == 1)
        wait(lambda: ("eye_tf", "/robot") in node.get_node_names_and_namespaces())
        for count in (1, 2):  # the node's executor does not run at all
            sender.publish(String())
            wait(lambda n=count: len(listener.threads) == n)
        assert listener.threads == ["gsva-tf", "gsva-tf"]
    assert "gsva-tf" not in [thread.name for thread in threading.enumerate()]
    with a_node("-p", "target_frame:=base") as node:
        assert len(node._views._transforms._buffer.listeners) == 1
        rclpy.shutdown()  # before the node is closed, as a signal may
    wait(lambda: "gsva-tf" not in [thread.name for thread in threading.enumerate()])


def test_a_transform_that_does_not_come_is_not_waited_for_every_time(monkeypatch) -> None:
    """Or an answer a tenth of a second is the most that anybody gets."""
    now = 100.0
    monkeypatch.setattr(patience, "time", types.SimpleNamespace(monotonic=lambda: now))
    kept: WeakSet[Patience] = WeakSet()

    class Kept(Patience):
        def __init__(self) -> None:
            super().__init__()
            kept.add(self)

    monkeypatch.setattr(transforms, "Patience", Kept)
    buffer = Buffer()
    found = Transforms(buffer)

    def waited(frame: str) -> bool:
        with suppress(TransformError):
            found.between("base", Header(frame_id=frame))
        return buffer.timeouts[-1] > 0

    assert [waited("left") for _ in range(PATIENCE + 2)] == [True] * PATIENCE + [False] * 2
    assert waited("right"), "nobody has waited for this one"
    now += AGAIN / 2
    assert not waited("left")
    now += AGAIN / 2
    assert [waited("left") for _ in range(2)] == [True, False], "however often it was asked for"
    buffer.known["left"] = TransformStamped()
    assert not waited("left")
    assert waited("left"), "it comes again"
    for number in range(2 * FRAMES):
        waited(str(number))
    assert len(kept) <= FRAMES, "a frame_id for each image does not fill the memory"


def test_transforms_are_kept_for_answers_that_take_long(monkeypatch) -> None:
    """tf2 keeps ten seconds of them by itself."""
    monkeypatch.setattr(transforms, "tf2_ros", types.SimpleNamespace(Buffer=Buffer))
    assert Transforms.create()._buffer.cache_time == Duration(seconds=60)


def test_a_missing_transform_is_said_with_what_to_do() -> None:
    found, tool = Transforms(Buffer()), "ros2 run tf2_tools view_frames"
    with pytest.raises(
        TransformError, match=rf"from 'left' to 'base' .* does not exist \(`{tool}`"
    ):
        found.between("base", Header(frame_id="left"))
    with pytest.raises(
        TransformError, match=r"from '' to 'base' .*: set frame_id in the camera's driver"
    ):
        found.between("base", Header())


def test_a_transform_that_is_not_finite_is_missing() -> None:
    """tf2 interpolates between infinite translations, and the result is NaN."""
    buffer = Buffer()
    far = buffer.known["left"] = TransformStamped()
    far.transform.translation.y = float("nan")
    with pytest.raises(TransformError, match=r"from 'left' to 'base' .* infinitely far"):
        Transforms(buffer).between("base", Header(frame_id="left"))


def test_a_jump_in_time_forgets_the_transforms_of_before() -> None:
    """Or tf2 refuses those of a bag that starts again until they are newer than those of the last round."""
    with a_node() as node:
        buffer = Buffer()
        node._views._transforms = Transforms(buffer)
        node.set_parameters([Parameter("use_sim_time", value=True)])
        assert buffer.cleared == 1
        node._views._transforms = Transforms()  # as without tf2_ros
        node.set_parameters([Parameter("use_sim_time", value=False)])


def test_tf2_itself_where_it_is_installed() -> None:
    """A camera on a robot that drives and turns: between two transforms, after a jump, and later again."""
    tf2_ros = pytest.importorskip("tf2_ros")
    with a_node("-p", "target_frame:=odom") as node:
        moving, fixed = tf2_ros.TransformBroadcaster(node), tf2_ros.StaticTransformBroadcaster(node)
        found = node._views._transforms

        def stamped(parent: str, child: str, second: int, **place: float) -> TransformStamped:
            msg = TransformStamped(child_frame_id=child)
            msg.header.frame_id, msg.header.stamp.sec = parent, second
            for name in "xyz":
                setattr(msg.transform.translation, name, place.get(name, 0.0))
            turn = place.get("turn", 0.0) / 2
            msg.transform.rotation.z, msg.transform.rotation.w = np.sin(turn), np.cos(turn)
            return msg

        def looked_up(target: str, second: int, nanosec: int = 0) -> transforms.Transform | None:
            header = Header(frame_id="camera")
            header.stamp.sec, header.stamp.nanosec = second, nanosec
            with suppress(TransformError):
                return found.between(target, header)
            return None

        def drive(*seconds: int) -> None:
            for second in seconds:
                moving.sendTransform(
                    stamped("odom", "base", second, x=2.0 * second, turn=0.2 * second)
                )

        fixed.sendTransform(stamped("base", "camera", 0, y=0.5))
        wait(lambda: drive(1000, 1001) or looked_up("odom", 1000, 500_000_000))
        half = looked_up("odom", 1000, 500_000_000)
        c, s = np.cos(200.1), np.sin(200.1)
        assert half.rotation == pytest.approx(np.array([[c, -s, 0], [s, c, 0], [0, 0, 1]]))
        assert half.translation == pytest.approx([2001 - 0.5 * s, 0.5 * c, 0])
        assert looked_up("odom", 1002) is None, "not yet"
        drive(1002)
        wait(lambda: looked_up("odom", 1002))  # behind what was still on its way
        node.set_parameters([Parameter("use_sim_time", value=True)])  # the clock jumps
        assert looked_up("odom", 1000) is None, "of before"
        assert looked_up("base", 1000).translation == pytest.approx([0, 0.5, 0])
        wait(lambda: drive(1, 2) or looked_up("odom", 1, 500_000_000))
