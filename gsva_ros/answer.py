"""The public interface of an engine: slots, answers, errors, and the protocol it implements.

Depends on numpy alone, so that consumers of answers need neither torch nor ROS.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import Enum
from typing import Any, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from .masks import Box, Region

FrameT = TypeVar("FrameT")


class Rejection(Enum):
    """Why a slot is rejected."""

    MODEL = "model"  # p([SEG]) is below the threshold: the model said [REJ]
    EMPTY_MASK = "empty_mask"  # the model said [SEG], but its mask has no pixel


#: Why, for humans; to be formatted with p_seg.
REASONS = {
    Rejection.MODEL: "the model finds no referent in the image (p([SEG]) {:.3f})",
    Rejection.EMPTY_MASK: "the model finds a referent (p([SEG]) {:.3f}), but its mask has no pixel",
}


class ExpressionError(ValueError):
    """An expression or instruction that cannot be asked: empty, not text, or too long for the model.

    Attributes:
        faults: what is wrong with each faulty expression, by its index in the request. The others can be
            asked without them. Empty if the request as a whole is at fault.
    """

    def __init__(self, message: str, faults: Mapping[int, str] | None = None) -> None:
        super().__init__(message)
        self.faults = dict(faults or {})


@dataclass(frozen=True)
class Drawn:
    """A mask (None: no pixel is set), and its predicted IoU."""

    region: Region | None
    predicted_iou: float


@dataclass(frozen=True, eq=False)
class Slot:
    """One expression's place in the answer.

    Attributes:
        expression: as it was asked or, from `ask`, as the model wrote it.
        p_seg: probability of [SEG] against [REJ], 0 to 1.
        rejection: why the slot is rejected; None if it is not.
        size: (height, width) of the frame.
        region: the mask; None if there is none or it is empty.
        predicted_iou: the mask decoder's own estimate of the mask's IoU; None without a mask.
        fault: why the slot could not be decided; "" if it was. A slot at fault is neither rejected nor
            masked.
    """

    expression: str
    p_seg: float
    rejection: Rejection | None = None
    size: tuple[int, int] = (0, 0)
    region: Region | None = None
    predicted_iou: float | None = None
    fault: str = ""

    @classmethod
    def decided(
        cls,
        expression: str,
        p_seg: float,
        rejected: bool,
        size: tuple[int, int],
        drawn: Drawn | None = None,
    ) -> Slot:
        """The rule of rejection: the model said [REJ], or said [SEG] and marked no pixel.

        Args:
            rejected: by the model. size: (height, width). drawn: its mask; None if none was drawn.
        """
        if not np.isfinite(p_seg):
            return cls.faulty(expression, 0.0, size, "decision")
        rejection = Rejection.MODEL if rejected else None
        if drawn is None:
            return cls(expression, p_seg, rejection, size)
        if rejection is None and drawn.region is None:
            rejection = Rejection.EMPTY_MASK
        return cls(expression, p_seg, rejection, size, drawn.region, drawn.predicted_iou)

    @classmethod
    def faulty(cls, expression: str, p_seg: float, size: tuple[int, int], what: str) -> Slot:
        """A slot that could not be decided, because the model's `what` is not finite."""
        fault = (
            f"the model's {what} for {expression!r} is not made of finite numbers: its weights are "
            "damaged, or too large for this dtype"
        )
        return cls(expression, p_seg, None, size, fault=fault)

    def at(self, threshold: float) -> Slot:
        """The slot by the engine's rule at another threshold: p_seg below it, or an empty mask, rejects.

        A rejected slot has no mask. One that was rejected before a mask was drawn stays rejected.
        """
        if self.fault:
            return self
        if self.p_seg < threshold:
            return replace(self, rejection=Rejection.MODEL, region=None)
        if self.region is None:
            drawn = self.predicted_iou is not None
            return replace(self, rejection=Rejection.EMPTY_MASK if drawn else self.rejection)
        return replace(self, rejection=None)

    @property
    def rejected(self) -> bool:
        """Whether the slot is rejected, for any reason."""
        return self.rejection is not None

    @property
    def reason(self) -> str:
        """Why the slot is rejected, in one sentence; "" if it is not."""
        return "" if self.rejection is None else REASONS[self.rejection].format(self.p_seg)

    @property
    def box(self) -> Box | None:
        """The mask's bounding box, (x0, y0, x1, y1) in pixels, x1 and y1 exclusive; None without one."""
        return None if self.region is None else self.region.box

    @property
    def crop(self) -> NDArray[np.bool_] | None:
        """The mask inside its box, bool [y1 - y0, x1 - x0]; None without one."""
        return None if self.region is None else self.region.crop

    @property
    def mask(self) -> NDArray[np.bool_] | None:
        """The mask, bool [H, W] at the frame's size, built at each access; None if there is none."""
        return None if self.region is None else self.region.placed(self.size)


