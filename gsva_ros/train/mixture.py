"""The order of samples: a function of the seed and the sample's number, so that a run can be resumed."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from torch.utils.data import Dataset

from .batches import Batch, Batcher
from .sources.sample import Sample, Source


class Mixture(Dataset[Batch]):
    """Batches 0, 1, 2 …, drawn from the sources in proportion to their rates."""

    def __init__(
        self,
        sources: Sequence[tuple[Source, float]],
        batcher: Batcher,
        size: int,
        seed: int,
    ) -> None:
        self.sources = [source for source, _ in sources]
        rates = np.array([rate for _, rate in sources])
        rates /= rates.max()  # the sum of the largest floats would be infinite
        self._shares = rates / rates.sum()
        self._batcher, self._size, self._seed = batcher, size, seed

    def __getitem__(self, number: int) -> Batch:
        """Batch `number`."""
        first = number * self._size
        rngs = [np.random.default_rng([self._seed, first + k]) for k in range(self._size)]
        return self._batcher([(self._draw(rng), rng) for rng in rngs])

    def _draw(self, rng: np.random.Generator) -> Sample:
        return self.sources[int(rng.choice(len(self.sources), p=self._shares))].draw(rng)
