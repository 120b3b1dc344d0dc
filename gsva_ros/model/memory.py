"""Out of memory on a device, as errors that callers without torch can catch."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager

import torch

#: In the texts of other errors that torch raises: on a CPU, and on a GPU that other processes fill.
FULL = ("DefaultCPUAllocator: can't allocate memory", "CUDA error: out of memory")
FEWER_BITS = "choose another device, or a dtype of fewer bits (bfloat16, int8, int4)"


@contextmanager
def memory_errors(advice: str = FEWER_BITS) -> Iterator[None]:
    """Context and decorator: turn torch's errors of a full device into MemoryError, with what to do."""
    try:
        yield
    except RuntimeError as error:  # torch.OutOfMemoryError is one, too
        said = any(words in str(error) for words in FULL)
        if not isinstance(error, torch.OutOfMemoryError) and not said:
            raise
        what = str(error).partition("\n")[0].rstrip(".")
        raise MemoryError(f"{what}; {advice}") from error


def give_back(device: torch.device) -> None:
    """Release a device's unused memory, as after an OutOfMemoryError."""
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()
