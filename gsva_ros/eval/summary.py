"""Numbers computed from records: scores with intervals, rejection curve, calibration, latency."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .metrics import Scoring, bootstrap, metric, terms
from .run import CaseRecord

CURVE_POINTS = 101
CALIBRATION_BINS = 10
PERCENTILES = (50, 90, 99)


@dataclass(frozen=True)
class Slots:
    """All slots of a run as arrays [N]; `case` is the image's number."""

    case: NDArray[np.int64]
    category: NDArray[np.str_]
    present: NDArray[np.bool_]
    p_seg: NDArray[np.float64]
    kept: NDArray[np.bool_]
    predicted_iou: NDArray[np.float64]
    intersection: NDArray[np.int64]
    union: NDArray[np.int64]
    area: NDArray[np.int64]
    truth_area: NDArray[np.int64]
    box_iou: NDArray[np.float64]

    @classmethod
    def of(cls, records: Sequence[CaseRecord]) -> Slots:
        """Flatten records; slots with unknown truth are left out."""
        images: dict[str, int] = {}
        rows = [
            (images.setdefault(record.image or record.id, len(images)), slot)
            for record in records
            for slot in record.slots
            if slot.referents is not None
        ]
        slots = [slot for _, slot in rows]
        return cls(
            np.array([number for number, _ in rows], np.int64),
            np.array([s.category for s in slots], np.str_),
            np.array([bool(s.referents) for s in slots], bool),
            np.array([s.p_seg for s in slots], np.float64),
            np.array([s.kept for s in slots], bool),
            np.array([s.predicted_iou for s in slots], np.float64),
            np.array([s.intersection for s in slots], np.int64),
            np.array([s.union for s in slots], np.int64),
            np.array([s.area for s in slots], np.int64),
            np.array([s.truth_area for s in slots], np.int64),
            np.array([s.box_iou for s in slots], np.float64),
        )

    @property
    def judged(self) -> NDArray[np.float64]:
        """The value that is compared with a threshold [N]: p_seg, or -inf if the mask is empty."""
        return np.where(self.area > 0, self.p_seg, -np.inf)

    def rejected_below(self, threshold: float) -> NDArray[np.bool_]:
        """What the engine's rule rejects at another threshold [N]: p_seg below it, or an empty mask."""
        return self.judged < threshold

    def terms(self, rejected: NDArray[np.bool_], how: Scoring) -> NDArray[np.float64]:
        """`metrics.terms` of these decisions [N]."""
        return terms(self.intersection, self.union, self.truth_area, self.present, rejected, how)

    def figures(self, rejected: NDArray[np.bool_], how: Scoring) -> dict[str, float]:
        """Each metric of these decisions [N]; NaN where nothing was counted."""
        sums = self.terms(rejected, how).sum(0)
        return {name: float(value) for name, value in metric(how.rules)(sums).items()}


def scores(slots: Slots, rejected: NDArray[np.bool_], how: Scoring) -> dict[str, Any]:
    """Metrics with 95 % intervals, for all slots ("all") and by category.

    A category that is itself called "all" is reported as "all (category)".
    """
    table, compute = slots.terms(rejected, how), metric(how.rules)
    groups = {"all": np.ones(len(table), bool)}
    for name in np.unique(slots.category):
        groups[f"{name} (category)" if name in groups else str(name)] = slots.category == name
    result: dict[str, Any] = {}
    for name, chosen in groups.items():
        values = compute(table[chosen].sum(0))
        intervals = bootstrap(table[chosen], slots.case[chosen], compute)
        found = chosen & slots.present
        right = found & ~how.unmasked(rejected) & (slots.box_iou >= 0.5)
        result[name] = {
            "n": int(chosen.sum()),
            "present": int(found.sum()),
            **_plain(values),
            "box_precision_0.5": float(right.sum() / found.sum()) if found.any() else None,
            "interval": {
                k: list(_plain(dict(enumerate(v))).values()) for k, v in intervals.items()
            },
        }
    return result


def _plain(values: Mapping[Any, Any]) -> dict[Any, float | None]:
    """Floats, with None for NaN (nothing was counted), which JSON does not have."""
    return {k: None if np.isnan(v) else float(v) for k, v in values.items()}


def rejection_curve(slots: Slots, how: Scoring) -> list[dict[str, float | None]]:
    """gIoU, N_acc and T_acc at each of a range of rejection thresholds."""
    thresholds = np.unique(np.quantile(slots.p_seg, np.linspace(0, 1, CURVE_POINTS)))
    return [
        {"threshold": float(t), **_plain(slots.figures(slots.rejected_below(float(t)), how))}
        for t in thresholds
    ]


def calibration(slots: Slots) -> dict[str, Any]:
    """The fraction of present targets by p_seg: bins, and the mean gap.

    Source: expected calibration error over equal-width bins (Guo et al., ICML 2017).
    """
    bins, gap = [], 0.0
    place = np.minimum((slots.p_seg * CALIBRATION_BINS).astype(int), CALIBRATION_BINS - 1)
    for number in range(CALIBRATION_BINS):
        inside = place == number
        if inside.any():
            said, true = slots.p_seg[inside].mean(), slots.present[inside].mean()
            gap += inside.mean() * abs(said - true)
            bins.append({"p_seg": float(said), "present": float(true), "n": int(inside.sum())})
    return {"bins": bins, "expected_calibration_error": float(gap)}


def latency(records: Sequence[CaseRecord]) -> dict[str, dict[str, float]]:
    """Percentiles of each stage's milliseconds, and of their sum."""
    stages = {name for record in records for name in record.seconds}
    table = {s: [1e3 * r.seconds.get(s, 0.0) for r in records] for s in sorted(stages)}
    table["total"] = [1e3 * sum(r.seconds.values()) for r in records]
    return {
        name: {f"p{p}": float(np.percentile(values, p)) for p in PERCENTILES}
        for name, values in table.items()
    }


def summary(
    records: Sequence[CaseRecord], blind: Sequence[CaseRecord], threshold: float, how: Scoring
) -> dict[str, Any]:
    """All numbers of one run, ready for JSON, with two baselines.

    "always [REJ]" rejects everything; "blind" is the same model shown a grey image, if it was run.
    """
    slots, unseen = Slots.of(records), Slots.of(blind)
    # A model that rejects everything has no mask under any protocol.
    silent = scores(slots, np.ones(len(slots.kept), bool), replace(how, protocol="deployed"))
    return {
        **asdict(how),
        "cases": len(records),
        "unscored": sum(len(r.slots) for r in records) - len(slots.kept),
        "rejection_threshold": threshold,
        "rejections": dict(Counter(s.rejection for r in records for s in r.slots if s.rejection)),
        "scores": scores(slots, ~slots.kept, how),
        "baselines": {"always [REJ]": silent["all"]}
        | ({"blind": scores(unseen, ~unseen.kept, how)["all"]} if blind else {}),
        "rejection_curve": rejection_curve(slots, how),
        "calibration": calibration(slots),
        "latency_ms": latency(records),
    }
