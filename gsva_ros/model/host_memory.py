"""The host's memory: what malloc does with that of freed tensors, and the pages of memory-mapped weights.

By default glibc returns large blocks to the system and gets fresh pages, one page fault each, at the next
allocation. That takes a tenth of a frame's time and a quarter of sixteen masks' time; a training step can
spend more on it than on arithmetic. See mallopt(3).
"""

from __future__ import annotations

import ctypes
import mmap
import os
import sys

from torch import Tensor

#: Parameter numbers of mallopt(3), and the environment variables that set the same.
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD, M_MMAP_MAX = -1, -3, -4
DECIDED_BY = ("MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_THRESHOLD_", "GLIBC_TUNABLES")
#: Bytes: the largest block that is kept (older glibc accepts no more), and how much free memory is kept.
LARGEST, KEPT = 32 << 20, 128 << 20
#: Linux's madvise(2) flag to reclaim pages. No data is lost: pages without a file are not discarded.
MADV_PAGEOUT = 21

_whole = False  # whether all memory is kept; a later call with whole=False does not undo it


def keep_freed(whole: bool = False) -> bool:
    """Let this process keep freed memory for reuse; returns whether it does.

    It does not if the C library is not glibc, or if the environment sets one of `DECIDED_BY`.

    Args:
        whole: keep all freed memory, for a process that repeats the same work for hours; else up to `KEPT`.
    """
    global _whole
    if any(name in os.environ for name in DECIDED_BY):
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):  # another C library, or another system
        return False
    _whole = _whole or whole
    if _whole:
        # No block is mapped on its own, and the heap is never trimmed.
        return bool(mallopt(M_MMAP_MAX, 0) and mallopt(M_TRIM_THRESHOLD, -1))
    return bool(mallopt(M_MMAP_THRESHOLD, LARGEST) and mallopt(M_TRIM_THRESHOLD, KEPT))


def drop_pages(tensor: Tensor) -> None:
    """Release the file-backed pages of a contiguous CPU tensor; does nothing outside Linux."""
    if sys.platform != "linux" or tensor.device.type != "cpu":
        return
    start, page = tensor.data_ptr(), mmap.PAGESIZE
    first = -(-start // page) * page
    length = (start + tensor.numel() * tensor.element_size()) // page * page - first
    if length > 0:
        ctypes.CDLL(None).madvise(ctypes.c_void_p(first), ctypes.c_size_t(length), MADV_PAGEOUT)
