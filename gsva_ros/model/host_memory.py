"""What the C library does with memory that tensors on a CPU no longer need.

glibc gives large blocks back to the system and asks for fresh pages at the next call, each by a fault. Of
a frame's time that is a tenth, of sixteen masks' a quarter; a step of training can spend more on it than on
its arithmetic. See mallopt(3).
"""

from __future__ import annotations

import ctypes
import os

#: mallopt(3)'s numbers, and the variables by which a user decides the same.
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD, M_MMAP_MAX = -1, -3, -4
DECIDED_BY = ("MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_THRESHOLD_", "GLIBC_TUNABLES")
#: Bytes: blocks up to this size are kept (older glibc takes no more), and so much of what is free.
LARGEST, KEPT = 32 << 20, 128 << 20


_whole = False  # whether all of it is kept, which a later, smaller wish does not undo


def keep_freed(whole: bool = False) -> bool:
    """Let this process keep freed memory for what is computed next; whether that is so now.

    It is not where the C library is not glibc, nor where the environment says otherwise.

    Args:
        whole: keep all of it, as a process may that does the same for hours; else up to `KEPT`.
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
        return bool(mallopt(M_MMAP_MAX, 0) and mallopt(M_TRIM_THRESHOLD, -1))  # none mapped; never
    return bool(mallopt(M_MMAP_THRESHOLD, LARGEST) and mallopt(M_TRIM_THRESHOLD, KEPT))
