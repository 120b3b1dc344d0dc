"""Make p_seg a probability, and pick the rejection threshold, on slots with known truth."""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray

from ..errors import InputError, one_line, validated
from ..model.config import CONFIG_NAME
from .metrics import metric
from .summary import Scoring, Slots, calibration

CALIBRATION_NAME = "calibration.json"
# Two T-accs that are no further apart count as equal.
EQUAL_T_ACC = 0.005
TEMPERATURES = (0.1, 10.0)
# A p_seg of 0 or 1 has been rounded.
_ROUNDED = 1e-7


@dataclass(frozen=True)
class Rule:
    """How scores become decisions: p_seg is the sigmoid of score / temperature + bias.

    A score is that of [SEG] less that of [REJ]. A slot whose p_seg is below the threshold is rejected.
    """

    temperature: float
    bias: float
    threshold: float

    def scores(self, p_seg: NDArray[np.float64]) -> NDArray[np.float64]:
        """The scores [N] that gave these p_seg [N]."""
        p_seg = np.clip(p_seg, _ROUNDED, 1.0 - _ROUNDED)
        return np.asarray((np.log(p_seg) - np.log1p(-p_seg) - self.bias) * self.temperature)

    def p_seg(self, scores: NDArray[np.float64]) -> NDArray[np.float64]:
        """The p_seg [N] of scores [N]."""
        return np.asarray(1.0 / (1.0 + np.exp(-(scores / self.temperature + self.bias))))

    def honest(self, slots: Slots) -> Rule:
        """The rule of the same decisions at the temperature and bias of the least cross-entropy of p_seg.

        Args:
            slots: decided with this rule.

        Source: Platt, "Probabilistic Outputs for Support Vector Machines" (1999), section 2; Guo et al.,
        "On Calibration of Modern Neural Networks" (ICML 2017), section 4.
        """
        scores = torch.from_numpy(self.scores(slots.p_seg))
        present = torch.from_numpy(slots.present).to(scores.dtype)
        # The temperature's logarithm: it stays positive.
        found = torch.zeros(2, dtype=scores.dtype, requires_grad=True)
        search = torch.optim.LBFGS([found], max_iter=200, line_search_fn="strong_wolfe")

        def loss() -> torch.Tensor:
            search.zero_grad()
            said = scores * (-found[0]).exp() + found[1]
            entropy = F.binary_cross_entropy_with_logits(said, present)
            entropy.backward()  # type: ignore[no-untyped-call]
            return entropy

        search.step(loss)  # type: ignore[no-untyped-call]
        log_temperature, bias = found.tolist()
        temperature = math.exp(log_temperature)
        after = Rule(float(np.clip(temperature, *TEMPERATURES)), bias, 0.0)
        (threshold,) = after.p_seg(self.scores(np.array([self.threshold])))
        # What lay on the threshold is not to fall below it by rounding.
        return replace(after, threshold=max(0.0, float(threshold) - 1e-6))


def threshold_for_t_acc(slots: Slots, wanted: float) -> float:
    """The highest threshold that keeps at least this share of the present (0 to 1).

    Raises:
        ValueError: `wanted` is out of range, or nothing is present.
    """
    kept = np.sort(slots.p_seg[slots.present])
    if not 0.0 < wanted <= 1.0 or not len(kept):
        raise ValueError(f"a T-acc of {wanted} cannot be had from {len(kept)} present expressions")
    # A slot is rejected below the threshold, so the threshold itself is kept.
    return float(kept[int(np.floor((1.0 - wanted) * len(kept) + 1e-9))])


def threshold_for_equal_t_acc(slots: Slots, before: float) -> float:
    """The highest threshold, hence the best N-acc, whose T-acc is within EQUAL_T_ACC of `before`'s.

    Raises:
        ValueError: nothing is present.
    """
    return threshold_for_t_acc(
        slots, float((slots.p_seg[slots.present] >= before).mean()) - EQUAL_T_ACC
    )


def threshold_for_giou(slots: Slots) -> float:
    """The threshold of the highest gIoU: rejecting one slot more would lose more than it gains."""
    order = np.argsort(slots.p_seg, kind="stable")
    present, p_seg = slots.present[order], slots.p_seg[order]
    iou = np.where(present, slots.intersection[order] / np.maximum(slots.union[order], 1), 0.0)
    # gain[k]: what the sum of IoUs is with the k least likely slots rejected.
    rejected = np.concatenate([[0.0], np.cumsum(~present)])
    gain = rejected + iou.sum() - np.concatenate([[0.0], np.cumsum(iou)])
    # Slots of one probability go together.
    ends = np.flatnonzero(np.diff(p_seg) > 0) + 1
    candidates = np.concatenate([[0], ends, [len(p_seg)]])
    best = int(candidates[gain[candidates].argmax()])
    if best == len(p_seg):
        return float(np.nextafter(p_seg[-1], 2.0))
    return float(p_seg[best])


def calibrated(slots: Slots, chosen: Rule, before: Rule) -> dict[str, Any]:
    """What a rule gives on these slots, beside the one that they were decided with."""

    def at(rule: Rule) -> dict[str, float]:
        own = (
            slots
            if rule is before
            else replace(slots, p_seg=rule.p_seg(before.scores(slots.p_seg)))
        )
        figures = metric()(own.terms(own.rejected_below(rule.threshold), Scoring()).sum(0))
        gap = calibration(own)["expected_calibration_error"]
        return (
            asdict(rule)
            | {k: float(v) for k, v in figures.items()}
            | {"expected_calibration_error": gap}
        )

    return {"slots": len(slots.p_seg), "chosen": at(chosen), "before": at(before)}


def read_calibration(directory: Path) -> dict[str, Any] | None:
    """How a model's threshold was found; None: it was not calibrated. InputError: a damaged file."""
    path = directory / CALIBRATION_NAME
    if not path.exists():
        return None
    try:
        data = json.loads(path.read_text())
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(
            f"{path}: cannot be read as JSON ({one_line(error)}); delete it, or run `gsva calibrate`"
        ) from error
    return validated(dict[str, Any], data, str(path), "delete it, or run `gsva calibrate`")


def write_rule(directory: Path, rule: Rule, how: dict[str, Any]) -> None:
    """Put the rule into the model's config.json, and how it was found into calibration.json."""
    path = directory / CONFIG_NAME
    config = json.loads(path.read_text())
    config["slot_temperature"] = rule.temperature
    config["slot_bias"] = rule.bias
    config["rejection_threshold"] = rule.threshold
    path.write_text(json.dumps(config, indent=2) + "\n")
    (directory / CALIBRATION_NAME).write_text(json.dumps(how, indent=2) + "\n")
