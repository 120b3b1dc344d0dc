"""A slow model's answers carried onto every frame: one answer a frame, in order, and none after the end."""

from __future__ import annotations

import gc
import itertools
import threading
import time
import weakref
from collections.abc import Callable, Sequence
from functools import partial

import numpy as np
import pytest
from fake_engine import FakeEngine
from moving import picture
from patience import wait

from gsva_ros.answer import Rejection
from gsva_ros.masks import trimmed
from gsva_ros.serving import carrying
from gsva_ros.serving.carrying import Carrier
from gsva_ros.serving.requests import (
    BadImageError,
    CameraFrame,
    Code,
    Decision,
    Limits,
    Outcome,
    Progress,
    Request,
    Result,
)
from gsva_ros.serving.worker import Worker
from gsva_ros.tracking import Tracker

STEP = 33_000_000
#: What a camera shows where nothing moves.
STILL = partial(picture, 40)
#: What the model finds there: the thing.
FOUND = {"outcome": Outcome.SEGMENTED, "region": trimmed(STILL()[..., 1] == 0)}


def asking(name: str = "look", **fields) -> Request:
    return Request(name, expressions=["red"], every_frame=True, **fields)


class Camera:
    """A worker on a slow fake engine, and a camera that shows it a moving thing."""

    def __init__(self, delay: float = 0.2, **limits) -> None:
        self.results: list[Result] = []
        self.limits = Limits(**{"track": "flow", **limits})
        self.engine = FakeEngine(delay)
        self.free = threading.Event()  # the model works while it is set
        self.free.set()
        encode = self.engine.encode
        self.engine.encode = lambda rgb: (
            encode(rgb) if self.free.wait(60.0) else pytest.fail("held")
        )
        self.worker = Worker(self.engine, self.results.append, self.limits)
        self.worker.start()
        self.shown = 0
        self.kept: list[int] = []  # stamps of frames whose belongings were kept

    def ask(self, *expressions: str, name: str = "look", **fields) -> None:
        self.worker.submit(Request(name, expressions=expressions, every_frame=True, **fields))

    def show(
        self, count: int = 1, still: bool = False, shade: float = 1.0, patience: float = 0.5
    ) -> None:
        """Show frames, each once the one before it has been answered or given up."""
        for _ in range(count):
            self.shown += 1
            rgb = picture(40 + (0 if still else self.shown), shade)
            before = len(self.results)
            stamp = self.shown * STEP
            keep = partial(self.kept.append, stamp)
            self.worker.offer(CameraFrame(None, stamp, "camera", lambda rgb=rgb: rgb, keep=keep))
            end = time.monotonic() + patience
            while len(self.results) == before and time.monotonic() < end:
                time.sleep(0.002)

    def first(self, *expressions: str, **fields) -> None:
        """Ask, show one frame and wait for the model's answer to it."""
        self.ask(*expressions, **fields)
        self.show()
        wait(lambda: len(self.results) > 0)


@pytest.fixture
def camera():
    made: list[Camera] = []

    def make(*args, **kwargs) -> Camera:
        made.append(Camera(*args, **kwargs))
        return made[-1]

    yield make
    for each in made:
        each.free.set()
        each.worker.stop()


def stamps(results: list[Result]) -> list[int]:
    return [r.frame.stamp for r in results]


def ages(results: list[Result]) -> list[int]:
    return [r.decisions[0].age for r in results]


def unreadable() -> np.ndarray:
    raise BadImageError("half a picture")


class Alone:
    """A carrier without a thread, and a request on every frame."""

    def __init__(self, *clock, then: Callable[[Result], None] = lambda _: None, **limits) -> None:
        """`then` is called with each answer."""
        self.results: list[Result] = []
        self.limits = Limits(track="flow", **limits)
        self.carrier = Carrier(lambda r: (self.results.append(r), then(r)), self.limits, *clock)
        self.request = asking()
        self.work = self.carrier._work
        self.shown = itertools.count()

    def show(self, stamp: int, topic: str = "camera", decode=STILL) -> CameraFrame:
        frame = CameraFrame(None, stamp, topic, decode, received=next(self.shown))
        self.carrier.offer(frame)
        return frame

    def end(self, request: Request) -> None:
        self.carrier.take(Result(request, [Decision(0, "red", Outcome.CANCELLED)]))

    def answer(self, frame: CameraFrame, request: Request | None = None, **found) -> None:
        """The model's answer about a frame: a rejection, unless it is said what it found."""
        decision = Decision(0, "red", **{"outcome": Outcome.REJECTED, **found})
        self.carrier.take(Result(request or self.request, [decision], frame, frame.decode()))

    def begin(self, *requests: Request, decode=STILL) -> None:
        """Each is answered on a first frame."""
        frame = self.show(1, decode=decode)
        for request in requests:
            self.answer(frame, request)
        self.work()


