"""Runs an engine on cases and keeps one record for each, from which all scores are computed."""

from __future__ import annotations

import json
import os
import re
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from accelerate.utils import gather_object
from numpy.typing import NDArray
from tqdm import tqdm

from ..answer import ExpressionError, Segmenter, Slot
from ..asking import ask_possible
from ..engine import Engine
from ..errors import InputError, one_line, validated
from ..files import naming, parse_json
from ..loading import hardware
from ..masks import mask_box
from ..processes import processes
from ..truth import Referring
from .cases import Case
from .metrics import Scoring, overlap
from .paper import paper_slots, region_slots

Box = tuple[float, float, float, float]
#: Answers expressions about an image, uint8 [H, W, 3]: returns their slots and each stage's seconds.
Answering = Callable[[NDArray[np.uint8], Sequence[Referring]], tuple[list[Slot], dict[str, float]]]


@dataclass(frozen=True)
class SlotRecord:
    """One expression's slot.

    kept: the model's decision, by the rule of the run's protocol; False: rejected, and rejection is its
    kind (`answer.Rejection`'s value). The mask is that of the slot as [SEG], even if it was rejected, so
    that any threshold can be evaluated afterwards: intersection and union are its pixels with the truth,
    area is its own, truth_area the truth's. box_iou compares both bounding boxes. referents: number of
    objects that are meant (0: none; None: the truth is unknown, and all comparisons with it are 0).
    """

    expression: str
    category: str
    referents: int | None
    p_seg: float
    kept: bool
    predicted_iou: float
    intersection: int
    union: int
    area: int
    truth_area: int
    box_iou: float
    rejection: str = ""

    def __post_init__(self) -> None:
        """Raise ValueError for numbers that no slot has: a file that is read may be damaged."""
        most = self.truth_area + self.area - self.intersection
        # No image has more than 2**30 pixels; what exceeds 64 bits could not be computed with.
        if not 0 <= self.intersection <= self.truth_area <= self.union <= most <= 2**31:
            raise ValueError(
                f"no two masks have intersection {self.intersection}, union {self.union}, "
                f"area {self.area} and truth_area {self.truth_area}"
            )
        if not 0.0 <= self.p_seg <= 1.0:
            raise ValueError(f"p_seg is a probability, not {self.p_seg:g}")


@dataclass(frozen=True)
class CaseRecord:
    """One case: its slots, and each stage's seconds.

    image: its image's name; "": the case's own. device: what it was answered on, with its hardware unless a
    live node answered, because a run may be resumed on another; "": unknown.
    """

    id: str
    seconds: dict[str, float]
    slots: list[SlotRecord]
    image: str = ""
    device: str = ""


class Records:
    """Case records in a JSON Lines file, so that a killed run resumes where it stopped.

    The first line is `run`, which identifies the code, the model, the protocol and the data. Each process
    of a run writes its own file, PATH, PATH.1, PATH.2 and so on, and reads all of them.

    Raises:
        InputError: a file belongs to another run, or does not contain records.
    """

    def __init__(self, path: Path, run: dict[str, Any], process: int = 0) -> None:
        self.path = path if process == 0 else path.with_name(f"{path.name}.{process}")
        self.done: dict[str, CaseRecord] = {}
        head = (json.dumps(run) + "\n").encode()
        # Only these: PATH.blind.1 is the baseline's.
        own = re.compile(re.escape(path.name) + r"\.\d+")
        others = [p for p in path.parent.iterdir() if own.fullmatch(p.name)]
        for file in sorted({path, self.path, *others}):
            data = file.read_bytes() if file.exists() else b""
            # A kill may have truncated the last line.
            whole = data[: data.rfind(b"\n") + 1]
            try:
                lines = [parse_json(line) for line in whole.splitlines()]
                first = lines[0] if lines else run
                own_kind = isinstance(first, dict) and run.keys() & first.keys()
                if not own_kind or not (whole or head.startswith(data)):
                    raise ValueError("it does not begin with a run")
                read = validated(list[CaseRecord], lines[1:], str(file))
            except ValueError as error:
                raise InputError(
                    f"{file}: not records of `gsva eval`: {one_line(error)}; give another file"
                ) from error
            if first != run:
                names = [name for name in run | first if first.get(name) != run.get(name)]
                told = ", ".join(f"{n} {first.get(n)!r}, not {run.get(n)!r}" for n in names)
                raise InputError(f"{file} holds records of another run ({told}); give another file")
            if file == self.path and data != whole:
                os.truncate(file, len(whole))
            if file == self.path and not whole:
                with naming(file):
                    file.write_bytes(head)
            self.done |= {record.id: record for record in read}

    def add(self, record: CaseRecord) -> None:
        """Append a record and keep it."""
        with naming(self.path), self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(asdict(record)) + "\n")
        self.done[record.id] = record


