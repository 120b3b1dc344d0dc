"""Random choices."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

import numpy as np

T = TypeVar("T")


def pick(options: Sequence[T], rng: np.random.Generator) -> T:
    """One of the options, all equally likely; unlike `rng.choice`, it does not convert them to an array."""
    return options[int(rng.integers(len(options)))]
