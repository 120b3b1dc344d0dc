"""Destroys endpoints between two waits of the executor.

rclpy's executor raises InvalidHandle where an endpoint is destroyed in one thread while another builds the
set of what it waits for. So callbacks hand endpoints over, and the thread that spins destroys them.
"""

from __future__ import annotations

import threading
from collections.abc import Callable


class Disposal:
    """Filled by callbacks, emptied by the thread that spins."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._destroy: list[Callable[[], object]] = []

    def add(self, *destroy: Callable[[], object]) -> None:
        """Have these called between two waits."""
        with self._changed:
            self._destroy += destroy

    def run(self) -> None:
        """Call them; for the thread that spins, while it does not wait."""
        with self._changed:
            for destroy in self._destroy:
                destroy()
            self._destroy.clear()
            self._changed.notify_all()

    def wait(self, timeout: float) -> bool:
        """Wait until nothing is left; False after `timeout` seconds."""
        with self._changed:
            return self._changed.wait_for(lambda: not self._destroy, timeout)
