"""Run an engine over cases and keep one record for each: everything that scores are made of."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from ..engine import Engine
from .cases import Case, Query
from .metrics import overlap


@dataclass(frozen=True)
class SlotRecord:
    """One expression's slot, decided by itself.

    The mask is what the model would draw if it took the slot for [SEG], so that any threshold can be
    judged afterwards. intersection and union are its pixels with the truth; area is its own, truth_area
    the truth's. box_iou compares the boxes around both. referents: how many things are meant (0: none).
    """

    expression: str
    category: str
    referents: int
    p_seg: float
    predicted_iou: float
    intersection: int
    union: int
    area: int
    truth_area: int
    box_iou: float


@dataclass(frozen=True)
class CaseRecord:
    """One case: its slots, and the seconds that its stages took."""

    id: str
    seconds: dict[str, float]
    slots: list[SlotRecord]


class Records:
    """Case records in a file of JSON lines, so that a killed run goes on where it stopped."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.done: dict[str, CaseRecord] = {}
        if path.exists():
            whole = path.read_bytes()
            # A kill may have cut the last line short.
            whole = whole[: whole.rfind(b"\n") + 1]
            path.write_bytes(whole)
            for line in whole.splitlines():
                self._keep(json.loads(line))

    def add(self, record: CaseRecord) -> None:
        """Append a record and keep it."""
        with self.path.open("a") as file:
            file.write(json.dumps(asdict(record)) + "\n")
        self.done[record.id] = record

    def _keep(self, data: dict) -> None:
        slots = [SlotRecord(**slot) for slot in data["slots"]]
        self.done[data["id"]] = CaseRecord(data["id"], data["seconds"], slots)


def evaluate(
    engine: Engine,
    cases: Iterable[Case],
    records: Records | None = None,
    blind: bool = False,
    label: str = "cases",
) -> list[CaseRecord]:
    """Run every case that `records` does not hold yet; return all in the cases' order.

    Args:
        blind: show the engine a grey picture of the same size instead: what the words alone give away.
    """
    cases = list(cases)
    done = dict(records.done) if records else {}
    with masks_for_all(engine):
        for case in tqdm(cases, desc=label, mininterval=2.0):
            if case.id not in done:
                done[case.id] = _run(engine, case, blind)
                if records:
                    records.add(done[case.id])
    return [done[case.id] for case in cases]


@contextmanager
def masks_for_all(engine: Engine) -> Iterator[None]:
    """Reject nothing meanwhile, so that every slot has a mask."""
    threshold, engine.rejection_threshold = engine.rejection_threshold, 0.0
    try:
        yield
    finally:
        engine.rejection_threshold = threshold


def _run(engine: Engine, case: Case, blind: bool) -> CaseRecord:
    rgb, queries = case.read()
    frame = engine.encode(np.full_like(rgb, 128) if blind else rgb)
    answer = engine.segment(frame, [q.expression for q in queries])
    slots = [
        _slot(query, slot.p_seg, slot.predicted_iou or 0.0, slot.mask)
        for query, slot in zip(queries, answer.slots, strict=True)
    ]
    return CaseRecord(case.id, answer.timings, slots)


def _slot(
    query: Query, p_seg: float, predicted_iou: float, mask: NDArray[np.bool_] | None
) -> SlotRecord:
    assert mask is not None
    intersection, union = overlap(mask, query.truth)
    return SlotRecord(
        query.expression,
        query.category,
        query.referents,
        p_seg,
        predicted_iou,
        intersection,
        union,
        int(mask.sum()),
        int(query.truth.sum()),
        _box_iou(mask, query.truth),
    )


def _box_iou(mask: NDArray[np.bool_], truth: NDArray[np.bool_]) -> float:
    """IoU of the boxes around two masks; 0 where one is empty."""
    if not mask.any() or not truth.any():
        return 0.0
    boxes = [np.zeros_like(mask) for _ in range(2)]
    for box, shape in zip(boxes, (mask, truth), strict=True):
        rows, columns = np.flatnonzero(shape.any(1)), np.flatnonzero(shape.any(0))
        box[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1] = True
    intersection, union = overlap(*boxes)
    return intersection / union
