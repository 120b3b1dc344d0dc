"""One request on frames, without threads: outcomes that go on, and answers that are not whole."""

from __future__ import annotations

import time
import weakref
from dataclasses import replace

import numpy as np
import pytest
from fake_engine import FakeEngine

from gsva_ros.answer import REASONS, Answer, ExpressionError, Rejection
from gsva_ros.interfaces import typestore
from gsva_ros.serving.inference import CUT, Inference
from gsva_ros.serving.requests import (
    BadImageError,
    CameraFrame,
    Code,
    Limits,
    Outcome,
    Request,
    Result,
    Source,
)

YES, NO, FAILED = Outcome.SEGMENTED, Outcome.REJECTED, Outcome.FAILED
RED, UNREADABLE = (255, 0, 0), None


def frame(pixel: tuple[int, int, int] | None, stamp: int = 1) -> CameraFrame:
    """A picture of this colour; None: one that cannot be read."""

    def decode() -> np.ndarray:
        if pixel is None:
            raise BadImageError("unreadable")
        return np.full((4, 4, 3), pixel, np.uint8)

    return CameraFrame(None, stamp, "camera", decode)


def asked(
    *expressions: str, shown: CameraFrame | None = None, engine: FakeEngine | None = None, **fields
) -> Result:
    """The answer to what is asked once, about a red picture unless another is shown."""
    request = Request("a", expressions=list(expressions), **fields)
    return Inference(engine or FakeEngine(), Limits()).answer(request, shown or frame(RED), 0.0)


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


def test_an_answer_from_before_a_clocks_jump_begins_no_run() -> None:
    """Or `since` of all that follow would be later than their frames."""
    inference = Inference(FakeEngine(), Limits())
    request = Request("a", expressions=["red"], every_frame=True)

    def jumping() -> np.ndarray:
        request.state.steadiness = {}  # as `Schedule.jumped` does
        return np.full((4, 4, 3), RED, np.uint8)

    inference.answer(request, replace(frame(RED, 103), decode=jumping), 0.0)
    (decision,) = inference.answer(request, frame(RED, 100), 0.0).decisions
    assert (decision.since, decision.answers) == (100, 1)


def test_what_is_asked_once_has_its_outcome_since_its_frame() -> None:
    """Or who subtracts `since` from the frame's stamp finds it steady for decades."""
    inference = Inference(FakeEngine(), Limits())  # one for all: an id may be used again
    for pixel, source in (
        (RED, Source.INSTRUCTION),
        (RED, Source.SERVICE),
        (UNREADABLE, Source.SERVICE),
    ):
        request = Request("a", expressions=["red", "nothing", " "], source=source)
        told = inference.answer(request, frame(pixel, 100), 0.0).decisions
        assert [(d.since, d.answers) for d in told] == [(100, 1)] * 3


def test_each_camera_has_its_own_outcomes() -> None:
    """What one of them sees neither holds the other's outcome nor ends its run."""
    inference = Inference(FakeEngine(), Limits(hysteresis=0.1))
    request = Request("a", expressions=["wavering"], every_frame=True)
    told = []
    for number in range(6):
        camera, pixel = (("left", 70), ("right", 45))[number % 2]
        seen = replace(frame((pixel, 0, 0), number), topic=camera)
        (decision,) = inference.answer(request, seen, 0.0).decisions
        told.append((decision.outcome, decision.since, decision.answers))
    assert told == [(YES, 0, 1), (NO, 1, 1), (YES, 0, 2), (NO, 1, 2), (YES, 0, 3), (NO, 1, 3)]


def test_what_has_only_failed_moves_no_threshold() -> None:
    inference = Inference(FakeEngine(), Limits(hysteresis=0.1))
    request = Request("a", expressions=["wavering"], every_frame=True)
    told = [inference.answer(request, frame(p, 1), 0.0) for p in (UNREADABLE, (52, 0, 0))]
    assert [r.decisions[0].outcome for r in told] == [FAILED, YES]


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
    result = inference.answer(Request("a", expressions=["blue"]), frame(RED), 0.0)
    assert [d.outcome for d in result.decisions] == [NO]
    assert result.threshold == 1.0


def test_a_threshold_of_0_is_not_the_models_own() -> None:
    inference = Inference(FakeEngine(), Limits(rejection_threshold=0.0))
    request = Request("a", expressions=["wavering"])
    result = inference.answer(request, frame((1, 0, 0)), 0.0)
    assert [d.outcome for d in result.decisions] == [YES]
    assert result.threshold == 0.0


