"""What every engine promises (`answer.Segmenter`), on tiny models. A new engine is a row of ENGINES."""

from __future__ import annotations

import json
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import pytest
from tiny import tiny_gsva, tiny_lisa
from tiny_sam3 import tiny_directory

import gsva_ros
from gsva_ros.answer import ExpressionError, Rejection, Segmenter

WORDS = ["red mug", "a can", "box"]


#: By name: saves a tiny model in a folder, and whether it has a joint prompt.
ENGINES = {
    "gsva": (tiny_gsva, True),
    "lisa": (partial(tiny_lisa, sees=True), False),
    "sam3": (tiny_directory, False),
}


class Tried(NamedTuple):
    """An engine with a frame of its own, and with the same frame from another engine of the same model."""

    engine: Segmenter[Any]
    frame: Any
    foreign: Any
    joint: bool


@pytest.fixture(scope="module", params=ENGINES)
def tried(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Tried:
    save, joint = ENGINES[request.param]
    directory = save(tmp_path_factory.mktemp(request.param))
    rgb = np.random.default_rng(0).integers(0, 256, (40, 60, 3), np.uint8)
    engine, other = (gsva_ros.load(directory, device="cpu") for _ in range(2))
    return Tried(engine, engine.encode(rgb), other.encode(rgb), joint)


def test_what_identifies_it_can_be_recorded(tried: Tried) -> None:
    engine = tried.engine
    names = (engine.name, engine.weights_hash, engine.precision, engine.prompt_template)
    assert all(names)
    numbers = {"threshold": engine.rejection_threshold, **engine.rule}
    assert json.loads(json.dumps(numbers, allow_nan=False)) == numbers


def test_a_joint_prompt_is_refused_where_there_is_none(tried: Tried) -> None:
    if tried.joint:
        assert len(tried.engine.segment(tried.frame, WORDS, joint=True).slots) == len(WORDS)
    else:
        with pytest.raises(ValueError, match="has no joint prompt"):
            tried.engine.segment(tried.frame, WORDS, joint=True)


def test_frames_of_others_are_refused(tried: Tried) -> None:
    with pytest.raises(ValueError, match="another engine"):
        tried.engine.segment(tried.foreign, WORDS)
    with pytest.raises(TypeError, match=r"frame must be from engine.encode\(rgb\), not ndarray"):
        tried.engine.segment(np.zeros((40, 60, 3), np.uint8), WORDS)


def test_expressions_are_a_list_of_words(tried: Tried) -> None:
    with pytest.raises(TypeError, match="a list of phrases"):
        tried.engine.segment(tried.frame, "mug")
    with pytest.raises(TypeError, match="an expression is a str, not int"):
        tried.engine.segment(tried.frame, ["mug", 3])
    assert tried.engine.segment(tried.frame, []).slots == []


def test_what_cannot_be_asked_is_named_by_its_index(tried: Tried) -> None:
    with pytest.raises(ExpressionError) as caught:
        tried.engine.segment(tried.frame, ["mug", " \n", "box", "x" * 5000, "\ud800"])
    assert list(caught.value.faults) == [1, 3, 4]
    assert str(caught.value) == caught.value.faults[1]


@pytest.mark.parametrize("threshold", [-0.1, 1.1, float("nan"), float("inf"), [0.5]])
def test_impossible_thresholds(tried: Tried, threshold: Any) -> None:
    with pytest.raises(ValueError, match="threshold"):
        tried.engine.segment(tried.frame, WORDS, threshold=threshold)


def test_slots_have_the_words_as_they_were_asked(tried: Tried) -> None:
    answer = tried.engine.segment(tried.frame, [" red mug\n", "a\xa0can"])
    assert [slot.expression for slot in answer.slots] == [" red mug\n", "a\xa0can"]
    assert all(slot.size == (40, 60) for slot in answer.slots)


def test_rejected_slots_are_masked_on_request(tried: Tried) -> None:
    """The same masks as where nothing is rejected, and the decisions stay what they are."""
    kept = tried.engine.segment(tried.frame, WORDS, threshold=0.0).slots
    rejected = tried.engine.segment(tried.frame, WORDS, threshold=1.0).slots
    masked = tried.engine.segment(tried.frame, WORDS, threshold=1.0, mask_rejected=True).slots
    decision = Rejection.MODEL if tried.engine.can_reject else None
    assert (
        {slot.rejection for slot in rejected} == {slot.rejection for slot in masked} == {decision}
    )
    assert any(slot.mask is not None for slot in kept)
    for before, without, after in zip(kept, rejected, masked, strict=True):
        assert before.box == after.box
        assert np.array_equal(before.mask, after.mask)
        assert without.mask is None or not tried.engine.can_reject
