"""What the C library does with memory that tensors on a CPU no longer need.

glibc gives large blocks back to the system and asks for fresh pages at the next call, each of which the
system clears first: of a frame's time that is a tenth, of sixteen masks' a quarter. See mallopt(3).
"""

from __future__ import annotations

import ctypes
import os

#: mallopt(3)'s numbers, and the variables by which a user decides the same.
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
DECIDED_BY = ("MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_THRESHOLD_", "GLIBC_TUNABLES")
#: Bytes: blocks up to this size are kept (glibc takes no larger ones), and so much of what is free.
LARGEST, KEPT = 32 << 20, 128 << 20


def keep_freed() -> bool:
    """Let this process keep freed memory for what is computed next; whether that is so now.

    It is not where the C library is not glibc, nor where the environment says otherwise.
    """
    if any(name in os.environ for name in DECIDED_BY):
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):  # another C library, or another system
        return False
    return bool(mallopt(M_MMAP_THRESHOLD, LARGEST)) and bool(mallopt(M_TRIM_THRESHOLD, KEPT))
