"""Research datasets by name: which module reads each, and by whose rules it is scored."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from ..cases import Case, Gathered
from . import reasonseg, refer
from .files import DatasetError

Cases = Callable[[Path, str], list[Case]]

#: name -> its cases, and its rules (`metrics.metric`)
DATASETS: dict[str, tuple[Cases, str]] = {
    **{name: (partial(refer.cases, name=name), rules) for name, rules in refer.RULES.items()},
    reasonseg.NAME: (reasonseg.cases, reasonseg.RULES),
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The data set, its split and its folder."""
    parser.add_argument("name", choices=DATASETS)
    parser.add_argument("split", help="as the data set names it: val, testA, testB, test, ...")
    parser.add_argument("--root", type=Path, required=True, help="folder with refer_seg/ in it")
    parser.add_argument("--limit", type=int, help="the first LIMIT pictures only")


@contextmanager
def gather(args: argparse.Namespace) -> Iterator[Gathered]:
    """The split's cases."""
    cases = dataset_cases(args.root, args.name, args.split)[: args.limit]
    data = f"{len(cases)} pictures of {args.name} {args.split}"
    yield Gathered(cases, data, DATASETS[args.name][1])


def dataset_cases(root: Path, name: str, split: str) -> list[Case]:
    """One case for each picture of a split.

    Raises:
        DatasetError: unknown data set or split, a missing or unreadable file.
    """
    if name not in DATASETS:
        raise DatasetError(f"no data set {name!r}; there are {', '.join(DATASETS)}")
    return DATASETS[name][0](root, split=split)
