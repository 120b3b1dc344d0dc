"""What may be asked of an engine: checks and normal forms, for those who write one and those who ask it.

Depends on numpy alone, as `answer` does.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Sequence
from typing import Protocol, TypeVar

import numpy as np

from .answer import ExpressionError

AskedT = TypeVar("AskedT")
FoundT = TypeVar("FoundT")


def normalised(text: str) -> str:
    """Words as a model reads them: each white space is a space, none around them, no invisible characters.

    Runs of spaces stay, as in the tokenisation that the official weights were trained with.
    """
    # A tokenizer without a no-break space or a soft hyphen in its vocabulary reads bytes that mean nothing.
    if not text.isascii():
        text = "".join(letter for letter in text if unicodedata.category(letter) != "Cf")
    return re.sub(r"\s", " ", text).strip()


def is_blank(text: str) -> bool:
    """Whether nothing is left to ask for: GSVA reads expressions without full stops."""
    return not normalised(text).strip(" .")


def text_fault(text: object, what: str) -> str:
    """What is wrong with `text` as an expression or instruction; "" if nothing is.

    Raises:
        TypeError: it is not a str.
    """
    if not isinstance(text, str):
        raise TypeError(f"{what} is a str, not {type(text).__name__}")
    if is_blank(text):
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
