"""Arithmetic of ROS time stamps (builtin_interfaces Time and Duration), without ROS."""

from __future__ import annotations

from typing import Any

SECOND = 1_000_000_000  # nanoseconds


def nanoseconds(time: Any) -> int:
    """A Time or Duration, from rclpy or rosbags, in nanoseconds."""
    return int(time.sec) * SECOND + int(time.nanosec)


def fill(time: Any, stamp: int) -> Any:
    """Write nanoseconds into a Time or Duration and return it."""
    time.sec, time.nanosec = divmod(int(stamp), SECOND)
    return time