def test_every_frame_is_answered_once_and_ages_grow_until_the_model_speaks(camera) -> None:
    c = camera()
    c.first("red", "blue")
    c.free.clear()
    c.show(30, patience=60.0)
    c.free.set()
    while all(b >= a for a, b in itertools.pairwise(ages(c.results))) and c.shown < 500:
        c.show(patience=60.0)
    assert stamps(c.results) == [STEP * n for n in range(1, c.shown + 1)]
    found = [r.decisions[0] for r in c.results]
    assert {d.outcome for d in found} == {Outcome.SEGMENTED}
    assert not found[0].carried
    assert found[0].age == 0
    assert all(d.carried and d.age > 0 for d in found[1:-1])  # on the last, the model may be first
    later = [b.age - a.age for a, b in itertools.pairwise(found)]
    assert STEP in later  # one frame older
    assert min(later) < 0  # the model's word is newer
    assert {each.id for d in found for each in d.instances} == {1}
    for result, d in zip(c.results, found, strict=True):
        truth = result.rgb[..., 1] == 0
        mask = d.region.placed(truth.shape)
        assert (mask & truth).sum() / (mask | truth).sum() > 0.7
        assert 0 < d.instances[0].confidence <= 1
    assert {r.decisions[1].outcome for r in c.results} == {Outcome.REJECTED}
    assert c.worker.counts.carried == sum(d.carried for d in found)


def test_only_what_the_model_looks_at_is_kept_until_its_answer(camera) -> None:
    """Frames that are carried onto would push it out."""
    c = camera()
    c.first("red")
    c.free.clear()
    c.show(5, patience=60.0)
    c.free.set()
    c.show(15, patience=60.0)
    looked_at = {a.frame.stamp for a in c.results if not a.decisions[0].carried}
    assert len(c.results) > len(set(c.kept))
    assert looked_at <= set(c.kept)


def test_off_gives_the_models_answers_and_nothing_else(camera) -> None:
    c = camera(delay=0.02, track="off")
    c.ask("red")
    c.show(5, patience=60.0)
    assert stamps(c.results) == [STEP * n for n in range(1, 6)]
    assert not any(d.carried or d.age or d.instances for r in c.results for d in r.decisions)
    assert c.engine.encoded == 5


def test_what_is_asked_once_is_never_carried(camera) -> None:
    c = camera(delay=0.02)
    c.worker.submit(Request("once", expressions=["red"]))
    c.show()
    wait(lambda: c.results)
    c.show(2)
    assert len(c.results) == 1
    assert not c.results[0].decisions[0].instances


def test_nothing_comes_after_the_end(camera) -> None:
    c = camera()
    c.first("red")
    c.show(5)
    c.worker.cancel("look")
    wait(lambda: c.results[-1].decisions[0].outcome is Outcome.CANCELLED)
    count = len(c.results)
    c.show(3)
    time.sleep(0.4)  # the model's last answer comes as well
    assert len(c.results) == count


def test_nothing_comes_after_a_withdrawal_while_the_model_works(camera) -> None:
    """As where the same id is asked about something else: the old words get no answer any more."""
    c = camera()
    c.first("red")
    c.free.clear()
    c.show(2, patience=60.0)
    wait(lambda: c.worker.busy)
    c.ask("blue")
    c.results.clear()
    c.show(3, patience=0.1)
    assert not c.results
    c.free.set()
    wait(lambda: len(c.results) > 1)
    first, second = (r.decisions[0] for r in c.results[:2])
    assert (first.expression, first.outcome) == ("red", Outcome.CANCELLED)
    assert (second.expression, second.outcome) == ("blue", Outcome.REJECTED)


def test_a_rejection_says_when_the_model_looked(camera) -> None:
    c = camera()
    c.first("blue")
    c.free.clear()
    c.show(3, patience=60.0)
    reasons = [r.decisions[0].reason for r in c.results]
    assert "looked" not in reasons[0]
    assert reasons[3].endswith("; it looked 0.1 s earlier")


