"""What is evaluated: pictures with expressions, and the truth where it is known."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..scenes import SceneSet


@dataclass(frozen=True)
class Query:
    """One expression and its truth.

    Attributes:
        expression: the words.
        category: scores are also given by category.
        referents: how many things in the picture are meant; 0: none; None: not known.
        truth: bool [H, W], all of them; None where `referents` is.
    """

    expression: str
    category: str = ""
    referents: int | None = None
    truth: NDArray[np.bool_] | None = None


@dataclass(frozen=True)
class Case:
    """One picture and what is asked of it.

    Attributes:
        read: gives uint8 [H, W, 3] RGB and the queries.
        text: a free request instead of queries; what the answer names is not known beforehand.
    """

    id: str
    read: Callable[[], tuple[NDArray[np.uint8], list[Query]]]
    text: str = ""


def scene_cases(scenes: SceneSet) -> list[Case]:
    """One case for each rendered scene."""

    def reader(row: int) -> Callable[[], tuple[NDArray[np.uint8], list[Query]]]:
        def read() -> tuple[NDArray[np.uint8], list[Query]]:
            asked = scenes.expressions[row]
            truths = scenes.target_masks(np.full(len(asked), row), [e.targets for e in asked])
            queries = [
                Query(e.text, e.category, len(e.targets), t)
                for e, t in zip(asked, truths, strict=True)
            ]
            return np.ascontiguousarray(scenes.rgb[row]), queries

        return read

    return [Case(f"scene {row}", reader(row)) for row in range(len(scenes))]
