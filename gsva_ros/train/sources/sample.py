"""What a source hands to training: a picture and what is asked about it, before it becomes a prompt."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from ...datasets.files import DatasetError


@dataclass(frozen=True)
class Segments:
    """Expressions about one picture, each with its mask.

    Attributes:
        image: uint8 [H, W, 3] RGB.
        expressions: K of them, in the order in which they are asked.
        masks: bool [K, H, W]; no pixel: the thing is not there, and the answer is [REJ].
        classes: they are names of classes, which the official answers put commas between, and no spaces.
    """

    image: NDArray[np.uint8]
    expressions: tuple[str, ...]
    masks: NDArray[np.bool_]
    classes: bool = False


@dataclass(frozen=True)
class Reasoning:
    """A question whose answer is one region (ReasonSeg).

    Attributes:
        image: uint8 [H, W, 3] RGB.
        query: the words.
        sentence: whether `query` is a whole sentence, which is asked as it stands, or a phrase.
        mask: bool [H, W].
        explanation: why the region is the answer; "" where none was written.
    """

    image: NDArray[np.uint8]
    query: str
    sentence: bool
    mask: NDArray[np.bool_]
    explanation: str = ""


@dataclass(frozen=True)
class Talk:
    """Questions about a picture, answered in words alone.

    Attributes:
        image: uint8 [H, W, 3] RGB.
        rounds: (question, answer), in their order; no question says where the image goes.
    """

    image: NDArray[np.uint8]
    rounds: tuple[tuple[str, str], ...]


Sample = Segments | Reasoning | Talk


class Source(Protocol):
    """Draws samples.

    A source is made with the path and the options of its kind. What it reads is looked at then, and not
    hours into a run: `InputError` says which file is missing or of another layout, and what to do.
    """

    def draw(self, rng: np.random.Generator) -> Sample:
        """A sample that depends on `rng` alone, so that a run can be resumed and repeated."""

    def expressions(self) -> Iterable[str]:
        """All that may be asked, so that one that is too long is found before the first step."""


def redrawn(
    draw: Callable[[np.random.Generator], Segments], rng: np.random.Generator, place: object
) -> Segments:
    """Draw until something is there: rejections alone teach no mask, and the official leaves them out.

    Raises:
        DatasetError: nothing ever is; names the `place` that is drawn from.
    """
    for _ in range(1000):
        sample = draw(rng)
        if sample.masks.any():
            return sample
    raise DatasetError(
        f"{place}: a thousand samples in turn without anything that is there: other data is needed"
    )
