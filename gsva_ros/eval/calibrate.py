"""Pick the rejection threshold on slots with known truth."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import InputError, one_line, validated
from ..model.config import CONFIG_NAME
from .metrics import metric
from .summary import Scoring, Slots

CALIBRATION_NAME = "calibration.json"
# Two T-accs that are no further apart count as equal.
EQUAL_T_ACC = 0.005


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


def calibrated(slots: Slots, threshold: float, before: float) -> dict[str, Any]:
    """What the threshold gives on these slots, beside the one before."""

    def at(value: float) -> dict[str, float]:
        figures = metric()(slots.terms(slots.rejected_below(value), Scoring()).sum(0))
        return {"threshold": value} | {k: float(v) for k, v in figures.items()}

    return {"slots": len(slots.p_seg), "chosen": at(threshold), "before": at(before)}


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


def write_threshold(directory: Path, threshold: float, how: dict[str, Any]) -> None:
    """Put the threshold into the model's config.json, and how it was found into calibration.json."""
    path = directory / CONFIG_NAME
    config = json.loads(path.read_text())
    config["rejection_threshold"] = threshold
    path.write_text(json.dumps(config, indent=2) + "\n")
    (directory / CALIBRATION_NAME).write_text(json.dumps(how, indent=2) + "\n")
