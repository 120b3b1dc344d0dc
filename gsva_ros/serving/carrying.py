"""Carries a slow model's answers to repeated requests onto every new frame, in a separate thread.

Unless `Limits.track` is "off", an answer to a repeated request is not delivered directly. It goes to its
camera's Tracker, and what is delivered refers to the newest frame: each frame is answered once.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from itertools import count

import numpy as np
from numpy.typing import NDArray

from ..errors import one_line
from ..instances import parts
from ..tracking import Tracker
from .last_answer import LastAnswer
from .requests import BadImageError, CameraFrame, Code, Fault, Limits, Request, Result
from .schedule import admits, too_old

log = logging.getLogger(__name__)


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
        self._unlearnt: dict[Request, Result] = {}  # the model's answers, not processed yet
        self._fresh = False  # whether there is a new frame or answer to process
        self._queued = 0  # threads waiting for `_working`
        self._stopping = False
        self._working = threading.RLock()  # guards the fields below and the order of results
        self._ids = ids or count(1)
        self._trackers: dict[str, Tracker] = {}  # by topic
        self._last_answers: dict[tuple[Request, str], LastAnswer] = {}  # by topic, too
        #: When the last frame that each was answered on was received, monotonic seconds.
        self._answered: dict[Request, float] = {}
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
            self._unlearnt.clear()
            self._trackers.clear()
            self._last_answers.clear()

    def take(self, result: Result) -> None:
        """Accept a model result, or the end of a request: to be carried, or delivered at once."""
        request, frame = result.request, result.frame
        if not request.every_frame:
            self._deliver(result)
            return
        if self._limits.track != "off" and frame is not None and result.rgb is not None:
            with self._changed:
                self._unlearnt[request] = result
                self._fresh = True
                self._changed.notify_all()
            return
        with self._between_work():
            if frame is None:
                self._forget(request)
                self._answered.pop(request, None)
                self._deliver(result)
            # Another thread may have ended it since the model answered.
            elif not request.state.ended and not self._tells(result, frame):
                self._deliver_newer(result)

    def _deliver_newer(self, result: Result) -> None:
        """Deliver the model's result, unless an answer on that frame or a newer one was delivered."""
        assert result.frame is not None
        if self._may_answer(result.request, result.frame):
            self._answered[result.request] = result.frame.received
            self._deliver(result)

    def _may_answer(self, request: Request, frame: CameraFrame) -> bool:
        """Whether a frame may answer a request that has no answer on it or a newer one of any camera."""
        newer = frame.received > self._answered.get(request, float("-inf"))
        return newer and admits(request.not_before, frame.stamp)

    @contextmanager
    def _between_work(self) -> Iterator[None]:
        """Hold `_working` before the thread's next answer: it would otherwise re-acquire the lock first."""
        with self._changed:
            self._queued += 1
        try:
            with self._working:
                yield
        finally:
            with self._changed:
                self._queued -= 1
                self._changed.notify_all()

    def _tells(self, result: Result, frame: CameraFrame) -> bool:
        """Whether the thread itself reports this unreadable frame: it sees it before the model does."""
        here = (result.request, frame.topic) in self._last_answers
        return self._limits.track != "off" and here and result.unreadable

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
            answers, self._unlearnt = self._unlearnt, {}
            frames = dict(self._newest)
        if self._limits.track == "off":
            self._trackers.clear()
            self._last_answers.clear()
            for result in answers.values():
                if not result.request.state.ended:
                    self._deliver_newer(result)
            return
        for result in answers.values():
            self._learn(result)
        for frame in sorted(frames.values(), key=lambda frame: frame.received):
            if due := self._due(frame):
                self._answer(due, frame)

    def _due(self, frame: CameraFrame) -> list[LastAnswer]:
        """The last answers that the camera's frame is to be answered from."""
        here = [last for last in self._last_answers.values() if last.topic == frame.topic]
        due = [last for last in here if self._may_answer(last.result.request, frame)]
        if too_old(frame, self._clock(), self._limits):
            # The schedule judged the model's own frame when its turn came.
            return [last for last in due if not last.is_carried(frame)]
        return due

    def _learn(self, result: Result) -> None:
        """Pass the model's answer to its camera's tracker."""
        request, frame, rgb = result.request, result.frame, result.rgb
        assert frame is not None
        assert rgb is not None
        if request.state.ended:
            return
        key, last = (request, frame.topic), LastAnswer.of(result)
        if key in self._last_answers:
            last.lost = self._last_answers[key].lost
        self._last_answers[key] = last
        tracker = self._trackers.setdefault(frame.topic, Tracker(self._ids))
        connected = self._limits.split_instances
        try:
            regions = {d.key: parts(d.region, connected) for d in result.decisions}
            tracker.answer(request, frame.stamp, rgb, regions)
        except Exception as error:  # the tracker still has the answer before, if any
            last.fault = _fault(error)

    def _answer(self, due: list[LastAnswer], frame: CameraFrame) -> None:
        """Answer the requests that have no answer on this frame yet."""
        start = time.monotonic()
        rgb, fault = self._observed(frame)
        for last in due:
            self._give_way()
            request = last.result.request
            current = self._last_answers.get((request, frame.topic)) is last
            # Ended, or answered, when another thread had its turn or another one's answer was delivered;
            # or withdrawn while the model works on it.
            if not current or request.state.cancelled or not self._may_answer(request, frame):
                continue
            self._answered[request] = frame.received
            why = fault or last.fault
            self._deliver(last.failed(frame, *why) if why else self._carry(last, frame, rgb, start))

    def _give_way(self) -> None:
        """Let threads that wait for `_working` have it: a hundred answers take long, an end must not."""
        with self._changed:
            if not self._queued:
                return
        self._working.release()
        try:
            with self._changed:
                self._changed.wait_for(lambda: not self._queued)
        finally:
            self._working.acquire()

    def _observed(self, frame: CameraFrame) -> tuple[NDArray[np.uint8] | None, Fault | None]:
        """Show a frame to its tracker: the image, or why nothing can be carried onto it."""
        try:
            rgb = frame.decode()
            self._trackers[frame.topic].observe(frame.stamp, rgb)
        except Exception as error:  # other cameras' frames must be answered, too
            return None, _fault(error)
        return rgb, None

    def _carry(
        self, last: LastAnswer, frame: CameraFrame, rgb: NDArray[np.uint8] | None, start: float
    ) -> Result:
        """The answer on a frame that its tracker has observed; start: monotonic seconds."""
        try:
            result = last.onto(frame, self._trackers[frame.topic], start)
        except Exception as error:  # other requests must be answered, too
            return last.failed(frame, *_fault(error))
        self.carried += last.is_carried(frame)
        return replace(result, rgb=rgb)

    def _forget(self, request: Request) -> None:
        for topic in [topic for other, topic in self._last_answers if other is request]:
            del self._last_answers[request, topic]
            self._trackers[topic].forget(request)
            if all(other != topic for _, other in self._last_answers):
                del self._trackers[topic]


def _fault(error: Exception) -> Fault:
    """What is answered about a frame on which `error` was raised."""
    if isinstance(error, BadImageError):
        return Code.BAD_IMAGE, str(error)
    log.error("masks could not be carried onto a frame", exc_info=error)
    return Code.INTERNAL, f"masks could not be carried: {type(error).__name__}: {one_line(error)}"
