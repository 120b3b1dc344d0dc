"""Which request is answered next, and on which frame: pure state, without threads, clocks or sleeps.

It knows neither a frame's pixels nor what the model does with them, only stamps and who asked.

Every submitted request ends exactly once: each method returns the `Ending`s that it caused, and `finish`
says whether a computed result may still be delivered. The caller holds a lock around each call and delivers
endings outside it.

Newest frame wins: the mailbox holds one frame per camera. Requests that are due on the same frame are
answered on it one after the other, so that it is encoded once; those still waiting when another request
takes a newer frame of that camera are answered on the newer one. Lanes (one-shot instructions, instructions
on every frame, follow goals, service calls) share the model's time by start-time fair queueing (Goyal, Vin
and Cheng, SIGCOMM 1996, who call them flows).
"""

from __future__ import annotations

import uuid
from collections import defaultdict
from dataclasses import dataclass

from ..asking import is_blank
from ..stamps import SECOND
from .requests import CameraFrame, Code, Counts, Fault, Limits, Outcome, Request, Source

#: Maximum seconds that a caller waits before it asks again, whatever it waits for.
LONGEST_WAIT = 1.0
#: The same while a deadline is pending, whose clock may run faster than the wall clock.
DEADLINE_WAIT = 0.05
#: Bytes of the images that waiting calls bring along: a thousand of 640x480 in RGB fit in.
OWN_IMAGES = 2**30
SHUTTING_DOWN = "the node is shutting down"

#: The unit of fair queueing: a source, and whether its requests are for every frame.
Lane = tuple[Source, bool]


@dataclass(frozen=True)
class Ending:
    """A request that ends without the model: the same outcome for every expression.

    each: code and reason of every expression, if they differ.
    """

    request: Request
    outcome: Outcome
    reason: str
    code: Code = Code.NONE
    each: tuple[Fault, ...] = ()


@dataclass(frozen=True)
class Turn:
    """A request to answer now, and the frame to answer it on."""

    request: Request
    frame: CameraFrame


