"""Carries a slow model's answers to repeated requests onto every new frame, in a separate thread.

If `Limits.track` is "flow", an answer to a repeated request is not delivered directly. It goes to its
camera's Tracker, and what is delivered refers to the newest frame: each frame is answered once.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from itertools import count

import numpy as np
from numpy.typing import NDArray

from ..errors import one_line
from ..instances import parts
from ..masks import Region
from ..stamps import SECOND
from ..tracking import Carried, Tracker
from .requests import (
    DECIDED,
    BadImageError,
    CameraFrame,
    Code,
    Decision,
    Fault,
    Instance,
    Key,
    Limits,
    Outcome,
    Request,
    Result,
    Steadiness,
)
from .schedule import admits, too_old

log = logging.getLogger(__name__)


@dataclass(eq=False)
class _Followed:
    """A repeated request on one camera: the model's last answer, and how long its expressions are lost."""

    result: Result
    topic: str
    lost: dict[Key, Steadiness] = field(default_factory=dict)


class Carrier:
    """Answers repeated requests on every frame.

    Args:
        deliver: delivers a repeated request's results one at a time, so that none follows its end.
        clock: returns the current time in nanoseconds, on the clock that stamps the frames.
    """

    def __init__(
        self,
        deliver: Callable[[Result], None],
        limits: Limits,
        clock: Callable[[], int] = time.time_ns,
        ids: Iterator[int] | None = None,
    ) -> None:
        self.carried = 0  # carried answers so far
        self._deliver, self._limits, self._clock = deliver, limits, clock
        self._changed = threading.Condition()
        self._newest: dict[str, CameraFrame] = {}  # by topic
        self._answers: dict[Request, Result] = {}  # the model's, not processed yet
        self._fresh = False  # whether there is a new frame or answer to process
        self._queued = 0  # threads waiting for `_working`
        self._stopping = False
        self._working = threading.RLock()  # guards the fields below and the order of results
        self._ids = ids or count(1)
        self._trackers: dict[str, Tracker] = {}  # by topic
        self._followed: dict[tuple[Request, str], _Followed] = {}  # by topic, too
        self._answered: dict[Request, CameraFrame] = {}  # the last frame each was answered on
        self._thread = threading.Thread(target=self._run, name="gsva-tracking", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def stop(self) -> None:
        """End the thread."""
        with self._changed:
            self._stopping = True
            self._changed.notify_all()
        if self._thread.is_alive() and threading.current_thread() is not self._thread:
            self._thread.join()

    def offer(self, frame: CameraFrame) -> None:
        """Accept a camera's newest frame."""
        with self._changed:
            self._newest[frame.topic] = frame
            self._fresh = True
            self._changed.notify_all()

    def forget_frames(self) -> None:
        """Discard all frames, which are no longer current, and the tracking state based on them."""
        with self._between_work(), self._changed:
            self._newest.clear()
            self._answers.clear()
            self._trackers.clear()
            self._followed.clear()

    def take(self, result: Result) -> None:
        """Accept a model result, or the end of a request: to be carried, or delivered at once."""
        request = result.request
        if (
            self._limits.track == "flow"
            and request.every_frame
            and result.frame is not None
            and result.rgb is not None
        ):
            with self._changed:
                self._answers[request] = result
                self._fresh = True
                self._changed.notify_all()
            return
        if not request.every_frame:
            self._deliver(result)
            return
        with self._between_work():
            if result.frame is None:
                with self._changed:
                    self._answers.pop(request, None)
                self._forget(request)
                self._answered.pop(request, None)
                self._deliver(result)
            # Another thread may have ended it since the model answered.
            elif not request.ended and not self._tells(result):
                self._deliver_newer(result)

    def _deliver_newer(self, result: Result) -> None:
        """Deliver the model's result, unless an answer on that frame or a newer one was delivered."""
        assert result.frame is not None
        if self._follows(result.request, result.frame):
            self._answered[result.request] = result.frame
            self._deliver(result)

    def _follows(self, request: Request, frame: CameraFrame) -> bool:
        """Whether a frame may answer a request that has no answer on it or a newer one of any camera."""
        if not admits(request, frame.stamp):
            return False
        last = self._answered.get(request)
        return last is None or (frame is not last and frame.received >= last.received)

    @contextmanager
    def _between_work(self) -> Iterator[None]:
        """Hold `_working` before the thread's next pass: it would otherwise re-acquire the lock first."""
        with self._changed:
            self._queued += 1
        try:
            with self._working:
                yield
        finally:
            with self._changed:
                self._queued -= 1
                self._changed.notify_all()

    def _tells(self, result: Result) -> bool:
        """Whether the thread itself reports this unreadable frame: it sees it before the model does."""
        frame = result.frame
        here = frame is not None and (result.request, frame.topic) in self._followed
        return self._limits.track == "flow" and here and result.unreadable

    # The thread

    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: (self._fresh and not self._queued) or self._stopping)
                if self._stopping:
                    return
                self._fresh = False
            try:
                with self._working:
                    self._work()
            except Exception:  # one bad frame must not stop the answers on all others
                log.exception("masks could not be carried onto a frame")

    def _work(self) -> None:
        with self._changed:
            answers, self._answers = self._answers, {}
            frames = dict(self._newest)
        if self._limits.track != "flow":
            self._trackers.clear()
            self._followed.clear()
            for result in answers.values():
                if not result.request.ended:
                    self._deliver_newer(result)
            return
        for result in answers.values():
            self._learn(result)
        for frame in sorted(frames.values(), key=lambda frame: frame.received):
            due = [f for f in self._followed.values() if f.topic == frame.topic]
            due = [f for f in due if self._follows(f.result.request, frame)]
            if too_old(frame, self._clock(), self._limits):
                # The schedule judged the model's own frame when its turn came.
                due = [f for f in due if f.result.frame is frame]
            if due:
                self._answer(due, frame)

    def _learn(self, result: Result) -> None:
        """Pass the model's answer to its camera's tracker."""
        request, frame, rgb = result.request, result.frame, result.rgb
        assert frame is not None
        assert rgb is not None
        if request.ended or request.cancelled:
            return
        new = _Followed(result, frame.topic)
        followed = self._followed.setdefault((request, frame.topic), new)
        followed.result = result
        tracker = self._trackers.setdefault(frame.topic, Tracker(self._ids))
        connected = self._limits.split_instances
        regions = {_key(d): parts(d.region, connected) for d in result.decisions}
        tracker.answer(request, frame.stamp, rgb, regions)

    def _answer(self, due: list[_Followed], frame: CameraFrame) -> None:
        """Answer the requests that have no answer on this frame yet."""
        start = time.monotonic()
        own = next((f.result for f in due if f.result.frame is frame), None)
        rgb: NDArray[np.uint8] | None = None
        seen: Fault | None = None
        try:
            rgb = frame.decode() if own is None or own.rgb is None else own.rgb
            self._trackers[frame.topic].observe(frame.stamp, rgb)
        except Exception as error:  # other cameras' frames must be answered, too
            seen = _fault(error)
        for followed in due:
            request = followed.result.request
            # Ended when another one's answer was delivered, or withdrawn while the model works on it.
            if self._followed.get((request, frame.topic)) is not followed or request.cancelled:
                continue
            self._answered[request] = frame
            fault = seen
            if fault is None:
                try:
                    result = replace(self._onto(followed, frame, start), rgb=rgb)
                except Exception as error:  # other requests must be answered, too
                    fault = _fault(error)
            if fault is not None:
                self._deliver(_failed(followed, frame, *fault))
                continue
            self.carried += followed.result.frame is not frame
            self._deliver(result)

    def _onto(self, followed: _Followed, frame: CameraFrame, start: float) -> Result:
        """The model's last answer, on a frame that its tracker has observed."""
        result, tracker = followed.result, self._trackers[frame.topic]
        assert result.frame is not None
        carried = result.frame is not frame
        age = frame.stamp - result.frame.stamp if carried else 0
        found = tracker.carried(result.request)
        unlike = tracker.unrecognised(result.request)
        decisions = [
            self._decision(d, found[_key(d)], unlike, carried, age, frame.stamp, followed.lost)
            for d in result.decisions
        ]
        timings = {} if carried else dict(result.timings)
        timings["total"] = timings.get("total", 0.0) + time.monotonic() - start
        timings["queue"] = timings.get("queue", start - frame.received)
        return replace(result, decisions=decisions, frame=frame, timings=timings)

    def _decision(
        self,
        decision: Decision,
        found: list[Carried],
        unlike: str,
        carried: bool,
        age: int,
        stamp: int,
        lost: dict[Key, Steadiness],
    ) -> Decision:
        """The model's decision, updated to a frame `age` nanoseconds later."""
        seen = [
            Instance(each.id, each.region, each.confidence)
            for each in found
            if each.region is not None
        ]
        key = _key(decision)
        now = replace(decision, instances=tuple(seen), carried=carried, age=max(0, age))
        if carried and decision.outcome is Outcome.REJECTED:
            now.reason = f"{decision.reason}; it looked {now.age / SECOND:.1f} s earlier"
        reason = unlike if decision.outcome in DECIDED else ""
        if decision.outcome is Outcome.SEGMENTED and not seen:
            reason = reason or found[0].lost
        if not reason:
            lost.pop(key, None)
            if seen:
                now.region = Region.around([each.region for each in seen])
            return now
        steady = lost[key] = Steadiness.after(lost.get(key), Outcome.FAILED, stamp)
        return replace(
            now,
            outcome=Outcome.FAILED,
            code=Code.LOST,
            reason=f"lost: {reason}",
            rejection=None,
            region=None,
            instances=(),
            since=steady.since,
            answers=steady.answers,
        )

    def _forget(self, request: Request) -> None:
        for topic in [topic for other, topic in self._followed if other is request]:
            del self._followed[request, topic]
            tracker = self._trackers[topic]
            tracker.forget(request)
            if not len(tracker):
                del self._trackers[topic]


def _fault(error: Exception) -> Fault:
    """What is answered about a frame on which `error` was raised."""
    if isinstance(error, BadImageError):
        return Code.BAD_IMAGE, str(error)
    log.error("masks could not be carried onto a frame", exc_info=error)
    return Code.INTERNAL, f"masks could not be carried: {type(error).__name__}: {one_line(error)}"


def _failed(followed: _Followed, frame: CameraFrame, code: Code, reason: str) -> Result:
    """The answer on a frame that nothing could be carried onto."""
    decisions = []
    for decision in followed.result.decisions:
        key = _key(decision)
        last = followed.lost.get(key)
        row = followed.lost[key] = Steadiness.after(last, Outcome.FAILED, frame.stamp)
        failed = Decision(*key, Outcome.FAILED, code, reason)
        failed.since, failed.answers = row.since, row.answers
        decisions.append(failed)
    return Result(followed.result.request, decisions, frame)


def _key(decision: Decision) -> Key:
    return decision.slot, decision.expression
