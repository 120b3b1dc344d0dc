"""The node and tf2, with a stand-in for tf2_ros."""

from __future__ import annotations

import threading
import time
import types
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import harness
import rclpy
from fake_engine import FakeEngine
from rclpy.parameter import Parameter
from std_msgs.msg import String

from gsva_ros.ros import transforms
from gsva_ros.ros.node import GsvaNode
from gsva_ros.ros.transforms import Transforms

harness.isolate()


@contextmanager
def a_node(*arguments: str) -> Iterator[Any]:
    """A node in this process, unconfigured."""
    rclpy.init(args=["--ros-args", *arguments])
    node = GsvaNode(lambda *_: FakeEngine())
    try:
        yield node
    finally:
        node.close()
        node.destroy_node()
        rclpy.shutdown()


class Buffer:
    """tf2's buffer, of which the calls are counted."""

    def __init__(self) -> None:
        self.listeners: list[TransformListener] = []
        self.cleared = 0

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


def wait(condition: Callable[[], object]) -> None:
    end = time.monotonic() + 20.0
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


def test_tf_is_heard_beside_the_node_and_only_for_a_target_frame(monkeypatch) -> None:
    """In the node's executor, some hundred messages a second would take a whole CPU core."""
    stand_in = types.SimpleNamespace(Buffer=Buffer, TransformListener=TransformListener)
    monkeypatch.setattr(transforms, "tf2_ros", stand_in)
    with a_node("-r", "__node:=eye", "-r", "__ns:=/robot", "-r", "/tf:=tf") as node:
        heard = node._views._transforms._buffer.listeners
        sender = node.create_publisher(String, "tf", 10)
        assert not heard
        for frame in ("base", "", "odom"):
            node.set_parameters([Parameter("target_frame", value=frame)])
        (listener,) = heard
        wait(lambda: sender.get_subscription_count() == 1)
        wait(lambda: ("eye_tf", "/robot") in node.get_node_names_and_namespaces())
        for count in (1, 2):  # the node's executor does not run at all
            sender.publish(String())
            wait(lambda n=count: len(listener.threads) == n)
        assert listener.threads == ["gsva-tf", "gsva-tf"]
    assert "gsva-tf" not in [thread.name for thread in threading.enumerate()]
    with a_node("-p", "target_frame:=base") as node:
        assert len(node._views._transforms._buffer.listeners) == 1


def test_a_jump_in_time_forgets_the_transforms_of_before() -> None:
    """Or tf2 refuses those of a bag that starts again until they are newer than those of the last round."""
    with a_node() as node:
        buffer = Buffer()
        node._views._transforms = Transforms(buffer)
        node.set_parameters([Parameter("use_sim_time", value=True)])
        assert buffer.cleared == 1
        node._views._transforms = Transforms()  # as without tf2_ros
        node.set_parameters([Parameter("use_sim_time", value=False)])