@dataclass(frozen=True)
class Answer:
    """Slots in order, the answer's text, and seconds taken ("encode", "decide", "mask").

    complete: False if `ask` reached its token limit before the model ended its answer.
    tokens: number of tokens the model generated; 0 from `segment`, which generates none.
    """

    slots: list[Slot]
    text: str = ""
    timings: dict[str, float] = field(default_factory=dict)
    complete: bool = True
    tokens: int = 0


class Segmenter(Protocol[FrameT]):
    """What serving and evaluation need from an engine. FrameT: its encoded frame.

    `encode`, `segment` and `ask` raise MemoryError if the device has too little memory, which torch's own
    errors are turned into by the decorator `model.memory.memory_errors`: serving then asks in halves.

    Attributes:
        rejection_threshold: the model's own; a slot with p_seg below it is rejected.
        rule: by name, further numbers that its decisions depend on; a run's records hold them.
        can_reject: whether it can decide that a thing is not there; if not, only an empty mask rejects.
        name, weights_hash, precision, device, prompt_template: identify the model in records.
    """

    @property
    def rejection_threshold(self) -> float: ...
    @property
    def rule(self) -> Mapping[str, float]: ...
    @property
    def can_reject(self) -> bool: ...
    @property
    def name(self) -> str: ...
    @property
    def weights_hash(self) -> str: ...
    @property
    def precision(self) -> str: ...
    @property
    def device(self) -> object: ...
    @property
    def prompt_template(self) -> str: ...

    def encode(self, rgb: NDArray[np.uint8]) -> FrameT:
        """Encode a frame, uint8 [H, W, 3] RGB, once; ValueError or TypeError if it is not such an array."""
        ...

    def segment(
        self,
        frame: FrameT,
        expressions: Sequence[str],
        *,
        joint: bool = False,
        threshold: float | Sequence[float] | None = None,
        mask_rejected: bool = False,
    ) -> Answer:
        """One slot for each expression.

        Raises:
            ExpressionError: some cannot be asked; its `faults` name them.
            TypeError: an expression is not a str.
            ValueError: another engine's frame, invalid thresholds, or `joint` with a model that has no
                joint prompt.
        """
        ...

    def ask(self, frame: FrameT, text: str, *, threshold: float | None = None) -> Answer:
        """Slots and text that the model generates for a free-form instruction.

        Raises:
            ExpressionError: it cannot be asked, or the model takes no free-form instructions.
            TypeError: it is not a str.
            ValueError: another engine's frame, or a threshold that is not a probability.
        """
        ...

    def release(self) -> None:
        """Release unused memory."""
        ...


def no_rejection(engine: Segmenter[Any]) -> str:
    """The warning that programs print at start if the model cannot reject; "" if it can."""
    if engine.can_reject:
        return ""
    return f"{engine.name} cannot reject: it masks what is not there too, unless the mask is empty"
