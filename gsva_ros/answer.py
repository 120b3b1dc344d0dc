"""What an engine answers, without the engine: slots, answers, errors, and the protocol it follows.

Stands on numpy alone, so that whatever consumes answers needs neither torch nor ROS.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from .masks import Box, Pixels, placed

FrameT = TypeVar("FrameT")


class Rejection(Enum):
    """Why a slot is rejected."""

    MODEL = "model"  # p([SEG]) is below the threshold: the model said [REJ]
    EMPTY_MASK = "empty_mask"  # the model said [SEG], but its mask has no pixel


class ExpressionError(ValueError):
    """An expression or instruction that cannot be asked: empty, not text, or too long for the model.

    Attributes:
        faults: what is wrong with each expression that is at fault, by its index among those asked.
            The others can be asked without it. Empty where the fault is of the whole.
    """

    def __init__(self, message: str, faults: Mapping[int, str] | None = None) -> None:
        super().__init__(message)
        self.faults = dict(faults or {})


@dataclass(frozen=True, eq=False)
class Slot:
    """One expression's place in the answer.

    Attributes:
        expression: the words as they were asked, or, from `ask`, as the model wrote them.
        p_seg: probability of [SEG] against [REJ], 0 to 1.
        rejection: why the slot is rejected; None where it is not.
        size: (height, width) of the frame.
        box: around the mask, (x0, y0, x1, y1) in pixels, x1 and y1 exclusive; None where there is no mask
            or no pixel in it.
        crop: bool [y1 - y0, x1 - x0], the mask inside its box; None where box is None.
        predicted_iou: the mask decoder's own estimate of the mask's IoU; None without a mask.
        fault: why the slot could not be decided ("": it was); such a slot is neither rejected nor
            masked.
    """

    expression: str
    p_seg: float
    rejection: Rejection | None = None
    size: tuple[int, int] = (0, 0)
    box: Box | None = None
    crop: NDArray[np.bool_] | None = None
    predicted_iou: float | None = None
    fault: str = ""

    @property
    def rejected(self) -> bool:
        """Whether the frame holds no referent, for either reason."""
        return self.rejection is not None

    @property
    def mask(self) -> NDArray[np.bool_] | None:
        """The mask, bool [H, W] at the frame's size, made anew at each access; None without one."""
        if self.box is None or self.crop is None:
            return None
        return placed(self.crop, self.box, self.size)


@dataclass(frozen=True)
class Answer:
    """Slots in order, the answer's text, and seconds taken ("encode", "decide", "mask").

    complete: False where `ask` ran into its limit before the model ended its answer.
    tokens: how many the model wrote of the text; 0 from `segment`, where it writes none.
    """

    slots: list[Slot]
    text: str = ""
    timings: dict[str, float] = field(default_factory=dict)
    complete: bool = True
    tokens: int = 0


class Segmenter(Protocol[FrameT]):
    """What serving and evaluation need of an engine. FrameT: its encoded frame.

    `encode`, `segment` and `ask` raise MemoryError where the device has too little memory.

    Attributes:
        rejection_threshold: the model's own; a slot with p_seg below it is rejected.
        slot_temperature: what its scores are divided by before they become p_seg.
        slot_bias: what is added to the score of [SEG] after that.
        can_reject: whether it decides that a thing is not there; if not, an empty mask is its only no.
        name, weights_hash, precision, device, prompt_template: what answers, for the record.
    """

    @property
    def rejection_threshold(self) -> float: ...
    @property
    def slot_temperature(self) -> float: ...
    @property
    def slot_bias(self) -> float: ...
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
        """Look at a frame once, uint8 [H, W, 3] RGB; ValueError or TypeError where it is none."""
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
            TypeError: an expression is no text.
            ValueError: another engine's frame, thresholds that do not fit, or a joint prompt where the
                model has none.
        """
        ...

    def ask(self, frame: FrameT, text: str, *, threshold: float | None = None) -> Answer:
        """Slots and text as the model writes them for a free instruction.

        Raises:
            ExpressionError: it cannot be asked, or the model takes no free instructions.
            TypeError: it is no text.
            ValueError: another engine's frame, or a threshold that is no probability.
        """
        ...

    def release(self) -> None:
        """Give unused memory back."""
        ...


def no_rejection(engine: Segmenter[Any]) -> str:
    """What a program says once where it starts with a model that cannot reject; "": it can."""
    if engine.can_reject:
        return ""
    return f"{engine.name} cannot reject: it masks what is not there too, unless the mask is empty"


@dataclass(frozen=True)
class Drawn:
    """A mask: its box and the pixels in it (None: it has none), and its predicted IoU."""

    pixels: Pixels | None
    predicted_iou: float


def decided(
    expression: str,
    p_seg: float,
    rejected: bool,
    size: tuple[int, int],
    drawn: Drawn | None = None,
) -> Slot:
    """The rule of rejection: the model said [REJ], or said [SEG] and marked no pixel.

    Args:
        rejected: by the model. size: (height, width). drawn: its mask; None where none was drawn.
    """
    if not np.isfinite(p_seg):
        return faulty(expression, 0.0, size, "decision")
    rejection = Rejection.MODEL if rejected else None
    if drawn is None:
        return Slot(expression, p_seg, rejection, size)
    if rejection is None and drawn.pixels is None:
        rejection = Rejection.EMPTY_MASK
    box, crop = drawn.pixels or (None, None)
    return Slot(expression, p_seg, rejection, size, box, crop, drawn.predicted_iou)


def faulty(expression: str, p_seg: float, size: tuple[int, int], what: str) -> Slot:
    """A slot that could not be decided, because what the model computed are no finite numbers."""
    fault = (
        f"the model's {what} for {expression!r} is not made of finite numbers: its weights are damaged, "
        "or too large for this dtype"
    )
    return Slot(expression, p_seg, None, size, fault=fault)


def text_fault(text: object, what: str) -> str:
    """What is wrong with words as an expression or instruction; "": nothing."""
    if not isinstance(text, str):
        raise TypeError(f"{what} is a str, not {type(text).__name__}")
    if not text.strip():
        return f"{what} is empty"
    try:
        text.encode()
    except UnicodeEncodeError as error:
        return f"{what} is not valid text: {error.reason}"
    return ""


def check_listed(expressions: Sequence[str]) -> None:
    """Raise TypeError where expressions are one text, whose letters would be asked for."""
    if isinstance(expressions, str):
        raise TypeError(f"expressions is a list of phrases; pass [{expressions!r}]")


def thresholds_of(given: float | Sequence[float], count: int) -> list[float]:
    """One threshold an expression; ValueError where they are no probabilities or too few."""
    found = np.asarray(given, np.float64)
    values: list[float] = found.tolist() if found.ndim else [float(found)] * count
    if len(values) != count:
        raise ValueError(f"{len(values)} thresholds for {count} expressions: give one, or one each")
    for value in values:
        if not 0.0 <= value <= 1.0:
            raise ValueError(f"a threshold is a probability, 0 to 1, not {value!r}")
    return values
