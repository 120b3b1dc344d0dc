"""The node's state as diagnostic_msgs (REP-107)."""

from __future__ import annotations

import time
from typing import Any

from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue

from .worker import Outcome, Worker


class Diagnostics:
    """Turns the worker's counts into one DiagnosticStatus a second."""

    def __init__(self, name: str, hardware_id: str) -> None:
        self._name = name
        self._hardware_id = hardware_id
        self._last = (time.monotonic(), 0, 0)
        self._last_error = ("", 0.0)

    def error(self, text: str) -> None:
        """Remember a problem; it shows as a warning for ten seconds."""
        self._last_error = (text, time.monotonic())

    def report(self, worker: Worker, provenance: Any, stamp: Any) -> DiagnosticArray:
        """Return the array to publish."""
        now = time.monotonic()
        counts = worker.counts
        then, frames, answers = self._last
        seconds = max(1e-6, now - then)
        self._last = (now, counts.received, counts.answers)
        latencies = sorted(worker.latencies)
        status = DiagnosticStatus()
        status.name = self._name
        status.hardware_id = self._hardware_id
        text, when = self._last_error
        if text and now - when < 10.0:
            status.level, status.message = DiagnosticStatus.WARN, text
        elif worker.waiting and counts.received == frames:
            status.level = DiagnosticStatus.WARN
            status.message = f"{worker.waiting} instruction(s), and no frame in the last second"
        else:
            status.level, status.message = DiagnosticStatus.OK, "ready"
        values = {
            "model": provenance.model,
            "device": provenance.device,
            "precision": provenance.precision,
            "frames received": counts.received,
            "frames received per second": f"{(counts.received - frames) / seconds:.2f}",
            "frames dropped for a newer one": counts.dropped,
            "frames unreadable": counts.bad_frames,
            "instructions": counts.instructions,
            "instructions not finished": worker.waiting,
            "answers": counts.answers,
            "answers per second": f"{(counts.answers - answers) / seconds:.2f}",
            "latency p50 [s]": _percentile(latencies, 0.5),
            "latency p95 [s]": _percentile(latencies, 0.95),
            **{f"outcome {o.name}": counts.outcomes[o] for o in Outcome},
        }
        if text:
            values["last error"] = text
        status.values = [KeyValue(key=key, value=str(value)) for key, value in values.items()]
        array = DiagnosticArray()
        array.header.stamp = stamp
        array.status.append(status)
        return array


def _percentile(ordered: list[float], part: float) -> str:
    if not ordered:
        return ""
    return f"{ordered[min(len(ordered) - 1, int(part * len(ordered)))]:.4f}"
