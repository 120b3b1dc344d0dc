"""Reading tokens after a frame's prefix: as branches in one pass, or sequentially."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

import torch
from torch import Tensor

from .prefix import Branches, Prefix, rewind
from .reading import Reader


class Continuation(Protocol):
    """Reads one request's tokens after a prefix."""

    def branches(self, tree: Branches) -> Tensor:
        """Hidden states [K, D] at the ends of the branches; nothing can be read after them."""

    def append(self, ids: Sequence[int], wanted: Sequence[int]) -> Tensor:
        """Append ids to those read before; hidden states [K, D] at the indices `wanted` among them."""

    def rewind(self, count: int) -> None:
        """Discard all tokens but the first `count`."""


class PlainContinuation:
    """`Continuation` with a growing cache and no padding."""

    def __init__(self, read: Reader, embed: Callable[[Tensor], Tensor], prefix: Prefix) -> None:
        self._read, self._embed, self._prefix = read, embed, prefix
        self._cache = prefix.cache()

    def branches(self, tree: Branches) -> Tensor:
        """See `Continuation`."""
        x, length = self._embed(self._indices(tree.ids)[None]), self._prefix.length
        # Positions of every branch start right after the prefix, as if it were the only one.
        positions, ends = self._indices(tree.depths) + length, self._indices(tree.ends)
        return self._read(x, self._cache, positions, tree.bias(length, x.dtype, x.device), ends)

    def append(self, ids: Sequence[int], wanted: Sequence[int]) -> Tensor:
        """See `Continuation`."""
        x = self._embed(self._indices(ids)[None])
        rows = None if len(wanted) == len(ids) else self._indices(wanted)
        return self._read(x, self._cache, wanted=rows)

    def rewind(self, count: int) -> None:
        """See `Continuation`."""
        rewind(self._cache, self._prefix.length + count)

    def _indices(self, numbers: Sequence[int]) -> Tensor:
        return torch.tensor(numbers, dtype=torch.long, device=self._prefix.device)