@pytest.mark.parametrize(
    ("own", "hundredths", "wanted"), [(0.2, (30, 0), [YES, YES]), (0.9, (80, 100), [NO, YES])]
)
def test_a_band_wider_than_what_a_probability_can_be_ends_there(own, hundredths, wanted) -> None:
    inference = Inference(FakeEngine(), Limits(rejection_threshold=own, hysteresis=0.5))
    request = Request("a", expressions=["wavering"], every_frame=True)
    told = [inference.answer(request, frame((p, 0, 0), p), 0.0) for p in hundredths]
    assert [r.decisions[0].outcome for r in told] == wanted


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
    *found, rest = asked(text=text, engine=Cut()).decisions
    assert [(d.expression, d.outcome) for d in found] == [(name, YES) for name in named]
    assert (rest.outcome, rest.code, rest.reason) == (FAILED, Code.NO_SLOT, CUT)
    assert (rest.slot, rest.expression) == (len(named), text)


def test_each_expression_that_cannot_be_asked_fails_alone() -> None:
    """Whoever finds that out: the limits, or the model among those that are left."""
    words = ["", "red", "too long for the tokenizer", "x" * 999, "blue"]
    decisions = asked(*words).decisions
    assert [d.slot for d in decisions] == [0, 1, 2, 3, 4]
    assert [d.expression for d in decisions] == words
    assert [(d.outcome, d.code) for d in decisions] == [
        (FAILED, Code.EMPTY_INSTRUCTION),
        (YES, Code.NONE),
        (FAILED, Code.INVALID_INSTRUCTION),
        (FAILED, Code.INVALID_INSTRUCTION),
        (NO, Code.NONE),
    ]
    assert decisions[2].reason == "too many tokens"


@pytest.mark.parametrize("pixel", [RED, UNREADABLE])
def test_a_blank_expression_is_told_so_and_once_whatever_happens_to_the_frame(pixel) -> None:
    decisions = asked("", "red", shown=frame(pixel)).decisions
    other = Code.BAD_IMAGE if pixel is UNREADABLE else Code.NONE
    assert [(d.slot, d.code) for d in decisions] == [(0, Code.EMPTY_INSTRUCTION), (1, other)]


def test_what_cannot_be_asked_keeps_its_fault_if_the_others_fail() -> None:
    decisions = asked("raise", "too long for the tokenizer").decisions
    assert [(d.slot, d.code) for d in decisions] == [
        (0, Code.INTERNAL),
        (1, Code.INVALID_INSTRUCTION),
    ]


class Refusing(FakeEngine):
    """Refuses a request as a whole."""

    def segment(self, frame: np.ndarray, expressions: list[str], **options: float) -> Answer:
        raise ExpressionError("this model cannot be asked")


class Short(FakeEngine):
    """Gives an answer with a slot too few."""

    def segment(self, frame: np.ndarray, expressions: list[str], **options: float) -> Answer:
        return super().segment(frame, expressions[:1], threshold=0.5)


@pytest.mark.parametrize(
    ("engine", "code"), [(Refusing(), Code.INVALID_INSTRUCTION), (Short(), Code.INTERNAL)]
)
def test_whatever_the_model_does_each_expression_has_one_outcome(engine, code) -> None:
    decisions = asked("red", "blue", engine=engine).decisions
    assert [(d.slot, d.expression) for d in decisions] == [(0, "red"), (1, "blue")]
    assert [(d.outcome, d.code) for d in decisions] == [(FAILED, code)] * 2
    assert all(d.reason for d in decisions)


def test_a_text_is_decided_by_the_threshold_and_may_name_nothing() -> None:
    inference = Inference(FakeEngine(), Limits(rejection_threshold=0.99))
    (red,) = inference.answer(Request("a", text="find red"), frame(RED), 0.0).decisions
    assert (red.expression, red.outcome) == ("red", NO)
    (none,) = inference.answer(Request("a", text="find it"), frame(RED), 0.0).decisions
    assert (none.slot, none.expression) == (0, "find it")
    assert (none.outcome, none.code) == (FAILED, Code.NO_SLOT)
    assert none.reason == "the model's answer names nothing to segment"


def test_every_outcome_but_a_mask_has_its_reason(caplog) -> None:
    decisions = asked("blue", "unmarked", "not a number", "red").decisions
    reasons = [d.reason for d in decisions]
    assert "no referent" in reasons[0]
    assert "0.030" in reasons[0]
    assert "no pixel" in reasons[1]
    assert "0.970" in reasons[1]
    assert "not finite" in reasons[2]
    assert reasons[3] == ""
    assert (decisions[3].p_seg, decisions[3].predicted_iou) == (0.97, 0.9)
    (failed,) = asked("raise").decisions
    assert failed.code is Code.INTERNAL
    assert failed.reason == "RuntimeError: this engine was told to fail"
    assert "Traceback" in caplog.text, "where the model failed is told to whoever runs it"