def test_seconds_are_those_of_the_answer_on_the_frame() -> None:
    """The model's own are its own and what carrying added; a carried answer took no encoding."""
    alone = Alone()
    alone.shown = itertools.count(time.monotonic() - 6.0, 0.5)
    frame, found = alone.show(1), [Decision(0, "red", Outcome.REJECTED)]
    spent = {"encode": 30.0, "total": 50.0, "queue": 20.0}
    alone.carrier.take(Result(alone.request, found, frame, frame.decode(), timings=spent))
    alone.work()
    alone.show(2)
    alone.work()
    own, carried = (result.timings for result in alone.results)
    assert (own["encode"], own["queue"]) == (30.0, 20.0)
    assert 50.0 < own["total"] < 80.0
    assert carried.keys() == {"queue", "total"}
    assert 5.5 <= carried["queue"] < 20.0
    assert 0.0 < carried["total"] < 5.0


def test_what_is_lost_again_is_lost_anew() -> None:
    """Not since it was lost before the model found it; and no answer is older than 0."""
    alone = Alone()
    for stamp, shade in ((10, 1.0), (20, 0.1), (30, 1.0), (40, 0.1), (5, 0.1)):
        frame = alone.show(stamp, decode=partial(picture, 40, shade))
        if shade == 1.0:
            alone.answer(frame, **FOUND)
        alone.work()
    told = [(d.code, d.answers, d.age) for r in alone.results for d in r.decisions]
    assert told[1::2] == [(Code.LOST, 1, 10), (Code.LOST, 1, 10)]
    assert told[4] == (Code.LOST, 2, 0)


def carried_onto(decisions: list[Decision], rgb: np.ndarray) -> tuple[list[Decision], Carrier]:
    """What is said on a picture after the model decided so on `picture(40)`."""
    alone = Alone(split_instances=True)
    alone.request.expressions = [d.expression for d in decisions]
    frame = alone.show(1)
    alone.carrier.take(Result(alone.request, decisions, frame, frame.decode()))
    alone.work()
    alone.show(2, decode=lambda: rgb)
    alone.work()
    return alone.results[1].decisions, alone.carrier


def test_confidence_is_that_of_the_flow() -> None:
    (decision,), carrier = carried_onto([Decision(0, "red", **FOUND)], picture(52))
    ((found,),) = carrier._trackers["camera"].carried(next(iter(carrier._answered))).values()
    assert decision.instances[0].confidence == found.confidence
    assert 0.3 < found.confidence < 1.0


def test_of_two_things_the_one_that_is_left_is_the_answer() -> None:
    mask = picture(40)[..., 1] == 0
    mask[20:60, 200:260] = True
    covered = picture(40)
    covered[80:140, 40:100] = np.random.default_rng(0).integers(0, 256, (60, 60, 3), np.uint8)
    model = [Decision(0, "things", Outcome.SEGMENTED, region=trimmed(mask))]
    (decision,), _ = carried_onto(model, covered)
    assert decision.outcome is Outcome.SEGMENTED
    ((x0, y0, _, _),) = (each.region.box for each in decision.instances)
    assert (x0, y0) == pytest.approx((200, 20), abs=2)
    assert decision.region.box == decision.instances[0].region.box


def test_after_a_scene_cut_a_failure_stays_one_and_a_rejection_none() -> None:
    model = [
        Decision(0, "raise", Outcome.FAILED, Code.INTERNAL, "RuntimeError"),
        Decision(1, "blue", Outcome.REJECTED, rejection=Rejection.MODEL),
    ]
    (failed, lost), _ = carried_onto(model, picture(40, 0.1))
    assert (failed.outcome, failed.code, failed.reason) == (
        Outcome.FAILED,
        Code.INTERNAL,
        "RuntimeError",
    )
    assert (lost.outcome, lost.code, lost.rejection) == (Outcome.FAILED, Code.LOST, None)


def test_how_long_it_has_been_lost_outlasts_the_models_answers(monkeypatch) -> None:
    """Each new one replaces what is known of the last, but for this."""
    alone = Alone()
    monkeypatch.setattr(Tracker, "answer", None)  # to call it is an error
    for stamp in (1, 2, 3):
        alone.answer(alone.show(stamp), **FOUND)
        alone.work()
    told = [(d.code, d.since, d.answers) for r in alone.results for d in r.decisions]
    assert told == [(Code.INTERNAL, 1, number) for number in (1, 2, 3)]