class Schedule:
    """Requests and newest frames.

    `now`: monotonic seconds; `clock`: nanoseconds on the stamps' clock; `timer`: on that of the deadlines.
    """

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self.counts = Counts()
        self.busy: Request | None = None  # the request that the model is working on
        self.paused = ""  # why no request is accepted
        self.stopping = False
        self.jumping = False  # the clocks are about to jump: no deadline passes until `jumped`
        self._timer: int | None = None  # last seen value; None before the first, and after a jump
        self._newest: dict[str, CameraFrame] = {}  # by topic, most recently received last
        self._unused: set[str] = set()  # topics whose newest frame no request has used yet
        self._stale: dict[str, CameraFrame] = {}  # by topic, the last one counted as stale
        self._requests: dict[str, Request] = {}  # by id, in order of arrival
        # Requests that displaced another and hold its place until they are submitted.
        self._coming: list[Request] = []
        self._virtual = 0.0  # start tag of the last picked turn, in virtual time
        self._finish: dict[Lane, float] = defaultdict(float)  # finish tag of its last turn

    @property
    def waiting(self) -> int:
        """Number of unfinished requests."""
        return len(self._requests)

    def starved(self, now: float, clock: int) -> dict[str, float]:
        """Seconds that requests have waited for a suitable frame, by topic; "" for any camera.

        A repeated request waits since its last answer; the model's time and the rate limit do not count.
        """
        waited: dict[str, float] = {}
        for request in self._requests.values():
            if request is self.busy or self._due_on(request, clock) is not None:
                continue
            state = request.state
            since = max(request.submitted, state.last_end, state.last_start + self._interval)
            waited[request.topic] = max(waited.get(request.topic, 0.0), now - since)
        return waited

    # Frames

    def offer(self, frame: CameraFrame) -> None:
        """Put a camera frame into the mailbox, replacing the previous one."""
        self.counts.received += 1
        if self.paused:
            return
        if frame.topic in self._unused:
            self.counts.dropped += 1
        self._newest.pop(frame.topic, None)
        self._newest[frame.topic] = frame
        self._unused.add(frame.topic)

    def forget_frames(self) -> None:
        """Empty the mailbox: its frames are no longer current."""
        self._newest.clear()
        self._unused.clear()
        for request in self._requests.values():
            request.state.assigned = None

    def jumped(self, delta: int) -> None:
        """`timer` jumped by `delta` nanoseconds: drop earlier frames, keep each deadline's time left."""
        self.jumping, self._timer = False, None
        self.forget_frames()
        self._put_off(delta)
        for request in self._requests.values():
            request.state.steadiness = {}  # it counts from a stamp of before

    # Requests

    def displace(self, request: Request) -> list[Ending]:
        """End the request that has the id of `request`, which is about to be submitted."""
        reason = "replaced by a newer instruction with the same id"
        if self._problem(request) is not None:
            reason += ", which cannot be executed"
        found, endings = self.cancel(request.id, reason)
        if found:
            self._coming.append(request)
        return endings

    def submit(self, request: Request, timer: int) -> list[Ending]:
        """Accept a request, replacing one with the same id; what cannot be executed ends at once."""
        self._see(timer)
        request.id = request.id or _own_id(request)
        self.counts.instructions += 1
        within = request.within or int(self.limits.default_deadline * SECOND)
        if within > 0:
            request.deadline = timer + within
        endings = self.displace(request)
        self._coming = [other for other in self._coming if other is not request]
        problem = self._problem(request) or self._full(request)  # the replaced one has made room
        if problem is None:
            self._requests[request.id] = request
            return endings
        return [*endings, self._end(problem)]

    def cancel(self, request_id: str, reason: str) -> tuple[bool, list[Ending]]:
        """End a request; False if there is none with this id. One in progress ends at `finish`."""
        request = self._requests.pop(request_id, None)
        if request is None:
            return False, []
        request.state.cancelled = reason
        if request is self.busy:
            return True, []
        return True, [self._end(Ending(request, Outcome.CANCELLED, reason))]

    def pause(self, reason: str) -> list[Ending]:
        """End waiting requests with CANCELLED, and every later one with FAILED (INACTIVE)."""
        self.paused = reason
        self.forget_frames()
        return self._cancel_all(reason)

    def resume(self) -> None:
        """Accept requests again."""
        self.paused = ""

    def stop(self) -> list[Ending]:
        """End waiting requests with CANCELLED, and every later one as it arrives."""
        self.stopping = True
        return self._cancel_all(SHUTTING_DOWN)

    def expire(self, timer: int) -> list[Ending]:
        """End requests past their deadline; one in progress is judged at `finish`."""
        self._see(timer)
        if self.jumping:
            return []
        due = [
            r
            for r in self._requests.values()
            if r is not self.busy and r.deadline is not None and r.deadline <= timer
        ]
        for request in due:
            del self._requests[request.id]
        return [self._expired(request) for request in due]

    # Turns

    def next(self, now: float, clock: int) -> Turn | float:
        """The next turn, or how many seconds to wait for one unless something happens before."""
        ready, wait = self._ready(now, clock)
        if not ready:
            return wait
        # Equal start tags: the least recently served first, then by arrival.
        picked = min(ready, key=lambda turn: (self._start(turn), turn.request.state.last_start))
        self._assign(picked.frame, ready)
        self._virtual = self._start(picked)
        self._unused.discard(picked.frame.topic)
        self.busy = picked.request
        picked.request.state.last_start = now
        return picked

    def finish(
        self, turn: Turn, timer: int, seconds: float, stopped: float = 0.0
    ) -> list[Ending] | None:
        """End the model's turn. None: its result is the answer; otherwise the returned endings are.

        seconds: since the turn began. stopped: how many of them the process was stopped (`docker pause`);
        its lane does not pay for them.
        """
        self._see(timer)
        request, state = turn.request, turn.request.state
        self.busy = None
        self._finish[_lane(request)] = self._virtual + seconds - stopped
        state.last_end = state.last_start + seconds
        state.assigned = None
        state.looked[turn.frame.topic] = turn.frame.received
        if state.ended:
            return []
        late = request.deadline is not None and timer > request.deadline and not self.jumping
        request.deadline = None
        mine = self._requests.get(request.id) is request
        if mine and (late or not request.every_frame):
            del self._requests[request.id]
        # At shutdown, a computed result is still delivered if it is all that was asked for.
        if state.cancelled and (request.every_frame or state.cancelled != SHUTTING_DOWN):
            return [self._end(Ending(request, Outcome.CANCELLED, state.cancelled))]
        if late:
            return [self._expired(request)]
        state.ended = not request.every_frame
        return None

    def abandon(self, reason: str) -> list[Ending]:
        """The model does not return: end the request in progress and all waiting ones with FAILED."""
        hanging = [self.busy] if self.busy is not None and not self.busy.state.ended else []
        waiting = [r for r in self._requests.values() if r is not self.busy]
        self._requests.clear()
        self.paused = reason
        return [
            self._end(Ending(r, Outcome.FAILED, reason, Code.INTERNAL))
            for r in [*hanging, *waiting]
        ]

    # How

    def _see(self, timer: int) -> None:
        """A clock that is 0 has not begun: until it does, no time has passed for deadlines."""
        if self._timer == 0 and not self.jumping:
            self._put_off(timer)
        self._timer = timer

    def _put_off(self, delta: int) -> None:
        for request in self._requests.values():
            if request.deadline is not None:
                request.deadline += delta

    def _problem(self, request: Request) -> Ending | None:
        """Why a request cannot be executed as a whole; None: it can."""
        if self.paused:
            return Ending(request, Outcome.FAILED, self.paused, Code.INACTIVE)
        if self.stopping:
            return Ending(request, Outcome.CANCELLED, SHUTTING_DOWN)
        reason, code = "", Code.INVALID_INSTRUCTION
        words = request.words()
        if request.problem:
            reason = request.problem
        elif request.text and request.expressions:
            reason = "give either text or expressions, not both"
        elif not request.text and not request.expressions:
            reason, code = "neither text nor expressions", Code.EMPTY_INSTRUCTION
        elif len(request.expressions) > self.limits.max_expressions:
            count, most = len(request.expressions), self.limits.max_expressions
            reason = f"{count} expressions, at most {most} are allowed"
        if reason:
            return Ending(request, Outcome.FAILED, reason, code)
        each = [problem for w in words if (problem := text_problem(w, self.limits))]
        if len(each) < len(words):
            return None
        return Ending(request, Outcome.FAILED, each[0][1], each[0][0], tuple(each))

    def _full(self, request: Request) -> Ending | None:
        """The ending of a request whose source's queue is full; no other source can fill it."""
        most = self.limits.max_instructions
        waiting = [*self._requests.values(), *self._coming]
        here = [r for r in waiting if r.source is request.source]
        images = [r.frame.size for r in (*here, request) if r.frame is not None]
        if len(here) >= most:
            full = f"{most} {request.source.value} are waiting already"
        elif len(images) > 1 and sum(images) > OWN_IMAGES:
            full = (
                f"{len(here)} {request.source.value} are waiting already, and their images fill "
                f"{OWN_IMAGES // 2**20} MiB: wait for answers before sending more"
            )
        else:
            return None
        return Ending(request, Outcome.FAILED, full, Code.QUEUE_FULL)

    def _cancel_all(self, reason: str) -> list[Ending]:
        return [ending for each in list(self._requests) for ending in self.cancel(each, reason)[1]]

    def _end(self, ending: Ending) -> Ending:
        assert not ending.request.state.ended, f"{ending.request.id!r} would end twice"
        ending.request.state.ended = True
        return ending

    def _expired(self, request: Request) -> Ending:
        return self._end(Ending(request, Outcome.EXPIRED, "its deadline passed"))

    def _start(self, turn: Turn) -> float:
        """Start tag of fair queueing: a lane that was idle starts now, without credit."""
        return max(self._virtual, self._finish[_lane(turn.request)])

    def _ready(self, now: float, clock: int) -> tuple[list[Turn], float]:
        """The turns that are possible now, and how many seconds to wait if there are none."""
        wait = LONGEST_WAIT
        ready = []
        for request in self._requests.values():
            if request.deadline is not None:
                wait = min(wait, DEADLINE_WAIT)
            frame = self._due_on(request, clock)
            if frame is None:
                continue
            rest = request.state.last_start + self._interval - now
            if rest > 0:
                wait = min(wait, rest)
                continue
            ready.append(Turn(request, frame))
        return ready, wait

    @property
    def _interval(self) -> float:
        """Minimum seconds between the starts of one request's turns."""
        return 1.0 / self.limits.max_rate if self.limits.max_rate > 0 else 0.0

    def _due_on(self, request: Request, clock: int) -> CameraFrame | None:
        """The frame on which a request can be answered now."""
        return request.frame or self._assigned(request, clock) or self._frame_for(request, clock)

    def _frame_for(self, request: Request, clock: int) -> CameraFrame | None:
        """The newest suitable frame, unless the request was already answered on it or a newer one.

        Of several cameras, a repeated request looks at each in turn.
        """
        looked = request.state.looked
        last = max(looked.values(), default=float("-inf"))
        topics = [request.topic] if request.topic else reversed(self._newest)
        for topic in sorted(topics, key=lambda topic: looked.get(topic, float("-inf"))):
            frame = self._newest.get(topic)
            if frame is None or frame.received <= last:
                continue
            if answers(frame, request, self.limits) and not self._too_old(frame, clock):
                return frame
        return None

    def _assigned(self, request: Request, clock: int) -> CameraFrame | None:
        """The frame that others are answered on as well (`_assign`), while it is recent enough."""
        state = request.state
        if state.assigned is not None and self._too_old(state.assigned, clock):
            state.assigned = None
        return state.assigned

    def _assign(self, frame: CameraFrame, ready: list[Turn]) -> None:
        """Let the picked frame also answer what is due on it, or was to be answered on an earlier one.

        Going back to the earlier one would encode it again, as only a camera's last frame stays encoded.
        """
        for turn in ready:
            request, due = turn.request, turn.frame
            earlier = due.topic == frame.topic and due.received < frame.received
            if due is frame or (earlier and answers(frame, request, self.limits)):
                request.state.assigned = frame

    def _too_old(self, frame: CameraFrame, clock: int) -> bool:
        old = too_old(frame, clock, self.limits)
        if old and self._stale.get(frame.topic) is not frame:
            self._stale[frame.topic] = frame
            self.counts.stale += 1
        return old


