"""The schedule alone: no threads, no sleeps. Each request ends once, whatever the order of events."""

from __future__ import annotations

import math
import random
from collections import Counter

import pytest

from gsva_ros.serving.requests import (
    NEVER,
    CameraFrame,
    Code,
    Limits,
    Outcome,
    Request,
    Source,
    Steadiness,
)
from gsva_ros.serving.schedule import (
    DEADLINE_WAIT,
    LONGEST_WAIT,
    OWN_IMAGES,
    Ending,
    Schedule,
    Turn,
    fits,
)
from gsva_ros.stamps import SECOND


def frame(stamp: int = 1, topic: str = "camera", received: float | None = None) -> CameraFrame:
    """A frame that was received when it was stamped, unless it is said when."""
    received = stamp / SECOND if received is None else received
    return CameraFrame(None, stamp, topic, lambda: None, received)


def request(name: str, **fields) -> Request:
    fields.setdefault("submitted", 0.0)
    return Request(name, expressions=fields.pop("expressions", ["red"]), **fields)


def outcomes(endings: list[Ending]) -> list[tuple[str, Outcome]]:
    return [(e.request.id, e.outcome) for e in endings]


def begun(schedule: Schedule, now: float = 0.0) -> Turn:
    turn = schedule.next(now, 0)
    assert isinstance(turn, Turn)
    return turn


def answered(schedule: Schedule, now: float = 0.0, seconds: float = 0.1) -> CameraFrame:
    """Answer the request whose turn it is; return the frame that it is about."""
    turn = begun(schedule, now)
    assert schedule.finish(turn, 0, seconds) is None
    return turn.frame


def test_a_rate_that_is_next_to_nothing_waits_no_longer_than_a_second() -> None:
    schedule = Schedule(Limits(max_rate=1e-12))
    schedule.submit(request("slow", every_frame=True), 0)
    schedule.offer(frame())
    answered(schedule)
    schedule.offer(frame(2))
    assert schedule.next(1.0, 0) == LONGEST_WAIT


def test_a_repeated_request_keeps_to_its_rate() -> None:
    schedule = Schedule(Limits(max_rate=2.0))
    schedule.submit(request("twice a second", every_frame=True), 0)
    schedule.offer(frame())
    answered(schedule)
    schedule.offer(frame(2))
    assert schedule.next(0.1, 0) == pytest.approx(0.4)
    assert isinstance(schedule.next(0.5, 0), Turn)


@pytest.mark.parametrize("end", ["cancel", "pause", "stop", "replace"])
def test_what_is_under_way_ends_once(end: str) -> None:
    schedule = Schedule(Limits())
    schedule.offer(frame())
    schedule.submit(request("a", every_frame=True), 0)
    turn = schedule.next(0.0, 0)
    during = {
        "cancel": lambda: schedule.cancel("a", "why")[1],
        "pause": lambda: schedule.pause("why"),
        "stop": schedule.stop,
        "replace": lambda: schedule.submit(request("a"), 0),
    }[end]()
    assert during == []
    after = schedule.finish(turn, 0, 0.1)
    assert outcomes(after) == [("a", Outcome.CANCELLED)]


def test_what_is_replaced_is_told_what_for() -> None:
    schedule = Schedule(Limits())
    schedule.submit(request("a"), 0)
    (ending,) = schedule.submit(request("a"), 0)
    assert ending.reason == "replaced by a newer instruction with the same id"


def test_an_answer_that_is_ready_at_shutdown_is_given() -> None:
    schedule = Schedule(Limits())
    schedule.offer(frame())
    schedule.submit(request("once"), 0)
    turn = schedule.next(0.0, 0)
    schedule.submit(request("waits"), 0)
    (ending,) = schedule.stop()
    told = (Outcome.CANCELLED, "the node is shutting down")
    assert (ending.request.id, ending.outcome, ending.reason) == ("waits", *told)
    assert schedule.finish(turn, 0, 0.1) is None
    (ending,) = schedule.submit(request("late"), 0)
    assert (ending.outcome, ending.reason) == told


