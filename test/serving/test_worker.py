"""The worker without ROS: exactly one ending for every instruction, whatever happens meanwhile."""

from __future__ import annotations

import gc
import threading
import time
import types
import weakref
from collections import Counter

import numpy as np
import pytest
from fake_engine import FakeEngine
from patience import wait

from gsva_ros.serving import worker
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
from gsva_ros.serving.worker import Worker
from gsva_ros.stamps import SECOND

RED = np.full((20, 30, 3), (255, 0, 0), np.uint8)


def unreadable() -> np.ndarray:
    raise BadImageError("unreadable")


class Recorder:
    """A worker on a fake engine, with everything that it published."""

    def __init__(self, delay: float = 0.0, limits: Limits | None = None, **options) -> None:
        self.engine = FakeEngine(delay)
        self.results: list[Result] = []
        self._lock = threading.Lock()
        self.worker = Worker(self.engine, self._record, limits, **options)
        self.worker.start()

    def _record(self, result: Result) -> None:
        with self._lock:
            self.results.append(result)

    def frame(self, stamp: int = 1, topic: str = "camera") -> None:
        self.worker.offer(CameraFrame(None, stamp, topic, lambda: RED))

    def ask(self, name: str, *expressions: str, **fields) -> None:
        """Submit an instruction: "red", unless it is said what."""
        self.worker.submit(Request(name, expressions=list(expressions or ["red"]), **fields))

    def of(self, request_id: str) -> list[list[Outcome]]:
        with self._lock:
            found = [r for r in self.results if r.request.id == request_id]
        return [[d.outcome for d in r.decisions] for r in found]

    def wait(self, count: int) -> None:
        wait(lambda: len(self.results) >= count, lambda: f"{len(self.results)} of {count} answers")

    def hang(self, name: str, **fields) -> None:
        """Begin an inference that lasts until `engine.hang` is set."""
        self.engine.hang = threading.Event()
        self.frame()
        self.ask(name, "hang", **fields)
        self.wait_busy()

    def wait_busy(self) -> None:
        wait(lambda: self.worker.busy, lambda: "no inference began")


@pytest.fixture
def recorder():
    made: list[Recorder] = []

    def make(*args, **kwargs) -> Recorder:
        made.append(Recorder(*args, **kwargs))
        return made[-1]

    yield make
    for each in made:
        each.worker.stop()


def test_replaced_while_it_is_answered(recorder) -> None:
    r = recorder()
    r.hang("a")
    r.ask("a", "blue")
    r.engine.hang.set()
    r.wait(2)
    assert r.of("a") == [[Outcome.CANCELLED], [Outcome.REJECTED]]
    assert r.worker.waiting == 0


def test_cancelled_while_it_is_answered(recorder) -> None:
    r = recorder()
    r.hang("a")
    assert r.worker.cancel("a")
    assert not r.worker.cancel("a")
    r.engine.hang.set()
    r.ask("b")
    r.wait(2)
    assert (r.of("a"), r.of("b")) == ([[Outcome.CANCELLED]], [[Outcome.SEGMENTED]])


def test_deadline_passes_during_inference(recorder) -> None:
    now = [SECOND]
    r = recorder(clock=lambda: now[0])
    r.hang("a", within=SECOND)
    now[0] += 2 * SECOND
    r.engine.hang.set()
    r.wait(1)
    assert r.of("a") == [[Outcome.EXPIRED]]


def test_an_unreadable_frame_is_counted_once_for_all_who_asked(recorder) -> None:
    """And one that a call brought with it is no camera's."""
    r = recorder()
    before = r.worker.counts
    for name in "abc":
        r.ask(name, "red", "", every_frame=True)
    for stamp in (1, 2):
        r.worker.offer(CameraFrame(None, stamp, "camera", unreadable))
        r.wait(3 * stamp)
    own = CameraFrame(None, 3, "", unreadable)
    r.ask("call", source=Source.SERVICE, frame=own)
    r.wait(7)
    assert r.worker.counts.bad_frames == 2
    assert (before.bad_frames, sum(before.outcomes.values())) == (0, 0), "a copy"


def test_unreadable_frames_of_two_cameras_are_two(recorder) -> None:
    r = recorder()
    for topic in "ab":
        r.worker.offer(CameraFrame(None, 1, topic, unreadable))
    for number, topic in enumerate("ababa"):
        r.ask(str(number), topic=topic)
    r.wait(5)
    assert r.worker.counts.bad_frames == 2


