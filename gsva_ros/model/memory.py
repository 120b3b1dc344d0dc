"""Out of memory on a device, as errors that callers without torch can catch."""

from __future__ import annotations

import gc
from collections.abc import Callable
from functools import wraps
from typing import ParamSpec, TypeVar

import torch

P = ParamSpec("P")
R = TypeVar("R")


def memory_errors(method: Callable[P, R]) -> Callable[P, R]:
    """Decorator: turn torch.OutOfMemoryError into Python's MemoryError."""

    @wraps(method)
    def call(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return method(*args, **kwargs)
        except torch.OutOfMemoryError as error:
            raise MemoryError(str(error).partition("\n")[0]) from error

    return call


def give_back(device: torch.device) -> None:
    """Release a device's unused memory, as after an OutOfMemoryError."""
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()
