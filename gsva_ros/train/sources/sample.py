"""Training samples as sources provide them: an image and what is asked about it, before prompting."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from ...datasets.files import DatasetError, Picture, Skip
from ...errors import tell_left_out
from ...truth import Referring

#: A source gives up after this many draws in a row that cannot be used.
TRIES = 1000


@dataclass(frozen=True)
class Segments:
    """Expressions about one image, each with its mask.

    Attributes:
        image: uint8 [H, W, 3] RGB.
        expressions: K of them, in the order in which they are asked.
        masks: bool [K, H, W]; empty: the thing is absent, and the answer is [REJ].
        classes: the expressions are class names, which official answers join with "," instead of ", ".
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
        query: the question's text.
        sentence: whether `query` is a complete sentence, asked unchanged, or a phrase.
        mask: bool [H, W].
        explanation: why the region is the answer; "" if there is none.
    """

    image: NDArray[np.uint8]
    query: str
    sentence: bool
    mask: NDArray[np.bool_]
    explanation: str = ""


@dataclass(frozen=True)
class Talk:
    """Questions about an image, answered in text alone.

    Attributes:
        image: uint8 [H, W, 3] RGB.
        rounds: (question, answer) in order, without image placeholders.
    """

    image: NDArray[np.uint8]
    rounds: tuple[tuple[str, str], ...]


Sample = Segments | Reasoning | Talk


class Source(Protocol):
    """Draws samples.

    A source is created with the path and options of its kind. It checks its files then, not hours into a
    run: `InputError` says which file is missing or has the wrong layout, and what to do.
    """

    def draw(self, rng: np.random.Generator) -> Sample:
        """A sample that depends only on `rng`, so that a run can be resumed and repeated."""

    def expressions(self) -> Iterable[str]:
        """All expressions that may be drawn, to find those that are too long before the first step."""


def redrawn(
    draw: Callable[[np.random.Generator], Segments], rng: np.random.Generator, place: object
) -> Segments:
    """Draw until a mask is not empty: rejections alone train no mask, and the official code skips them.

    Raises:
        DatasetError: TRIES draws had only empty masks; names `place`, where they come from.
    """
    for _ in range(TRIES):
        sample = draw(rng)
        if sample.masks.any():
            return sample
    raise DatasetError(
        f"{place}: a thousand samples in a row without a present expression: use other data"
    )


def usable(pictures: Sequence[Picture], skip: Skip, place: object) -> Sequence[Picture]:
    """The pictures that are left of `place`; prints what was left out.

    Raises:
        DatasetError: none is left.
    """
    tell_left_out(skip.problems)
    if not pictures:
        raise DatasetError(f"{place}: none of its pictures can be used: use other data")
    return pictures


def read_one(
    pictures: Sequence[Picture], skip: Skip, rng: np.random.Generator
) -> tuple[Picture, NDArray[np.uint8], list[Referring]]:
    """A random picture, uint8 [H, W, 3] RGB, with its expressions.

    Args:
        skip: what is done with one that cannot be read: it is named once, and another one is drawn.

    Raises:
        DatasetError: it cannot be read and is not skipped, or none of TRIES can be.
    """
    for _ in range(TRIES):
        picture = pictures[int(rng.integers(len(pictures)))]
        with skip(picture.id):
            return picture, *picture.read()
        problem = skip.problems.pop()
        if problem not in skip.problems:
            skip.problems.append(problem)
            tell_left_out([problem])
    raise DatasetError(
        f"{skip.problems[-1]}; a thousand pictures in a row cannot be read: use other data"
    )
