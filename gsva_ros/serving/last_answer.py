"""The model's last answer to a repeated request, and what is answered from it on a later frame."""

from __future__ import annotations

import time
from dataclasses import dataclass, field, replace

from ..masks import Region
from ..stamps import SECOND
from ..tracking import Carried, Tracker
from .requests import (
    DECIDED,
    CameraFrame,
    Code,
    Decision,
    Fault,
    Instance,
    Key,
    Outcome,
    Result,
    Steadiness,
)


@dataclass(eq=False)
class LastAnswer:
    """The last answer about one camera, and how long each of its expressions has been lost.

    result: without its frame, which would stay in memory. stamp, received: that frame's.
    fault: why it cannot be carried onto any frame; None: it can.
    """

    result: Result
    topic: str
    stamp: int
    received: float
    fault: Fault | None = None
    lost: dict[Key, Steadiness] = field(default_factory=dict)

    @classmethod
    def of(cls, result: Result) -> LastAnswer:
        """The model's answer on a frame."""
        frame = result.frame
        assert frame is not None
        return cls(replace(result, frame=None, rgb=None), frame.topic, frame.stamp, frame.received)

    def onto(self, frame: CameraFrame, tracker: Tracker, start: float) -> Result:
        """The answer on a frame that its tracker has observed; start: monotonic seconds."""
        request = self.result.request
        found, unlike = tracker.carried(request), tracker.unrecognised(request)
        decisions = [self._decision(d, found[d.key], unlike, frame) for d in self.result.decisions]
        timings = {} if self.is_carried(frame) else dict(self.result.timings)
        timings["total"] = timings.get("total", 0.0) + time.monotonic() - start
        timings["queue"] = timings.get("queue", start - frame.received)
        return replace(self.result, decisions=decisions, frame=frame, timings=timings)

    def failed(self, frame: CameraFrame, code: Code, reason: str) -> Result:
        """The answer on a frame that nothing could be carried onto."""
        decisions = []
        for decision in self.result.decisions:
            failed = Decision(*decision.key, Outcome.FAILED, code, reason)
            decisions.append(self._counted(failed, frame.stamp))
        return Result(self.result.request, decisions, frame)

    def is_carried(self, frame: CameraFrame) -> bool:
        """Whether the model answered on another frame than this one."""
        return frame.received != self.received

    def _decision(
        self, decision: Decision, found: list[Carried], unlike: str, frame: CameraFrame
    ) -> Decision:
        """The model's decision on the frame.

        Args:
            found: its instances there. unlike: why the frame cannot be related to the model's; "": it can.
        """
        now = self._updated(decision, found, frame)
        reason = _why_lost(now, found, unlike)
        if not reason:
            self.lost.pop(decision.key, None)
            return now
        now.outcome, now.code, now.reason = Outcome.FAILED, Code.LOST, f"lost: {reason}"
        now.rejection = now.region = None  # nor are there instances
        return self._counted(now, frame.stamp)

    def _updated(self, decision: Decision, found: list[Carried], frame: CameraFrame) -> Decision:
        """The model's decision with the masks and the age that it has on the frame."""
        carried = self.is_carried(frame)
        age = max(0, frame.stamp - self.stamp)
        seen = [Instance(c.id, c.region, c.confidence) for c in found if c.region is not None]
        now = replace(decision, instances=tuple(seen), carried=carried, age=age)
        if seen:
            now.region = Region.around([each.region for each in seen])
        gone = [each.lost for each in found if each.region is None]
        if gone:
            now.reason = f"{len(gone)} of {len(found)} instances lost: {gone[0]}"
        if carried and decision.outcome is Outcome.REJECTED:
            now.reason = f"{decision.reason}; it looked {age / SECOND:.1f} s earlier"
        return now

    def _counted(self, failed: Decision, stamp: int) -> Decision:
        """A decision without a mask, with how long its expression has been lost."""
        last = self.lost.get(failed.key)
        steady = self.lost[failed.key] = Steadiness.after(last, Outcome.FAILED, stamp)
        failed.since, failed.answers = steady.since, steady.answers
        return failed


def _why_lost(decision: Decision, found: list[Carried], unlike: str) -> str:
    """Why an expression with these instances is lost on a frame; "": it is not, or it had failed before."""
    if decision.outcome not in DECIDED:
        return ""
    if decision.outcome is Outcome.SEGMENTED and not decision.instances:
        return found[0].lost
    return unlike
