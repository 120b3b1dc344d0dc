"""Calibrated rules: their optimum, their bounds, and thresholds where probabilities are equal."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from gsva_ros.eval.calibrate import TEMPERATURES, Rule, threshold_for_giou
from gsva_ros.eval.summary import Slots

PLAIN = Rule(1.0, 0.0, 0.5)


def logit(p: float) -> float:
    return float(np.log(p) - np.log1p(-p))


def sigmoid(scores: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-scores))


def slots(p_seg: Sequence[float], ious: Sequence[float | None]) -> Slots:
    """Slots with masks of these IoUs with their targets; None: there is no target."""
    there = np.array([iou is not None for iou in ious])
    pixels = np.array([round(100 * (iou or 0.0)) for iou in ious])
    hundred, none = np.full(len(ious), 100), np.zeros(len(ious))
    p = np.asarray(p_seg, float)
    kinds = np.full(len(ious), "x")
    return Slots(none, kinds, there, p, p >= 0.5, none, pixels, hundred, hundred, hundred, none)


def best_targets(present: np.ndarray) -> np.ndarray:
    """Platt's, which a fitted probability has the mean of."""
    there, gone = int(present.sum()), int((~present).sum())
    return np.where(present, (there + 1) / (there + 2), 1 / (gone + 2))


def test_a_score_that_says_nothing_becomes_the_mean_of_platts_targets() -> None:
    said = slots([0.7] * 3, [0.5, None, None])
    found = PLAIN.calibrated(said)
    p_seg = found.p_seg(PLAIN.scores(said.p_seg))
    assert p_seg == pytest.approx([(2 / 3 + 1 / 4 + 1 / 4) / 3] * 3, abs=1e-4)


@pytest.mark.parametrize(
    ("present", "absent", "temperature"),
    [(1.0, -1.0, None), (8.03, 8.0, 0), (-7.98, -8.0, 0), (-1.0, 1.0, 1)],
)
def test_temperature_and_bias_are_the_best_within_bounds(
    present: float, absent: float, temperature: int | None
) -> None:
    """Where the temperature is at its bound, the bias is the best with that one."""
    rng = np.random.default_rng(0)
    there = np.arange(300) < 200
    wide = 0.5 if temperature is None else 0.005
    scores = np.where(there, present, absent) + rng.normal(0, 1, 300) * wide
    before = Rule(1.0, 0.0, 0.0 if temperature == 1 else float(sigmoid(scores[there].min())))
    found = before.calibrated(slots(sigmoid(scores), [0.5 if t else None for t in there]))
    error = found.p_seg(scores) - best_targets(there)
    assert error.mean() == pytest.approx(0.0, abs=1e-4)
    if temperature is None:
        assert (error * scores).mean() == pytest.approx(0.0, abs=1e-4)
    else:
        assert found.temperature == pytest.approx(TEMPERATURES[temperature])


@pytest.mark.parametrize("keeps", [True, False])
def test_a_rule_that_decides_all_alike_still_does_and_only_just(keeps: bool) -> None:
    said = slots([0.3, 0.4, 0.6, 0.7], [None, 0.5, None, 0.5])
    before = Rule(1.0, 0.0, 0.0 if keeps else 1.0)
    found = before.calibrated(said)
    p_seg = found.p_seg(before.scores(said.p_seg))
    assert ((p_seg >= found.threshold) == keeps).all()
    nearest = p_seg.min() if keeps else p_seg.max()
    assert abs(logit(nearest) - logit(found.threshold)) == pytest.approx(0.5)


def test_equal_probabilities_are_kept_or_rejected_together() -> None:
    """Rejecting only the absent one of two would be best, and no threshold can."""
    said = slots([0.3, 0.5, 0.5, 0.9], [None, None, 0.4, 1.0])
    assert threshold_for_giou(said) == 0.9
    assert threshold_for_giou(slots([0.3, 0.5, 0.5, 0.9], [None, None, 1.0, 1.0])) == 0.5
