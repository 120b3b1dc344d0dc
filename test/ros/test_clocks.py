"""The node's clocks: when a jump is told, and by how much deadlines move."""

from __future__ import annotations

import time
from typing import Any

import pytest
from rclpy.clock import ROSClock
from rclpy.time import Time

from gsva_ros.ros import clocks
from gsva_ros.stamps import SECOND


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
    assert 0 <= before + delta < SECOND
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
    assert 0 <= time.monotonic_ns() - (before + delta) < SECOND


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
