"""Keys and values of a prompt's beginning, which questions go on from without a copy of it."""

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

#: Positions behind the prefix that are kept ready; what needs more is copied into a larger place.
ROOM = 256


class Prefix:
    """Keys and values of P positions, of every layer, with room behind them.

    What goes on from it writes into that room, so one thing at a time does.
    """

    def __init__(self, layers: list[tuple[Tensor, Tensor]], length: int) -> None:
        """Args: layers: each one's keys and values [1, heads, places, D]. length: places that count."""
        self.layers, self.length = layers, length

    @classmethod
    def of(cls, read: Callable[..., Tensor], llama: Any, x: Tensor) -> Prefix:
        """The prefix of embeddings x [1, P, D], read by a `Reader` of the LlamaModel."""
        cache = empty(llama, x)
        read(x, cache, wanted=torch.empty(0, dtype=torch.long, device=x.device))
        return cls.after(cache)

    @classmethod
    def after(cls, cache: DynamicCache) -> Prefix:
        """What a cache from `empty` holds after the prefix was read."""
        layers = [layer.room for layer in cache.layers if isinstance(layer, _Layer)]
        return cls(layers, cache.get_seq_length())

    @property
    def device(self) -> torch.device:
        """Where it is."""
        return self.layers[0][0].device

    def cache(self) -> DynamicCache:
        """A cache that begins with the prefix; it is of use until the next one is asked for."""
        cache = DynamicCache()
        cache.layers = [_Layer(keys, values, self.length) for keys, values in self.layers]
        return cache


def empty(llama: Any, x: Tensor) -> DynamicCache:
    """A cache of no positions for a LlamaModel that is going to read embeddings like x."""
    config = llama.config
    nothing = x.new_empty(1, config.num_key_value_heads, 0, llama.layers[0].self_attn.head_dim)
    cache = DynamicCache()
    cache.layers = [_Layer(nothing, nothing, 0) for _ in llama.layers]
    return cache


def rewind(cache: DynamicCache, length: int) -> None:
    """Forget what a prefix's cache holds behind so many positions."""
    for layer in cache.layers:
        assert isinstance(layer, _Layer)
        layer.used = length


class _Layer(DynamicLayer):
    """One layer's keys and values [1, heads, places, D], of which the first `used` places count."""

    def __init__(self, keys: Tensor, values: Tensor, used: int) -> None:
        super().__init__()
        self.lazy_initialization(keys, values)
        self.used, self._keys, self._values = used, keys, values

    def update(
        self, key_states: Tensor, value_states: Tensor, *_: Any, **__: Any
    ) -> tuple[Tensor, Tensor]:
        """Write behind what is used; returns all that is used then."""
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
        """Keys and values, those of places that do not count included."""
        return self._keys, self._values

    def get_seq_length(self) -> int:
        """Positions that count."""
        return self.used


def _roomy(states: Tensor, least: int = 0) -> Tensor:
    """The same [1, heads, P, D], with room behind it."""
    _, heads, length, width = states.shape
    roomy = states.new_empty(1, heads, max(length, least) + ROOM, width)
    roomy[:, :, :length] = states
    return roomy


@dataclass(frozen=True)
class Branches:
    """Sequences of ids behind a shared prefix, for one pass: what several begin with is read once.

    ids [L]. depths: each one's place behind the prefix, [L]. ends: where each sequence's last id stands.
    seen [L, L]: whether a row's sequence holds the column at or before it.
    """

    ids: list[int]
    depths: list[int]
    ends: list[int]
    seen: NDArray[np.bool_]

    @classmethod
    def of(cls, sequences: Sequence[Sequence[int]]) -> Branches:
        """A tree of the sequences, none of them empty."""
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
        """What each id sees, the prefix and its own sequence: additive [1, 1, L, prefix + L]."""
        hidden = torch.from_numpy(~self.seen).to(device)
        bias = torch.zeros(len(hidden), prefix + len(hidden), dtype=dtype, device=device)
        bias[:, prefix:].masked_fill_(hidden, torch.finfo(dtype).min)
        return bias[None, None]