def test_full_queue_is_said(recorder) -> None:
    r = recorder(limits=Limits(max_instructions=2))
    for number in range(3):
        r.ask(str(number))
    assert r.of("2") == [[Outcome.FAILED]]
    assert r.results[0].decisions[0].code is Code.QUEUE_FULL


def test_nobody_takes_the_place_of_a_replacement_while_the_end_of_the_old_is_told() -> None:
    r = Recorder(limits=Limits(max_instructions=1))
    record = r.worker._publish

    def told(result: Result) -> None:
        record(result)
        if [(d.expression, d.outcome) for d in result.decisions] == [("old", Outcome.CANCELLED)]:
            r.ask("another")

    r.worker._publish = told
    r.ask("one", "old")
    r.ask("one")
    r.frame()
    r.wait(3)
    r.worker.stop()
    assert r.of("one") == [[Outcome.CANCELLED], [Outcome.SEGMENTED]]
    assert r.of("another") == [[Outcome.FAILED]]


def test_one_encoding_for_all_instructions_on_a_frame(recorder) -> None:
    r = recorder(delay=0.01)
    for number in range(5):
        r.ask(str(number))
    r.frame()
    r.wait(5)
    assert r.engine.encoded == 1


def test_answers_are_counted_once_and_outcomes_for_each_expression(recorder) -> None:
    r = recorder()
    r.frame()
    r.ask("three", "red", "blue", " ")
    r.wait(1)
    r.worker.submit(Request("none"))
    r.wait(2)
    counts = r.worker.counts
    assert counts.answers == 2
    told = {outcome: count for outcome, count in counts.outcomes.items() if count}
    assert told == {Outcome.SEGMENTED: 1, Outcome.REJECTED: 1, Outcome.FAILED: 2}


def test_seconds_are_those_of_the_last_200_answers(recorder) -> None:
    """However long it runs: percentiles are recent ones, and memory does not grow."""
    r = recorder()
    r.frame()
    for number in range(201):
        r.ask(str(number))
    r.wait(201)
    assert len(r.worker.timings["total"]) == 200


def test_every_instruction_of_many_threads_ends_once(recorder) -> None:
    """Frames, instructions, replacements and cancellations at once, then shutdown in the middle."""
    r = recorder(delay=0.002)
    submitted: Counter[str] = Counter()
    lock = threading.Lock()

    def client(seed: int) -> None:
        rng = np.random.default_rng(seed)
        for _ in range(150):
            # Few ids, so that clients replace and cancel each other's.
            request = Request(str(rng.integers(20)), expressions=["red", "blue"])
            if rng.random() < 0.3:
                request.deadline = time.time_ns() + int(rng.uniform(0, 0.02) * 1e9)
            with lock:
                submitted[request.id] += 1
            r.worker.submit(request)
            if rng.random() < 0.3:
                r.worker.cancel(str(rng.integers(20)))
            if rng.random() < 0.5:
                r.frame(int(rng.integers(1, 100)))
            time.sleep(float(rng.uniform(0, 0.002)))

    threads = [threading.Thread(target=client, args=(seed,)) for seed in range(6)]
    for thread in threads:
        thread.start()
    both = [Outcome.SEGMENTED, Outcome.REJECTED]
    wait(lambda: any(r.of(str(n)).count(both) for n in range(20)))
    time.sleep(0.15)
    r.worker.stop()
    for thread in threads:
        thread.join()
    answered = Counter(result.request.id for result in r.results)
    assert answered == submitted
    outcomes = {d.outcome for result in r.results for d in result.decisions}
    assert {Outcome.SEGMENTED, Outcome.REJECTED, Outcome.CANCELLED} <= outcomes


def test_out_of_memory_is_retried_smaller(recorder) -> None:
    """Fewer expressions at once, in order; what is too big by itself is FAILED, and the rest goes on."""
    r = recorder()
    r.engine.most_expressions = 3
    r.frame()
    words = ["red", "blue"] * 5
    r.ask("many", *words)
    r.wait(1)
    decisions = r.results[0].decisions
    assert [d.expression for d in decisions] == words
    assert [d.outcome for d in decisions] == [Outcome.SEGMENTED, Outcome.REJECTED] * 5
    assert r.engine.released > 0
    r.ask("huge", "red", "blue", "too big", "red")
    r.wait(2)
    codes = [d.code for d in r.results[1].decisions]
    assert codes == [Code.NONE, Code.NONE, Code.OUT_OF_MEMORY, Code.NONE]
    assert r.of("huge")[0][2] is Outcome.FAILED
    r.ask("after")
    r.wait(3)
    assert r.of("after") == [[Outcome.SEGMENTED]]


