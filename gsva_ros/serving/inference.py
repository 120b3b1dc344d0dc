"""Runs one request on one frame through the engine and returns a result, whatever the model raises.

Where frames come from, what is asked next, and where the result goes are the worker's concern.

Each camera's last encoded frame is kept, so that further requests on it need no second encoding. If device
memory runs out, the other cameras' are freed first; then the expressions are asked in halves.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from ..answer import Answer, ExpressionError, FrameT, Segmenter, Slot
from ..asking import ask_possible
from .requests import (
    BadImageError,
    CameraFrame,
    Code,
    Decision,
    Fault,
    Key,
    Limits,
    Outcome,
    Request,
    Result,
    Source,
    Steadiness,
)
from .schedule import text_problem

log = logging.getLogger(__name__)
T = TypeVar("T")

CUT = "the model's answer reached its maximum length: anything it would have named after that is unknown"


@dataclass
class _Turn:
    """A request on a frame: each expression's slot or fault so far, by its index."""

    request: Request
    frame: CameraFrame
    faults: dict[int, Fault]
    #: As it is at the beginning: a clock that jumps meanwhile puts another in its place.
    steadiness: dict[str, dict[Key, Steadiness]]
    slots: dict[int, Slot] = field(default_factory=dict)


class Inference(Generic[FrameT]):
    """Runs requests and holds the encoded frames; for one thread at a time."""

    def __init__(self, engine: Segmenter[FrameT], limits: Limits) -> None:
        self.engine = engine
        self.limits = limits
        self.encoded: dict[str, tuple[CameraFrame, NDArray[np.uint8], FrameT]] = {}  # by topic

    def answer(self, request: Request, frame: CameraFrame, start: float) -> Result:
        """Decode and encode the frame unless that is done already, ask the engine, and return the outcomes.

        Args:
            start: when the request's turn began, monotonic seconds.
        """
        words = request.words()
        faults = {i: p for i, w in enumerate(words) if (p := text_problem(w, self.limits))}
        result = Result(request, [], frame)
        result.timings["queue"] = start - max(frame.received, request.submitted)
        turn = _Turn(request, frame, faults, request.state.steadiness)
        try:
            self._answer(turn, result)
        except Exception as error:  # whatever the model raises becomes an answer
            turn.slots.clear()
            problem = self._explain(error)
            faults.update({i: problem for i in range(len(words)) if i not in faults})
        decided = [_outcome(i, slot) for i, slot in turn.slots.items()]
        failed = [
            Decision(i, words[min(i, len(words) - 1)], Outcome.FAILED, *fault)
            for i, fault in faults.items()
        ]
        result.decisions = sorted([*decided, *failed], key=lambda d: d.slot)
        result.timings["total"] = time.monotonic() - start
        _count(turn, result.decisions)
        return result

    def _answer(self, turn: _Turn, result: Result) -> None:
        """Ask the engine; fills the result's image, text and timings, and the turn's slots or faults."""
        request = turn.request
        result.rgb = self._decode(turn.frame)
        encoded, seconds = self._encode(turn.frame, result.rgb, request.source)
        result.threshold = threshold = self.limits.threshold(self.engine.rejection_threshold)
        ask = self._segment if request.expressions else self._ask
        answers = ask(turn, encoded, threshold)
        result.text = " ".join(answer.text for answer in answers if answer.text)
        for answer in answers:
            for stage, spent in answer.timings.items():
                result.timings[stage] = result.timings.get(stage, 0.0) + float(spent)
        result.timings["encode"] = seconds
        if not turn.slots and not turn.faults:
            turn.faults[0] = (Code.NO_SLOT, "the model's answer names nothing to segment")

    def _segment(self, turn: _Turn, encoded: FrameT, threshold: float) -> list[Answer]:
        """Fill the slots of every expression that can be asked, and the faults of the others."""
        request = turn.request
        asked = [i for i in range(len(request.expressions)) if i not in turn.faults]

        def segment(asked: Sequence[int]) -> Answer:
            words = [request.expressions[i] for i in asked]
            thresholds = [self._threshold_for(turn, i, threshold) for i in asked]
            try:
                return self._freeing(
                    lambda: self.engine.segment(encoded, words, threshold=thresholds),
                    turn.frame.topic,
                )
            except ExpressionError as error:
                # Noted before the others are asked, which may fail for another reason.
                for place, reason in error.faults.items():
                    turn.faults[asked[place]] = (Code.INVALID_INSTRUCTION, reason)
                raise

        answers, _, _ = ask_possible(partial(self._within_memory, turn, segment), asked)
        return answers

    def _ask(self, turn: _Turn, encoded: FrameT, threshold: float) -> list[Answer]:
        """Fill the slots with what the model writes for a text; a fault says that it did not finish."""
        if turn.faults:  # its limit has changed since it was taken
            return []
        text = turn.request.text
        answer = self._freeing(
            lambda: self.engine.ask(encoded, text, threshold=threshold), turn.frame.topic
        )
        turn.slots.update(enumerate(answer.slots))
        if not answer.complete:
            turn.faults[len(turn.slots)] = (Code.NO_SLOT, CUT)
        return [answer]

    def _within_memory(
        self, turn: _Turn, segment: Callable[[Sequence[int]], Answer], asked: Sequence[int]
    ) -> list[Answer]:
        """The engine's answers: one, or several if all expressions at once need too much memory.

        What needs too much by itself gets a fault.
        """
        if not asked:
            return []
        try:
            answer = segment(asked)
        except MemoryError as error:
            if len(asked) == 1:
                turn.faults[asked[0]] = self._explain(error)
                return []
            log.warning("out of memory with %d expressions at once: retrying in halves", len(asked))
        else:
            turn.slots.update(zip(asked, answer.slots, strict=True))
            return [answer]
        self.engine.release()
        half = len(asked) // 2
        first = self._within_memory(turn, segment, asked[:half])
        return [*first, *self._within_memory(turn, segment, asked[half:])]

    def _freeing(self, ask: Callable[[], T], topic: str) -> T:
        """What `ask` returns; if memory runs out, once more without the frames of other cameras."""
        try:
            return ask()
        except MemoryError:
            others = [other for other in self.encoded if other != topic]
            if not others:
                raise
            log.warning("out of memory with %d other frames kept: freeing them", len(others))
        for other in others:
            del self.encoded[other]
        self.engine.release()
        return ask()

    def _threshold_for(self, turn: _Turn, index: int, threshold: float) -> float:
        """The threshold, shifted by the hysteresis so that an expression tends to keep its last outcome.

        That is the last one of the same camera.
        """
        request, band = turn.request, self.limits.hysteresis
        before = turn.steadiness.get(turn.frame.topic, {})
        last = before.get((index, request.expressions[index]))
        if last is None or last.decided is None:
            return threshold
        moved = threshold - band if last.decided is Outcome.SEGMENTED else threshold + band
        return min(1.0, max(0.0, moved))

    def _decode(self, frame: CameraFrame) -> NDArray[np.uint8]:
        """The frame's image; of its camera, no other frame is kept from then on."""
        kept = self.encoded.get(frame.topic)
        if kept is not None and kept[0] is frame:
            return kept[1]
        # Free the old frame's memory before the new one needs it.
        self.encoded.pop(frame.topic, None)
        kept = None
        frame.keep()
        return frame.decode()

    def _encode(
        self, frame: CameraFrame, rgb: NDArray[np.uint8], source: Source
    ) -> tuple[FrameT, float]:
        """The encoded frame, and the seconds spent encoding it now (0: it was kept)."""
        if (kept := self.encoded.get(frame.topic)) is not None:
            return kept[2], 0.0
        start = time.monotonic()
        encoded = self._freeing(lambda: self.engine.encode(rgb), frame.topic)
        if source is not Source.SERVICE:  # a call's own image is never asked about again
            self.encoded[frame.topic] = (frame, rgb, encoded)
        return encoded, time.monotonic() - start

    def _explain(self, error: Exception) -> Fault:
        if isinstance(error, BadImageError):
            return Code.BAD_IMAGE, str(error)
        if isinstance(error, ExpressionError):
            return Code.INVALID_INSTRUCTION, str(error)
        if isinstance(error, MemoryError):
            self.encoded.clear()
            self.engine.release()
            return Code.OUT_OF_MEMORY, str(error).partition("\n")[0] or "out of memory"
        log.error("inference failed", exc_info=error)
        return Code.INTERNAL, f"{type(error).__name__}: {error}"


def _outcome(index: int, slot: Slot) -> Decision:
    decision = Decision(index, slot.expression, Outcome.SEGMENTED, p_seg=slot.p_seg)
    if slot.fault:
        decision.outcome, decision.code = Outcome.FAILED, Code.INTERNAL
        decision.reason = slot.fault
    elif slot.rejection is not None:
        decision.outcome, decision.rejection = Outcome.REJECTED, slot.rejection
        decision.reason = slot.reason
    else:
        decision.region = slot.region
        decision.predicted_iou = float(slot.predicted_iou or 0.0)
    return decision


def _count(turn: _Turn, decisions: Sequence[Decision]) -> None:
    """Update how long each expression's outcome has been the same for a camera."""
    frame = turn.frame
    before = turn.steadiness.get(frame.topic, {})
    now = turn.steadiness[frame.topic] = {}
    for decision in decisions:
        row = now[decision.key] = Steadiness.after(
            before.get(decision.key), decision.outcome, frame.stamp
        )
        decision.since, decision.answers = row.since, row.answers
