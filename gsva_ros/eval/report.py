"""A self-contained HTML page about a run: numbers, curves, and a gallery of images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from ..answer import Slot
from ..overlay import Target, draw, jpeg_text
from ..pages import render_page
from ..truth import Referring
from .cases import Case
from .metrics import NAMES, iou
from .run import Answering, CaseRecord, SlotRecord, pixels_of

TEMPLATE = Path(__file__).with_name("report.html")
PANEL_WIDTH = 320  # pixels
#: Maximum number of the worst slots in the gallery, and of the random ones.
EACH = 24
# Brightness of the image around a wrong mask on an absent target (the paper's figure 4).
DARKENED = 0.3


@dataclass(frozen=True)
class Pick:
    """A slot for the gallery, and why it was chosen: "worst" or "random"."""

    case: int
    slot: int
    why: str


@dataclass(frozen=True)
class Card:
    """One expression of the gallery; truth and answer: the image with either, as JPEG in base64."""

    why: str
    kind: str  # absent, single or multi
    case: str
    expression: str
    verdict: str
    p_seg: float
    iou: float | None
    truth: str
    answer: str


def kind_of(slot: SlotRecord) -> str:
    """The filter category of a slot: absent, single or multi."""
    assert slot.referents is not None, "choose leaves out slots without truth"
    return ("absent", "single")[slot.referents] if slot.referents < 2 else "multi"


def deployed_iou(slot: SlotRecord) -> float:
    """The slot's contribution to gIoU: its IoU, 0 for a wrong decision, 1 for a right rejection."""
    if slot.referents == 0:
        return float(not slot.kept)
    return float(iou(slot.intersection, slot.union)) if slot.kept else 0.0


def choose(records: Sequence[CaseRecord], threshold: float) -> list[Pick]:
    """The worst slots, most confident mistakes first and at most one per image, and other random ones."""
    slots = [
        (c, s, slot)
        for c, r in enumerate(records)
        for s, slot in enumerate(r.slots)
        if slot.referents is not None
    ]
    ranked = sorted(slots, key=lambda x: (deployed_iou(x[2]), -abs(x[2].p_seg - threshold)))
    worst: dict[str, Pick] = {}
    for case, slot, _ in ranked:
        if len(worst) == EACH:
            break
        worst.setdefault(records[case].image or records[case].id, Pick(case, slot, "worst"))
    taken = {(p.case, p.slot) for p in worst.values()}
    rest = [(c, s) for c, s, _ in slots if (c, s) not in taken]
    drawn = np.random.default_rng(0).permutation(len(rest))[:EACH]
    return [*worst.values(), *(Pick(*rest[int(i)], "random") for i in drawn)]


def gallery(
    answer: Answering,
    cases: Sequence[Case],
    records: Sequence[CaseRecord],
    picks: Sequence[Pick],
) -> list[Card]:
    """Run the picked slots' images again and draw the slots.

    Args:
        answer: the function that produced the records' answers (`run.answering`).
        cases: those of the records, and possibly others that were left out.
    """
    by_id = {case.id: case for case in cases}
    cards = []
    for pick in picks:
        rgb, queries = by_id[records[pick.case].id].read()
        asked = {slot.expression for slot in records[pick.case].slots}
        queries = [query for query in queries if query.expression in asked]  # others were left out
        record, query = records[pick.case].slots[pick.slot], queries[pick.slot]
        slot = answer(rgb, queries)[0][pick.slot]
        masked = query.referents and slot.rejection is None
        cards.append(
            Card(
                pick.why,
                kind_of(record),
                records[pick.case].id,
                query.expression,
                _verdict(query, slot),
                slot.p_seg,
                float(iou(record.intersection, record.union)) if masked else None,
                *_pictures(rgb, query, slot),
            )
        )
    return cards


def render(numbers: dict[str, Any], cards: Sequence[Card]) -> str:
    """The page, which needs no other file and no network."""
    return render_page(TEMPLATE, run=numbers, cards=cards, metrics=NAMES)


def _verdict(query: Referring, slot: Slot) -> str:
    rejected = slot.rejection is not None
    if query.referents:
        return "wrongly rejected" if rejected else "segmented"
    return "rightly rejected" if rejected else "wrongly segmented"


def _pictures(rgb: NDArray[np.uint8], query: Referring, slot: Slot) -> tuple[str, str]:
    factor = PANEL_WIDTH / rgb.shape[1]
    size = (PANEL_WIDTH, max(1, round(rgb.shape[0] * factor)))
    way = cv2.INTER_AREA if factor < 1 else cv2.INTER_LINEAR
    large = np.asarray(cv2.resize(rgb, size, interpolation=way), np.uint8)

    def scaled(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
        return cv2.resize(mask.astype(np.uint8), size, interpolation=cv2.INTER_NEAREST) > 0

    there = query.mask if query.referents else None
    found = [] if there is None else [Target(2, "ground truth", scaled(there), 1.0)]
    truth = draw(large, found)
    answer = large
    mask = scaled(pixels_of(slot)) if slot.rejection is None else None
    if mask is not None and not query.referents:
        answer = np.where(mask[..., None], large, (large * DARKENED).astype(np.uint8))
    answer = draw(answer, [Target(0, query.expression, mask, slot.p_seg)])
    return jpeg_text(truth), jpeg_text(answer)