def test_memory_of_other_cameras_is_given_up_for_a_frame(recorder) -> None:
    r = recorder()
    encode, failed = r.engine.encode, []

    def short_of_memory(rgb):
        if r.worker._inference.encoded:
            failed.append(True)
            raise MemoryError("device memory is spent")
        return encode(rgb)

    r.engine.encode = short_of_memory
    for number, topic in enumerate(("left", "right")):
        r.frame(stamp=1 + number, topic=topic)
        r.ask(topic, topic=topic)
        r.wait(number + 1)
    assert failed
    assert r.engine.released == 1
    assert r.of("left") == r.of("right") == [[Outcome.SEGMENTED]]


@pytest.mark.parametrize("fields", [{"expressions": ["red"]}, {"text": "the red one"}])
def test_memory_of_other_cameras_is_given_up_for_an_expression(recorder, fields) -> None:
    r = recorder()
    segment = r.engine.segment

    def short_of_memory(*arguments, **options):
        if len(r.worker._inference.encoded) > 1:
            raise MemoryError("device memory is spent")
        return segment(*arguments, **options)

    r.engine.segment = short_of_memory
    for number, topic in enumerate(("left", "right", "left")):
        r.frame(stamp=1 + number, topic=topic)
        r.worker.submit(Request(f"{number}", topic=topic, **fields))
        r.wait(number + 1)
        assert r.of(f"{number}") == [[Outcome.SEGMENTED]]
    assert r.engine.released == 2


def test_paused_is_said_and_resumed(recorder) -> None:
    r = recorder()
    r.ask("waits")
    r.worker.pause("not active")
    r.wait(1)
    assert r.of("waits") == [[Outcome.CANCELLED]]
    r.ask("meanwhile", "red", "blue")
    r.wait(2)
    assert [d.code for d in r.results[1].decisions] == [Code.INACTIVE] * 2
    r.worker.resume()
    r.frame()
    r.ask("after")
    r.wait(3)
    assert r.of("after") == [[Outcome.SEGMENTED]]


def test_frames_grow_too_old(recorder) -> None:
    """By the clock of the stamps, also while an instruction waits for a newer one."""
    r = recorder(limits=Limits(max_frame_age=1.0), clock=lambda: 10_000_000_000)
    r.frame(stamp=8_999_999_999)
    r.ask("fresh")
    wait(lambda: r.worker.counts.stale > 0)
    assert not r.results
    assert r.worker.counts.stale == 1
    r.frame(stamp=9_000_000_000)
    r.wait(1)
    assert r.results[0].frame.stamp == 9_000_000_000


def test_no_answer_follows_a_cancellation(recorder, monkeypatch) -> None:
    """The cancellation comes when the model has answered and its result is not handed over yet."""
    r = recorder()
    emit, between, on = r.worker._emit, threading.Event(), threading.Event()

    def slow(result: Result) -> None:
        if result.frame is not None:
            between.set()
            assert on.wait(60.0)
        emit(result)

    monkeypatch.setattr(r.worker, "_emit", slow)
    r.ask("a", every_frame=True)
    r.frame()
    assert between.wait(60.0)
    assert r.worker.cancel("a")
    on.set()
    r.ask("b")
    r.frame(2)
    r.wait(2)
    assert r.of("a") == [[Outcome.CANCELLED]]
    assert r.of("b") == [[Outcome.SEGMENTED]]


def test_deadlines_are_told_while_the_engine_works(recorder) -> None:
    r = recorder()
    r.hang("long")
    r.ask("late", deadline=time.time_ns() - 1)
    r.worker.expire()
    assert r.of("late") == [[Outcome.EXPIRED]]
    assert r.of("long") == []
    r.engine.hang.set()


def test_what_is_replaced_ends_before_its_replacement_can_be_answered(
    recorder, monkeypatch
) -> None:
    r = recorder()
    hand_over, new = r.worker._hand_over, Request("a", expressions=["blue"])

    def checked(endings) -> None:
        assert new not in r.worker._schedule._requests.values() or not endings
        hand_over(endings)

    r.ask("a")
    monkeypatch.setattr(r.worker, "_hand_over", checked)
    r.worker.submit(new)
    r.frame()
    r.wait(2)
    assert r.of("a") == [[Outcome.CANCELLED], [Outcome.REJECTED]]