def evaluate(
    engine: Segmenter[Any],
    cases: Iterable[Case],
    how: Scoring,
    *,
    records: Records | None = None,
    blind: bool = False,
    label: str = "cases",
    problems: list[str] | None = None,
) -> list[CaseRecord]:
    """Run every case that is not in `records` yet; return all records in the order of the cases.

    If accelerate started several processes, each runs its share, and all return everything.

    Args:
        how: protocol "deployed": each expression decided independently; "paper": see `paper.paper_slots`.
        problems: receives a line for each case that cannot be read, and each expression that cannot be
            asked, which are left out; None: raise instead.
        blind: show the engine a grey image of the same size, to measure what the words alone reveal.

    Raises:
        InputError: several cases have the same name, so their records are ambiguous; or see `problems`.
    """
    cases = list(cases)
    _check_names(cases)
    here = processes()
    mine = cases[here.process_index :: here.num_processes]
    done = dict(records.done) if records else {}
    answer, device = answering(engine, how), f"{engine.device} ({hardware(engine.device)})"
    unread: list[str] = []
    for case in tqdm(mine, desc=label, mininterval=2.0, disable=not here.is_main_process):
        if case.id in done:
            continue
        try:
            rgb, queries = case.read()
        except InputError as error:
            if problems is None:
                raise
            unread.append(f"{case.id}: {one_line(error)}")
            continue
        shown = np.full_like(rgb, 128) if blind else rgb
        try:
            if case.text:
                slots, seconds, queries = free_slots(engine, shown, case.text)
            elif problems is None:
                slots, seconds = answer(shown, queries)
            else:
                slots, seconds, queries = _askable(answer, shown, queries, case.id, unread)
        except ExpressionError as error:
            if problems is None:
                raise InputError(f"{case.id}: {one_line(error)}") from error
            unread.append(f"{case.id}: {one_line(error)}")
            continue
        recorded = [slot_record(q, s) for q, s in zip(queries, slots, strict=True)]
        done[case.id] = CaseRecord(case.id, seconds, recorded, case.image, device)
        if records:
            records.add(done[case.id])
    if problems is not None:
        problems += gather_object(unread)
    finished = gather_object([done[case.id] for case in mine if case.id in done])
    by_id = {record.id: record for record in finished}
    return [by_id[case.id] for case in cases if case.id in by_id]


def _askable(
    answer: Answering,
    rgb: NDArray[np.uint8],
    queries: Sequence[Referring],
    case: str,
    unread: list[str],
) -> tuple[list[Slot], dict[str, float], Sequence[Referring]]:
    """The slots of what can be asked, and the expressions: as in the node, each other one fails alone.

    Args:
        unread: receives a line for each expression that is left out.

    Raises:
        ExpressionError: none can be asked.
    """
    (slots, seconds), left, faults = ask_possible(partial(answer, rgb), queries)
    if faults and not left:
        raise ExpressionError(next(iter(faults.values())), faults)
    unread += [f"{case}: expression {i + 1}: {fault}" for i, fault in faults.items()]
    return slots, seconds, left


