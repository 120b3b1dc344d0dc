"""Compares two runs by paired differences: the same images are resampled for both."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from ..errors import validated
from ..files import read_json
from ..scoring import Rules
from .metrics import Difference, Protocol, Scoring, metric, paired
from .run import CaseRecord
from .summary import Slots


@dataclass(frozen=True)
class Run:
    """The part of a `gsva eval … --out` file that comparison needs."""

    protocol: Protocol
    rules: Rules
    records: list[CaseRecord]

    @property
    def how(self) -> Scoring:
        """How its numbers were computed."""
        return Scoring(self.protocol, self.rules)


def read_run(path: Path) -> Run:
    """Read such a file; InputError if it is not one."""
    return validated(
        Run, read_json(path), str(path), "compare files that `gsva eval … --out` wrote"
    )


def common_cases(
    a: Sequence[CaseRecord], b: Sequence[CaseRecord]
) -> tuple[list[CaseRecord], list[CaseRecord], list[str]]:
    """The cases that both runs have, in the first one's order: a live run may have missed frames.

    Returns:
        The first run's records, the second's, and the names of cases that are left out, because the runs
        asked different expressions: one of them may be too long for one model.

    Raises:
        ValueError: the runs asked different expressions of every case.
    """
    other = {record.id: record for record in b}
    pairs = [(record, other[record.id]) for record in a if record.id in other]
    kept_a, kept_b, differing = [], [], []
    for first, second in pairs:
        if _judged(first) == _judged(second):
            image = first.image or second.image  # earlier versions wrote none
            kept_a.append(replace(first, image=image))
            kept_b.append(replace(second, image=image))
        else:
            differing.append(first.id)
    if differing and not kept_a:
        raise ValueError(f"the runs did not ask the same expressions of {differing[0]!r}")
    return kept_a, kept_b, differing


def _judged(record: CaseRecord) -> list[str]:
    """The expressions that are scored: what a model wrote to a free-form request has no truth."""
    return [slot.expression for slot in record.slots if slot.referents is not None]


def paired_differences(a: Slots, b: Slots, how: Scoring) -> dict[str, Difference]:
    """`metrics.paired` of the decisions of two runs.

    Raises:
        ValueError: the runs asked different expressions, or have no case in common.
    """
    if not len(a.case):
        raise ValueError("the runs are not of the same cases: none is in both")
    first, second = (np.stack([run.case, run.present, run.truth_area]) for run in (a, b))
    if not np.array_equal(first, second):
        raise ValueError("the runs are not of the same cases and expressions")
    return paired(a.terms(~a.kept, how), b.terms(~b.kept, how), a.case, metric(how.rules))
