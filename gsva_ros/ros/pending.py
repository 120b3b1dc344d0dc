"""Service calls and goals that were accepted and have no result yet, and what they await."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from rclpy.task import Future


class Pending:
    """A count that can be waited for, so that nobody is left without a result."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._count = 0

    @property
    def count(self) -> int:
        """How many there are."""
        with self._changed:
            return self._count

    def add(self) -> None:
        """One more was accepted."""
        with self._changed:
            self._count += 1

    def remove(self) -> None:
        """One has its result."""
        with self._changed:
            self._count -= 1
            self._changed.notify_all()

    @contextmanager
    def one(self) -> Iterator[None]:
        """From acceptance to result."""
        self.add()
        try:
            yield
        finally:
            self.remove()

    def wait(self, timeout: float) -> bool:
        """Wait until there is none; False after `timeout` seconds."""
        with self._changed:
            return self._changed.wait_for(lambda: self._count == 0, timeout)


def awaited(node: Any) -> Future:
    """A future that a coroutine of the node's executor awaits.

    Its result wakes the executor, which looks at coroutines between two waits and would sleep on.
    """

    def wake(_: Future) -> None:
        if node.executor is not None:  # as once the node has been taken off it
            node.executor.wake()

    future: Future = Future()
    future.add_done_callback(wake)
    return future