def test_a_worker_that_ended_holds_no_engine() -> None:
    """Whoever stops it may want the memory, and keeps the worker to have what still comes answered."""
    engine = FakeEngine()
    known, told = weakref.ref(engine), []
    worker = Worker(engine, told.append)
    worker.start()
    worker.submit(Request("a", expressions=["red"]))
    worker.stop()
    del engine
    gc.collect()
    assert known() is None
    worker.submit(Request("b", expressions=["red"]))
    assert [d.outcome for r in told for d in r.decisions] == [Outcome.CANCELLED] * 2


@pytest.mark.parametrize("track", ["off", "flow"])
def test_a_callback_may_stop_the_worker_that_calls_it(recorder, track) -> None:
    r = recorder(limits=Limits(track=track))
    stopped: list[str] = []

    def done(result: Result) -> None:
        if result.frame is not None:
            r.worker.stop()
            stopped.append(threading.current_thread().name)

    r.frame()
    r.ask("a", every_frame=True, done=done)
    wait(lambda: stopped, lambda: "its callback failed")
    assert stopped == ["gsva-tracking" if track == "flow" else "gsva-inference"]


def test_of_several_that_cannot_be_asked_each_is_told_why(recorder) -> None:
    r = recorder(limits=Limits(max_expression_length=3))
    r.ask("a", "", "four")
    (result,) = r.results
    codes = [Code.EMPTY_INSTRUCTION, Code.INVALID_INSTRUCTION]
    assert [(d.slot, d.code) for d in result.decisions] == list(enumerate(codes))


def test_stopping_waits_for_the_answer_in_progress_and_for_the_threads(recorder) -> None:
    r = recorder(delay=0.2)
    before = set(threading.enumerate()) - {r.worker._thread, r.worker._carrier._thread}
    r.frame()
    r.ask("a")
    r.wait_busy()
    assert r.worker.problem() == ""
    r.worker.stop()
    assert r.of("a") == [[Outcome.SEGMENTED]]
    assert set(threading.enumerate()) <= before
    assert not r.worker.busy
    assert r.worker.problem() == "", "it was asked to end"


def test_a_model_that_does_not_answer_is_abandoned_at_the_end(recorder) -> None:
    r = recorder()
    r.hang("long")
    r.worker.stop(timeout=0.05)
    (result,) = r.results
    assert [(d.outcome, d.code) for d in result.decisions] == [(Outcome.FAILED, Code.INTERNAL)]
    assert "did not answer within 0.05 s" in result.decisions[0].reason
    r.engine.hang.set()
    r.worker._thread.join(60.0)
    assert len(r.results) == 1, "what it answers in the end comes too late"


def test_a_model_is_not_stuck_because_the_process_was_stopped(recorder) -> None:
    """As by SIGSTOP or `docker pause`: nobody watched, either."""
    r = recorder(limits=Limits(inference_timeout=60.0))
    r.hang("long")
    assert r.worker.problem() == ""
    r.worker._watched -= 1000.0  # as if both had been a thousand seconds ago
    r.worker._turn_began -= 1001.0
    assert r.worker.problem() == ""
    assert 1.0 <= time.monotonic() - r.worker._turn_began < 60.0
    r.worker._turn_began -= 60.0  # while somebody watched
    assert "one inference has taken more than 60 s" in r.worker.problem()
    r.engine.hang.set()


def test_who_was_being_answered_when_the_process_was_stopped_does_not_pay_for_it(
    recorder, monkeypatch
) -> None:
    """Or a goal would get no answer for as long as the stop was, next to an instruction on every frame."""
    stopped = [0.0]
    clock = types.SimpleNamespace(
        monotonic=lambda: time.monotonic() + stopped[0], time_ns=time.time_ns
    )
    monkeypatch.setattr(worker, "time", clock)
    r = recorder()
    r.hang("goal", source=Source.FOLLOW, every_frame=True)
    stopped[0] = 1000.0
    r.ask("other", every_frame=True)
    r.engine.hang.set()
    r.engine.delay = 0.25
    end = time.monotonic() + 60.0
    while min(len(r.of("goal")), len(r.of("other"))) < 3:
        assert time.monotonic() < end, f"{len(r.of('goal'))} and {len(r.of('other'))} answers"
        r.frame()  # there is always a new one
        time.sleep(0.01)


