"""The node's clock and the one that deadlines are measured on, and what happens when either jumps."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from rclpy.clock import JumpThreshold, TimeJump
from rclpy.duration import Duration
from rclpy.lifecycle import LifecycleNode
from rosgraph_msgs.msg import Clock

from gsva_ros.stamps import SECOND

from .beside import Beside

#: Seconds between two readings of /clock, which simulators publish at up to 1 kHz; the newest time is read.
CLOCK_PAUSE = 0.005
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


class ClockBeside(LifecycleNode):
    """A node that receives /clock, to which rclpy subscribes under use_sim_time, beside itself."""

    _simulated: Beside | None = None  # rclpy subscribes while the node is being made

    def create_subscription(self, msg_type: Any, *args: Any, **kwargs: Any) -> Any:
        """As rclpy's, but /clock, which rclpy subscribes to here, is received beside the node."""
        if msg_type is not Clock:
            return super().create_subscription(msg_type, *args, **kwargs)
        self._simulated = Beside(self, "clock", ["/clock"], CLOCK_PAUSE)
        subscription = self._simulated.node.create_subscription(msg_type, *args, **kwargs)
        self._simulated.start()
        return subscription

    def destroy_subscription(self, subscription: Any) -> bool:
        """As rclpy's, which destroys the one to /clock when use_sim_time is turned off."""
        if self._simulated is None or subscription not in self._simulated.node.subscriptions:
            return bool(super().destroy_subscription(subscription))
        self._end_simulated()
        return True

    def destroy_node(self) -> None:
        """As rclpy's, and the node that receives /clock."""
        self._end_simulated()
        super().destroy_node()

    def _end_simulated(self) -> None:
        if self._simulated is not None:
            self._simulated.close()
            self._simulated = None