@pytest.mark.parametrize("kind", Rejection)
def test_every_kind_of_rejection_can_be_told(kind: Rejection) -> None:
    """In words, and by a constant of its name in the message."""
    assert REASONS[kind]
    assert getattr(typestore().types["gsva_ros/msg/Rejection"], kind.name) > 0


@pytest.mark.parametrize(
    ("error", "reason"),
    [("CUDA out of memory.\nTried to allocate", "CUDA out of memory."), ("", "out of memory")],
)
def test_without_memory_nothing_is_kept(error: str, reason: str) -> None:
    inference = Inference(FakeEngine(), Limits())
    assert inference.answer(Request("a", expressions=["red"]), frame(RED), 0.0)
    assert inference.encoded

    def full(*_: object, **__: object) -> None:
        raise MemoryError(error)

    inference.engine.segment = full
    (failed,) = inference.answer(Request("b", expressions=["red"]), frame(RED), 0.0).decisions
    assert (failed.code, failed.reason) == (Code.OUT_OF_MEMORY, reason)
    assert not inference.encoded
    assert inference.engine.released == 1


class Encoded:
    """A frame as an engine keeps it."""

    def __init__(self, rgb: np.ndarray) -> None:
        self.rgb = rgb


class Encoding(FakeEngine):
    """Knows how many encoded frames there are while it encodes another."""

    def __init__(self) -> None:
        super().__init__()
        self.made: list[weakref.ref[Encoded]] = []
        self.beside: list[int] = []

    def encode(self, rgb: np.ndarray) -> Encoded:
        self.beside.append(sum(each() is not None for each in self.made))
        made = Encoded(super().encode(rgb))
        self.made.append(weakref.ref(made))
        return made

    def segment(self, frame: Encoded, expressions: list[str], **options: float) -> Answer:
        return super().segment(frame.rgb, expressions, **options)


def test_of_a_camera_one_encoded_frame_is_in_memory_at_a_time() -> None:
    """And everybody who asks about it gets its picture."""
    engine = Encoding()
    inference = Inference(engine, Limits())
    for shown in (frame(RED, 1), frame(RED, 2)):
        for name in "ab":
            result = inference.answer(Request(name, expressions=["red"]), shown, 0.0)
            assert [d.outcome for d in result.decisions] == [YES]
            assert (result.rgb == RED).all()
    assert engine.beside == [0, 0]


def test_a_picture_that_came_with_a_call_is_kept_no_longer_than_its_answer_takes() -> None:
    inference = Inference(FakeEngine(), Limits())
    shown = frame(RED)
    request = Request("call", expressions=["red"], source=Source.SERVICE, frame=shown)
    assert [d.outcome for d in inference.answer(request, shown, 0.0).decisions] == [YES]
    assert not inference.encoded


class Writing(FakeEngine):
    """Writes an answer, and says how long each part took it."""

    def segment(self, frame: np.ndarray, expressions: list[str], **options: float) -> Answer:
        answer = super().segment(frame, expressions, **options)
        text = f"{len(expressions)} things." if "red" in expressions else ""
        return replace(answer, text=text, timings={"decide": 2.0, "mask": 0.5})


def test_an_answer_in_halves_is_one_answer() -> None:
    """With the text of all, and the seconds that they took together."""
    engine = Writing()
    engine.most_expressions = 1
    result = asked("red", "blue", "red", engine=engine)
    assert [d.outcome for d in result.decisions] == [YES, NO, YES]
    assert result.text == "1 things. 1 things."
    assert (result.timings["decide"], result.timings["mask"]) == (6.0, 1.5)


def test_seconds_are_counted_from_when_both_frame_and_request_were_there() -> None:
    """And a frame that others asked about is encoded once, which took this request no time."""
    inference = Inference(FakeEngine(), Limits())
    shown = frame(RED)
    for received, submitted in ((10.0, 12.0), (12.0, 10.0)):
        shown.received = received
        request = Request("a", expressions=["red"], submitted=submitted)
        begun = time.monotonic()
        timings = inference.answer(request, shown, begun).timings
        assert timings["queue"] == begun - 12.0
        assert 0.0 <= timings["encode"] <= timings["total"] <= time.monotonic() - begun
    assert timings["encode"] == 0.0
    assert inference.engine.encoded == 1