def test_what_was_abandoned_is_not_answered_when_the_model_comes_back() -> None:
    schedule = Schedule(Limits())
    schedule.offer(frame())
    for name in ("stuck", "waits"):
        schedule.submit(request(name), 0)
    turn = schedule.next(0.0, 0)
    endings = schedule.abandon("stuck")
    assert outcomes(endings) == [("stuck", Outcome.FAILED), ("waits", Outcome.FAILED)]
    assert schedule.finish(turn, 0, 1000.0) == []
    assert [e.code for e in schedule.submit(request("later"), 0)] == [Code.INACTIVE]


def test_what_was_abandoned_is_not_abandoned_again_at_shutdown() -> None:
    """The watchdog gave it up, and the model still does not return."""
    schedule = Schedule(Limits())
    schedule.offer(frame())
    schedule.submit(request("stuck"), 0)
    assert isinstance(schedule.next(0.0, 0), Turn)
    assert outcomes(schedule.abandon("stuck")) == [("stuck", Outcome.FAILED)]
    assert schedule.abandon("shutdown") == []


def test_an_invalid_instruction_with_a_used_id_ends_both() -> None:
    schedule = Schedule(Limits())
    schedule.submit(request("a", every_frame=True), 0)
    old, new = schedule.submit(request("a", problem="unknown mode 9"), 0)
    assert outcomes([old, new]) == [("a", Outcome.CANCELLED), ("a", Outcome.FAILED)]
    assert "cannot be executed" in old.reason
    assert new.reason == "unknown mode 9"
    assert schedule.waiting == 0


def test_a_frame_from_long_ago_does_not_answer_a_new_request() -> None:
    schedule = Schedule(Limits(max_frame_lead=1.0))
    schedule.offer(frame(received=10.0))
    schedule.submit(request("new", submitted=11.5), 0)
    assert not isinstance(schedule.next(11.5, 0), Turn)
    schedule.offer(frame(received=12.0))
    assert isinstance(schedule.next(12.0, 0), Turn)


def test_the_frame_rule() -> None:
    assert fits(5, stamp=5, lead=1.0, max_lead=1.0)
    assert not fits(5, stamp=4, lead=0.9, max_lead=1.0)
    assert not fits(0, stamp=5, lead=1.1, max_lead=1.0)
    assert fits(0, stamp=5, lead=1e9, max_lead=0.0)
    assert fits(0, stamp=5, lead=-3.0, max_lead=1.0)


def test_stamps_before_1970_are_stamps_where_any_will_do() -> None:
    assert fits(0, stamp=-5, lead=0.0, max_lead=1.0)
    assert not fits(1, stamp=-5, lead=0.0, max_lead=1.0)


def test_any_camera_means_the_newest_frame_that_fits() -> None:
    """Not that of a faster camera whose stamps are wrong; and for every frame, none goes back in time."""
    schedule = Schedule(Limits())
    good = frame(7, "good", received=1.0)
    schedule.offer(good)
    schedule.offer(frame(0, "unstamped", received=2.0))
    schedule.submit(request("any", not_before=5, every_frame=True), 0)
    assert answered(schedule, 2.0) is good
    schedule.offer(frame(0, "unstamped", received=3.0))
    assert not isinstance(schedule.next(3.0, 0), Turn), "answered twice on one frame"
    newer = frame(9, "other", received=4.0)
    schedule.offer(newer)
    assert answered(schedule, 4.0) is newer
    assert not isinstance(schedule.next(5.0, 0), Turn), "went back to an older frame"


def test_any_camera_means_the_newest_frame_also_of_a_camera_seen_before() -> None:
    schedule = Schedule(Limits())
    for number, topic in enumerate(("left", "right", "left")):
        schedule.offer(frame(number, topic, received=float(number)))
    schedule.submit(request("any"), 0)
    turn = begun(schedule, 2.0)
    assert (turn.frame.topic, turn.frame.stamp) == ("left", 2)


def test_frames_and_instructions_are_counted() -> None:
    """A frame is dropped if a newer one of its camera comes before any request has used it."""
    schedule = Schedule(Limits())
    schedule.submit(request("a", topic="left"), 0)
    schedule.submit(request("a", topic="left"), 0)
    schedule.submit(request("refused", problem="unknown mode 9"), 0)
    for number, topic in enumerate(("left", "right", "left", "left")):
        schedule.offer(frame(number, topic, received=float(number)))
    answered(schedule, 4.0)
    schedule.offer(frame(4, "left", received=4.0))
    counts = schedule.counts
    assert (counts.received, counts.dropped, counts.instructions) == (5, 2, 3)


