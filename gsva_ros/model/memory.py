"""Out of memory on a device, as errors that callers without torch can catch."""

from __future__ import annotations

import gc
from collections.abc import Callable
from functools import wraps
from typing import ParamSpec, TypeVar

import torch

P = ParamSpec("P")
R = TypeVar("R")
#: In the text of the plain RuntimeError that torch raises on a CPU.
CPU_FULL = "DefaultCPUAllocator: can't allocate memory"


def memory_errors(method: Callable[P, R]) -> Callable[P, R]:
    """Decorator: turn torch's errors of a full device into Python's MemoryError, with what to do."""

    @wraps(method)
    def call(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return method(*args, **kwargs)
        except RuntimeError as error:  # torch.OutOfMemoryError is one, too
            if not isinstance(error, torch.OutOfMemoryError) and CPU_FULL not in str(error):
                raise
            what = str(error).partition("\n")[0].rstrip(".")
            raise MemoryError(
                f"{what}; choose another device, or a dtype of fewer bits (bfloat16, int8, int4)"
            ) from error

    return call


def give_back(device: torch.device) -> None:
    """Release a device's unused memory, as after an OutOfMemoryError."""
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()
