"""What enters and leaves the worker: camera frames, requests, results, limits and counts."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from enum import Enum, IntEnum

import numpy as np
from numpy.typing import NDArray

from ..answer import Rejection
from ..masks import Region


class Outcome(IntEnum):
    """How an expression ended (gsva_ros/Outcome). 0, as in an unset message, is not an outcome."""

    UNKNOWN = 0
    SEGMENTED = 1
    REJECTED = 2
    FAILED = 3
    EXPIRED = 4
    CANCELLED = 5


#: The outcomes that a model decides.
DECIDED = (Outcome.SEGMENTED, Outcome.REJECTED)


class Code(IntEnum):
    """Why an expression FAILED (gsva_ros/Outcome)."""

    NONE = 0
    EMPTY_INSTRUCTION = 1
    INVALID_INSTRUCTION = 2
    BAD_IMAGE = 3
    OUT_OF_MEMORY = 4
    INTERNAL = 5
    QUEUE_FULL = 6
    NO_SLOT = 7
    INACTIVE = 8
    LOST = 9


class Source(Enum):
    """The interface that a request came through.

    The model's time is shared fairly between them, one-shot and repeated requests counted separately.
    """

    INSTRUCTION = "instructions"
    FOLLOW = "goals"
    SERVICE = "calls"


class BadImageError(ValueError):
    """Raised by a frame's `decode` when its message cannot be read."""


@dataclass(eq=False)
class CameraFrame:
    """A camera frame as received; decoded when a request needs it."""

    header: object  # std_msgs/Header, copied into every answer
    stamp: int  # nanoseconds, from the header
    topic: str
    decode: Callable[[], NDArray[np.uint8]]  # -> uint8 [H, W, 3] RGB
    received: float = field(default_factory=time.monotonic)  # seconds
    keep: Callable[[], None] = lambda: None  # retains associated data until a slow answer is out
    size: int = 0  # bytes of its message


@dataclass
class Steadiness:
    """How long a repeated expression's outcome has been the same."""

    outcome: Outcome
    since: int  # stamp in nanoseconds of the first frame with this outcome
    answers: int  # consecutive answers with this outcome, this one included
    decided: Outcome | None = None  # the last SEGMENTED or REJECTED, whatever failed since then

    @classmethod
    def after(cls, last: Steadiness | None, outcome: Outcome, stamp: int) -> Steadiness:
        """Add an answer to the last one's run of equal outcomes, or start a new run at `stamp`."""
        row = last if last and last.outcome is outcome else cls(outcome, stamp, 0)
        decided = last.decided if last else None
        if outcome in DECIDED:
            decided = outcome
        return cls(outcome, row.since, row.answers + 1, decided)


#: Slot and expression.
Key = tuple[int, str]
#: Why an expression FAILED, and the reason in words.
Fault = tuple[Code, str]
NEVER = -1


@dataclass(eq=False)
class Progress:
    """What has become of a request so far."""

    # Kept by the schedule:
    assigned: CameraFrame | None = None  # the frame it is to be answered on
    #: By topic, when the last frame that it was answered on was received, monotonic seconds. The frames
    #: themselves would stay in memory, another one for each request.
    looked: dict[str, float] = field(default_factory=dict)
    last_start: float = float("-inf")  # of its last turn, monotonic seconds
    last_end: float = float("-inf")
    cancelled: str = ""  # the reason, once cancelled
    ended: bool = False  # no other answer follows the one that is being delivered
    # Kept by inference; the schedule puts an empty one in its place when the clock jumps:
    steadiness: dict[str, dict[Key, Steadiness]] = field(default_factory=dict)  # by topic


