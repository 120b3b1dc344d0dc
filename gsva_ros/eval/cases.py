"""What is evaluated: images with expressions, and the ground truth if it is known."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from ..scoring import Rules
from ..truth import Referring


@dataclass(frozen=True)
class Case:
    """One image and what is asked about it.

    Attributes:
        read: returns uint8 [H, W, 3] RGB and the expressions with their ground truth.
        text: a free-form request instead of expressions; what the answer names is not known beforehand.
        image: the image's name, where several cases are of one; "": the case's own.
    """

    id: str
    read: Callable[[], tuple[NDArray[np.uint8], list[Referring]]]
    text: str = ""
    image: str = ""


@dataclass(frozen=True)
class Gathered:
    """A source's cases.

    Attributes:
        data: a description of the data, for people and for the record.
        rules: see `metrics.metric`.
        problems: what was left out, each with its location.
        fingerprint: see `fingerprint.fingerprint`.
        skip: whether a case that cannot be read is left out, too; otherwise it ends the run.
    """

    cases: list[Case]
    data: str
    rules: Rules = "grefcoco"
    problems: list[str] = field(default_factory=list)
    fingerprint: str = ""
    skip: bool = False

    @property
    def left_out(self) -> list[str] | None:
        """Receives what `run.evaluate` leaves out; None: nothing is, see its `problems`."""
        return self.problems if self.skip else None
