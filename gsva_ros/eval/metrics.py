"""gIoU, cIoU, N-acc and T-acc by the rules of the official evaluation, as sums that can be resampled.

Every expression becomes one row of terms; a metric is a ratio of their sums. The same few lines therefore
compute a score, its bootstrap interval (sums over resampled images) and a curve over thresholds.

Source: `eval_gres` and `validate` of the official GSVA (solver.py at its commit 618dc79).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from ..scoring import MetricName, Rules

Bools = NDArray[np.bool_]
Ints = NDArray[np.int64]
Floats = NDArray[np.float64]
Metric = Callable[[Floats], dict[str, Floats]]
Protocol = Literal["deployed", "paper"]

#: The metrics that are shown, in this order.
NAMES: tuple[MetricName, ...] = get_args(MetricName)
#: The available scoring rules, by data set.
RULES = get_args(Rules)


@dataclass(frozen=True)
class Scoring:
    """How numbers are computed.

    protocol: "deployed" (a rejected target scores IoU 0: there is no mask) or "paper" (its mask still
    counts, as in the official evaluation). rules: see `metric`.
    """

    protocol: Protocol = "deployed"
    rules: Rules = "grefcoco"

    def unmasked(self, rejected: Bools) -> Bools:
        """The rejected slots that count as having no mask [N]."""
        return rejected & (self.protocol == "deployed")


def overlap(mask: Bools, truth: Bools) -> tuple[int, int]:
    """Pixels of the intersection and of the union of two masks [H, W]."""
    return int((mask & truth).sum()), int((mask | truth).sum())


def iou(intersection: Ints | int, union: Ints | int) -> Floats:
    """IoU of masks from pixels of their intersection and union [...]; 0 for two empty masks."""
    # The official evaluation adds 1e-8 to the union instead, which shows in no digit but breaks ties.
    return np.asarray(intersection / np.maximum(union, 1), np.float64)


def gres_terms(
    intersection: Ints, union: Ints, present: Bools, rejected: Bools, false_positives: bool = True
) -> Floats:
    """Terms [N, 8] of generalised referring segmentation: some expressions have no target.

    A no-target expression counts as IoU 1 if rejected and 0 otherwise. The IoU of a target is that of the
    given mask, even if its slot was rejected: the official evaluation takes it from a second pass; for a
    rejected target to score 0, pass an intersection of 0.

    Args:
        intersection, union: pixels, of the predicted and the true mask [N].
        present: the truth has a target [N]. rejected: the slot was rejected [N].
        false_positives: whether masks on no-target expressions enlarge cIoU's union; gRefCOCO's
            rule is yes, Ref-ZOM's no.
    """
    absent = ~present
    counted = present | (absent & ~rejected & false_positives)
    columns = (
        np.ones(len(present)),
        np.where(present, iou(intersection, union), rejected),
        np.where(present, intersection, 0),
        np.where(counted, union, 0),
        absent,
        absent & rejected,
        present,
        present & ~rejected,
    )
    return np.stack([np.asarray(c, np.float64) for c in columns], 1)


def gres(sums: Floats) -> dict[str, Floats]:
    """gIoU, cIoU, N_acc and T_acc of summed `gres_terms` [..., 8]; NaN if nothing was counted."""
    n, ious, intersection, union, absent, absent_rejected, present, present_kept = np.moveaxis(
        sums, -1, 0
    )
    return {
        "gIoU": _ratio(ious, n),
        "cIoU": _ratio(intersection, union),
        "N_acc": _ratio(absent_rejected, absent),
        "T_acc": _ratio(present_kept, present),
    }


def res_terms(intersection: Ints, union: Ints) -> Floats:
    """Terms [N, 4] of classic referring segmentation: every expression has a target.

    Rejections do not count; two empty masks count as IoU 1.
    """
    # The official constant, which a small mask's IoU shows.
    ious = np.where(union > 0, intersection / (union + 1e-5), 1.0)
    return np.stack([np.ones(len(union)), ious, intersection, union], 1).astype(np.float64)


def res(sums: Floats) -> dict[str, Floats]:
    """gIoU and cIoU of summed `res_terms` [..., 4]."""
    n, ious, intersection, union = np.moveaxis(sums, -1, 0)
    return {"gIoU": _ratio(ious, n), "cIoU": _ratio(intersection, union)}


def terms(
    intersection: Ints,
    union: Ints,
    truth_area: Ints,
    present: Bools,
    rejected: Bools,
    how: Scoring,
) -> Floats:
    """Terms [N, 12] of `gres_terms` and `res_terms` together, for `metric(how.rules)`.

    Args:
        truth_area: pixels of the true mask [N]. The others: see `gres_terms`.
    """
    gone = how.unmasked(rejected)
    intersection, union = np.where(gone, 0, intersection), np.where(gone, truth_area, union)
    generalised = gres_terms(intersection, union, present, rejected, how.rules != "refzom")
    return np.concatenate([generalised, res_terms(intersection, union)], 1)


def metric(rules: Rules = "grefcoco") -> Metric:
    """The metric of a data set's published numbers: "grefcoco", "refzom" (both GRES) or "refcoco" (RES)."""
    if rules not in RULES:
        raise ValueError(f'rules are "grefcoco", "refzom" or "refcoco", not {rules!r}')

    def compute(sums: Floats) -> dict[str, Floats]:
        values = gres(sums[..., :8])
        return values | res(sums[..., 8:]) if rules == "refcoco" else values

    return compute