def _lane(request: Request) -> Lane:
    return request.source, request.every_frame


def _own_id(request: Request) -> str:
    """The id of a request that has none.

    A repeated one has that of its words: published again and again, it replaces itself instead of adding
    to the load.
    """
    if not request.every_frame:
        return uuid.uuid4().hex
    content = [request.topic, request.text, *request.expressions]
    return uuid.uuid5(uuid.NAMESPACE_OID, repr(content)).hex


def answers(frame: CameraFrame, request: Request, limits: Limits) -> bool:
    """Whether a request can be answered on a frame of its camera."""
    lead = request.submitted - frame.received
    return fits(request.not_before, frame.stamp, lead, limits.max_frame_lead)


def fits(not_before: int, stamp: int, lead: float, max_lead: float) -> bool:
    """The rule for which frames answer an instruction, live and in a recording.

    Args:
        not_before: the instruction's earliest stamp, nanoseconds; 0: any.
        stamp: the frame's, nanoseconds.
        lead: seconds by which the frame was received before the instruction.
        max_lead: the longest accepted lead; 0: any.
    """
    return admits(not_before, stamp) and not 0 < max_lead < lead


def admits(not_before: int, stamp: int) -> bool:
    """The half of `fits` about a frame's stamp, nanoseconds; carried answers obey it, too."""
    return not not_before or stamp >= not_before


def too_old(frame: CameraFrame, clock: int, limits: Limits) -> bool:
    """Whether a frame is older than `max_frame_age`; clock: nanoseconds on the stamps' clock."""
    return 0 < limits.max_frame_age < (clock - frame.stamp) / SECOND


def text_problem(words: str, limits: Limits) -> Fault | None:
    """Why one expression cannot be asked; checked before the model is asked, so that only it fails."""
    # The length first: to read ten million characters takes a second.
    if len(words) > limits.max_expression_length:
        most = limits.max_expression_length
        return Code.INVALID_INSTRUCTION, f"{len(words)} characters, at most {most} are allowed"
    if is_blank(words):
        return Code.EMPTY_INSTRUCTION, "an empty expression"
    return None
