"""Run an engine over cases and keep one record for each: everything that scores are made of."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from ..engine import Engine
from .cases import Case, Query
from .metrics import overlap
from .paper import MaskedSlot, paper_slots


@dataclass(frozen=True)
class SlotRecord:
    """One expression's slot.

    kept: the model's decision, by the rule of the run's protocol; False: rejected. The mask is what the
    model would draw if it took the slot for [SEG], so that any threshold can be judged afterwards:
    intersection and union are its pixels with the truth, area is its own, truth_area the truth's. box_iou
    compares the boxes around both. referents: how many things are meant (0: none).
    """

    expression: str
    category: str
    referents: int
    p_seg: float
    kept: bool
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
    """Case records in a file of JSON lines, so that a killed run goes on where it stopped.

    The first line holds `run`, which says what the records are of: the model, the protocol, the data.

    Raises:
        ValueError: the file is of another run.
    """

    def __init__(self, path: Path, run: dict[str, Any]) -> None:
        self.path = path
        self.done: dict[str, CaseRecord] = {}
        whole = path.read_bytes() if path.exists() else b""
        # A kill may have cut the last line short.
        whole = whole[: whole.rfind(b"\n") + 1]
        lines = [json.loads(line) for line in whole.splitlines()]
        if lines and lines[0] != run:
            raise ValueError(f"{path} holds records of {lines[0]}, not of {run}")
        path.write_bytes(whole or (json.dumps(run) + "\n").encode())
        for line in lines[1:]:
            self._keep(line)

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
    protocol: str = "deployed",
    blind: bool = False,
    label: str = "cases",
) -> list[CaseRecord]:
    """Run every case that `records` does not hold yet; return all in the cases' order.

    Args:
        protocol: "deployed": each expression decided by itself; "paper": see `paper.paper_slots`.
        blind: show the engine a grey picture of the same size instead: what the words alone give away.
    """
    cases = list(cases)
    done = dict(records.done) if records else {}
    answer = {"deployed": deployed_slots, "paper": paper_slots}[protocol]
    for case in tqdm(cases, desc=label, mininterval=2.0):
        if case.id not in done:
            rgb, queries = case.read()
            shown = np.full_like(rgb, 128) if blind else rgb
            slots, seconds = answer(engine, shown, queries)
            recorded = [_record(q, s) for q, s in zip(queries, slots, strict=True)]
            done[case.id] = CaseRecord(case.id, seconds, recorded)
            if records:
                records.add(done[case.id])
    return [done[case.id] for case in cases]


def deployed_slots(
    engine: Engine, rgb: NDArray[np.uint8], queries: Sequence[Query]
) -> tuple[list[MaskedSlot], dict[str, float]]:
    """Each expression decided by itself, as the node does, and a mask also where it is rejected."""
    threshold, engine.rejection_threshold = engine.rejection_threshold, 0.0
    try:
        answer = engine.segment(engine.encode(rgb), [q.expression for q in queries])
    finally:
        engine.rejection_threshold = threshold
    slots = []
    for slot in answer.slots:
        assert slot.mask is not None
        kept = slot.p_seg >= threshold
        slots.append(MaskedSlot(slot.p_seg, kept, slot.predicted_iou or 0.0, slot.mask))
    return slots, answer.timings


def _record(query: Query, slot: MaskedSlot) -> SlotRecord:
    intersection, union = overlap(slot.mask, query.truth)
    return SlotRecord(
        query.expression,
        query.category,
        query.referents,
        slot.p_seg,
        slot.kept,
        slot.predicted_iou,
        intersection,
        union,
        int(slot.mask.sum()),
        int(query.truth.sum()),
        _box_iou(slot.mask, query.truth),
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
