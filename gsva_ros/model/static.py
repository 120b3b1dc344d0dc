"""Inference with fixed shapes: recorded once as CUDA graphs and replayed, without a launch per operator.

Lengths are rounded up to a few sizes, and the padding is masked. Keys and values are written into buffers
that are never reallocated while their graphs exist, so a frame's prefix is copied into them once, when a
request switches to that frame.

A recorded call's results lie in buffers of its own, too, until the next call of the same shapes:
`Static.prefix` and `StaticContinuation` return copies, because frames and slots are kept;
`Static.decode_masks` does not, and `masking.Masker.draw` brings the masks to the frame's size at once.

On a CPU the same shapes run without graphs; tests use this to check that answers are equal.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer

from .gsva import GSVA
from .prefix import Branches, Prefix
from .reading import Reader

#: A pass reads 1 position or a multiple of this.
POSITIONS = 16
#: The KV buffers' length is a multiple of this.
STEP = 128


def bucket(count: int) -> int:
    """The smallest power of two that is at least `count`."""
    return 1 << (count - 1).bit_length()


def padded_length(positions: int) -> int:
    """The padded length for so many positions; padding is less than a fifth of a long one."""
    step = max(POSITIONS, bucket(positions) // 8)
    return -(-positions // step) * step


class Replayed:
    """A function of tensors with fixed shapes that writes only to its results and to persistent buffers."""

    def __init__(self, function: Callable[..., Any], inputs: Sequence[Tensor]) -> None:
        self._function, self._inputs = function, [x.clone() for x in inputs]
        self._graph: Any = None
        self._results: Any = None
        if inputs[0].device.type == "cuda":
            self._record()

    def _record(self) -> None:
        # Warm-up: libraries initialise at their first call, which a graph must not capture.
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            self._function(*self._inputs)
        torch.cuda.current_stream().wait_stream(stream)
        self._graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self._graph):
            self._results = self._function(*self._inputs)

    def __call__(self, *inputs: Tensor) -> Any:
        """The results, valid until the next call; on a CPU too, so that tests there catch later uses."""
        for own, given in zip(self._inputs, inputs, strict=True):
            own.copy_(given)
        if self._graph is not None:
            self._graph.replay()
            return self._results
        results = self._function(*self._inputs)
        if self._results is None:
            self._results = results
        else:
            _overwrite(self._results, results)
        return self._results


class Static:
    """Runs an engine's model with fixed shapes."""

    def __init__(self, model: GSVA, read: Reader) -> None:
        self._model, self._read = model, read
        self._replayed: dict[tuple[Any, ...], Replayed] = {}
        self._buffers: list[tuple[Tensor, Tensor]] = []
        self.length = 0  # of the KV buffers
        self._of: weakref.ref[Prefix] | None = None

    def prefix(self, x: Tensor) -> Prefix:
        """The prefix of embeddings [1, P, D]."""

        def run(x: Tensor) -> list[tuple[Tensor, Tensor]]:
            return Prefix.of(self._read, self._model.model, x).layers

        layers = self._run("prefix", run, x)
        return Prefix([(keys.clone(), values.clone()) for keys, values in layers], x.shape[1])

    def decode_masks(self, embeddings: Tensor, prompts: Tensor) -> tuple[Tensor, Tensor]:
        """`GSVA.decode_masks` of one image."""
        count = len(prompts)
        prompts = _padded(prompts, bucket(count))
        masks, iou = self._run("masks", self._model.decode_masks, embeddings, prompts)
        return masks[:count], iou[:count]

    def continuation(self, prefix: Prefix, most: int) -> StaticContinuation:
        """A reader of at most `most` positions after a prefix; there can be only one at a time."""
        # After a rejection the rest is read again, and padded from where it begins.
        length = prefix.length + most + max(most // 4, POSITIONS)
        length = -(-length // STEP) * STEP
        if length > self.length:
            # Recorded graphs refer to the old buffers.
            self._replayed = {k: v for k, v in self._replayed.items() if k[0] != "read"}
            self._buffers = [
                (_buffer(keys, length), _buffer(values, length)) for keys, values in prefix.layers
            ]
            self.length, self._of = length, None
        if self._of is None or self._of() is not prefix:
            for layer, own in zip(prefix.layers, self._buffers, strict=True):
                for given, buffer in zip(layer, own, strict=True):
                    buffer[:, :, : prefix.length] = given[:, :, : prefix.length]
            self._of = weakref.ref(prefix)
        return StaticContinuation(self, prefix.length, prefix.device)

    def read(
        self, ids: Tensor, positions: Tensor, at: Tensor, sees: Tensor, wanted: Tensor
    ) -> Tensor:
        """Hidden states of ids [T]; see `Reader`.

        Args:
            positions: int64 [T].
            at: indices [T] into the KV buffers, where keys and values are written.
            sees: bool [T, `length`], the entries of the KV buffers that each id attends to.
            wanted: indices [K] of the states to return.
        """

        def run(ids: Tensor, positions: Tensor, at: Tensor, sees: Tensor, wanted: Tensor) -> Tensor:
            cache = DynamicCache()
            cache.layers = [_Fixed(*layer, at) for layer in self._buffers]
            x = self._model.embed(ids[None])
            bias = torch.zeros(sees.shape, dtype=x.dtype, device=x.device)
            bias.masked_fill_(~sees, torch.finfo(x.dtype).min)
            return self._read(x, cache, positions, bias[None, None], wanted)

        return self._run("read", run, ids, positions, at, sees, wanted)

    def _run(self, name: str, function: Callable[..., Any], *inputs: Tensor) -> Any:
        key = (name, *(tuple(x.shape) for x in inputs))
        if key not in self._replayed:
            self._replayed[key] = Replayed(function, inputs)
        return self._replayed[key](*inputs)


class StaticContinuation:
    """`Continuation` with fixed shapes."""

    def __init__(self, static: Static, prefix: int, device: torch.device) -> None:
        self._static, self._prefix, self._device = static, prefix, device
        self._done = 0

    def branches(self, tree: Branches) -> Tensor:
        """See `Continuation`."""
        return self._read(tree.ids, tree.depths, 0, torch.from_numpy(tree.seen), tree.ends)

    def append(self, ids: Sequence[int], wanted: Sequence[int]) -> Tensor:
        """See `Continuation`."""
        count, done = len(ids), self._done
        self._done += count
        seen = torch.ones(count, done + count, dtype=torch.bool).tril(done)
        return self._read(ids, range(done, done + count), done, seen, wanted)

    def rewind(self, count: int) -> None:
        """See `Continuation`."""
        self._done = count

    def _read(
        self,
        ids: Sequence[int],
        depths: Sequence[int],
        done: int,
        seen: Tensor,
        wanted: Sequence[int],
    ) -> Tensor:
        """Read ids after `done` others; seen: [T, done + T], what each attends to after the prefix."""
        size = 1 if len(ids) == 1 else padded_length(len(ids))
        start, length = self._prefix + done, self._static.length
        sees = torch.zeros(size, length, dtype=torch.bool)
        sees[:, : self._prefix] = True  # also for padding, so that it stays finite
        sees[: len(ids), self._prefix : self._prefix + seen.shape[1]] = seen
        at = torch.arange(start, start + size)
        rows = bucket(len(wanted))
        states = self._static.read(
            self._indices(ids, size),
            self._indices([self._prefix + d for d in depths], size),
            at.to(self._device),
            sees.to(self._device),
            self._indices(wanted, rows),
        )
        return states[: len(wanted)].clone()  # slots' states are kept until their masks are decoded

    def _indices(self, numbers: Sequence[int], size: int) -> Tensor:
        return _padded(torch.tensor(numbers, dtype=torch.long), size).to(self._device)


class _Fixed(DynamicLayer):
    """One layer's KV buffers [1, heads, length, d]; new entries are written at the given indices [T]."""

    def __init__(self, keys: Tensor, values: Tensor, at: Tensor) -> None:
        super().__init__()
        self._keys, self._values, self._at = keys, values, at

    def update(
        self, key_states: Tensor, value_states: Tensor, *_: Any, **__: Any
    ) -> tuple[Tensor, Tensor]:
        """Write the new entries; returns the whole buffers."""
        self._keys.index_copy_(2, self._at, key_states)
        self._values.index_copy_(2, self._at, value_states)
        return self._keys, self._values

    def get_seq_length(self) -> int:
        """0: positions and mask are given explicitly, so nothing is derived from it."""
        return 0


def _overwrite(kept: Any, new: Any) -> None:
    """Copy `new` into `kept`: tensors, or lists and tuples of them."""
    if isinstance(kept, Tensor):
        kept.copy_(new)
        return
    for one, other in zip(kept, new, strict=True):
        _overwrite(one, other)


def _buffer(states: Tensor, count: int) -> Tensor:
    """A buffer for `count` positions of such keys or values; zeros, since masked NaNs would spread."""
    _, heads, _, width = states.shape
    return states.new_zeros(1, heads, count, width)


def _padded(x: Tensor, size: int) -> Tensor:
    """Pad x to `size` rows with copies of the first."""
    return torch.cat([x, x[:1].expand(size - len(x), *x.shape[1:])]) if len(x) < size else x