def bootstrap(
    terms: Floats, groups: Ints, metric: Metric, draws: int = 1000
) -> dict[str, tuple[float, float]]:
    """95 % percentile intervals, resampling whole groups: expressions of one image are not independent.

    NaN where nothing was counted, and from one group, which says nothing about others.

    Args:
        terms: [N, K] from one of the functions above, N at least 1. groups: each row's image, any
            integers [N].
    """
    _, place = np.unique(groups, return_inverse=True)
    count = int(place.max()) + 1
    sums = np.zeros((count, terms.shape[1]))
    np.add.at(sums, place, terms)
    rng = np.random.default_rng(0)
    resampled = metric(rng.multinomial(count, np.full(count, 1 / count), size=draws) @ sums)
    return {
        name: (float(np.nanpercentile(v, 2.5)), float(np.nanpercentile(v, 97.5)))
        if count > 1 and np.isfinite(v).any()
        else (float("nan"), float("nan"))
        for name, v in resampled.items()
    }


@dataclass(frozen=True)
class Difference:
    """A metric of two runs, a and b, with the 95 % interval of b minus a."""

    a: float
    b: float
    interval: tuple[float, float]

    @property
    def value(self) -> float:
        """b minus a."""
        return self.b - self.a


def paired(terms_a: Floats, terms_b: Floats, groups: Ints, metric: Metric) -> dict[str, Difference]:
    """Each metric of two runs on the same expressions; the same groups are resampled for both.

    Args:
        terms_a, terms_b: [N, K] from one of the functions above. groups: see `bootstrap`.
    """
    width = terms_a.shape[1]

    def difference(sums: Floats) -> dict[str, Floats]:
        first, second = metric(sums[..., :width]), metric(sums[..., width:])
        return {name: second[name] - first[name] for name in first}

    intervals = bootstrap(np.concatenate([terms_a, terms_b], 1), groups, difference)
    of_a, of_b = metric(terms_a.sum(0)), metric(terms_b.sum(0))
    return {
        name: Difference(float(of_a[name]), float(of_b[name]), interval)
        for name, interval in intervals.items()
    }


def _ratio(part: Floats, whole: Floats) -> Floats:
    part, whole = np.asarray(part, np.float64), np.asarray(whole, np.float64)
    return np.divide(part, whole, out=np.full_like(part, np.nan), where=whole > 0)
