"""The inference thread around a Schedule: it waits for turns, runs them, and delivers results.

One condition guards the schedule and its counts; it is never held while the engine runs or a result is
delivered, so callbacks may call back into the worker.
"""

from __future__ import annotations

import copy
import logging
import threading
import time
from collections import defaultdict, deque
from collections.abc import Callable, Iterator, Sequence
from typing import Generic

from ..answer import FrameT, Segmenter
from .carrying import Carrier
from .inference import Inference
from .requests import CameraFrame, Code, Counts, Decision, Limits, Outcome, Request, Result
from .schedule import Ending, Schedule, Turn

log = logging.getLogger(__name__)

#: Of the seconds between two looks at a turn (`Worker.problem`, its end), how many count as work.
UNWATCHED = 2.0


class Worker(Generic[FrameT]):
    """Runs `engine` in its own thread and passes every Result to `publish` (from any thread).

    Every submitted request is answered: by the model, or with FAILED, EXPIRED or CANCELLED for each of its
    expressions.

    Args:
        clock: returns the current time in nanoseconds, on the clock that stamps the frames.
        timer: the same on the clock that deadlines are measured on; it may begin anywhere. None: `clock`.
        ids: the ids of tracked instances; None: from 1 on.
    """

    def __init__(
        self,
        engine: Segmenter[FrameT],
        publish: Callable[[Result], None],
        limits: Limits | None = None,
        clock: Callable[[], int] = time.time_ns,
        timer: Callable[[], int] | None = None,
        ids: Iterator[int] | None = None,
    ) -> None:
        self.limits = limits or Limits()
        #: Seconds of the last answers by stage, newest last.
        self.timings: dict[str, deque[float]] = defaultdict(lambda: deque(maxlen=200))
        self._publish = publish
        self._clock, self._timer = clock, timer or clock
        self._inference: Inference[FrameT] | None = Inference(engine, self.limits)
        self._changed = threading.Condition()
        self._schedule = Schedule(self.limits)
        self._carrier = Carrier(self._deliver, self.limits, clock, ids)
        self._turn_began: float | None = None  # monotonic seconds, while the engine is working
        self._watched = time.monotonic()  # the last call of `_worked`
        self._unread: dict[str, CameraFrame] = {}  # by topic, the last one counted as unreadable
        self._thread = threading.Thread(target=self._run, name="gsva-inference", daemon=True)

    def start(self) -> None:
        """Start the threads."""
        self._thread.start()
        self._carrier.start()

    def stop(self, timeout: float = 10.0) -> None:
        """Finish the inference in progress, answer waiting requests with CANCELLED, and end the threads.

        An inference that takes longer than `timeout` seconds is abandoned; its request is FAILED.
        """
        with self._changed:
            endings = self._schedule.stop()
            self._changed.notify_all()
        self._hand_over(endings)
        self._carrier.stop()
        if self._thread.is_alive() and threading.current_thread() is not self._thread:
            self._thread.join(timeout)
            if self._thread.is_alive():
                self.abandon(f"the model did not answer within {timeout:g} s of shutdown")

    def abandon(self, reason: str) -> None:
        """Answer everything with FAILED, because the inference thread does not return."""
        with self._changed:
            endings = self._schedule.abandon(reason)
        self._hand_over(endings)

    def problem(self) -> str:
        """Why the inference thread cannot answer ("": it can): dead, or stuck in one inference.

        Call this about once a second.
        """
        if self._thread.ident is not None and not self._thread.is_alive():
            return "" if self._schedule.stopping else "the inference thread has ended"
        limit = self.limits.inference_timeout
        with self._changed:
            spent = self._worked()
        if 0 < limit < spent:
            return f"the inference thread is stuck: one inference has taken more than {limit:g} s"
        return ""

    @property
    def waiting(self) -> int:
        """Number of unfinished requests."""
        with self._changed:
            return self._schedule.waiting

    @property
    def busy(self) -> bool:
        """Whether the engine is working."""
        return self._turn_began is not None

    @property
    def counts(self) -> Counts:
        """A copy of the counts so far."""
        with self._changed:
            counts = copy.deepcopy(self._schedule.counts)
        counts.carried = self._carrier.carried
        return counts

    def starved(self) -> dict[str, float]:
        """Seconds that requests have waited for a suitable frame, by image topic ("": any camera)."""
        with self._changed:
            return self._schedule.starved(time.monotonic(), self._clock())

    def expire(self) -> None:
        """Answer requests past their deadline, also while the engine is working on another one."""
        with self._changed:
            endings = self._schedule.expire(self._timer())
        self._hand_over(endings)

    def offer(self, frame: CameraFrame) -> None:
        """Put a camera frame into the mailbox, replacing the previous one."""
        self._carrier.offer(frame)  # first, so that no answer is on a frame that it has not seen
        with self._changed:
            self._schedule.offer(frame)
            self._changed.notify_all()

    def jumping(self) -> None:
        """The clocks are about to jump: no deadline passes until `jumped` gives the amount."""
        with self._changed:
            self._schedule.jumping = True

    def jumped(self, delta: int) -> None:
        """`clock` jumped, and `timer` by `delta` nanoseconds; see `Schedule.jumped`."""
        with self._changed:
            self._schedule.jumped(delta)
        self._carrier.forget_frames()

    def pause(self, reason: str) -> None:
        """Answer waiting requests with CANCELLED, and every later one with FAILED (INACTIVE)."""
        with self._changed:
            endings = self._schedule.pause(reason)
        self._hand_over(endings)
        self._carrier.forget_frames()

    def resume(self) -> None:
        """Accept requests again."""
        with self._changed:
            self._schedule.resume()

    def submit(self, request: Request) -> None:
        """Accept a request; one that cannot be executed is answered at once."""
        # Deliver the end of the replaced request first: once submitted, the new one may be answered.
        with self._changed:
            endings = self._schedule.displace(request)
        self._hand_over(endings)
        with self._changed:
            endings = self._schedule.submit(request, self._timer())
            self._changed.notify_all()
        self._hand_over(endings)

    def cancel(self, request_id: str, reason: str = "cancelled by request") -> bool:
        """End a request; False if there is none with this id."""
        with self._changed:
            found, endings = self._schedule.cancel(request_id, reason)
        self._hand_over(endings)
        return found

    def _worked(self) -> float:
        """Seconds that the engine has been working, as far as somebody watched; 0: it is not working.

        Nobody calls this while the whole process is stopped (`docker pause`), and the engine does not work.
        """
        last, self._watched = self._watched, time.monotonic()
        if self._turn_began is None:
            return 0.0
        unwatched = self._watched - max(last, self._turn_began)
        self._turn_began += max(0.0, unwatched - UNWATCHED)
        return self._watched - self._turn_began

    # The thread

    def _run(self) -> None:
        inference = self._inference
        assert inference is not None
        while (turn := self._wait()) is not None:
            start = time.monotonic()
            try:
                result = inference.answer(turn.request, turn.frame, start)
            except Exception as error:  # must not end the thread or leave the request unanswered
                log.exception("a request could not be processed")
                reason = f"{type(error).__name__}: {error}"
                failed = Ending(turn.request, Outcome.FAILED, reason, Code.INTERNAL)
                result = _ended(failed, turn.frame)
            with self._changed:
                worked, seconds = self._worked(), time.monotonic() - start
                self._turn_began = None
                instead = self._schedule.finish(turn, self._timer(), seconds, seconds - worked)
                self._count_unread(turn, result)
            if instead is None:
                for stage, spent in result.timings.items():
                    self.timings[stage].append(spent)
                self._emit(result)
            else:
                self._hand_over(instead)
        self._inference = None  # drops the engine, too, so that its owner can free its memory

    def _wait(self) -> Turn | None:
        """The next turn, after delivering what expired meanwhile; None: the thread is to end."""
        while True:
            with self._changed:
                if self._schedule.stopping:
                    return None
                endings = self._schedule.expire(self._timer())
                if not endings:
                    turn = self._schedule.next(time.monotonic(), self._clock())
                    if isinstance(turn, Turn):
                        self._turn_began = time.monotonic()
                        return turn
                    self._changed.wait(turn)
            self._hand_over(endings)

    def _count_unread(self, turn: Turn, result: Result) -> None:
        """Count a camera's unreadable frame, once for all requests answered on it."""
        topic = turn.frame.topic
        if (
            result.unreadable
            and turn.request.frame is None
            and turn.frame is not self._unread.get(topic)
        ):
            self._unread[topic] = turn.frame
            self._schedule.counts.bad_frames += 1

    # Out

    def _hand_over(self, endings: Sequence[Ending]) -> None:
        for ending in endings:
            self._emit(_ended(ending))

    def _emit(self, result: Result) -> None:
        with self._changed:
            self._schedule.counts.answers += 1
            for decision in result.decisions:
                self._schedule.counts.outcomes[decision.outcome] += 1
        self._carrier.take(result)

    def _deliver(self, result: Result) -> None:
        try:
            (result.request.done or self._publish)(result)
        except Exception:  # a publisher destroyed at shutdown must not end the thread
            log.exception("the answer to %r could not be delivered", result.request.id[:80])


def _ended(ending: Ending, frame: CameraFrame | None = None) -> Result:
    """The result of a request that the model did not answer; frame: the one that it was asked about."""
    words = ending.request.words()
    each = ending.each or ((ending.code, ending.reason),) * len(words)
    decisions = [
        Decision(i, word, ending.outcome, code, reason)
        for i, (word, (code, reason)) in enumerate(zip(words, each, strict=True))
    ]
    return Result(ending.request, decisions, frame)
