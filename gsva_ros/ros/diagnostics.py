"""The node's state as diagnostic_msgs (REP-107)."""

from __future__ import annotations

import resource
import time
from typing import Any

from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue

from gsva_ros.serving.requests import DECIDED, Outcome
from gsva_ros.serving.worker import Worker

#: Seconds for which a problem sets the status, and for which it is listed.
FRESH, REMEMBERED = 10.0, 60.0
STAGES = ("queue", "encode", "decide", "mask", "total")
PERCENTILES = (("p50", 0.5), ("p95", 0.95), ("p99", 0.99))


class Diagnostics:
    """Turns the worker's counts into one DiagnosticStatus per second."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._last = (time.monotonic(), 0, 0)
        self._last_error = ("", 0.0)

    def error(self, text: str) -> None:
        """Record a problem: it sets the status for ten seconds and is the "last error" for a minute."""
        self._last_error = (text, time.monotonic())

    def report(
        self, state: str, worker: Worker[Any] | None, provenance: Any, stamp: Any
    ) -> DiagnosticArray:
        """The array to publish; `state` is the lifecycle state. Without a worker there are no counts."""
        status = DiagnosticStatus(name=self._name, level=DiagnosticStatus.OK, message=state)
        values = {"state": state}
        if worker is not None:
            status.hardware_id = provenance.device
            values |= self._values(worker, provenance)
        text, when = self._last_error
        age = time.monotonic() - when
        if text and age < REMEMBERED:
            values["last error"] = text
            if age < FRESH:
                status.level, status.message = DiagnosticStatus.WARN, text
        if worker is not None and (problem := worker.problem()):
            status.level, status.message = DiagnosticStatus.ERROR, problem
        status.values = [KeyValue(key=key, value=str(value)) for key, value in values.items()]
        array = DiagnosticArray()
        array.header.stamp = stamp
        array.status.append(status)
        return array

    def _values(self, worker: Worker[Any], provenance: Any) -> dict[str, Any]:
        now = time.monotonic()
        counts = worker.counts
        then, frames, answers = self._last
        # A worker created since the last report counts from 0.
        frames, answers = min(frames, counts.received), min(answers, counts.answers)
        seconds = max(1e-6, now - then)
        self._last = (now, counts.received, counts.answers)
        decided = sum(counts.outcomes[outcome] for outcome in DECIDED)
        rejected = counts.outcomes[Outcome.REJECTED] / decided if decided else 0.0
        return {
            "model": provenance.model,
            "weights": provenance.weights_hash,
            "device": provenance.device,
            "precision": provenance.precision,
            "memory [MiB]": _memory(provenance.device),
            "frames received": counts.received,
            "frames received per second": f"{(counts.received - frames) / seconds:.2f}",
            "frames dropped for a newer one": counts.dropped,
            "frames too old": counts.stale,
            "frames unreadable": counts.bad_frames,
            "instructions": counts.instructions,
            "instructions not finished": worker.waiting,
            "answers": counts.answers,
            "answers carried": counts.carried,
            "answers per second": f"{(counts.answers - answers) / seconds:.2f}",
            **{
                f"{stage} {name} [s]": _percentile(list(worker.timings[stage]), part)
                for stage in STAGES
                for name, part in PERCENTILES
            },
            **{
                f"outcome {o.name}": counts.outcomes[o] for o in Outcome if o is not Outcome.UNKNOWN
            },
            "rejected of decided": f"{rejected:.3f}",
        }


def _memory(device: str) -> str:
    """MiB reserved on the GPU, or the process's peak resident memory in MiB on a CPU."""
    if device.startswith("cuda"):
        import torch

        return f"{torch.cuda.memory_reserved(device) / 2**20:.0f}"
    return f"{resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10:.0f}"


def _percentile(values: list[float], part: float) -> str:
    if not values:
        return ""
    ordered = sorted(values)
    return f"{ordered[min(len(ordered) - 1, int(part * len(ordered)))]:.4f}"
