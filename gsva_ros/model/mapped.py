"""Weights that lie mapped in their file: their pages are given back once they are held in another form."""

from __future__ import annotations

import ctypes
import mmap
import sys

from torch import Tensor

#: Linux's advice to take pages out of memory. Nothing is lost by it: what is not a file's stays.
MADV_PAGEOUT = 21


def drop_pages(tensor: Tensor) -> None:
    """Let a contiguous CPU tensor's pages go, as far as a file has them; elsewhere nothing happens."""
    if sys.platform != "linux" or tensor.device.type != "cpu":
        return
    start, page = tensor.data_ptr(), mmap.PAGESIZE
    first = -(-start // page) * page
    length = (start + tensor.numel() * tensor.element_size()) // page * page - first
    if length > 0:
        ctypes.CDLL(None).madvise(ctypes.c_void_p(first), ctypes.c_size_t(length), MADV_PAGEOUT)
