"""Score a model on held-out rendered scenes: every slot decided by the model alone."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import numpy as np
import numpy.typing as npt
from tqdm import tqdm

from ..engine import Engine
from ..scenes import SceneSet
from .metrics import GresMetrics

Mask = npt.NDArray[np.bool_]
Answers = Callable[[int, npt.NDArray[np.uint8], list[str]], list[Mask | None]]


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
    """GRES metrics over all expressions of these scenes, "all" and by category of expression.

    Unlike the official evaluation, a slot has no mask but the one that the model gave: a target that
    it rejected scores IoU 0.
    """
    metrics: dict[str, GresMetrics] = {"all": GresMetrics()}
    for row in tqdm(list(rows), desc="scenes", mininterval=2.0):
        asked = scenes.expressions[row]
        masks = answers(row, np.ascontiguousarray(scenes.rgb[row]), [e.text for e in asked])
        truths = scenes.target_masks(np.full(len(asked), row), [e.targets for e in asked])
        for expression, mask, truth in zip(asked, masks, truths, strict=True):
            predicted = np.zeros_like(truth) if mask is None else mask
            for name in ("all", expression.category):
                group = metrics.setdefault(name, GresMetrics())
                group.add(predicted, truth, rejected=mask is None)
    return {name: group.compute() for name, group in metrics.items()}
