"""What `/diagnostics` says, without a node: counts, rates, percentiles, and problems while fresh."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from builtin_interfaces.msg import Time
from diagnostic_msgs.msg import DiagnosticStatus

from gsva_ros.ros import diagnostics
from gsva_ros.ros.diagnostics import Diagnostics
from gsva_ros.serving.requests import Counts, Outcome

PROVENANCE = SimpleNamespace(model="m", weights_hash="0", device="cpu", precision="float32")


@pytest.fixture
def now(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """The time, which only the test moves on."""
    clock = SimpleNamespace(seconds=100.0)
    time = SimpleNamespace(monotonic=lambda: clock.seconds)
    monkeypatch.setattr(diagnostics, "time", time)
    return clock


def worker(problem: str = "", **counts: object) -> SimpleNamespace:
    timings = {stage: [] for stage in diagnostics.STAGES}
    return SimpleNamespace(
        counts=Counts(**counts), timings=timings, waiting=0, problem=lambda: problem
    )


def report(told: Diagnostics, by: SimpleNamespace | None = None) -> tuple[DiagnosticStatus, dict]:
    (status,) = told.report("active", by, PROVENANCE, Time(sec=7)).status
    return status, {each.key: each.value for each in status.values}


def test_without_a_model_there_is_a_state(now: SimpleNamespace) -> None:
    array = Diagnostics("gsva: engine").report("unconfigured", None, None, Time(sec=7))
    (status,) = array.status
    assert array.header.stamp.sec == 7
    assert (status.name, status.message) == ("gsva: engine", "unconfigured")
    assert status.level == DiagnosticStatus.OK
    assert [(v.key, v.value) for v in status.values] == [("state", "unconfigured")]


def test_counts_are_told_and_rates_are_those_since_the_last_report(now: SimpleNamespace) -> None:
    told = Diagnostics("gsva")
    now.seconds += 2.0
    _, values = report(told, worker(received=90, answers=10))
    assert values["frames received per second"] == "45.00"
    assert values["answers per second"] == "5.00"
    assert values["rejected of decided"] == "0.000"
    assert 10 < float(values["memory [MiB]"]) < 1e6
    now.seconds += 2.0
    outcomes = Counts().outcomes | {
        Outcome.SEGMENTED: 6,
        Outcome.REJECTED: 2,
        Outcome.FAILED: 5,
    }
    named = {"dropped": 3, "stale": 4, "bad_frames": 5, "instructions": 6, "carried": 7}
    by = worker(received=150, answers=15, outcomes=outcomes, **named)
    by.waiting = 8
    status, values = report(told, by)
    assert (status.level, status.message, status.hardware_id) == (
        DiagnosticStatus.OK, "active", "cpu"
    )  # fmt: skip
    assert values["frames received"] == "150"
    assert values["frames received per second"] == "30.00"
    assert values["answers"] == "15"
    assert values["answers per second"] == "2.50"
    assert values["frames dropped for a newer one"] == "3"
    assert values["frames too old"] == "4"
    assert values["frames unreadable"] == "5"
    assert values["instructions"] == "6"
    assert values["answers carried"] == "7"
    assert values["instructions not finished"] == "8"
    assert values["outcome SEGMENTED"] == "6"
    assert "outcome UNKNOWN" not in values
    assert values["rejected of decided"] == "0.250"
    # Another model counts from nothing, which makes no rate negative.
    now.seconds += 1.0
    _, values = report(told, worker(received=20, answers=4))
    assert float(values["frames received per second"]) >= 0
    assert float(values["answers per second"]) >= 0
    now.seconds += 1.0
    _, values = report(told, worker(received=50, answers=9))
    assert values["frames received per second"] == "30.00"
    assert values["answers per second"] == "5.00"


def test_seconds_of_each_stage_have_percentiles(now: SimpleNamespace) -> None:
    by = worker()
    by.timings["total"] = [(1000 - n) / 1000 for n in range(1000)]  # 0.001 to 1
    by.timings["mask"] = [0.25]
    _, values = report(Diagnostics("gsva"), by)
    for name, wanted in (("p50", 0.5), ("p95", 0.95), ("p99", 0.99)):
        assert float(values[f"total {name} [s]"]) == pytest.approx(wanted, abs=0.0011)
        assert values[f"mask {name} [s]"] == "0.2500"
        assert values[f"encode {name} [s]"] == ""


def test_a_problem_is_a_warning_for_ten_seconds_and_is_told_for_a_minute(
    now: SimpleNamespace,
) -> None:
    told = Diagnostics("gsva")
    assert "last error" not in report(told)[1]
    told.error("a broken frame")
    now.seconds += 9
    status, values = report(told)
    assert (status.level, status.message) == (DiagnosticStatus.WARN, "a broken frame")
    assert values["last error"] == "a broken frame"
    for later in (2, 48):
        now.seconds += later
        status, values = report(told)
        assert (status.level, status.message) == (DiagnosticStatus.OK, "active")
        assert values["last error"] == "a broken frame"
    now.seconds += 2
    assert "last error" not in report(told)[1]


def test_a_stuck_model_is_an_error_whatever_else_there_is(now: SimpleNamespace) -> None:
    told = Diagnostics("gsva")
    told.error("a broken frame")
    status, values = report(told, worker("the inference thread is stuck"))
    assert (status.level, status.message) == (
        DiagnosticStatus.ERROR, "the inference thread is stuck"
    )  # fmt: skip
    assert values["last error"] == "a broken frame"