def _check_names(cases: Sequence[Case]) -> None:
    (name, count), *_ = Counter(case.id for case in cases).most_common(1) or [("", 1)]
    if count > 1:
        raise InputError(f"{count} cases are called {name!r}: give each picture once")


def answering(engine: Segmenter[Any], how: Scoring) -> Answering:
    """How an engine answers expressions about an image; see `evaluate`.

    Raises:
        InputError: it does not support the protocol.
    """
    if how.protocol == "deployed":
        return partial(deployed_slots, engine)
    if not isinstance(engine, Engine):
        raise InputError(
            f"{engine.name} does not support the protocol of GSVA's paper: use deployed"
        )
    return partial(paper_slots, engine, rules=how.rules)


def deployed_slots(
    engine: Segmenter[Any], rgb: NDArray[np.uint8], queries: Sequence[Referring]
) -> tuple[list[Slot], dict[str, float]]:
    """Each expression decided independently, as in the node, with a mask even if it is rejected."""
    if isinstance(engine, Engine) and queries and queries[0].region:
        return region_slots(engine, rgb, queries)
    frame = engine.encode(rgb)
    answer = engine.segment(frame, [q.expression for q in queries], mask_rejected=True)
    return answer.slots, answer.timings


def free_slots(
    engine: Segmenter[Any], rgb: NDArray[np.uint8], text: str
) -> tuple[list[Slot], dict[str, float], list[Referring]]:
    """The model's answer to a free-form request, and what its slots refer to."""
    answer = engine.ask(engine.encode(rgb), text)
    return answer.slots, answer.timings, [Referring(slot.expression) for slot in answer.slots]


def pixels_of(slot: Slot) -> NDArray[np.bool_]:
    """A slot's mask, bool [H, W], also if it has none."""
    mask = slot.mask  # drawn anew at each access
    return np.zeros(slot.size, bool) if mask is None else mask


def slot_record(query: Referring, slot: Slot) -> SlotRecord:
    """The record of a slot.

    Raises:
        InputError: the model could not decide it, or its numbers are not finite.
    """
    predicted_iou = slot.predicted_iou or 0.0
    if not np.isfinite([slot.p_seg, predicted_iou]).all():
        slot = Slot.faulty(query.expression, 0.0, slot.size, "answer")
    if slot.fault:
        raise InputError(slot.fault)
    mask = pixels_of(slot)
    intersection = union = truth_area = 0
    box_iou = 0.0
    if query.mask is not None:
        counted = True if query.ignore is None else ~query.ignore
        truth = query.mask & counted
        intersection, union = overlap(mask & counted, truth)
        truth_area = int(truth.sum())
        box_iou = _box_iou(slot.box, _true_box(query))
    return SlotRecord(
        query.expression,
        query.category,
        query.referents,
        slot.p_seg,
        slot.rejection is None,
        predicted_iou,
        intersection,
        union,
        int(mask.sum()),
        truth_area,
        box_iou,
        slot.rejection.value if slot.rejection else "",
    )


def _true_box(query: Referring) -> Box | None:
    """The annotated box, (x0, y0, x1, y1), or the mask's bounding box if none was annotated."""
    if query.box is None:
        return None if query.mask is None else mask_box(query.mask)
    x, y, width, height = query.box
    return (x, y, x + width, y + height)


def _box_iou(a: Box | None, b: Box | None) -> float:
    """IoU of two boxes (x0, y0, x1, y1); 0 if one is missing."""
    if a is None or b is None:
        return 0.0
    (ax0, ay0, ax1, ay1), (bx0, by0, bx1, by1) = a, b
    width, height = min(ax1, bx1) - max(ax0, bx0), min(ay1, by1) - max(ay0, by0)
    shared = max(0.0, width) * max(0.0, height)
    return shared / ((ax1 - ax0) * (ay1 - ay0) + (bx1 - bx0) * (by1 - by0) - shared)
