"""The KV cache of a prompt's prefix, which every question continues without copying it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer

#: Spare positions allocated after the prefix; longer continuations are copied into a larger buffer.
ROOM = 256


class Prefix:
    """Keys and values of P positions in every layer, d wide per head, with spare positions after them.

    A continuation writes into the spare positions, so there can be only one at a time.
    """

    def __init__(self, layers: list[tuple[Tensor, Tensor]], length: int) -> None:
        """Args: layers: keys and values of each, [1, heads, places, d]. length: places in use."""
        self.layers, self.length = layers, length

    @classmethod
    def of(cls, read: Callable[..., Tensor], llama: Any, x: Tensor) -> Prefix:
        """The prefix of embeddings x [1, P, D], computed by `read`, a `Reader` of the LlamaModel."""
        cache = empty(llama, x)
        read(x, cache, wanted=torch.empty(0, dtype=torch.long, device=x.device))
        return cls.after(cache)

    @classmethod
    def after(cls, cache: DynamicCache) -> Prefix:
        """The prefix that was read into a cache from `empty`."""
        layers = [layer.room for layer in cache.layers if isinstance(layer, _Layer)]
        return cls(layers, cache.get_seq_length())

    @property
    def device(self) -> torch.device:
        """Device of the keys and values."""
        return self.layers[0][0].device

    def cache(self) -> DynamicCache:
        """A cache that begins with the prefix; valid until the next call."""
        cache = DynamicCache()
        cache.layers = [_Layer(keys, values, self.length) for keys, values in self.layers]
        return cache


def empty(llama: Any, x: Tensor) -> DynamicCache:
    """An empty cache for a LlamaModel, with the dtype and device of the embeddings x."""
    config = llama.config
    nothing = x.new_empty(1, config.num_key_value_heads, 0, llama.layers[0].self_attn.head_dim)
    cache = DynamicCache()
    cache.layers = [_Layer(nothing, nothing, 0) for _ in llama.layers]
    return cache


def rewind(cache: DynamicCache, length: int) -> None:
    """Truncate a prefix's cache to `length` positions."""
    for layer in cache.layers:
        assert isinstance(layer, _Layer)
        layer.used = length


class _Layer(DynamicLayer):
    """One layer's keys and values [1, heads, places, d]; the first `used` places are valid."""

    def __init__(self, keys: Tensor, values: Tensor, used: int) -> None:
        super().__init__()
        self.lazy_initialization(keys, values)
        self.used, self._keys, self._values = used, keys, values

    def update(
        self, key_states: Tensor, value_states: Tensor, *_: Any, **__: Any
    ) -> tuple[Tensor, Tensor]:
        """Append keys and values; returns all valid ones."""
        end = self.used + key_states.shape[-2]
        if end > self._keys.shape[-2]:
            self._keys = _roomy(self._keys[:, :, : self.used], end)
            self._values = _roomy(self._values[:, :, : self.used], end)
        self._keys[:, :, self.used : end] = key_states
        self._values[:, :, self.used : end] = value_states
        self.used = end
        return self._keys[:, :, :end], self._values[:, :, :end]

    @property
    def room(self) -> tuple[Tensor, Tensor]:
        """Keys and values, including unused places."""
        return self._keys, self._values

    def get_seq_length(self) -> int:
        """Number of valid positions."""
        return self.used


def _roomy(states: Tensor, places: int) -> Tensor:
    """A copy of [1, heads, P, d] in a buffer for `places` positions, at least P, and `ROOM` more."""
    _, heads, length, width = states.shape
    roomy = states.new_empty(1, heads, places + ROOM, width)
    roomy[:, :, :length] = states
    return roomy


@dataclass(frozen=True)
class Branches:
    """Several continuations of one prefix as a token tree, for one pass: shared beginnings are read once.

    ids: [L]. depths: position of each id after the prefix, [L]. ends: index in `ids` of each
    sequence's last id. seen: [L, L], whether the row's id attends to the column's: to itself and
    to its ancestors.
    """

    ids: list[int]
    depths: list[int]
    ends: list[int]
    seen: NDArray[np.bool_]

    @classmethod
    def of(cls, sequences: Sequence[Sequence[int]]) -> Branches:
        """Build the tree of the sequences, none of which may be empty."""
        nodes: dict[tuple[int, int], int] = {}
        ids: list[int] = []
        parents: list[int] = []
        depths: list[int] = []
        ends: list[int] = []
        for sequence in sequences:
            node = -1
            for depth, number in enumerate(sequence):
                at = nodes.setdefault((node, number), len(ids))
                if at == len(ids):
                    ids.append(number)
                    parents.append(node)
                    depths.append(depth)
                node = at
            ends.append(node)
        seen = np.eye(len(ids), dtype=np.bool_)
        for node, parent in enumerate(parents):
            if parent >= 0:
                seen[node] |= seen[parent]
        return cls(ids, depths, ends, seen)

    def bias(self, prefix: int, dtype: torch.dtype, device: torch.device) -> Tensor:
        """Additive attention mask [1, 1, L, prefix + L]: each id sees the prefix and its own sequence."""
        hidden = torch.from_numpy(~self.seen).to(device)
        bias = torch.zeros(len(hidden), prefix + len(hidden), dtype=dtype, device=device)
        bias[:, prefix:].masked_fill_(hidden, torch.finfo(dtype).min)
        return bias[None, None]
