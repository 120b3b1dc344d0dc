"""Scores on rendered scenes: what a perfect, a silent and a careless model get."""

from __future__ import annotations

import numpy as np
import pytest

from gsva_ros.eval.scenes import always_reject, score
from gsva_ros.scenes import SceneSet
from gsva_ros.sim.dataset import write_dataset


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> SceneSet:
    folder = tmp_path_factory.mktemp("scenes") / "test"
    write_dataset(folder, "test", 6, workers=1)
    return SceneSet(folder, "test")


def truths(scenes: SceneSet, row: int) -> np.ndarray:
    asked = scenes.expressions[row]
    return scenes.target_masks(np.full(len(asked), row), [e.targets for e in asked])


def test_the_truth_scores_one(scenes: SceneSet) -> None:
    def perfect(row: int, rgb: np.ndarray, texts: list[str]) -> list[np.ndarray | None]:
        assert texts == [e.text for e in scenes.expressions[row]]
        return [mask if mask.any() else None for mask in truths(scenes, row)]

    for scores in score(scenes, perfect, range(len(scenes))).values():
        figures = [scores[k] for k in ("gIoU", "cIoU", "N_acc", "T_acc") if scores[k] == scores[k]]
        assert figures == pytest.approx([1.0] * len(figures))


def test_always_rejecting_scores_the_share_of_absent_things(scenes: SceneSet) -> None:
    scores = score(scenes, always_reject, range(len(scenes)))["all"]
    share = np.mean([not e.targets for asked in scenes.expressions for e in asked])
    assert scores["gIoU"] == pytest.approx(share)
    assert (scores["N_acc"], scores["T_acc"], scores["cIoU"]) == (1.0, 0.0, 0.0)
    assert 0.4 < share < 0.6


def test_marking_everything_earns_no_rejection(scenes: SceneSet) -> None:
    def careless(row: int, rgb: np.ndarray, texts: list[str]) -> list[np.ndarray | None]:
        return [np.ones(rgb.shape[:2], bool) for _ in texts]

    scores = score(scenes, careless, range(len(scenes)))["all"]
    assert (scores["N_acc"], scores["T_acc"]) == (0.0, 1.0)
    area = np.concatenate([truths(scenes, r).mean((1, 2)) for r in range(len(scenes))])
    assert scores["gIoU"] == pytest.approx(area.mean(), abs=1e-6)
    assert scores["cIoU"] == pytest.approx(area.sum() / len(area), rel=1e-5)
