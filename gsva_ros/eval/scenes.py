"""Score a model on held-out rendered scenes: every slot decided by the model alone."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
from tqdm import tqdm

from ..engine import Engine
from ..scenes import SceneSet

Mask = npt.NDArray[np.bool_]
Answers = Callable[[int, npt.NDArray[np.uint8], list[str]], list[Mask | None]]


@dataclass
class Tally:
    """Running sums of the GRES metrics (gRefCOCO's rules) over expressions."""

    ious: list[float] = field(default_factory=list)
    present_ious: list[float] = field(default_factory=list)
    intersection: int = 0
    union: int = 0
    absent: int = 0
    absent_rejected: int = 0
    present: int = 0
    present_kept: int = 0

    def add(self, mask: Mask | None, truth: Mask) -> None:
        """One expression: mask None is a rejection, an all-False truth is a no-target expression."""
        predicted = np.zeros_like(truth) if mask is None else mask
        if truth.any():
            overlap, union = int((predicted & truth).sum()), int((predicted | truth).sum())
            self.present += 1
            self.present_kept += mask is not None
            self.ious.append(overlap / union)
            self.present_ious.append(overlap / union)
            self.intersection += overlap
        else:
            union = int(predicted.sum())
            self.absent += 1
            self.absent_rejected += mask is None
            self.ious.append(float(mask is None))
        self.union += union

    def scores(self) -> dict[str, float]:
        """gIoU, cIoU, N-acc, T-acc, mean IoU of the present, and how many of each there were."""

        def ratio(part: float, whole: float) -> float:
            return part / whole if whole else float("nan")

        return {
            "gIoU": float(np.mean(self.ious)),
            "cIoU": ratio(self.intersection, self.union),
            "N_acc": ratio(self.absent_rejected, self.absent),
            "T_acc": ratio(self.present_kept, self.present),
            "present_IoU": ratio(sum(self.present_ious), self.present),
            "absent": self.absent,
            "present": self.present,
        }


def by_engine(engine: Engine, blind: bool = False) -> Answers:
    """The model's own answers; blind: the same model shown a grey frame."""

    def answers(_: int, rgb: npt.NDArray[np.uint8], texts: list[str]) -> list[Mask | None]:
        frame = engine.encode(np.full_like(rgb, 128) if blind else rgb)
        return [None if s.rejected else s.mask for s in engine.segment(frame, texts).slots]

    return answers


def always_reject(_: int, rgb: npt.NDArray[np.uint8], texts: list[str]) -> list[Mask | None]:
    """The baseline that finds nothing, ever."""
    return [None] * len(texts)


def score(scenes: SceneSet, answers: Answers, rows: Iterable[int]) -> dict[str, dict[str, float]]:
    """Scores over all expressions of these scenes, "all" and by category of expression."""
    tallies: dict[str, Tally] = {"all": Tally()}
    for row in tqdm(list(rows), desc="scenes", mininterval=2.0):
        asked = scenes.expressions[row]
        masks = answers(row, np.ascontiguousarray(scenes.rgb[row]), [e.text for e in asked])
        truths = scenes.target_masks(np.full(len(asked), row), [e.targets for e in asked])
        for expression, mask, truth in zip(asked, masks, truths, strict=True):
            for name in ("all", expression.category):
                tallies.setdefault(name, Tally()).add(mask, truth)
    return {name: tally.scores() for name, tally in tallies.items()}
