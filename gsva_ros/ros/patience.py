"""Waiting for what may be on its way, but not again and again for what does not come."""

from __future__ import annotations

import time

#: After PATIENCE waits in vain in a row, there is only one every AGAIN seconds.
PATIENCE, AGAIN = 3, 1.0


class Patience:
    """Whether to wait: whoever asks next would wait as well."""

    def __init__(self) -> None:
        self._vain, self._last = 0, float("-inf")  # waits in vain in a row, end of the last

    @property
    def left(self) -> bool:
        """Whether to wait now."""
        return self._vain < PATIENCE or time.monotonic() - self._last >= AGAIN

    def spend(self) -> None:
        """Count a wait in vain."""
        self._vain, self._last = self._vain + 1, time.monotonic()

    def renew(self) -> None:
        """Begin anew: it came, or it is to be expected."""
        self._vain = 0
