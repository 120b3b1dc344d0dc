"""A GPU's second stream, for what need not wait for what was started before."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch


class Side:
    """A stream beside the current one; on other devices than GPUs, things go one after another."""

    def __init__(self, device: torch.device) -> None:
        self._stream: Any = torch.cuda.Stream(device) if device.type == "cuda" else None

    def fork(self) -> None:
        """From here: what is on the side waits for what was started up to now, and for no more."""
        if self._stream:
            self._stream.wait_stream(torch.cuda.current_stream(self._stream.device))

    @contextmanager
    def beside(self) -> Iterator[None]:
        """Work on the side; whatever comes after waits for it."""
        if not self._stream:
            yield
            return
        with torch.cuda.stream(self._stream):
            yield
        torch.cuda.current_stream(self._stream.device).wait_stream(self._stream)
