"""Research data sets by name: the module that reads each, and the rules that score it."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from ...arguments import count
from ...datasets import reasonseg, refer
from ...datasets.files import Picture, Skip
from ...errors import InputError
from ...scoring import Rules
from ..cases import Case, Gathered
from ..fingerprint import fingerprint


@dataclass(frozen=True)
class Chosen:
    """A split of a data set, and how it is read: the options of `gsva eval dataset`."""

    root: Path
    split: str
    skip: Skip
    split_by: str = ""
    count_ignored: bool = False


@dataclass(frozen=True)
class Dataset:
    """How a data set is read and scored.

    Attributes:
        rules: the scoring rules (`metrics.metric`).
        pictures: returns the chosen images, each with its expressions.
        files: returns the files that their truth is read from.
    """

    rules: Rules
    pictures: Callable[[Chosen], Sequence[Picture]]
    files: Callable[[Chosen], Sequence[Path]]


def _refer(name: str) -> Dataset:
    return Dataset(
        refer.LAYOUTS[name].rules,
        lambda c: refer.pictures(c.root, name, c.split, c.skip, c.split_by),
        lambda c: refer.files(c.root, name, c.split_by),
    )


#: The data sets by name. A new one is a module in `datasets` and a row here.
DATASETS = {name: _refer(name) for name in refer.LAYOUTS}
DATASETS[reasonseg.NAME] = Dataset(
    reasonseg.RULES,
    lambda c: reasonseg.pictures(c.root, c.split, c.skip, c.count_ignored),
    lambda c: reasonseg.files(c.root, c.split),
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the data set, its split and its folder."""
    parser.add_argument("name", choices=DATASETS)
    parser.add_argument(
        "split", help="split as named in the data set: val, testA, testB, test, ..."
    )
    parser.add_argument(
        "--root",
        type=Path,
        required=True,
        help="folder that contains refer_seg/ or, for ReasonSeg, reason_seg/",
    )
    parser.add_argument("--limit", type=count, help="only the first LIMIT images")
    parser.add_argument(
        "--split-by", default="", help="refer data sets: unc, umd, google or berkeley"
    )
    parser.add_argument(
        "--skip", action="store_true", help="leave out data that cannot be used, and count it"
    )
    parser.add_argument(
        "--count-ignored",
        action="store_true",
        help="ReasonSeg: count pixels labelled as ignored as part of the target, as in GSVA's own code",
    )


@contextmanager
def gather(args: argparse.Namespace) -> Iterator[Gathered]:
    """The split's cases."""
    skip = Skip(args.skip)
    if args.count_ignored and args.name != reasonseg.NAME:
        raise InputError(f"--count-ignored is for {reasonseg.NAME}, not for {args.name}")
    if args.split_by and args.name not in refer.LAYOUTS:
        raise InputError(f"--split-by is for the refer data sets, not for {args.name}")
    chosen = Chosen(args.root, args.split, skip, args.split_by, args.count_ignored)
    dataset = DATASETS[args.name]
    pictures = dataset.pictures(chosen)[: args.limit]
    data = f"{len(pictures)} pictures of {args.name} {args.split}"
    if args.count_ignored:
        data += ", ignored pixels counted"
    images = [picture.file for picture in pictures if picture.file.is_file()]
    made_of = fingerprint([*dataset.files(chosen), *images])
    cases = [Case(picture.id, picture.read) for picture in pictures]
    yield Gathered(cases, data, dataset.rules, skip.problems, made_of, args.skip)
