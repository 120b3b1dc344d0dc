"""Destroys endpoints between two waits of the executor.

rclpy's executor raises InvalidHandle if one thread destroys an endpoint while another builds the wait set.
Callbacks therefore queue endpoints here, and the spinning thread destroys them.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

log = logging.getLogger(__name__)


class Disposal:
    """Filled by callbacks, emptied by the spinning thread."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._destroy: list[Callable[[], object]] = []

    def add(self, *destroy: Callable[[], object]) -> None:
        """Queue functions to be called between two waits."""
        with self._changed:
            self._destroy += destroy

    def run(self) -> None:
        """Call the queued functions; for the spinning thread, while it does not wait."""
        with self._changed:
            while self._destroy:
                destroy = self._destroy.pop(0)
                try:
                    destroy()
                except Exception:  # rclpy's own may race with callbacks; the others must go, too
                    log.exception("an endpoint could not be destroyed")
            self._changed.notify_all()

    def wait(self, timeout: float) -> bool:
        """Wait until the queue is empty; False after `timeout` seconds."""
        with self._changed:
            return self._changed.wait_for(lambda: not self._destroy, timeout)
