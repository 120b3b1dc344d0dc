"""Draws of one among several."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

import numpy as np

T = TypeVar("T")


def pick(options: Sequence[T], rng: np.random.Generator) -> T:
    """One of the options, each as likely; itself, where `rng.choice` would make an array of them."""
    return options[int(rng.integers(len(options)))]
