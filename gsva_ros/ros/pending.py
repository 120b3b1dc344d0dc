"""What is awaited: results of accepted service calls and goals, and what publishers have yet to deliver."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from rclpy.duration import Duration
from rclpy.publisher import Publisher
from rclpy.task import Future

#: rclpy holds the interpreter's lock while it waits for acknowledgements: seconds that all threads stand
#: still at a time, and that they run in between.
HELD, FREE = 0.001, 0.01


class Pending:
    """A count to wait for, so that no client is left without a result."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._count = 0

    def add(self) -> None:
        """Count one that was accepted."""
        with self._changed:
            self._count += 1
            self._changed.notify_all()

    def arrived(self) -> None:
        """Note an instruction, which is not counted: more may be unread behind it (see `settle`)."""
        with self._changed:
            self._changed.notify_all()

    def remove(self) -> None:
        """Remove one that has its result."""
        with self._changed:
            self._count -= 1
            self._changed.notify_all()

    @contextmanager
    def one(self) -> Iterator[None]:
        """Count one from acceptance to result."""
        self.add()
        try:
            yield
        finally:
            self.remove()

    def wait(self, timeout: float) -> bool:
        """Wait until the count is zero; False after `timeout` seconds."""
        with self._changed:
            return self._changed.wait_for(lambda: self._count == 0, timeout)

    def settle(self, quiet: float, timeout: float) -> None:
        """Wait until the count is zero and nothing has come or gone for `quiet` seconds.

        For about `timeout` seconds at most, since things may come without end.
        """
        end = time.monotonic() + timeout
        with self._changed:
            busy = True
            while busy and time.monotonic() < end:
                busy = self._changed.wait(quiet) or self._count > 0


def awaited(node: Any) -> Future:
    """A future for a coroutine of the node's executor to await.

    Its result wakes the executor, which resumes coroutines only between two waits and would sleep on.
    """

    def wake(_: Future) -> None:
        if node.executor is not None:  # None once the node has been removed from it
            node.executor.wake()

    future: Future = Future()
    future.add_done_callback(wake)
    return future


def delivered(publisher: Publisher, timeout: float) -> bool:
    """Wait until all subscribers have acknowledged what was published; False after `timeout` seconds."""
    end = time.monotonic() + timeout
    while not publisher.wait_for_all_acked(Duration(seconds=HELD)):
        if time.monotonic() > end:
            return False
        time.sleep(FREE)
    return True
