"""Arithmetic of ROS time stamps (builtin_interfaces Time and Duration), without ROS."""

from __future__ import annotations

from typing import Any

SECOND = 1_000_000_000  # nanoseconds
#: The first and the last that a Time or Duration can hold, whose `sec` is an int32; nanoseconds.
EARLIEST, LATEST = -(2**31) * SECOND, 2**31 * SECOND - 1


def nanoseconds(time: Any) -> int:
    """A Time or Duration, from rclpy or rosbags, in nanoseconds."""
    return int(time.sec) * SECOND + int(time.nanosec)


def fill(time: Any, stamp: int) -> None:
    """Write nanoseconds, or the nearest that it can hold, into a Time or Duration."""
    time.sec, time.nanosec = divmod(min(max(int(stamp), EARLIEST), LATEST), SECOND)
