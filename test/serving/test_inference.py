"""One request on frames, without threads: outcomes that go on, and answers that are not whole."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from fake_engine import FakeEngine

from gsva_ros.answer import Answer
from gsva_ros.serving.inference import CUT, Inference
from gsva_ros.serving.requests import BadImageError, CameraFrame, Code, Limits, Outcome, Request

YES, NO, FAILED = Outcome.SEGMENTED, Outcome.REJECTED, Outcome.FAILED
RED, UNREADABLE = (255, 0, 0), None


def frame(pixel: tuple[int, int, int] | None, stamp: int = 1) -> CameraFrame:
    """A picture of this colour; None: one that cannot be read."""

    def decode() -> np.ndarray:
        if pixel is None:
            raise BadImageError("unreadable")
        return np.full((4, 4, 3), pixel, np.uint8)

    return CameraFrame(None, stamp, "camera", decode)


@pytest.mark.parametrize(("first", "within"), [(70, YES), (30, NO)])
def test_an_unreadable_frame_does_not_move_the_threshold(first: int, within: Outcome) -> None:
    """Inside the band what was said last stays, whatever failed since."""
    inference = Inference(FakeEngine(), Limits(hysteresis=0.1))
    request = Request("a", expressions=["wavering"], every_frame=True)
    pixels = [(first, 0, 0), (52, 0, 0), UNREADABLE, UNREADABLE, (52, 0, 0)]
    told = [inference.answer(request, frame(p, n), 0.0) for n, p in enumerate(pixels)]
    assert [r.decisions[0].outcome for r in told] == [within, within, FAILED, FAILED, within]
    assert [r.decisions[0].answers for r in told] == [1, 2, 1, 2, 1]
    assert [r.decisions[0].since for r in told] == [0, 0, 2, 2, 4]


def test_what_a_text_names_is_not_steady_over_frames_that_failed() -> None:
    inference = Inference(FakeEngine(), Limits())
    request = Request("a", text="find red", every_frame=True)
    pixels = [RED, RED, UNREADABLE, RED]
    told = [inference.answer(request, frame(p, n), 0.0).decisions[0] for n, p in enumerate(pixels)]
    assert [(d.expression, d.outcome) for d in told] == [
        ("red", YES),
        ("red", YES),
        ("find red", FAILED),
        ("red", YES),
    ]
    assert [(d.since, d.answers) for d in told] == [(0, 1), (0, 2), (2, 1), (3, 1)]


def test_a_text_that_has_become_too_long_is_not_asked() -> None:
    """Its limit is a parameter that changes live."""
    limits = Limits()
    inference = Inference(FakeEngine(), limits)
    request = Request("a", text="red and blue", every_frame=True)
    assert len(inference.answer(request, frame(RED), 0.0).decisions) == 2
    limits.max_expression_length = 5
    (decision,) = inference.answer(request, frame(RED), 0.0).decisions
    assert (decision.expression, decision.code) == ("red and blue", Code.INVALID_INSTRUCTION)


def test_a_threshold_that_a_parameters_range_lets_pass_is_a_probability() -> None:
    """Ranges are checked with a tolerance of 1e-9."""
    inference = Inference(FakeEngine(), Limits(rejection_threshold=1.0 + 5e-10))
    (decision,) = inference.answer(Request("a", expressions=["blue"]), frame(RED), 0.0).decisions
    assert decision.outcome is NO


def test_the_threshold_that_is_told_is_the_one_it_was_decided_by() -> None:
    """Also where it changes while the picture is encoded; none where nothing was decided."""
    inference = Inference(FakeEngine(), Limits())
    encode = inference.engine.encode

    def changing(rgb: np.ndarray) -> np.ndarray:
        inference.limits.rejection_threshold = 0.99
        return encode(rgb)

    inference.engine.encode = changing
    result = inference.answer(Request("a", expressions=["red"]), frame(RED), 0.0)
    assert [(d.outcome, d.p_seg) for d in result.decisions] == [(NO, 0.97)]
    assert result.threshold == 0.99
    assert inference.answer(Request("b"), frame(UNREADABLE), 0.0).threshold is None


class Cut(FakeEngine):
    """Its answers run into their limit."""

    def ask(self, frame: np.ndarray, text: str, **options: float) -> Answer:
        return replace(super().ask(frame, text, **options), complete=False)


@pytest.mark.parametrize(("text", "named"), [("red and much more", ["red"]), ("much more", [])])
def test_an_answer_that_was_cut_says_so(text: str, named: list[str]) -> None:
    result = Inference(Cut(), Limits()).answer(Request("a", text=text), frame(RED), 0.0)
    *found, rest = result.decisions
    assert [(d.expression, d.outcome) for d in found] == [(name, YES) for name in named]
    assert (rest.outcome, rest.code, rest.reason) == (FAILED, Code.NO_SLOT, CUT)
    assert (rest.slot, rest.expression) == (len(named), text)