def test_any_camera_may_mean_several() -> None:
    """An instruction that names none is answered on every frame of each, with ids that stay."""
    alone = Alone()
    for number in range(1, 9):
        frame = alone.show(number, "right" if number % 2 else "left")
        if number in (1, 2, 5):
            alone.answer(frame, **FOUND)
        alone.work()
    assert stamps(alone.results) == list(range(1, 9))
    ids = {r.frame.topic: set() for r in alone.results}
    for result in alone.results:
        ids[result.frame.topic] |= {each.id for each in result.decisions[0].instances}
    assert [len(each) for each in ids.values()] == [1, 1]
    assert len(set.union(*ids.values())) == 2, "none is another camera's, too"
    alone.end(alone.request)
    assert not alone.carrier._last_answers
    assert not alone.carrier._trackers
    assert not alone.carrier._answered


def test_a_scene_cut_is_said_of_what_was_found_and_of_what_was_not(camera) -> None:
    c = camera()
    c.first("red", "blue")
    c.free.clear()
    c.show(2, patience=60.0)
    c.show(2, shade=0.1, patience=60.0)
    last = c.results[-1].decisions
    assert [d.outcome for d in last] == [Outcome.FAILED] * 2
    assert [d.code for d in last] == [Code.LOST] * 2
    assert all(d.reason.startswith("lost:") and d.region is None and not d.instances for d in last)
    assert last[0].answers == 2
    assert last[0].since == c.results[-2].frame.stamp


def test_off_while_it_runs_stops_carrying(camera) -> None:
    c = camera()
    c.first("red")
    c.free.clear()
    c.show(3, patience=60.0)
    assert c.results[-1].decisions[0].carried
    c.limits.track = "off"
    c.free.set()
    wait(lambda: not c.worker.busy)
    c.results.clear()
    c.show(3)
    wait(lambda: c.results)
    assert not any(d.carried for r in c.results for d in r.decisions)


def test_switching_on_and_off_answers_no_frame_twice_and_none_backwards(camera) -> None:
    c = camera(delay=0.15)
    c.first("red")
    for number in range(12):
        c.limits.track = ("off", "flow")[number % 2]
        c.show(4)
    stamps = [r.frame.stamp for r in c.results]
    assert len(stamps) > 24
    assert stamps == sorted(set(stamps))


def test_of_two_cameras_none_is_answered_backwards() -> None:
    """Where any will do: the model's answer about the one is late, and the other was carried on."""
    alone = Alone()
    alone.answer(alone.show(1, "left"))
    alone.work()
    late = alone.show(2, "right")
    alone.show(3, "left")
    alone.work()
    alone.answer(late)
    alone.work()
    alone.show(4, "right")
    alone.work()
    assert stamps(alone.results) == [1, 3, 4]


def test_none_is_answered_backwards_because_another_thread_had_its_turn() -> None:
    """Between two answers on a frame, the model tells of one of another camera that it could not read."""
    first, second = map(asking, "ab")
    failed = [Decision(0, "red", Outcome.FAILED, Code.BAD_IMAGE)]

    def then(result: Result) -> None:
        if result.request is first and result.frame.stamp == 2:
            alone.carrier.take(Result(second, failed, alone.show(3, "right", unreadable)))

    alone = Alone(then=then)
    alone.begin(first, second)
    alone.show(2)
    alone.work()
    answered = [(r.request.id, r.frame.stamp) for r in alone.results]
    assert answered == [("a", 1), ("b", 1), ("a", 2), ("b", 3)]


def test_nothing_is_carried_onto_a_frame_that_is_too_old() -> None:
    """The model's own answer is still given: its frame was recent enough when its turn came."""
    now, second = 0, 10**9
    alone = Alone(lambda: now, max_frame_age=1.0)
    own, now = alone.show(second), 3 * second
    alone.answer(own)
    alone.work()
    alone.show(2 * second - 1)
    alone.work()
    assert stamps(alone.results) == [second]
    alone.show(2 * second)
    alone.work()
    assert stamps(alone.results) == [second, 2 * second]


