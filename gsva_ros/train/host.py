"""The host's memory while a CPU trains."""

from __future__ import annotations

import ctypes

# Of glibc's malloc.h.
M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4


def keep_memory() -> None:
    """Let what is freed stay with this process, where the C library is glibc.

    By itself glibc gives blocks of some MB back to the system at once and takes them anew, page by page and
    each by a fault, which can cost a step on a CPU more than its arithmetic.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(M_MMAP_MAX, 0)
        mallopt(M_TRIM_THRESHOLD, -1)  # never
