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

    def at(seconds: int) -> None:
        clock.set_ros_time_override(Time(seconds=seconds, clock_type=clock.clock_type))

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
    clock._set_ros_time_is_active(False)
    before, (delta, what) = told
    assert (before, what) == (2 * SECOND, "time jumped forward")
    assert 0 <= time.monotonic_ns() - (before + delta) < SECOND


@pytest.mark.parametrize(
    ("sim_time", "seconds", "told"), [(False, 1, 1), (False, 0.9, 0), (True, 9, 0)]
)
def test_a_computers_clock_that_is_set_counts_unless_time_is_simulated(
    monkeypatch: pytest.MonkeyPatch, sim_time: bool, seconds: float, told: int
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
    assert said == [(0, f"the computer's clock was set forward by {seconds:.1f} s")] * told