def test_a_model_that_is_stuck_is_a_problem_while_it_is(recorder) -> None:
    limits = Limits(inference_timeout=0.05)
    r = recorder(limits=limits)
    assert r.worker.problem() == ""
    r.hang("long")
    time.sleep(0.1)
    assert "one inference has taken more than 0.05 s" in r.worker.problem()
    limits.inference_timeout = 0.0
    assert r.worker.problem() == "", "any time is allowed"
    limits.inference_timeout = 0.05
    r.engine.hang.set()
    r.wait(1)
    assert r.worker.problem() == ""


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_thread_that_has_ended_is_a_problem(recorder, monkeypatch) -> None:
    r = recorder()

    def end(*_: object) -> None:
        raise SystemExit

    monkeypatch.setattr(r.worker._schedule, "next", end)
    r.frame()  # wakes it
    r.worker._thread.join(60.0)
    assert r.worker.problem() == "the inference thread has ended"
    assert Worker(FakeEngine(), print).problem() == "", "not started yet"


def test_deadlines_keep_what_is_left_of_them_over_a_jump(recorder) -> None:
    now = [10_000_000_000]
    r = recorder(clock=lambda: now[0])
    r.ask("a", within=1_000_000_000, topic="camera")
    assert r.worker.starved().keys() == {"camera"}
    r.worker.jumping()
    now[0] += 5_000_000_000
    r.worker.expire()
    assert not r.results
    r.worker.jumped(5_000_000_000)
    r.worker.expire()
    assert not r.results
    now[0] += 1_000_000_000
    r.worker.expire()
    r.wait(1)  # its own thread may have been faster
    assert r.of("a") == [[Outcome.EXPIRED]]


@pytest.mark.parametrize("hours", [-1, 1])
def test_setting_the_clock_of_the_frames_leaves_deadlines_alone(recorder, hours: int) -> None:
    """They are measured on one that nobody sets."""
    clock, timer = [10**18], [5 * SECOND]
    r = recorder(clock=lambda: clock[0], timer=lambda: timer[0])
    r.ask("a", within=SECOND)
    clock[0] += hours * 3600 * SECOND
    r.worker.expire()
    assert not r.results
    timer[0] += SECOND
    r.worker.expire()
    r.wait(1)  # its own thread may have been faster
    assert r.of("a") == [[Outcome.EXPIRED]]


@pytest.mark.parametrize("too_big", ["expressions", "frame"])
def test_whatever_goes_wrong_is_an_answer_and_the_next_one_is_given(
    recorder, monkeypatch, too_big: str
) -> None:
    """Also where nobody expects it: while memory is being freed."""
    r = recorder()

    def broken() -> None:
        raise RuntimeError("the driver has gone")

    def full(_) -> None:
        raise MemoryError

    r.engine.release = broken
    if too_big == "frame":
        monkeypatch.setattr(r.engine, "encode", full)
    r.frame()
    r.ask("a", "too big", "red")
    r.wait(1)
    (result,) = r.results
    assert [d.expression for d in result.decisions] == ["too big", "red"]
    assert {(d.outcome, d.code) for d in result.decisions} == {(Outcome.FAILED, Code.INTERNAL)}
    assert result.decisions[0].reason == "RuntimeError: the driver has gone"
    assert result.frame is not None
    monkeypatch.undo()
    r.ask("b")
    r.wait(2)
    assert r.of("b") == [[Outcome.SEGMENTED]]


def test_who_repeats_waits_for_a_frame_since_the_last_answer(recorder) -> None:
    """And what an answer took is kept by stage."""
    r = recorder(delay=0.05)
    r.ask("a", every_frame=True, submitted=0.0)
    assert r.worker.starved()[""] > 0
    r.frame()
    r.wait(1)
    assert 0.0 <= r.worker.starved()[""] < 600.0
    assert {stage: len(spent) for stage, spent in r.worker.timings.items()} == dict.fromkeys(
        ("queue", "encode", "decide", "total"), 1
    )
    assert r.worker.timings["total"][-1] >= 0.05


@pytest.mark.parametrize("track", ["off", "flow"])
def test_repeated_requests_that_wait_their_rate_keep_no_frames(recorder, track) -> None:
    """Each was answered on another frame: those would fill the memory, most of all large raw ones."""
    r = recorder(limits=Limits(max_rate=1e-3, track=track))
    frames = []
    for number in range(1, 7):
        r.ask(str(number), every_frame=True)
        frame = CameraFrame(None, number, "camera", lambda: RED)
        frames.append(weakref.ref(frame))
        r.worker.offer(frame)
        wait(lambda number=number: r.of(str(number)))
    del frame
    r.results.clear()
    r.worker.cancel("6")
    r.wait(1)
    gc.collect()
    assert sum(frame() is not None for frame in frames) <= 2