@pytest.mark.parametrize("readable", [True, False])
def test_a_request_that_ends_while_another_is_answered_costs_a_third_nothing(readable) -> None:
    """A callback may end requests: the one is answered no more, and the frame is answered to the rest."""
    first, second, third = map(asking, "abc")

    def then(result: Result) -> None:
        if result.request is first and result.frame.stamp == 2:
            second.state.ended = True
            alone.end(second)

    alone = Alone(then=then)
    alone.begin(first, second, third)
    alone.show(2, decode=STILL if readable else unreadable)
    alone.work()
    answered = [(r.request.id, r.frame and r.frame.stamp) for r in alone.results]
    assert answered == [("a", 1), ("b", 1), ("c", 1), ("a", 2), ("b", None), ("c", 2)]


def test_neither_who_has_ended_nor_a_picture_of_an_old_answer_stays_in_memory() -> None:
    alone, stays, ends = Alone(), asking("stays"), asking("ends")
    kept = [weakref.ref(ends)]

    def decode() -> np.ndarray:
        kept.append(weakref.ref(rgb := STILL()))
        return rgb

    alone.begin(stays, ends, decode=decode)
    kept.append(weakref.ref(alone.results[0].frame))
    alone.show(2)
    alone.work()
    alone.end(ends)
    alone.results.clear()
    del ends
    gc.collect()
    assert all(each() is None for each in kept)


def test_an_end_waits_for_one_answer_and_not_for_all_on_a_frame() -> None:
    """There may be a hundred, and each thread that ends one of them waits as long."""
    first, second, third = map(asking, "abc")

    def end() -> None:
        third.state.ended = True
        alone.end(third)

    ending = threading.Thread(target=end)

    def then(result: Result) -> None:
        if result.request is first and result.frame.stamp == 2:
            ending.start()
            wait(lambda: alone.carrier._queued)

    alone = Alone(then=then)
    alone.begin(first, second, third)
    alone.show(2)
    with alone.carrier._working:
        alone.work()
    ending.join()
    answered = [(r.request.id, r.frame and r.frame.stamp) for r in alone.results]
    assert answered == [("a", 1), ("b", 1), ("c", 1), ("a", 2), ("c", None), ("b", 2)]


def test_a_failing_model_is_not_hidden_behind_an_old_mask(camera) -> None:
    c = camera(delay=0.02)
    c.first("red", "raise")
    c.show(2)
    assert {d.outcome for r in c.results for d in r.decisions} == {Outcome.FAILED}
    assert {d.code for r in c.results for d in r.decisions} == {Code.INTERNAL}


def test_a_clock_that_jumps_back_forgets_what_was_carried(camera) -> None:
    c = camera()
    c.first("red")
    c.show(2)
    # No answer about a frame of before comes later.
    schedule, counts = c.worker._schedule, lambda: c.worker.counts
    wait(lambda: not (schedule.busy or schedule._unused) and counts().answers == c.engine.encoded)
    c.worker.jumped(-(10**9))
    c.results.clear()
    c.shown = 0
    c.show(1)
    wait(lambda: c.results)
    assert c.results[0].frame.stamp == STEP
    assert c.results[0].decisions[0].age == 0


