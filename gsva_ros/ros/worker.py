"""Instructions and frames in, answers out: one inference thread, no ROS in it.

Newest frame wins: the mailbox holds one frame a camera, and a frame that nobody asked about costs
nothing (it is decoded and encoded only for an instruction). Every instruction that `submit` takes is
answered: by the model, or with FAILED, EXPIRED or CANCELLED for each of its expressions.
"""

from __future__ import annotations

import logging
import threading
import time
import uuid
from collections import defaultdict, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Any

import numpy as np

log = logging.getLogger(__name__)


class Outcome(IntEnum):
    """How an expression ended (gsva_ros/Outcome)."""

    SEGMENTED = 0
    REJECTED = 1
    FAILED = 2
    EXPIRED = 3
    CANCELLED = 4


class Code(IntEnum):
    """Why it FAILED (gsva_ros/Outcome)."""

    NONE = 0
    EMPTY_INSTRUCTION = 1
    INVALID_INSTRUCTION = 2
    BAD_IMAGE = 3
    OUT_OF_MEMORY = 4
    INTERNAL = 5
    QUEUE_FULL = 6
    NO_SLOT = 7
    INACTIVE = 8


class BadImageError(ValueError):
    """Raised by a frame's `decode` when its message cannot be read."""


@dataclass
class Frame:
    """A camera frame as it came; decoded when an instruction needs it."""

    header: Any  # std_msgs/Header, copied into every answer
    stamp: int  # nanoseconds, from the header
    topic: str
    decode: Callable[[], np.ndarray]  # -> uint8, height x width x 3, RGB
    received: float = field(default_factory=time.monotonic)  # seconds


@dataclass
class Request:
    """One instruction. `text`, or `expressions`: one slot each."""

    id: str = ""
    text: str = ""
    expressions: Sequence[str] = ()
    every_frame: bool = False
    not_before: int = 0  # nanoseconds, compared with frame stamps
    topic: str = ""  # camera meant; "": any
    deadline: float | None = None  # monotonic seconds; cleared by the first answer
    frame: Frame | None = None  # its own picture (the service); None: the camera's newest
    done: Callable[[Result], None] | None = None  # called with the answer instead of `publish`
    problem: str = ""  # why it is invalid, where the caller knows already
    submitted: float = field(default_factory=time.monotonic)
    answered_frame: Frame | None = None  # the last one, so that no frame is answered twice
    last_start: float = float("-inf")
    cancelled: str = ""  # why, once it is

    def words(self) -> list[str]:
        """What gets an outcome each: the expressions, or the text."""
        return list(self.expressions) or [self.text]


@dataclass
class Decision:
    """The outcome of one expression."""

    slot: int
    expression: str
    outcome: Outcome
    code: Code = Code.NONE
    reason: str = ""
    p_seg: float = 0.0
    predicted_iou: float = 0.0
    mask: np.ndarray | None = None  # bool, height x width
    box: tuple[int, int, int, int] | None = None  # x0, y0, x1, y1; exclusive


@dataclass
class Result:
    """The answer to one instruction on one frame."""

    request: Request
    decisions: list[Decision]
    frame: Frame | None = None
    rgb: np.ndarray | None = None
    text: str = ""
    timings: dict[str, float] = field(default_factory=dict)  # seconds


@dataclass
class Limits:
    """What the worker accepts, and how fast it works."""

    max_expressions: int = 32
    max_expression_length: int = 256  # characters
    max_instructions: int = 1000
    max_rate: float = 0.0  # frames answered a second, for repeated instructions; 0: no limit
    default_deadline: float = 0.0  # seconds; 0: none
    max_frame_age: float = (
        0.0  # seconds by the frames' clock; an older frame is not answered; 0: any
    )


@dataclass
class Counts:
    """What happened so far."""

    received: int = 0  # frames
    dropped: int = 0  # frames replaced by a newer one before anything was asked of them
    stale: int = 0  # frames too old to be answered when their turn came
    bad_frames: int = 0
    instructions: int = 0
    answers: int = 0
    outcomes: dict[Outcome, int] = field(default_factory=lambda: dict.fromkeys(Outcome, 0))


