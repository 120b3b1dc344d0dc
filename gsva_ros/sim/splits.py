"""Which seeds train, validate and test: the one place that says so."""

from __future__ import annotations

from ..errors import InputError

SPLITS = {
    "train": range(10_000_000),
    "val": range(10_000_000, 11_000_000),
    "test": range(20_000_000, 21_000_000),
}


def split_of(seed: int) -> str:
    """The split a seed belongs to.

    Raises:
        ValueError: the seed belongs to none.
    """
    for name, seeds in SPLITS.items():
        if seed in seeds:
            return name
    raise ValueError(f"seed {seed} is in no split; the ranges are {SPLITS}")


def seeds(split: str, count: int, start: int = 0) -> range:
    """`count` seeds of a split, from its `start`-th.

    Raises:
        InputError: unknown split, or more seeds than it has.
    """
    if split not in SPLITS:
        raise InputError(f"no split {split!r}; there are {', '.join(SPLITS)}")
    chosen = SPLITS[split][start : start + count]
    if len(chosen) != count:
        raise InputError(
            f"split {split!r} has {len(SPLITS[split])} seeds, {start + count} were asked; ask for fewer"
        )
    return chosen
