"""gIoU, cIoU, N-acc and T-acc, by the rules of the official evaluation.

Source: `eval_gres` and `validate` of the official GSVA (solver.py at its commit 618dc79).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


class GresMetrics:
    """Generalised referring segmentation: expressions may have no target, slots may be rejected.

    The IoU of a target comes from its mask even where its slot was rejected, as the official
    evaluation does; a no-target expression counts 1 when rejected and 0 otherwise.

    Args:
        false_positives: whether masks on no-target expressions enlarge cIoU's union; gRefCOCO's
            rule is yes, Ref-ZOM's no.
    """

    def __init__(self, false_positives: bool = True) -> None:
        self.false_positives = false_positives
        self.ious: list[float] = []
        self.intersection = self.union = 0
        self.absent_rejected = self.absent = self.present_kept = self.present = 0

    def add(self, mask: NDArray[np.bool_], truth: NDArray[np.bool_], rejected: bool) -> None:
        """One expression: predicted and true mask [H, W]; an empty truth means no target."""
        union = int((mask | truth).sum())
        if not truth.any():
            self.absent += 1
            self.absent_rejected += rejected
            self.ious.append(float(rejected))
            if self.false_positives and not rejected:
                self.union += union
            return
        intersection = int((mask & truth).sum())
        self.present += 1
        self.present_kept += not rejected
        self.ious.append(intersection / (union + 1e-8))
        self.intersection += intersection
        self.union += union

    def compute(self) -> dict[str, float]:
        """gIoU, cIoU, N_acc and T_acc of what was added; NaN where nothing was."""
        return {
            "n": len(self.ious),
            "gIoU": _ratio(sum(self.ious), len(self.ious)),
            "cIoU": _ratio(self.intersection, self.union),
            "N_acc": _ratio(self.absent_rejected, self.absent),
            "T_acc": _ratio(self.present_kept, self.present),
        }


class ResMetrics:
    """Classic referring segmentation: every expression has a target, rejections do not count."""

    def __init__(self) -> None:
        self.ious: list[float] = []
        self.intersection = self.union = 0

    def add(self, mask: NDArray[np.bool_], truth: NDArray[np.bool_]) -> None:
        """One expression: predicted and true mask [H, W]. Both empty counts as IoU 1."""
        intersection, union = int((mask & truth).sum()), int((mask | truth).sum())
        self.ious.append(intersection / (union + 1e-5) if union else 1.0)
        self.intersection += intersection
        self.union += union

    def compute(self) -> dict[str, float]:
        """gIoU and cIoU of what was added; NaN where nothing was."""
        return {
            "n": len(self.ious),
            "gIoU": _ratio(sum(self.ious), len(self.ious)),
            "cIoU": _ratio(self.intersection, self.union),
        }


def _ratio(part: float, whole: float) -> float:
    return part / whole if whole else float("nan")