def test_frames_from_before_a_pause_or_a_jump_of_the_clock_answer_nothing() -> None:
    """Not even those that requests were to be answered on next."""
    schedule = Schedule(Limits())
    for name in "abc":
        schedule.submit(request(name), 0)
    schedule.offer(frame())
    answered(schedule)  # the others are due on the same frame
    schedule.jumped(SECOND)
    assert not isinstance(schedule.next(0.1, 0), Turn)
    schedule.offer(frame(2, received=0.2))
    answered(schedule, 0.2)
    schedule.pause("not active")
    schedule.resume()
    schedule.submit(request("d"), 0)
    assert not isinstance(schedule.next(0.3, 0), Turn)
    schedule.offer(frame(3, topic="other"))
    schedule.forget_frames()
    schedule.offer(frame(4, topic="other"))
    assert schedule.counts.dropped == 0, "what was forgotten was not replaced by a newer one"


def test_a_frame_that_comes_while_it_is_paused_answers_nothing_later() -> None:
    schedule = Schedule(Limits())
    schedule.pause("not active")
    schedule.offer(frame())
    schedule.resume()
    schedule.submit(request("a"), 0)
    assert not isinstance(schedule.next(0.1, 0), Turn)


def test_steadiness_counts_from_the_jump_of_the_clock() -> None:
    """Or `since` would be later than the frame, and the last round's outcomes would count."""
    schedule = Schedule(Limits())
    steady = request("a", every_frame=True)
    schedule.submit(steady, 0)
    steady.state.steadiness["camera"] = {(0, "red"): Steadiness(Outcome.SEGMENTED, 100 * SECOND, 2)}
    schedule.jumped(-99 * SECOND)
    assert not steady.state.steadiness


def test_a_repeated_instruction_without_an_id_does_not_pile_up() -> None:
    """As `ros2 topic pub` sends it every second; other words are another instruction."""
    schedule = Schedule(Limits())
    ended = []
    for words in ("red", "red", "blue", "red"):
        repeated = Request(expressions=[words], every_frame=True)
        ended += [(e.request.expressions[0], e.outcome) for e in schedule.submit(repeated, 0)]
    assert ended == [("red", Outcome.CANCELLED), ("red", Outcome.CANCELLED)]
    for other in ({"expressions": ["red"], "topic": "left"}, {"text": "red"}, {"text": "blue"}):
        assert schedule.submit(Request(every_frame=True, **other), 0) == []


def test_instructions_without_an_id_get_one_each() -> None:
    schedule = Schedule(Limits())
    both = [request(""), request("")]
    assert [schedule.submit(each, 0) for each in both] == [[], []]
    assert schedule.waiting == 2
    assert len({each.id for each in both} - {""}) == 2


def test_what_cannot_be_asked_fails_at_once() -> None:
    """Each expression for its own reason, unless some of them can be asked."""
    schedule = Schedule(Limits(max_expressions=2, max_expression_length=3))
    for fields, code in (
        ({"expressions": []}, Code.EMPTY_INSTRUCTION),
        ({"text": "red"}, Code.INVALID_INSTRUCTION),
        ({"expressions": ["a", "b", "c"]}, Code.INVALID_INSTRUCTION),
        ({"expressions": [], "text": "four"}, Code.INVALID_INSTRUCTION),
    ):
        (ending,) = schedule.submit(request("a", **fields), 0)
        assert (ending.outcome, ending.code) == (Outcome.FAILED, code)
    (ending,) = schedule.submit(request("b", expressions=[" ", "four"]), 0)
    assert ending.outcome is Outcome.FAILED
    assert ending.each == (
        (Code.EMPTY_INSTRUCTION, "an empty expression"),
        (Code.INVALID_INSTRUCTION, "4 characters, at most 3 are allowed"),
    )
    # Too long is said before it is read: ten million characters would take a second.
    (ending,) = schedule.submit(request("b", expressions=["    "]), 0)
    assert ending.reason == "4 characters, at most 3 are allowed"
    for nothing in ("\u200b\u2060", ". ."):  # invisible letters; stops, which GSVA does not read
        (ending,) = schedule.submit(request("b", expressions=[nothing]), 0)
        assert ending.code is Code.EMPTY_INSTRUCTION
    for fields in ({"expressions": ["", "two"]}, {"expressions": [], "text": "two"}):
        assert schedule.submit(request(f"c{len(fields)}", **fields), 0) == []


