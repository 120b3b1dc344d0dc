"""`gsva eval compare`: two runs on the same cases."""

from __future__ import annotations

import argparse
import math
import sys
from pathlib import Path
from typing import Any

from ...errors import InputError


def add(commands: Any) -> None:
    compare = commands.add_parser(
        "compare", help="compare two runs on the same cases, with paired differences"
    )
    compare.add_argument("a", type=Path, help="JSON file written by `gsva eval … --out`")
    compare.add_argument("b", type=Path, help="JSON file of the other run")
    compare.set_defaults(run=_compare)


def _compare(args: argparse.Namespace) -> int:
    from ..compare import common_cases, paired_differences, read_run
    from ..summary import Slots

    runs = [read_run(path) for path in (args.a, args.b)]
    how, other = (run.how for run in runs)
    if how != other:
        raise InputError(f"{args.a} is {how}, {args.b} {other}: compare runs of one kind")
    try:
        a, b, differing = common_cases(runs[0].records, runs[1].records)
        slots = Slots.of(a), Slots.of(b)
        if a and not len(slots[0].case):
            raise ValueError("nothing that both answered has known truth, by which to compare them")
        table = paired_differences(*slots, how)
    except ValueError as error:
        raise InputError(f"{args.a}, {args.b}: {error}") from error
    counts = [len(run.records) for run in runs]
    print(f"{len(a) + len(differing)} cases in both; a has {counts[0]}, b has {counts[1]}")
    if differing:
        print(
            f"{len(differing)} left out, of which other expressions were asked: {differing[0]} ...",
            file=sys.stderr,
        )
    print(f"{'':8}{'a':>8}{'b':>8}{'b - a':>9}  95 % CI of the difference")
    for name, row in table.items():
        print(f"{name:8}{row.a:8.3f}{row.b:8.3f}{row.value:+9.3f}  {_interval(*row.interval)}")
    return 0


def _interval(low: float, high: float) -> str:
    return "-" if math.isnan(low) else f"[{low:+.3f}, {high:+.3f}]"
