"""Calibrates p_seg as a probability and chooses the rejection threshold, on slots with ground truth."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray

from ..errors import InputError, validated
from ..files import read_json, write_whole
from ..model.config import CALIBRATION_NAME, CONFIG_NAME
from .metrics import Scoring, iou
from .summary import Slots, calibration

# Two T-accs that differ by no more than this count as equal.
EQUAL_T_ACC = 0.005
TEMPERATURES = (0.1, 10.0)
# A p_seg of exactly 0 or 1 is a result of rounding.
_ROUNDED = 1e-7


def unrounded(p_seg: NDArray[np.float64]) -> NDArray[np.float64]:
    """Probabilities [N], clipped away from 0 and 1, where rounding makes different scores equal."""
    return np.clip(p_seg, _ROUNDED, 1.0 - _ROUNDED)


@dataclass(frozen=True)
class Rule:
    """How scores become decisions: p_seg is the sigmoid of score / temperature + bias.

    A score is that of [SEG] minus that of [REJ]. A slot whose p_seg is below the threshold is rejected.
    """

    temperature: float
    bias: float
    threshold: float

    def scores(self, p_seg: NDArray[np.float64]) -> NDArray[np.float64]:
        """The scores [N] that lead to these p_seg [N]."""
        p_seg = unrounded(p_seg)
        return np.asarray((np.log(p_seg) - np.log1p(-p_seg) - self.bias) * self.temperature)

    def p_seg(self, scores: NDArray[np.float64]) -> NDArray[np.float64]:
        """The p_seg [N] of scores [N]."""
        return np.asarray(1.0 / (1.0 + np.exp(-(scores / self.temperature + self.bias))))

    def calibrated(self, slots: Slots) -> Rule:
        """The rule with the same decisions whose temperature and bias minimise the cross-entropy of p_seg.

        Args:
            slots: decided with this rule.

        Raises:
            InputError: the slots are all present or all absent, or no such rule makes the same decisions.

        Source: Platt, "Probabilistic Outputs for Support Vector Machines" (1999), section 2; Guo et al.,
        "On Calibration of Modern Neural Networks" (ICML 2017), section 4.
        """
        check_both_kinds(slots)
        scores = self.scores(slots.p_seg)
        kept = slots.p_seg >= self.threshold
        after = _least_cross_entropy(scores, slots.present)
        # Midway between neighbours, so that rounding moves neither across; if there is only one, at half
        # the distance that changes the odds by a factor of e.
        lowest = float(scores[kept].min() if kept.any() else scores.max() + after.temperature)
        highest = float(scores[~kept].max() if not kept.all() else lowest - after.temperature)
        (threshold,) = after.p_seg(np.array([(highest + lowest) / 2]))
        after = replace(after, threshold=float(threshold))
        # The engine's p_seg have this precision: close to 1, they become equal.
        decided = after.p_seg(scores).astype(np.float32) >= after.threshold
        if changed := int((decided != kept).sum()):
            raise InputError(
                f"a threshold of {self.threshold:.6g} lies among probabilities that rounding makes equal: "
                f"{changed} of {len(kept)} decisions would change; choose another threshold (--t-acc)"
            )
        return after


def check_both_kinds(slots: Slots) -> None:
    """Raise InputError unless there are both present and absent targets, which calibration compares."""
    count, present = len(slots.present), int(slots.present.sum())
    if not 0 < present < count:
        raise InputError(
            f"{present} of {count} expressions have a target: calibration needs both present and absent "
            "ones; use other or more scenes"
        )


def _least_cross_entropy(scores: NDArray[np.float64], present: NDArray[np.bool_]) -> Rule:
    """The rule with the least cross-entropy among those within TEMPERATURES; its threshold is 0.

    Args:
        scores, present: [N].
    """
    said, count = torch.from_numpy(scores), int(present.sum())
    # Platt's targets: with 1 and 0, the best rule for perfectly separable scores would be infinitely steep.
    sure, unlikely = (count + 1) / (count + 2), 1 / (len(present) - count + 2)
    truth = torch.from_numpy(np.where(present, sure, unlikely))

    def fitted(start: list[float], steepness: float | None = None) -> list[float]:
        """Steepness (the inverse of the temperature) and bias; or only the bias."""
        found = torch.tensor(start, dtype=torch.float64, requires_grad=True)
        search = torch.optim.LBFGS([found], max_iter=200, line_search_fn="strong_wolfe")

        def loss() -> torch.Tensor:
            search.zero_grad()
            logits = said * (found[0] if steepness is None else steepness) + found[-1]
            entropy = F.binary_cross_entropy_with_logits(logits, truth)
            entropy.backward()
            return entropy

        search.step(loss)
        return [float(value) for value in found.detach()]

    steepness, bias = fitted([1.0, 0.0])
    bounded = min(max(steepness, 1 / TEMPERATURES[1]), 1 / TEMPERATURES[0])
    if bounded != steepness:
        # The loss is convex, so the best allowed rule lies at the bound.
        (bias,) = fitted([bias], bounded)
    return Rule(1 / bounded, bias, 0.0)


def threshold_for_t_acc(slots: Slots, wanted: float) -> float:
    """The highest threshold that keeps at least this fraction of the present targets (above 0, at most 1).

    Raises:
        InputError: `wanted` is out of range, or exceeds the fraction of present targets with a mask.
    """
    kept = np.sort(slots.judged[slots.present])
    masked = int(np.isfinite(kept).sum())
    # A slot is rejected below the threshold, so the threshold itself is kept.
    lost = int(np.floor((1.0 - wanted) * len(kept) + 1e-9))
    if not 0.0 < wanted <= 1.0 or lost < len(kept) - masked or not masked:
        raise InputError(
            f"a T-acc of {wanted:g} cannot be reached on {len(kept)} present expressions, {masked} of them "
            "with a mask"
        )
    return float(kept[lost])


def threshold_for_equal_t_acc(slots: Slots, before: float) -> float:
    """The highest threshold, hence the best N-acc, whose T-acc is within EQUAL_T_ACC of `before`'s.

    Raises:
        InputError: no target is present, or `before` keeps none.
    """
    kept = slots.judged[slots.present] >= before
    share = float(kept.mean()) if len(kept) else 0.0
    if share <= EQUAL_T_ACC:
        raise InputError(
            f"a threshold of {before:g} keeps {int(kept.sum())} of {len(kept)} present expressions: there "
            "is no T-acc to keep equal; give --t-acc"
        )
    return threshold_for_t_acc(slots, share - EQUAL_T_ACC)


def threshold_for_giou(slots: Slots) -> float:
    """The threshold with the highest gIoU: rejecting more slots would lose more than it gains."""
    order = np.argsort(slots.judged, kind="stable")
    present, p_seg = slots.present[order], slots.judged[order]
    ious = np.where(present, iou(slots.intersection, slots.union)[order], 0.0)
    # gain[k]: what rejecting the k least likely slots adds to the sum of IoUs.
    gain = np.concatenate([[0.0], np.cumsum(~present - ious)])
    # Slots with equal probability are kept or rejected together.
    ends = np.flatnonzero(p_seg[1:] > p_seg[:-1]) + 1
    candidates = np.concatenate([[0], ends, [len(p_seg)]])
    candidates = candidates[candidates >= np.isneginf(p_seg).sum()]
    best = int(candidates[gain[candidates].argmax()])
    if best == len(p_seg):
        return max(0.0, float(np.nextafter(p_seg[-1], 2.0)))
    return float(p_seg[best])


def calibration_result(slots: Slots, chosen: Rule, before: Rule) -> dict[str, Any]:
    """The figures of a rule on these slots, and of the rule that they were decided with."""

    def at(rule: Rule) -> dict[str, float]:
        own = (
            slots
            if rule is before
            else replace(slots, p_seg=rule.p_seg(before.scores(slots.p_seg)))
        )
        figures = own.figures(own.rejected_below(rule.threshold), Scoring())
        gap = calibration(own)["expected_calibration_error"]
        return asdict(rule) | figures | {"expected_calibration_error": gap}

    return {"slots": len(slots.p_seg), "chosen": at(chosen), "before": at(before)}


def read_calibration(directory: Path) -> dict[str, Any] | None:
    """How a model's threshold was chosen; None: it was not calibrated. InputError: a damaged file."""
    path = directory / CALIBRATION_NAME
    if not path.exists():
        return None
    try:
        data = read_json(path)
    except InputError as error:
        raise InputError(f"{error}; delete it, or run `gsva calibrate`") from error
    return validated(dict[str, Any], data, str(path), "delete it, or run `gsva calibrate`")


def write_rule(directory: Path, rule: Rule, how: dict[str, Any]) -> None:
    """Write the rule into the model's config.json, and how it was chosen into calibration.json."""
    config = read_json(directory / CONFIG_NAME)
    config["slot_temperature"] = rule.temperature
    config["slot_bias"] = rule.bias
    config["rejection_threshold"] = rule.threshold
    for name, data in ((CONFIG_NAME, config), (CALIBRATION_NAME, how)):
        write_whole(directory / name, (json.dumps(data, indent=2) + "\n").encode())
