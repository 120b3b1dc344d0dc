"""A second CUDA stream, for work that is independent of the current one's."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch


class Side:
    """A stream beside the current one; without a GPU, everything runs sequentially."""

    def __init__(self, device: torch.device) -> None:
        self._stream: Any = torch.cuda.Stream(device) if device.type == "cuda" else None

    def fork(self) -> None:
        """Mark the point up to which work on the current stream is waited for by the side stream."""
        if self._stream:
            self._stream.wait_stream(torch.cuda.current_stream(self._stream.device))

    @contextmanager
    def beside(self) -> Iterator[None]:
        """Run the block on the side stream; later work on the current stream waits for it."""
        if not self._stream:
            yield
            return
        with torch.cuda.stream(self._stream):
            yield
        torch.cuda.current_stream(self._stream.device).wait_stream(self._stream)