@dataclass(eq=False)
class Request:
    """What was asked, `text` or `expressions` with one slot each, and its `state`."""

    id: str = ""
    text: str = ""
    expressions: Sequence[str] = ()
    source: Source = Source.INSTRUCTION
    every_frame: bool = False
    not_before: int = 0  # nanoseconds, compared with frame stamps
    topic: str = ""  # image topic of the camera; "": any camera
    within: int = 0  # nanoseconds until its deadline; 0: `Limits.default_deadline`; NEVER: none
    deadline: int | None = None  # nanoseconds on the worker's `timer`; cleared by the first answer
    frame: CameraFrame | None = None  # its own image (service call); None: a camera's newest
    done: Callable[[Result], None] | None = None  # called with the answer instead of `publish`
    problem: str = ""  # why it is invalid, if the caller already knows
    submitted: float = field(default_factory=time.monotonic)
    state: Progress = field(default_factory=Progress)

    def words(self) -> list[str]:
        """The texts that get one outcome each: the expressions, or the text."""
        return list(self.expressions) or [self.text]


@dataclass(frozen=True, eq=False)
class Instance:
    """An instance of an expression; its mask is all of the expression's, or a connected part of it."""

    id: int  # the same from frame to frame; 0: not tracked
    region: Region
    confidence: float  # 0 to 1, that the mask still fits


@dataclass
class Decision:
    """The outcome of one expression."""

    slot: int
    expression: str
    outcome: Outcome
    code: Code = Code.NONE
    reason: str = ""
    rejection: Rejection | None = None
    p_seg: float = 0.0
    predicted_iou: float = 0.0
    region: Region | None = None  # the mask; None if it is not SEGMENTED
    since: int = 0  # stamp of the first consecutive answer with this outcome, nanoseconds
    answers: int = 1  # number of those
    instances: tuple[Instance, ...] = ()  # tracked instances, if tracking is on
    carried: bool = False  # from an earlier frame that the model answered on
    age: int = 0  # nanoseconds from that frame to this one

    @property
    def key(self) -> Key:
        """Its slot and expression."""
        return self.slot, self.expression


@dataclass
class Result:
    """The answer to one request on one frame."""

    request: Request
    decisions: list[Decision]
    frame: CameraFrame | None = None
    rgb: NDArray[np.uint8] | None = None
    text: str = ""
    timings: dict[str, float] = field(default_factory=dict)  # seconds
    threshold: float | None = None  # in effect when the model was asked; None: it was not asked

    @property
    def unreadable(self) -> bool:
        """Whether its frame could not be read. Invalid expressions have a code of their own even then."""
        return any(decision.code is Code.BAD_IMAGE for decision in self.decisions)


@dataclass
class Limits:
    """What the worker accepts, and how fast it works. Each is a parameter of the node."""

    max_expressions: int = 32
    max_expression_length: int = 256  # characters
    max_instructions: int = 1000
    max_rate: float = 0.0  # frames answered per second, for repeated instructions; 0: no limit
    default_deadline: float = 0.0  # seconds on the worker's `timer`; 0: none
    max_frame_age: float = 0.0  # seconds on the frames' clock; 0: any age
    max_frame_lead: float = 1.0  # wall-clock seconds that a frame may precede its request; 0: any
    rejection_threshold: float = -1.0  # negative: the model's own
    hysteresis: float = 0.0  # half-width of the band around the threshold in which an outcome stays
    inference_timeout: float = 300.0  # wall-clock seconds for one inference; 0: no limit
    track: str = "off"  # "flow": repeated requests are answered on every frame, see `carrying`
    split_instances: bool = False  # connected components of a mask are separate instances

    def threshold(self, own: float) -> float:
        """The rejection threshold in effect, 0 to 1. own: the model's."""
        # The range check of parameters has a small tolerance.
        return min(1.0, self.rejection_threshold) if self.rejection_threshold >= 0 else own


@dataclass
class Counts:
    """What has happened so far: counted under the worker's lock, but `carried` by the carrier itself."""

    received: int = 0  # frames
    dropped: int = 0  # frames replaced by a newer one before any request used them
    stale: int = 0  # frames too old to be answered when their turn came
    bad_frames: int = 0
    instructions: int = 0
    answers: int = 0
    carried: int = 0  # answers on frames that the model did not see
    outcomes: dict[Outcome, int] = field(default_factory=lambda: dict.fromkeys(Outcome, 0))