class Worker:
    """Runs `engine` in its own thread and hands every Result to `publish` (from any thread).

    Args:
        clock: now in nanoseconds, by the clock that frames are stamped with.
    """

    def __init__(
        self,
        engine: Any,
        publish: Callable[[Result], None],
        limits: Limits | None = None,
        clock: Callable[[], int] = time.time_ns,
    ) -> None:
        self.engine = engine
        self.limits = limits or Limits()
        self.counts = Counts()
        #: The last answers' seconds by stage, newest last.
        self.timings: dict[str, deque[float]] = defaultdict(lambda: deque(maxlen=200))
        self._publish = publish
        self._clock = clock
        self._changed = threading.Condition()
        self._newest: dict[str, Frame] = {}  # by topic, the last received last
        self._unused: set[str] = set()  # topics whose newest frame nothing was asked of yet
        self._stale: Frame | None = None  # the last frame counted as such
        self._requests: dict[str, Request] = {}  # in order of arrival
        self._busy: Request | None = None
        self._encoded: dict[str, tuple[Frame, np.ndarray, Any]] = {}  # by topic
        self._stopping = False
        self._paused = ""
        self._thread = threading.Thread(target=self._run, name="gsva-inference", daemon=True)

    def start(self) -> None:
        """Start the inference thread."""
        self._thread.start()

    def stop(self, timeout: float = 10.0) -> None:
        """Finish the inference under way, answer what waits with CANCELLED, and end the thread."""
        with self._changed:
            self._stopping = True
            for request in self._requests.values():
                request.cancelled = request.cancelled or "the node is shutting down"
            self._changed.notify_all()
        if self._thread.is_alive() and threading.current_thread() is not self._thread:
            self._thread.join(timeout)

    @property
    def waiting(self) -> int:
        """Number of instructions that are not finished."""
        return len(self._requests)

    def offer(self, frame: Frame) -> None:
        """Put a camera frame into the mailbox, in the place of the one that is there."""
        with self._changed:
            self.counts.received += 1
            if frame.topic in self._unused:
                self.counts.dropped += 1
            self._newest.pop(frame.topic, None)
            self._newest[frame.topic] = frame
            self._unused.add(frame.topic)
            self._changed.notify_all()

    def forget_frames(self) -> None:
        """Empty the mailbox: time jumped, and what is in it is not of now."""
        with self._changed:
            self._newest.clear()
            self._unused.clear()

    def pause(self, reason: str) -> None:
        """Answer what waits with CANCELLED, and from now on each instruction with FAILED (INACTIVE)."""
        with self._changed:
            self._paused = reason
            self._newest.clear()
            self._unused.clear()
            waiting = list(self._requests)
        for request_id in waiting:
            self.cancel(request_id, reason)

    def resume(self) -> None:
        """Take instructions again."""
        with self._changed:
            self._paused = ""

    def submit(self, request: Request) -> None:
        """Take an instruction; one that cannot be carried out is answered at once."""
        request.id = request.id or uuid.uuid4().hex
        if request.deadline is None and self.limits.default_deadline > 0:
            request.deadline = request.submitted + self.limits.default_deadline
        self.counts.instructions += 1
        problem = self._whole_problem(request)
        if problem is None:
            problems = [self._problem(words) for words in request.words()]
            if all(problems):
                self._finish(request, Outcome.FAILED, [p for p in problems if p])
                return
        else:
            self._finish(request, Outcome.FAILED, [problem] * len(request.words()))
            return
        with self._changed:
            stopping = self._stopping
            full = len(self._requests) >= self.limits.max_instructions
            replaced = busy = None
            if not stopping:
                busy = self._busy
                replaced = self._take_out(request.id, f"replaced by a newer {request.id!r}")
            if not stopping and (not full or replaced):
                self._requests[request.id] = request
            self._changed.notify_all()
        if replaced is not None and replaced is not busy:
            self._finish(replaced, Outcome.CANCELLED, [(Code.NONE, replaced.cancelled)])
        if stopping:
            self._finish(request, Outcome.CANCELLED, [(Code.NONE, "the node is shutting down")])
        elif full and not replaced:
            reason = f"{self.limits.max_instructions} instructions are waiting already"
            self._finish(request, Outcome.FAILED, [(Code.QUEUE_FULL, reason)])

    def cancel(self, request_id: str, reason: str = "cancelled by request") -> bool:
        """End an instruction; False if there is none with this id."""
        with self._changed:
            request = self._take_out(request_id, reason)
            in_flight = request is not None and request is self._busy
        if request is None:
            return False
        if not in_flight:
            self._finish(request, Outcome.CANCELLED, [(Code.NONE, reason)])
        return True

    # Validation

    def _whole_problem(self, request: Request) -> tuple[Code, str] | None:
        if self._paused:
            return Code.INACTIVE, self._paused
        if request.problem:
            return Code.INVALID_INSTRUCTION, request.problem
        if request.text and request.expressions:
            return Code.INVALID_INSTRUCTION, "give either text or expressions, not both"
        if not request.text and not request.expressions:
            return Code.EMPTY_INSTRUCTION, "neither text nor expressions"
        if len(request.expressions) > self.limits.max_expressions:
            return (
                Code.INVALID_INSTRUCTION,
                f"{len(request.expressions)} expressions, "
                f"at most {self.limits.max_expressions} are taken",
            )
        return None

    def _problem(self, words: str) -> tuple[Code, str] | None:
        if not words.strip():
            return Code.EMPTY_INSTRUCTION, "an empty expression"
        if len(words) > self.limits.max_expression_length:
            return (
                Code.INVALID_INSTRUCTION,
                f"{len(words)} characters, at most {self.limits.max_expression_length} are taken",
            )
        return None

    # The thread

    def _run(self) -> None:
        leftover: list[Request] | None = None
        while leftover is None:
            with self._changed:
                work = None
                while work is None:
                    expired = self._due_to_expire()
                    if expired or self._stopping:
                        break
                    frame, work, pause = self._runnable()
                    if work is None:
                        self._changed.wait(pause)
                if self._stopping:
                    leftover = list(self._requests.values())
                    self._requests.clear()
            for request in expired:
                self._expire(request)
            for request in work or ():
                assert frame is not None
                self._answer(request, frame)
        for request in leftover:
            self._finish(request, Outcome.CANCELLED, [(Code.NONE, request.cancelled)])

    def _runnable(self) -> tuple[Frame | None, list[Request] | None, float | None]:
        """Return the newest frame and what to answer on it, or None and how long to wait."""
        now = time.monotonic()
        interval = 1.0 / self.limits.max_rate if self.limits.max_rate > 0 else 0.0
        wake = [r.deadline - now for r in self._requests.values() if r.deadline is not None]
        work: list[tuple[Request, Frame]] = []
        for request in self._requests.values():
            frame = request.frame or self._frame_for(request)
            if frame is None:
                continue
            rest = request.last_start + interval - now
            if request.frame is None and rest > 0:
                wake.append(rest)
                continue
            work.append((request, frame))
        if work:
            # Whoever was served last waits longest, so that no camera starves another; and one frame at
            # a time, because the next ones will have newer ones by then.
            work.sort(key=lambda pair: pair[0].last_start)
            frame = work[0][1]
            self._unused.discard(frame.topic)
            return frame, [r for r, f in work if f is frame], None
        return None, None, max(0.0, min(wake)) if wake else None

    def _frame_for(self, request: Request) -> Frame | None:
        """The newest frame that answers an instruction, if it was not answered on it already."""
        topic = request.topic or next(reversed(self._newest), "")
        frame = self._newest.get(topic)
        if frame is None or request.answered_frame is frame or frame.stamp < request.not_before:
            return None
        age = (self._clock() - frame.stamp) * 1e-9
        if 0 < self.limits.max_frame_age < age:
            if self._stale is not frame:
                self._stale = frame
                self.counts.stale += 1
            return None
        return frame

    def _due_to_expire(self) -> list[Request]:
        now = time.monotonic()
        due = [r for r in self._requests.values() if r.deadline is not None and r.deadline <= now]
        for request in due:
            del self._requests[request.id]
        return due

    def _answer(self, request: Request, frame: Frame) -> None:
        with self._changed:
            if self._requests.get(request.id) is not request:
                return  # cancelled or replaced since it was picked, and answered so
            self._busy = request
        start = time.monotonic()
        result = self._infer(request, frame, start)
        end = time.monotonic()
        with self._changed:
            self._busy = None
            late = request.deadline is not None and end > request.deadline
            request.last_start = start
            request.answered_frame = frame
            request.deadline = None
            if late or not request.every_frame:
                self._take_out(request.id, "", request)
        if request.cancelled and not self._stopping:
            self._finish(request, Outcome.CANCELLED, [(Code.NONE, request.cancelled)])
        elif late:
            self._expire(request)
        else:
            for stage, seconds in result.timings.items():
                self.timings[stage].append(seconds)
            self._emit(result)

    def _infer(self, request: Request, frame: Frame, start: float) -> Result:
        words = request.words()
        problems = [self._problem(w) for w in words]
        asked = [i for i, problem in enumerate(problems) if problem is None]
        result = Result(request, [], frame)
        result.timings["queue"] = start - max(frame.received, request.submitted)
        try:
            rgb, encoded, seconds = self._encode(frame)
            result.rgb = rgb
            if request.expressions:
                answers = self._segment(encoded, [words[i] for i in asked])
                slots = [slot for answer in answers for slot in answer.slots]
                decisions = [self._decide(i, s) for i, s in zip(asked, slots, strict=True)]
            else:
                answers = [self.engine.ask(encoded, request.text)]
                decisions = [self._decide(i, s) for i, s in enumerate(answers[0].slots)]
            result.text = " ".join(answer.text for answer in answers if answer.text)
            for answer in answers:
                for stage, spent in answer.timings.items():
                    result.timings[stage] = result.timings.get(stage, 0.0) + float(spent)
            result.timings["encode"] = seconds
        except Exception as error:  # whatever the model raises is an answer, never the end
            code, reason = self._explain(error)
            decisions = [Decision(i, words[i], Outcome.FAILED, code, reason) for i in asked]
        for i, problem in enumerate(problems):
            if problem is not None:
                decisions.append(Decision(i, words[i], Outcome.FAILED, *problem))
        if not decisions:
            reason = "the model's answer names nothing to segment"
            decisions = [Decision(0, request.text, Outcome.FAILED, Code.NO_SLOT, reason)]
        result.decisions = sorted(decisions, key=lambda d: d.slot)
        result.timings["total"] = time.monotonic() - start
        return result

    def _segment(self, encoded: Any, words: list[str]) -> list[Any]:
        """The engine's answers: one, or several where all expressions at once need too much memory."""
        try:
            return [self.engine.segment(encoded, words)]
        except Exception as error:
            if not _out_of_memory(error) or len(words) == 1:
                raise
            log.warning("out of memory with %d expressions at once: half as many", len(words))
        self.engine.release()
        half = len(words) // 2
        return [*self._segment(encoded, words[:half]), *self._segment(encoded, words[half:])]

    def _encode(self, frame: Frame) -> tuple[np.ndarray, Any, float]:
        """Return picture, encoded frame and the seconds that it took; a camera's last one is kept."""
        kept = self._encoded.get(frame.topic)
        if kept is not None and kept[0] is frame:
            return kept[1], kept[2], 0.0
        # Free the memory of the old one before the new one needs it.
        self._encoded.pop(frame.topic, None)
        kept = None
        rgb = frame.decode()
        start = time.monotonic()
        try:
            encoded = self.engine.encode(rgb)
        except Exception as error:
            if not _out_of_memory(error) or not self._encoded:
                raise
            log.warning("out of memory with %d frames kept: letting go of them", len(self._encoded))
            self._encoded.clear()
            self.engine.release()
            encoded = self.engine.encode(rgb)
        if frame.topic in self._newest:  # a camera's, and not a service call's
            self._encoded[frame.topic] = (frame, rgb, encoded)
        return rgb, encoded, time.monotonic() - start

    def _decide(self, index: int, slot: Any) -> Decision:
        p_seg = float(slot.p_seg)
        decision = Decision(
            index, slot.expression, Outcome.SEGMENTED, p_seg=p_seg, mask=slot.mask, box=slot.box
        )
        decision.predicted_iou = float(slot.predicted_iou or 0.0)
        if slot.rejected:
            decision.reason = f"the model finds no referent in the image (p([SEG]) {p_seg:.3f})"
        elif slot.mask is None or slot.box is None or not slot.mask.any():
            decision.reason = "the model says yes, but its mask has no pixel"
        else:
            return decision
        decision.outcome, decision.mask, decision.box = Outcome.REJECTED, None, None
        return decision

    def _explain(self, error: Exception) -> tuple[Code, str]:
        if isinstance(error, BadImageError):
            self.counts.bad_frames += 1
            log.warning("%s", error)
            return Code.BAD_IMAGE, str(error)
        name = type(error).__name__
        if name == "ExpressionError":
            return Code.INVALID_INSTRUCTION, str(error)
        if _out_of_memory(error):
            log.error("out of memory: %s", error)
            self._encoded.clear()
            self.engine.release()
            return Code.OUT_OF_MEMORY, str(error).partition("\n")[0] or "out of memory"
        log.exception("inference failed")
        return Code.INTERNAL, f"{name}: {error}"

    # Endings

    def _take_out(
        self, request_id: str, reason: str, only: Request | None = None
    ) -> Request | None:
        request = self._requests.get(request_id)
        if request is None or (only is not None and request is not only):
            return None
        del self._requests[request_id]
        request.cancelled = reason
        return request

    def _expire(self, request: Request) -> None:
        waited = time.monotonic() - request.submitted
        self._finish(
            request, Outcome.EXPIRED, [(Code.NONE, f"its deadline passed ({waited:.2f} s)")]
        )

    def _finish(
        self, request: Request, outcome: Outcome, problems: Sequence[tuple[Code, str]]
    ) -> None:
        """Answer without the model: the same outcome for every expression."""
        words = request.words()
        if len(problems) != len(words):
            problems = [problems[0]] * len(words)
        decisions = [
            Decision(i, w, outcome, code, reason)
            for i, (w, (code, reason)) in enumerate(zip(words, problems, strict=True))
        ]
        self._emit(Result(request, decisions))

    def _emit(self, result: Result) -> None:
        self.counts.answers += 1
        for decision in result.decisions:
            self.counts.outcomes[decision.outcome] += 1
        try:
            (result.request.done or self._publish)(result)
        except Exception:  # a publisher gone at shutdown must not end the thread
            log.exception("the answer to %r could not be handed over", result.request.id)


def _out_of_memory(error: Exception) -> bool:
    """Whether it is torch's error, or Python's; by name, for nothing here imports torch."""
    return type(error).__name__ == "OutOfMemoryError" or isinstance(error, MemoryError)