def test_nothing_is_carried_onto_a_frame_from_before_what_was_asked_for(camera) -> None:
    """A camera whose stamps go back, to before `not_before`."""
    c = camera()
    c.shown = 9
    c.first("red", not_before=10 * STEP)
    c.show(2)
    c.shown = 3
    c.show(3)
    assert [r.frame.stamp // STEP for r in c.results if r.frame.stamp < 10 * STEP] == []


def answered_of(request: Request, shown: Sequence[int]) -> list[int]:
    """The stamps of the frames shown that are answered, after an answer of the model to the first."""
    alone = Alone()
    for stamp in shown:
        frame = alone.show(stamp)
        if stamp == shown[0]:
            alone.answer(frame, request)
        alone.work()
    return stamps(alone.results)


def test_frames_are_carried_onto_by_the_schedules_rule_for_stamps(monkeypatch) -> None:
    """Whatever it compares: here, whether a stamp is even."""
    monkeypatch.setattr(
        carrying, "admits", lambda not_before, stamp: not_before == 1 and stamp % 2 == 0
    )
    assert answered_of(asking(not_before=1), (-2, -1, 0, 1, 2, 3)) == [-2, 0, 2]


def test_stamps_before_1970_are_carried_onto_where_any_will_do() -> None:
    assert answered_of(asking(), (-2, -1)) == [-2, -1]


def test_after_a_jump_of_the_clock_only_the_models_next_answer_counts() -> None:
    """Neither what was carried before it nor what the model answered and nobody has taken up yet."""
    alone = Alone()
    alone.answer(alone.show(100), **FOUND)
    alone.work()
    alone.answer(alone.show(101), **FOUND)
    alone.carrier.forget_frames()
    first = alone.show(1)
    alone.work()
    assert stamps(alone.results) == [100]
    alone.answer(first, **FOUND)
    alone.work()
    assert stamps(alone.results) == [100, 1]
    assert alone.results[-1].decisions[0].outcome is Outcome.SEGMENTED


def test_a_worker_tells_of_a_jump_forwards_too() -> None:
    """On the new clock the old masks would look older than they are."""
    results: list[Result] = []
    worker = Worker(FakeEngine(), results.append, Limits(track="flow"))
    carrier = worker._carrier
    for stamp in (1, 100):
        frame = CameraFrame(None, stamp, "camera", lambda: picture(40), received=stamp)
        worker.offer(frame)
        if stamp == 1:
            found = [Decision(0, "red", Outcome.REJECTED)]
            carrier.take(Result(asking(), found, frame, frame.decode()))
        carrier._work()
        worker.jumped(90)
    assert stamps(results) == [1]


def test_an_answer_that_comes_after_the_end_is_not_carried_on() -> None:
    alone = Alone()
    alone.request.state.ended = True
    alone.end(alone.request)
    alone.answer(alone.show(1))
    alone.work()
    alone.limits.track = "off"
    alone.answer(alone.show(2))
    assert [r.decisions[0].outcome for r in alone.results] == [Outcome.CANCELLED]


def test_an_answer_that_waits_while_carrying_is_switched_off_is_given() -> None:
    alone, frame = Alone(), CameraFrame(None, 1, "camera", partial(picture, 40))
    for name, ended in (("goes on", False), ("ended", True)):
        state = Progress(ended=ended)
        alone.answer(frame, asking(name, state=state))
    alone.limits.track = "off"
    alone.work()
    assert [r.request.id for r in alone.results] == ["goes on"]


def test_what_was_carried_until_it_was_switched_off_is_not_carried_on_later() -> None:
    alone = Alone()
    alone.begin(alone.request)
    for stamp, alone.limits.track in ((2, "off"), (3, "flow")):
        alone.show(stamp)
        alone.work()
    assert stamps(alone.results) == [1]


def test_frames_that_wait_together_are_answered_in_their_order_each_with_its_picture() -> None:
    alone = Alone()
    for number, topic in enumerate(("left", "right", "right", "left"), start=1):
        frame = alone.show(number, topic, partial(picture, 40 + number))
        if number < 3:
            alone.answer(frame)
        if number != 3:
            alone.work()
    assert stamps(alone.results) == [1, 2, 3, 4]
    for result in alone.results:
        assert (result.rgb == picture(40 + result.frame.stamp)).all()


def test_frames_that_nobody_asks_about_are_not_decoded(caplog) -> None:
    alone = Alone()
    alone.begin(alone.request)  # about another camera
    alone.show(2, "right", lambda: pytest.fail("decoded"))
    alone.work()
    assert not caplog.records


def test_nothing_is_done_while_nothing_comes(camera, monkeypatch) -> None:
    """It waits, and takes no processor."""
    c = camera(0.0)
    c.first("red")
    carrier, begun = c.worker._carrier, []
    work = carrier._work
    monkeypatch.setattr(carrier, "_work", lambda: (begun.append(1), work()))
    time.sleep(0.1)
    assert len(begun) <= 2


def test_a_mask_of_two_parts_is_one_instance_unless_they_are_to_be_split() -> None:
    mask = np.zeros((240, 320), bool)
    mask[80:140, 40:100] = mask[80:140, 200:260] = True
    for split, count in ((False, 1), (True, 2)):
        alone = Alone(split_instances=split)
        alone.answer(alone.show(1), outcome=Outcome.SEGMENTED, region=trimmed(mask))
        alone.work()
        (decision,) = alone.results[0].decisions
        assert len(decision.instances) == count
        assert np.array_equal(
            decision.region.placed(mask.shape), mask
        )  # together they are the mask


def test_instances_of_one_expression_keep_an_id_each(camera) -> None:
    c = camera(split_instances=True)
    c.ask("red")
    rgb = picture(40)
    rgb[80:140, 200:260] = (255, 0, 0)
    for number in range(1, 500):
        c.worker.offer(CameraFrame(None, number * STEP, "camera", lambda: rgb))
        time.sleep(0.05)
        if number >= 24 and len(c.results) > 5:  # a busy machine passes over some
            break
    assert {tuple(p.id for p in r.decisions[0].instances) for r in c.results} == {(1, 2)}


def test_an_instance_that_is_lost_beside_others_is_told(camera) -> None:
    c = camera(split_instances=True)
    c.ask("red")
    two = picture(40)
    two[80:140, 200:260] = (255, 0, 0)
    c.worker.offer(CameraFrame(None, STEP, "camera", lambda: two))
    wait(lambda: c.results)
    c.free.clear()
    c.worker.offer(CameraFrame(None, 2 * STEP, "camera", lambda: picture(40)))
    wait(lambda: len(c.results) > 1)
    before, after = (r.decisions[0] for r in c.results[:2])
    assert (len(before.instances), before.reason) == (2, "")
    assert (after.outcome, after.carried, len(after.instances)) == (Outcome.SEGMENTED, True, 1)
    assert after.reason.startswith("1 of 2 instances lost:")


def test_an_unreadable_frame_is_answered_once(camera) -> None:
    """By whoever meets it first, the model or what carries its masks."""
    for delay in (0.0, 0.2):
        c = camera(delay)
        c.first("red")
        for _ in range(5):
            c.shown += 1
            before = len(c.results)
            c.worker.offer(CameraFrame(None, c.shown * STEP, "camera", unreadable))
            wait(lambda c=c, before=before: len(c.results) > before)
            time.sleep(0.02)
        c.show(still=True)
        wait(lambda c=c: stamps(c.results)[-1] == c.shown * STEP)
        assert stamps(c.results) == [n * STEP for n in range(1, c.shown + 1)]
        failed = [(d.outcome, d.code, d.reason) for r in c.results[1:6] for d in r.decisions]
        assert failed == [(Outcome.FAILED, Code.BAD_IMAGE, "half a picture")] * 5


@pytest.mark.parametrize("learned", [False, True])
def test_an_unreadable_frame_is_answered_once_beside_a_blank_expression(learned) -> None:
    """Whether or not the model's answer before it has been taken up when the model meets it."""
    alone = Alone()
    alone.request.expressions = ["red", ""]
    blank = Decision(1, "", Outcome.FAILED, Code.EMPTY_INSTRUCTION)
    for stamp, decode, rgb, red in (
        (1, STILL, STILL(), Decision(0, "red", Outcome.REJECTED)),
        (2, unreadable, None, Decision(0, "red", Outcome.FAILED, Code.BAD_IMAGE)),
    ):
        frame = alone.show(stamp, decode=decode)
        alone.carrier.take(Result(alone.request, [red, blank], frame, rgb))
        if learned:
            alone.work()
    alone.work()
    assert stamps(alone.results) == ([1, 2] if learned else [2])
    assert alone.results[-1].decisions[0].code is Code.BAD_IMAGE


def test_no_frame_is_begun_while_somebody_waits_for_the_thread(camera, monkeypatch) -> None:
    """It would take the lock again at once, and whoever ends a request would wait for many frames."""
    c = camera(0.0)
    c.first("red")
    carrier, begun = c.worker._carrier, threading.Event()
    work = carrier._work
    monkeypatch.setattr(carrier, "_work", lambda: (begun.set(), work()))
    with carrier._changed:
        carrier._queued += 1  # somebody is about to take the lock
    c.worker.offer(CameraFrame(None, 2 * STEP, "camera", lambda: picture(40)))
    assert not begun.wait(0.1)
    with carrier._between_work(), carrier._changed:
        carrier._queued -= 1
    wait(begun.is_set)
    wait(lambda: stamps(c.results) == [STEP, 2 * STEP])


def test_what_the_model_fails_at_is_the_answer_until_it_speaks_again(camera) -> None:
    """On each frame once: a mask carried onto one on which it failed would be a second answer."""
    c = camera(0.05)
    c.first("red")
    encode = c.engine.encode

    def broken(rgb: np.ndarray) -> np.ndarray:
        time.sleep(0.05)
        raise MemoryError("device memory is spent")

    def codes() -> list[Code]:
        return [code for code, _ in itertools.groupby(r.decisions[0].code for r in c.results)]

    c.engine.encode = broken
    wait(lambda: c.show() or codes() == [Code.NONE, Code.OUT_OF_MEMORY])
    c.engine.encode = encode
    wait(lambda: c.show() or codes() == [Code.NONE, Code.OUT_OF_MEMORY, Code.NONE])
    assert stamps(c.results) == [STEP * n for n in range(1, c.shown + 1)]


def test_unreadable_frames_in_a_row_are_counted(camera) -> None:
    c = camera(0.5)
    c.first("red")
    for number in (2, 3, 4):
        c.worker.offer(CameraFrame(None, number * STEP, "camera", unreadable))
        wait(lambda number=number: stamps(c.results)[-1] == number * STEP)
    told = [(d.since // STEP, d.answers) for r in c.results[1:4] for d in r.decisions]
    assert told == [(2, 1), (2, 2), (2, 3)]
    assert all(r.threshold is None for r in c.results[1:4])


def test_an_unreadable_frame_of_another_camera_is_told() -> None:
    """Where any will do, and the masks of the other one are carried."""
    alone = Alone()
    alone.answer(alone.show(1, "left"))
    alone.work()
    broken = [Decision(0, "red", Outcome.FAILED, Code.BAD_IMAGE, "half a picture")]
    for stamp, topic in ((2, "right"), (3, "left")):
        frame = CameraFrame(None, stamp, topic, unreadable, received=stamp)
        alone.carrier.take(Result(alone.request, broken, frame))
    assert stamps(alone.results) == [1, 2], "the carrier sees each of the left camera's itself"


def test_a_fault_on_one_camera_is_told_and_costs_the_others_nothing(monkeypatch) -> None:
    alone = Alone()
    for topic in ("left", "right"):
        alone.answer(alone.show(1, topic), asking(topic))
    alone.work()
    for stamp, method in ((2, "observe"), (3, "carried")):
        alone.results.clear()
        with monkeypatch.context() as patch:
            tracker = alone.carrier._trackers["left"]
            patch.setattr(tracker, method, lambda *_: [].remove("too wide"))
            alone.show(stamp, "left")
            alone.show(stamp, "right")
            alone.work()
        codes = {r.request.id: r.decisions[0].code for r in alone.results}
        assert codes == {"left": Code.INTERNAL, "right": Code.NONE}
        assert "masks could not be carried: ValueError" in alone.results[0].decisions[0].reason


@pytest.mark.parametrize("learnt_before", [False, True])
def test_an_answer_that_cannot_be_learnt_is_told_and_costs_the_others_nothing(
    monkeypatch, learnt_before: bool
) -> None:
    """As where memory ends: no mask of the answer before passes for one of this answer."""
    alone = Alone()
    full, other = map(asking, ("full", "other"))

    def shown(stamp: int, *answered: Request) -> dict[str, Decision]:
        alone.results.clear()
        frame = alone.show(stamp)
        for request in answered:
            alone.answer(frame, request, rejection=Rejection.MODEL)
        alone.work()
        return {r.request.id: r.decisions[0] for r in alone.results}

    def answer(self: Tracker, name: Request, *given: object) -> None:
        if name is full:
            raise MemoryError("no memory")
        learn(self, name, *given)

    learn = Tracker.answer
    if learnt_before:
        shown(1, full, other)
    with monkeypatch.context() as patch:
        patch.setattr(Tracker, "answer", answer)
        both = shown(2, full, other), shown(3)
    for found in both:
        assert found["other"].outcome is Outcome.REJECTED
        assert (found["full"].outcome, found["full"].code) == (Outcome.FAILED, Code.INTERNAL)
        assert found["full"].reason == "masks could not be carried: MemoryError: no memory"
    alone.results.clear()
    for request in (other, full):
        alone.end(request)
    assert [r.request.id for r in alone.results] == ["other", "full"]
    assert not alone.carrier._trackers
    assert shown(4, full)["full"].outcome is Outcome.REJECTED  # the model's next answer counts


def test_an_answer_that_comes_while_another_is_learnt_is_not_lost(monkeypatch) -> None:
    alone = Alone()
    carrier, learn = alone.carrier, alone.carrier._learn
    later = iter([lambda: alone.answer(alone.show(2))])
    monkeypatch.setattr(carrier, "_learn", lambda r: (next(later, lambda: None)(), learn(r)))
    alone.answer(alone.show(1))
    alone.work()
    assert list(carrier._unlearnt) == [alone.request]
    alone.work()
    assert 2 in stamps(alone.results)