def test_what_comes_while_an_inactive_node_lets_go_is_told_that_it_is_inactive() -> None:
    schedule = Schedule(Limits())
    schedule.pause("not active")
    schedule.stop()
    (ending,) = schedule.submit(request("late"), 0)
    assert (ending.outcome, ending.code) == (Outcome.FAILED, Code.INACTIVE)
    assert ending.reason == "not active"


def test_a_full_queue_of_one_source_refuses_no_other() -> None:
    schedule = Schedule(Limits(max_instructions=2))
    for number in range(3):
        refused = schedule.submit(request(str(number)), 0)
    assert [(e.code, e.reason) for e in refused] == [
        (Code.QUEUE_FULL, "2 instructions are waiting already")
    ]
    assert schedule.submit(request("call", source=Source.SERVICE, frame=frame()), 0) == []
    assert schedule.submit(request("goal", source=Source.FOLLOW, every_frame=True), 0) == []
    assert schedule.next(0.0, 0).request.id == "call"


def test_waiting_calls_bring_no_more_images_than_fit_into_memory() -> None:
    """However large one of them is, it has its turn."""
    schedule = Schedule(Limits())

    def call(name: str, size: int) -> list[Ending]:
        own = CameraFrame(None, 1, "service", lambda: None, 0.0, size=size)
        return schedule.submit(request(name, source=Source.SERVICE, frame=own), 0)

    assert call("larger than all", OWN_IMAGES + 1) == []
    (refused,) = call("beside it", 1)
    assert (refused.code, refused.reason) == (
        Code.QUEUE_FULL,
        "1 calls are waiting already, and their images fill 1024 MiB: wait for answers before sending more",
    )
    assert schedule.submit(request("from a camera"), 0) == []
    answered(schedule)
    assert call("half", OWN_IMAGES // 2) == call("other half", OWN_IMAGES // 2) == []
    (refused,) = call("a byte more", 1)
    assert refused.code is Code.QUEUE_FULL


def test_deadlines_follow_the_given_clock() -> None:
    """However much time passes elsewhere; a jump of the clock leaves them what was left."""
    schedule = Schedule(Limits(default_deadline=2.0))
    schedule.submit(request("a"), 100 * SECOND)
    assert schedule.expire(101 * SECOND) == []
    schedule.jumped(-90 * SECOND)
    assert schedule.expire(11 * SECOND) == []
    (ending,) = schedule.expire(12 * SECOND)
    assert (ending.outcome, ending.reason) == (Outcome.EXPIRED, "its deadline passed")


def test_a_request_may_have_no_deadline_whatever_the_default() -> None:
    schedule = Schedule(Limits(default_deadline=2.0))
    schedule.submit(Request("a", expressions=["x"], every_frame=True, within=NEVER), SECOND)
    assert schedule.expire(10**6 * SECOND) == []


def test_a_pending_deadline_is_looked_at_often() -> None:
    """Its clock may run faster than the wall clock, as when a bag is played."""
    schedule = Schedule(Limits())
    schedule.submit(request("any"), 1)
    assert schedule.next(0.0, 1) == LONGEST_WAIT
    schedule.submit(request("hurried", deadline=SECOND), 1)
    assert schedule.next(0.0, 1) == DEADLINE_WAIT


def test_a_deadline_is_for_the_first_answer() -> None:
    schedule = Schedule(Limits())
    schedule.submit(request("a", every_frame=True, deadline=SECOND), 1)
    schedule.offer(frame())
    turn = begun(schedule)
    assert schedule.finish(turn, 2, 0.1) is None
    assert schedule.expire(2 * SECOND) == []
    schedule.offer(frame(2, received=2.0))
    assert isinstance(schedule.next(2.0, 2 * SECOND), Turn)


def test_the_clock_may_begin_while_the_model_works() -> None:
    schedule = Schedule(Limits(default_deadline=2.0))
    schedule.submit(request("a"), 0)
    schedule.offer(frame())
    turn = begun(schedule)
    assert schedule.finish(turn, 1000 * SECOND, 0.1) is None


def test_no_deadline_passes_before_the_clock_begins() -> None:
    """Which is 0 until then, and may begin anywhere; also again, where use_sim_time changes."""
    schedule = Schedule(Limits(default_deadline=2.0))
    schedule.submit(request("a"), 0)
    assert schedule.expire(1000 * SECOND) == []
    schedule.submit(request("b"), 1001 * SECOND)
    assert outcomes(schedule.expire(1002 * SECOND)) == [("a", Outcome.EXPIRED)]
    schedule.jumped(-1002 * SECOND)
    assert schedule.expire(0) == []
    assert schedule.expire(5 * SECOND) == []
    assert outcomes(schedule.expire(6 * SECOND)) == [("b", Outcome.EXPIRED)]


def test_a_clock_that_begins_with_a_jump_puts_deadlines_off_once() -> None:
    """Not by the jump and then again by its first time."""
    schedule = Schedule(Limits(default_deadline=2.0))
    schedule.submit(request("a"), 0)
    schedule.jumped(1000 * SECOND)
    assert schedule.expire(1001 * SECOND) == []
    assert outcomes(schedule.expire(1002 * SECOND)) == [("a", Outcome.EXPIRED)]


def test_one_frame_is_finished_before_the_next_is_begun() -> None:
    """Ten instructions on a camera that never stops share each encoding."""
    schedule = Schedule(Limits())
    for number in range(10):
        schedule.submit(request(str(number), every_frame=True), 0)
    used = []
    for step in range(40):
        schedule.offer(frame(step))
        used.append(answered(schedule, step * 0.1))
    # A frame for each round of ten, and none between.
    assert len({id(f) for f in used}) == 4


def test_what_waits_moves_on_to_the_newer_frame_that_another_takes() -> None:
    """Single instructions behind one on every frame: the older frame is neither kept nor encoded again."""
    schedule = Schedule(Limits())
    schedule.submit(request("every", every_frame=True), 0)
    for number in range(6):
        schedule.submit(request(str(number)), 0)
    used = []
    for step in range(12):
        schedule.offer(frame(step, received=float(step)))
        used.append(answered(schedule, float(step)).stamp)
    assert used == sorted(used), "never back to an older one"
    assert schedule.waiting == 1


def test_what_waits_stays_on_its_frame_where_the_newer_one_does_not_suit_it() -> None:
    """Of another camera, or stamped before `not_before`."""
    schedule = Schedule(Limits())
    for name, topic in (("first", "left"), ("second", "left"), ("other", "right")):
        schedule.submit(request(name, topic=topic, not_before=5), 0)
    schedule.offer(frame(5, "left"))
    answered(schedule)  # "second" is due on the same frame
    schedule.submit(request("call", source=Source.SERVICE, frame=frame(9, "call", 1.0)), 0)
    schedule.submit(request("every", topic="left", every_frame=True), 0)
    schedule.offer(frame(4, "left", received=2.0))
    schedule.offer(frame(6, "right", received=2.0))
    stamps = {}
    while isinstance(turn := schedule.next(2.0, 0), Turn):
        stamps[turn.request.id] = turn.frame.stamp
        schedule.finish(turn, 0, 0.1)
    assert stamps == {"second": 5, "other": 6, "call": 9, "every": 4}


class Model:
    """Runs a schedule in simulated time; closed-loop clients come back as soon as they are answered."""

    COST = 0.1

    def __init__(self, callers: int, follows: int, instructions: int) -> None:
        self.schedule = Schedule(Limits())
        self.counts: Counter[str] = Counter()
        for number in range(follows):
            self._repeat(f"follow-{number}", Source.FOLLOW)
        for number in range(instructions):
            self._repeat(f"topic-{number}", Source.INSTRUCTION)
        for number in range(callers):
            self._call(f"call-{number}", 0)

    def _repeat(self, name: str, source: Source) -> None:
        self.schedule.submit(request(name, source=source, every_frame=True), 0)

    def _call(self, name: str, number: int) -> None:
        own = frame(topic="service")
        self.schedule.submit(request(f"{name}-{number}", source=Source.SERVICE, frame=own), 0)

    def run(self, turns: int) -> Counter[str]:
        for step in range(turns):
            self.schedule.offer(frame(self.counts.total()))
            turn = begun(self.schedule, step * self.COST)
            assert self.schedule.finish(turn, 0, self.COST) is None
            name = turn.request.id
            self.counts[name.split("-")[0]] += 1
            if name.startswith("call"):
                self._call(name.rsplit("-", 1)[0], step)
        return self.counts


@pytest.mark.parametrize(
    ("callers", "follows", "instructions"), [(2, 1, 1), (30, 1, 1), (1, 30, 1), (1, 1, 30)]
)
def test_nobody_gets_less_than_a_fifth(callers: int, follows: int, instructions: int) -> None:
    counts = Model(callers, follows, instructions).run(600)
    assert min(counts["call"], counts["follow"], counts["topic"]) >= 600 / 5


def test_more_single_instructions_than_can_be_answered_leave_every_frame_its_turns() -> None:
    model = Model(callers=0, follows=0, instructions=1)
    for step in range(100):
        for number in range(2):
            model.schedule.submit(request(f"once-{step}-{number}"), 0)
        model.run(1)
    assert model.counts["topic"] >= 40
    assert model.counts["once"] >= 40


def test_a_source_that_was_idle_gets_no_credit() -> None:
    """Nobody who comes back takes the model for as long as it was away."""
    model = Model(callers=1, follows=0, instructions=0)
    model.run(200)
    model._repeat("follow-0", Source.FOLLOW)
    before = model.counts["call"]
    model.run(20)
    assert model.counts["call"] - before >= 8


@pytest.mark.parametrize("seed", range(200))
def test_random_events_end_every_request_exactly_once(seed: int) -> None:
    rng = random.Random(seed)
    limits = Limits(max_instructions=5, max_rate=rng.choice([0.0, 1e-12, 3.0]))
    schedule = Schedule(limits)
    now, turn = 0.0, None
    submitted: list[Request] = []
    ended: Counter[int] = Counter()

    def end(endings: list[Ending]) -> None:
        for ending in endings:
            ended[id(ending.request)] += 1

    def submit() -> None:
        new = request(
            str(rng.randrange(6)),
            source=rng.choice(list(Source)),
            every_frame=rng.random() < 0.4,
            expressions=rng.choice([["red"], [], ["", "x" * 999], ["red", ""]]),
            topic=rng.choice(["", "left", "right"]),
            submitted=now,
            deadline=rng.choice([None, int((now + rng.random()) * SECOND)]),
        )
        if new.source is Source.SERVICE:
            new.frame, new.every_frame = frame(topic="service"), False
        submitted.append(new)
        end(schedule.submit(new, int(now * SECOND)))

    def pick() -> None:
        nonlocal turn
        if turn is None:
            end(schedule.expire(int(now * SECOND)))
            found = schedule.next(now, int(now * SECOND))
            if isinstance(found, Turn):
                turn = found
            else:
                assert 0 <= found <= LONGEST_WAIT
                assert math.isfinite(found)

    def finish() -> None:
        nonlocal turn
        if turn is not None:
            instead = schedule.finish(turn, int(now * SECOND), 0.1)
            if instead is None:
                ended[id(turn.request)] += not turn.request.every_frame
            else:
                end(instead)
            turn = None

    events = {
        submit: 5,
        pick: 6,
        finish: 6,
        lambda: schedule.offer(frame(int(now * SECOND), rng.choice(["left", "right"]), now)): 4,
        lambda: end(schedule.cancel(str(rng.randrange(6)), "why")[1]): 2,
        lambda: end(schedule.pause("inactive")): 0.3,
        schedule.resume: 1,
        lambda: schedule.jumped(-SECOND): 0.2,
        schedule.forget_frames: 0.2,
        lambda: end(schedule.abandon("stuck")): 0.05,
    }
    for _ in range(400):
        now += rng.random() * 0.2
        rng.choices(list(events), list(events.values()))[0]()
    end(schedule.stop())
    finish()
    submit()  # too late, and answered all the same
    assert all(ended[id(r)] == 1 for r in submitted), "each exactly once"


def test_a_frame_that_grew_too_old_is_not_answered() -> None:
    """Three are due on one frame; while the first is answered it passes `max_frame_age`."""
    schedule = Schedule(Limits(max_frame_age=1.0))
    for name in "abc":
        schedule.submit(request(name), 0)
    schedule.offer(frame(0))
    assert schedule.finish(begun(schedule), 3 * SECOND, 3.0) is None
    assert schedule.next(3.0, 3 * SECOND) == LONGEST_WAIT
    assert schedule.counts.stale == 1
    schedule.offer(frame(3 * SECOND, received=3.0))
    again = schedule.next(3.0, 3 * SECOND)
    assert isinstance(again, Turn)
    assert again.frame.stamp == 3 * SECOND


def test_of_several_cameras_a_repeated_request_looks_at_each_in_turn() -> None:
    """However their frames follow each other: without tracking, or carried from old looks otherwise."""
    schedule = Schedule(Limits())
    schedule.submit(request("any", every_frame=True), 0)
    looked = []
    for number in range(1, 10):
        for place, topic in enumerate(("a", "b", "c")):
            schedule.offer(frame(number, topic, received=number + 0.01 * place))
        looked.append(answered(schedule, float(number)).topic)
    assert looked == ["c", "b", "a"] * 3


def test_who_waits_for_a_camera_and_since_when() -> None:
    """Not for the model, nor for its own rate; on every frame since the last answer."""
    schedule = Schedule(Limits())
    schedule.submit(request("a", every_frame=True, topic="a"), 0)
    schedule.submit(request("b", submitted=3.0, topic="b"), 0)
    assert schedule.starved(5.0, 0) == {"a": 5.0, "b": 2.0}
    schedule.offer(frame(topic="a"))
    assert schedule.starved(5.0, 0) == {"b": 2.0}, "a frame is there: it waits for the model"
    answered(schedule, 6.0, 3.0)
    assert schedule.starved(9.5, 0) == {"a": 0.5, "b": 6.5}
    schedule.limits.max_rate = 0.2
    assert schedule.starved(12.0, 0) == {"a": 1.0, "b": 9.0}, "the next is due at 11"
    schedule.offer(frame(2, topic="a"))
    assert isinstance(schedule.next(12.0, 0), Turn)
    assert schedule.starved(14.0, 0) == {"b": 11.0}, "said while the model works"


def test_of_those_who_wait_for_a_camera_the_longest_wait_counts() -> None:
    schedule = Schedule(Limits())
    for name, submitted in (("first", 1.0), ("second", 3.0)):
        schedule.submit(request(name, submitted=submitted, topic="a"), 0)
    assert schedule.starved(5.0, 0) == {"a": 4.0}


def test_who_is_being_answered_waits_for_no_camera() -> None:
    """Even where the model takes longer than a frame may be old."""
    schedule = Schedule(Limits(max_frame_age=1.0))
    schedule.submit(request("a"), 0)
    schedule.offer(frame(0))
    assert isinstance(schedule.next(0.0, 0), Turn)
    assert schedule.starved(5.0, 5 * SECOND) == {}


def test_no_deadline_passes_while_the_clock_jumps() -> None:
    schedule = Schedule(Limits())
    schedule.submit(request("a", deadline=30 * SECOND, topic="a"), 0)
    schedule.submit(request("b", deadline=30 * SECOND, topic="b"), 0)
    schedule.offer(frame(topic="b"))
    turn = begun(schedule)
    schedule.jumping = True
    assert schedule.expire(10**18) == []
    assert schedule.finish(turn, 10**18, 0.1) is None
    schedule.jumped(10**18)
    assert schedule.expire(10**18 + 29 * SECOND) == []
    assert outcomes(schedule.expire(10**18 + 31 * SECOND)) == [("a", Outcome.EXPIRED)]
