"""Research datasets by name: which module reads each, and by whose rules it is scored."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ...arguments import count
from ...datasets import reasonseg, refer
from ...datasets.files import DatasetError, Skip
from ...errors import InputError
from ..cases import Case, Gathered
from ..fingerprint import fingerprint

#: name -> its rules (`metrics.metric`)
DATASETS = {name: layout.rules for name, layout in refer.LAYOUTS.items()}
DATASETS[reasonseg.NAME] = reasonseg.RULES


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The data set, its split and its folder."""
    parser.add_argument("name", choices=DATASETS)
    parser.add_argument("split", help="as the data set names it: val, testA, testB, test, ...")
    parser.add_argument("--root", type=Path, required=True, help="folder with refer_seg/ in it")
    parser.add_argument("--limit", type=count, help="the first LIMIT pictures only")
    parser.add_argument("--split-by", default="", help="unc, umd, google or berkeley")
    parser.add_argument(
        "--skip", action="store_true", help="leave out what cannot be used, and count it"
    )
    parser.add_argument(
        "--count-ignored",
        action="store_true",
        help="ReasonSeg: pixels labelled to be ignored are the target's, as in GSVA's own code",
    )


@contextmanager
def gather(args: argparse.Namespace) -> Iterator[Gathered]:
    """The split's cases."""
    skip = Skip(args.skip)
    if args.count_ignored and args.name != reasonseg.NAME:
        raise InputError(f"--count-ignored is for {reasonseg.NAME}, not for {args.name}")
    cases = dataset_cases(
        args.root, args.name, args.split, skip, args.split_by, args.count_ignored
    )[: args.limit]
    data = f"{len(cases)} pictures of {args.name} {args.split}"
    if args.count_ignored:
        data += ", ignored pixels counted"
    made_of = (
        reasonseg.files(args.root, args.split)
        if args.name == reasonseg.NAME
        else refer.files(args.root, args.name, args.split_by)
    )
    yield Gathered(
        cases,
        data,
        DATASETS[args.name],
        skip.problems,
        fingerprint(made_of),
        args.skip,
    )


def dataset_cases(
    root: Path,
    name: str,
    split: str,
    skip: Skip | None = None,
    split_by: str = "",
    count_ignored: bool = False,
) -> list[Case]:
    """One case for each picture of a split.

    Raises:
        DatasetError: unknown data set or split, a missing or unreadable file.
    """
    if name not in DATASETS:
        raise DatasetError(f"no data set {name!r}; there are {', '.join(DATASETS)}")
    skip = skip or Skip(False)
    if name == reasonseg.NAME:
        pictures = reasonseg.pictures(root, split, skip, count_ignored)
    else:
        pictures = refer.pictures(root, name, split, skip, split_by)
    return [Case(picture.id, picture.read) for picture in pictures]
