"""The household world's expressions as evaluation asks for them: in other forms, and with unknown nouns."""

from __future__ import annotations

from pathlib import Path

import household
import numpy as np
import pytest

from gsva_ros.eval.sources.scenes import FORMS, HELD_OUT_NOUNS, UNKNOWN, scene_cases
from gsva_ros.phrasing.words import plural
from gsva_ros.scenes import SceneSet


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> SceneSet:
    folder: Path = tmp_path_factory.mktemp("household") / "test"
    household.write(folder, 40)
    return SceneSet(folder, "test")


@pytest.mark.parametrize(
    ("name", "among"),
    [
        ("taught", {"not", "part", "except", "use", "ordinal", "relation", "anchor"}),
        ("held-out", {"other not", "other part", "other except", "other use", "other relation"}),
    ],
)
def test_other_forms_keep_their_truth(scenes: SceneSet, name: str, among: set[str]) -> None:
    said = set()
    for row, case in enumerate(scene_cases(scenes, FORMS[name])):
        _, asked = case.read()
        plain = scenes.expressions[row]
        assert len(asked) == len(plain), "some form fits each expression"
        truth = scenes.target_masks(np.full(len(plain), row), [e.targets for e in plain])
        for referring, expression, mask in zip(asked, plain, truth, strict=True):
            assert referring.referents == len(expression.targets)
            assert np.array_equal(referring.mask, mask)
            said.add(referring.category)
    assert among <= said <= set(FORMS[name])


def test_unknown_nouns_name_nothing(scenes: SceneSet) -> None:
    spoken = {*HELD_OUT_NOUNS, *map(plural, HELD_OUT_NOUNS)}
    count = 0
    for case in scene_cases(scenes, nouns=HELD_OUT_NOUNS):
        _, asked = case.read()
        count += len(asked)
        for referring in asked:
            assert spoken & set(referring.expression.split()), referring.expression
            assert referring.category == UNKNOWN
            assert not referring.referents
            assert not referring.mask.any()
    assert count > 10 * len(scenes)
