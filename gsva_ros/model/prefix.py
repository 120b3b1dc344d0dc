"""Keys and values of a prompt's beginning, which questions go on from without a copy of it."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer

#: Positions behind the prefix that are kept ready; what needs more is copied into a larger place.
ROOM = 256


class Prefix:
    """Keys and values of P positions, of every layer, with room behind them.

    What goes on from it writes into that room, so one thing at a time does.
    """

    def __init__(self, cache: DynamicCache) -> None:
        """Args: cache: after the prefix was read, for one sequence."""
        self.length = cache.get_seq_length()
        self._layers = []
        for layer in cache.layers:
            assert isinstance(layer, DynamicLayer)
            assert layer.keys is not None
            assert layer.values is not None
            self._layers.append((_roomy(layer.keys), _roomy(layer.values)))

    def cache(self) -> DynamicCache:
        """A cache that begins with the prefix; it is of use until the next one is asked for."""
        cache = DynamicCache()
        cache.layers = [_Layer(keys, values, self.length) for keys, values in self._layers]
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

    def get_seq_length(self) -> int:
        """Positions that count."""
        return self.used


def _roomy(states: Tensor, least: int = 0) -> Tensor:
    """The same [1, heads, P, D], with room behind it."""
    _, heads, length, width = states.shape
    roomy = states.new_empty(1, heads, max(length, least) + ROOM, width)
    roomy[:, :, :length] = states
    return roomy


def branch_bias(
    lengths: list[int], prefix: int, dtype: torch.dtype, device: torch.device
) -> Tensor:
    """What branches behind a shared prefix see, one after another: the prefix and themselves.

    Args:
        lengths: positions of each branch, L in all.

    Returns:
        additive [1, 1, L, prefix + L].
    """
    branch = torch.repeat_interleave(torch.tensor(lengths, device=device))
    place = torch.arange(len(branch), device=device)
    allowed = (branch[:, None] == branch) & (place[:, None] >= place)
    bias = torch.zeros(len(branch), prefix + len(branch), dtype=dtype, device=device)
    bias[:, prefix:].masked_fill_(~allowed, torch.finfo(dtype).min)
    return bias[None, None]
