"""The node's clocks: when a jump is told, and by how much deadlines move."""

from __future__ import annotations

import threading
import time
from typing import Any

import harness
import pytest
import rclpy
from harness import wait
from rclpy.clock import ROSClock
from rclpy.context import Context
from rclpy.parameter import Parameter
from rclpy.time import Time
from rclpy.time_source import TimeSource
from rosgraph_msgs.msg import Clock

from gsva_ros.ros import clocks
from gsva_ros.ros.node import GsvaNode
from gsva_ros.ros.parameters import ParameterError
from gsva_ros.stamps import SECOND

harness.isolate()


def test_a_jump_is_told_before_and_after() -> None:
    """When /clock takes over, at 0 until its first message, goes back, and ends; not when it goes on."""
    clock = ROSClock()
    told: list[Any] = []
    ours = clocks.Clocks(clock, lambda: told.append(ours.timer()), lambda *jump: told.append(jump))

    def at(seconds: float) -> None:
        time = Time(nanoseconds=int(seconds * SECOND), clock_type=clock.clock_type)
        clock.set_ros_time_override(time)

    clock._set_ros_time_is_active(True)
    assert ours.now() == ours.timer() == 0
    before, (delta, what) = told
    assert what == "time jumped back"
    assert 0 <= before + delta < 60 * SECOND
    told.clear()
    at(5)
    at(6)
    assert not told
    at(2)
    assert told == [6 * SECOND, (-4 * SECOND, "time jumped back")]
    told.clear()
    at(1.5)  # however little
    assert told == [2 * SECOND, (-SECOND // 2, "time jumped back")]
    told.clear()
    clock._set_ros_time_is_active(False)
    before, (delta, what) = told
    assert (before, what) == (1.5 * SECOND, "time jumped forward")
    assert 0 <= time.monotonic_ns() - (before + delta) < 60 * SECOND


@pytest.mark.parametrize(
    ("sim_time", "seconds", "told"),
    [(False, 1, "forward"), (False, -1, "back"), (False, 0.9, ""), (True, 9, "")],
)
def test_a_computers_clock_that_is_set_counts_unless_time_is_simulated(
    monkeypatch: pytest.MonkeyPatch, sim_time: bool, seconds: float, told: str
) -> None:
    ahead, said = [0], []
    monkeypatch.setattr(clocks, "_set_ahead", lambda: ahead[0])
    clock = ROSClock()
    clock._set_ros_time_is_active(sim_time)
    ours = clocks.Clocks(clock, lambda: None, lambda *jump: said.append(jump))
    ours.watch()
    ahead[0] = int(seconds * SECOND)
    ours.watch()
    ours.watch()
    what = f"the computer's clock was set {told} by {abs(seconds):.1f} s"
    assert said == ([(0, what)] if told else [])


def running() -> bool:
    """Whether there is a thread that receives /clock."""
    return "gsva-clock" in [thread.name for thread in threading.enumerate()]


def test_a_simulators_clock_is_received_beside_the_node(monkeypatch: pytest.MonkeyPatch) -> None:
    """Gazebo's comes 1000 times a second; to read each in the node's executor would take a CPU core."""
    receive, received = TimeSource.clock_callback, []

    def counted(self: TimeSource, msg: Clock) -> None:
        received.append(msg.clock.sec)
        receive(self, msg)

    monkeypatch.setattr(TimeSource, "clock_callback", counted)
    arguments = "-r __node:=eye -r __ns:=/robot -r eye:/clock:=sim -p use_sim_time:=true"
    with harness.a_node(*arguments.split()) as node:
        sender = node.create_publisher(Clock, "sim", 10)

        def at(seconds: int) -> None:
            msg = Clock()
            msg.clock.sec = seconds
            sender.publish(msg)

        for _ in range(2):
            wait(lambda: sender.get_subscription_count() == 1)
            wait(lambda: ("eye_clock", "/robot") in node.get_node_names_and_namespaces())
            for seconds in (7, 3):  # the node's executor does not run at all
                wait(lambda n=seconds: at(n) or node.get_clock().now().nanoseconds == n * SECOND)
            received.clear()
            start = time.monotonic()
            for seconds in range(100, 400):
                at(seconds)
                time.sleep(0.001)
            wait(lambda: received and received[-1] == 399)
            assert len(received) <= (time.monotonic() - start) / clocks.CLOCK_PAUSE + 1
            node.set_parameters([Parameter("use_sim_time", value=False)])
            assert not running()
            assert abs(node.get_clock().now().nanoseconds - time.time_ns()) < 60 * SECOND
            node.set_parameters([Parameter("use_sim_time", value=True)])
            assert running()
    assert not running()


def test_a_node_that_cannot_start_leaves_no_thread_behind() -> None:
    """One that comes back from ROS while Python ends may abort the process."""
    context = Context()
    arguments = ["-p", "use_sim_time:=true", "-p", "text_mode:=shout"]
    rclpy.init(context=context, args=["--ros-args", *arguments])
    with pytest.raises(ParameterError, match="text_mode"):
        GsvaNode(context=context)
    assert not running()
    rclpy.try_shutdown(context=context)
