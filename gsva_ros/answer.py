"""The public interface of an engine: slots, answers, errors, and the protocol it implements.

Depends on numpy alone, so that consumers of answers need neither torch nor ROS.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import Enum
from typing import Any, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from .masks import Box, Region

FrameT = TypeVar("FrameT")
AskedT = TypeVar("AskedT")
FoundT = TypeVar("FoundT")


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
        slot_temperature: divides a slot's logits before the softmax that gives p_seg.
        slot_bias: added to the logit of [SEG] after that division.
        can_reject: whether it can decide that a thing is not there; if not, only an empty mask rejects.
        name, weights_hash, precision, device, prompt_template: identify the model in records.
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


def normalised(text: str) -> str:
    """Words as a model reads them: each white space is a space, none around them, no invisible characters.

    Runs of spaces stay, as in the tokenisation that the official weights were trained with.
    """
    # A tokenizer without a no-break space or a soft hyphen in its vocabulary reads bytes that mean nothing.
    if not text.isascii():
        text = "".join(letter for letter in text if unicodedata.category(letter) != "Cf")
    return re.sub(r"\s", " ", text).strip()


def text_fault(text: object, what: str) -> str:
    """What is wrong with `text` as an expression or instruction; "" if nothing is.

    Raises:
        TypeError: it is not a str.
    """
    if not isinstance(text, str):
        raise TypeError(f"{what} is a str, not {type(text).__name__}")
    if not normalised(text):
        return f"{what} is empty"
    try:
        text.encode()
    except UnicodeEncodeError as error:
        return f"{what} is not valid text: {error.reason}"
    return ""


class _Encoded(Protocol):
    """An encoded frame that knows its engine."""

    @property
    def engine(self) -> object: ...


def check_frame(frame: object, kind: type[_Encoded], engine: object) -> None:
    """Check that a frame is of this kind and from this engine's `encode`.

    Raises:
        TypeError: it is something else.
        ValueError: it is another engine's.
    """
    if not isinstance(frame, kind):
        raise TypeError(f"frame must be from engine.encode(rgb), not {type(frame).__name__}")
    if frame.engine is not engine:
        raise ValueError("this frame was encoded by another engine; encode it with this one")


def check_listed(expressions: Sequence[str]) -> None:
    """Raise TypeError if expressions is a single str, each letter of which would be asked for."""
    if isinstance(expressions, str):
        raise TypeError(f"expressions is a list of phrases; pass [{expressions!r}]")


def checked(expressions: Sequence[str], fault_of: Callable[[str], str]) -> list[str]:
    """The expressions, `normalised`; raises once for all that are at fault.

    Args:
        fault_of: why the model cannot read one of them, given normalised; "": it can.

    Raises:
        ExpressionError: some cannot be asked; its `faults` name them.
        TypeError: an expression is not a str.
    """
    faults, words = {}, []
    for index, expression in enumerate(expressions):
        fault = text_fault(expression, "an expression")
        words.append(normalised(expression))
        if fault := fault or fault_of(words[-1]):
            faults[index] = fault
    if faults:
        raise ExpressionError(next(iter(faults.values())), faults)
    return words


def ask_possible(
    ask: Callable[[Sequence[AskedT]], FoundT], asked: Sequence[AskedT]
) -> tuple[FoundT, Sequence[AskedT], dict[int, str]]:
    """Ask for everything or, if some of it cannot be asked, for the rest, which may be nothing.

    Args:
        ask: asks for what it is given; the `faults` of its ExpressionError are indices into that.

    Returns:
        What `ask` returned, what it was asked for, and why the others cannot be asked, by index in `asked`.

    Raises:
        ExpressionError: the request as a whole is at fault.
    """
    try:
        return ask(asked), asked, {}
    except ExpressionError as error:
        if not error.faults:
            raise
        faults = error.faults
    left = [each for index, each in enumerate(asked) if index not in faults]
    return ask(left), left, faults


def thresholds_of(given: float | Sequence[float] | None, count: int, own: float) -> list[float]:
    """One threshold per expression: as given, or the model's own if None is.

    Raises:
        ValueError: one is not a probability, or their number is not `count`.
    """
    found = np.asarray(own if given is None else given, np.float64)
    values: list[float] = found.tolist() if found.ndim else [float(found)] * count
    if len(values) != count:
        raise ValueError(f"{len(values)} thresholds for {count} expressions: give one, or one each")
    for value in values:
        if not 0.0 <= value <= 1.0:
            raise ValueError(f"a threshold is a probability, 0 to 1, not {value!r}")
    return values
