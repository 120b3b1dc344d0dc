"""The seeds of the train, validation and test splits, defined only here."""

from __future__ import annotations

from ..errors import InputError

SPLITS = {
    "train": range(10_000_000),
    "val": range(10_000_000, 11_000_000),
    "test": range(20_000_000, 21_000_000),
}


def seeds(split: str, count: int) -> range:
    """The first `count` seeds of a split.

    Raises:
        InputError: unknown split, or it has fewer seeds.
    """
    if split not in SPLITS:
        raise InputError(f"no split {split!r}; there are {', '.join(SPLITS)}")
    chosen = SPLITS[split][:count]
    if len(chosen) != count:
        raise InputError(
            f"split {split!r} has {len(SPLITS[split])} seeds, {count} were requested; request fewer"
        )
    return chosen
