"""Memory-mapped weights: releasing their pages once the weights were converted or moved."""

from __future__ import annotations

import ctypes
import mmap
import sys

from torch import Tensor

#: Linux's madvise(2) flag to reclaim pages. No data is lost: pages without a file are not discarded.
MADV_PAGEOUT = 21


def drop_pages(tensor: Tensor) -> None:
    """Release the file-backed pages of a contiguous CPU tensor; does nothing outside Linux."""
    if sys.platform != "linux" or tensor.device.type != "cpu":
        return
    start, page = tensor.data_ptr(), mmap.PAGESIZE
    first = -(-start // page) * page
    length = (start + tensor.numel() * tensor.element_size()) // page * page - first
    if length > 0:
        ctypes.CDLL(None).madvise(ctypes.c_void_p(first), ctypes.c_size_t(length), MADV_PAGEOUT)
