"""The node's clock and the one that deadlines are measured on, and what happens when either jumps."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from rclpy.clock import JumpThreshold, TimeJump
from rclpy.duration import Duration

from gsva_ros.stamps import SECOND

#: Seconds by which the computer's clock is set at least, when it is not just being adjusted.
SET = 1.0


def _set_ahead() -> int:
    """Nanoseconds by which the computer's clock is ahead of one that nobody sets."""
    return time.time_ns() - time.monotonic_ns()


class Clocks:
    """Tells the time, and when it jumps back or comes from another clock.

    Args:
        clock: the node's, a ROSClock.
        jumping: called when time is about to jump; not when the computer's clock is set.
        jumped: called afterwards with the nanoseconds by which `timer` jumped, and what happened, in words.
    """

    def __init__(
        self, clock: Any, jumping: Callable[[], None], jumped: Callable[[int, str], None]
    ) -> None:
        self._clock, self._jumping, self._jumped = clock, jumping, jumped
        self._before_jump = 0, 0
        self._set_ahead = _set_ahead()
        self._jumps = clock.create_jump_callback(
            JumpThreshold(min_forward=None, min_backward=Duration(nanoseconds=-1)),
            pre_callback=self._on_jump_ahead,
            post_callback=self._on_jump,
        )

    def now(self) -> int:
        """Nanoseconds on the node's clock, which stamps the frames."""
        return int(self._clock.now().nanoseconds)

    def timer(self) -> int:
        """What deadlines are measured on: /clock under sim time, otherwise a clock that nobody sets."""
        return self.now() if self._clock.ros_time_is_active else time.monotonic_ns()

    def watch(self) -> None:
        """Notice that the computer's clock was set, which rclpy does not report.

        Call this about once a second.
        """
        before, self._set_ahead = self._set_ahead, _set_ahead()
        moved = (self._set_ahead - before) / SECOND
        if abs(moved) < SET or self._clock.ros_time_is_active:
            return
        which = "back" if moved < 0 else "forward"
        self._jumped(0, f"the computer's clock was set {which} by {abs(moved):.1f} s")

    def _on_jump_ahead(self) -> None:
        self._before_jump = self.now(), self.timer()
        self._jumping()

    def _on_jump(self, jump: TimeJump) -> None:
        """Time jumped back, or comes from another clock from now on."""
        clock, timer = self._before_jump
        which = "back" if self.now() < clock else "forward"
        self._jumped(self.timer() - timer, f"time jumped {which}")
