"""What is asked in episodes, how they are judged, and their table: no ROS, no arm, no model."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from gsva_ros.programs.pick_episodes import (
    FAULTS,
    PICKED,
    REFUSED,
    Episode,
    Task,
    Trace,
    judge,
    pushed,
    risen,
    shown,
    table,
    task_of,
    wilson,
)
from gsva_ros.sim.expressions import SeenObject

THERE = Task(7, "the red can", "single", 2)
ABSENT = Task(8, "the blue can", "absent_attribute", 0)
WELL = Trace("PICKED", "", 1, 2, 0.9, (2,), (), 1.5)
KEPT_STILL = Trace("REJECTED", "", 1, 0, 0.0, (), (), 0.0005)


@pytest.mark.parametrize(
    ("hits", "of", "low", "high"),
    [(26, 28, 0.774, 0.980), (20, 20, 0.839, 1.0), (0, 50, 0.0, 0.071), (0, 0, 0.0, 1.0)],
)
def test_wilson(hits: int, of: int, low: float, high: float) -> None:
    assert wilson(hits, of) == pytest.approx((low, high), abs=6e-4)


@pytest.mark.parametrize(
    ("task", "trace", "judgement"),
    [
        (THERE, WELL, PICKED),
        (THERE, replace(WELL, found=1, iou=0.3), PICKED),  # the right thing rose all the same
        (THERE, KEPT_STILL, "rejected"),
        (THERE, replace(KEPT_STILL, verdict="UNSURE", found=2, iou=0.9), "rejected"),
        (THERE, replace(WELL, found=1, risen=(1,)), "wrong mask"),
        (THERE, replace(WELL, iou=0.4, risen=()), "wrong mask"),
        (THERE, replace(WELL, verdict="MISSED", risen=()), "missed"),
        (THERE, replace(WELL, verdict="UNREACHABLE", risen=(), strayed=0.0), "missed"),
        (THERE, replace(WELL, risen=()), "missed"),  # the planner believes that it holds something
        (THERE, replace(WELL, risen=(1,)), "wrong thing"),
        (THERE, replace(WELL, risen=(1, 2)), "wrong thing"),
        (THERE, replace(KEPT_STILL, looks=2, found=2, iou=0.9, strayed=1.5), "missed"),
        (THERE, replace(KEPT_STILL, verdict="UNANSWERED"), "unanswered"),
        (THERE, replace(KEPT_STILL, strayed=0.1), "moved"),
        (ABSENT, KEPT_STILL, REFUSED),
        (ABSENT, replace(KEPT_STILL, verdict="UNSURE", found=1, iou=0.9), REFUSED),
        (ABSENT, replace(KEPT_STILL, strayed=0.003), "moved"),  # servos at rest drift by less
        (ABSENT, replace(KEPT_STILL, strayed=0.001), REFUSED),
        (ABSENT, replace(WELL, verdict="UNREACHABLE", risen=(), strayed=0.0), "accepted"),
        (ABSENT, WELL, "accepted"),
        (ABSENT, replace(KEPT_STILL, looks=2, strayed=1.5), "accepted"),
    ],
)
def test_judgement(task: Task, trace: Trace, judgement: str) -> None:
    assert judge(task, trace) == judgement
    assert judgement in {PICKED, REFUSED, *FAULTS}


def test_a_mask_shows_the_thing_with_the_most_pixels_under_it() -> None:
    instances = np.zeros((4, 10), np.uint8)
    instances[:, :5], instances[:, 6:8] = 3, 1
    mask = np.zeros((4, 10), bool)
    mask[:, 3:7] = True
    assert shown(mask, instances) == (3, pytest.approx(8 / 28))
    mask[:] = False
    mask[:, 8:] = True
    assert shown(mask, instances) == (0, 0.0), "the table"
    assert shown(np.zeros_like(mask), instances) == (0, 0.0)


def test_what_rose_and_what_was_pushed() -> None:
    before = np.array([[0.0, 0.0, 0.0], [0.1, 0.0, 0.0], [0.2, 0.0, 0.0], [0.3, 0.0, 0.0]])
    after = before + np.array([[0, 0, 0.15], [0, 0.03, 0.02], [0.01, 0, 0], [0.1, 0, -0.7]])
    assert risen(before, after) == (1,)
    assert pushed(before, after, besides=(1, 4)) == (2,)
    assert pushed(before, after, besides=()) == (2, 4)


def thing(number: int, kind: str, colour: str, place: int) -> SeenObject:
    box = (place, 100, place + 40, 140)
    return SeenObject(number, kind, colour, "large", 900, box, (place + 20.0, 120.0), 0.5)


def test_tasks_ask_for_one_graspable_thing() -> None:
    things = [
        thing(1, "plate", "red", 50),
        thing(2, "can", "red", 200),
        thing(3, "can", "blue", 350),
        thing(4, "plate", "white", 500),
    ]
    tasks = [(task_of(s, things, 640, True), task_of(s, things, 640, False)) for s in range(200)]
    found = [pair for pair in tasks if pair != (None, None)]
    assert len(found) > 150
    for there, absent in found:
        assert there is not None
        assert absent is not None
        assert there.target in (2, 3), there
        assert absent.target == 0
        assert absent.category.startswith("absent"), absent
        assert there.category in ("single", "relative"), there
        assert there.expression.startswith("the ")
        assert absent.expression.startswith("the ")
    assert {there.category for there, _ in found if there} == {"single", "relative"}
    assert task_of(0, things, 640, True) == tasks[0][0], "a seed says it all"
    assert task_of(0, [things[0], things[3]], 640, True) is None, "plates alone"


def test_table() -> None:
    traces = [
        (THERE, WELL),
        (THERE, replace(WELL, risen=(1,), pushed=(3,))),
        (replace(THERE, category="relative"), KEPT_STILL),
        (ABSENT, KEPT_STILL),
        (ABSENT, WELL),
    ]
    rows = table([Episode(task, trace, judge(task, trace)) for task, trace in traces]).splitlines()
    assert "| there: picked | 3 | 1 | 0.333 | [0.061, 0.792] |" in rows
    assert "| - relative: picked | 1 | 0 | 0.000 | [0.000, 0.793] |" in rows
    assert "| - the right mask: picked | 2 | 1 | 0.500 | [0.095, 0.905] |" in rows
    assert "| not there: refused, no joint moved | 2 | 1 | 0.500 | [0.095, 0.905] |" in rows
    assert "| not there: moved | 2 | 1 | 0.500 | [0.095, 0.905] |" in rows
    assert "| a wrong thing rose | 5 | 2 | 0.400 | [0.118, 0.769] |" in rows
    assert "| another thing was pushed | 5 | 1 | 0.200 | [0.036, 0.624] |" in rows
    counts = {row.split(" | ")[0][2:]: row.split(" | ")[-1] for row in rows[rows.index("") :]}
    assert counts["rejected or not sure enough, though it is there"] == "1 |"
    assert counts["accepted, though nothing fits"] == "1 |"
    assert counts["the right mask, but another thing rose"] == "1 |"
    assert counts["the right mask, but the thing did not rise"] == "0 |"
    assert "| there: picked | 0 | 0 | - | [0.000, 1.000] |" in table([]).splitlines()
