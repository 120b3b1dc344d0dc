"""Absent expressions made from the labels of a frame and of others, so that rejection is not forgotten.

Labels may cover only some of a frame's things, so an expression counts as absent only if no label of the
frame contradicts that. Unlabelled things may still be there: label frames completely if that matters.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ...phrasing.words import singulars

COLOURS = (
    "red",
    "green",
    "blue",
    "yellow",
    "white",
    "black",
    "orange",
    "purple",
    "pink",
    "brown",
    "grey",
)
_WORDS = re.compile(r"[a-z]+")
_IS_COLOUR = re.compile(rf"\b({'|'.join(COLOURS)})\b")
#: Words of an expression that do not name a thing.
_SMALL = frozenset(
    "a all an and at behind between big both farthest four front in is large largest left "  # noqa: SIM905
    "leftmost nearest next of on one or right rightmost small smallest that the three to two with".split()
)


@dataclass(frozen=True)
class Known:
    """A present expression, and the number of its referents."""

    text: str
    referents: int


class Negatives:
    """Draws absent expressions for frames whose present ones are known."""

    def __init__(self, present: Sequence[Sequence[Known]]) -> None:
        """Args: present: for each frame, its present expressions."""
        frames = [[Known(k.text.lower(), k.referents) for k in frame] for frame in present]
        texts = sorted({known.text for frame in frames for known in frame})
        self._made = [(_elsewhere(texts, frame), _swapped(frame)) for frame in frames]

    def draw(self, frame: int, count: int, rng: np.random.Generator) -> list[str]:
        """Up to `count` different expressions, about half of them at most with a swapped colour."""
        elsewhere, swapped = self._made[frame]
        some = [swapped[k] for k in rng.permutation(len(swapped))[: (count + 1) // 2]]
        others = [elsewhere[k] for k in rng.permutation(len(elsewhere))[: count - len(some)]]
        return [*some, *others]


def _elsewhere(texts: Sequence[str], frame: Sequence[Known]) -> list[str]:
    """Expressions of other frames that share no noun with this frame's."""
    here = {noun for known in frame for noun in _nouns(known.text)}
    return [text for text in texts if _nouns(text) and not _nouns(text) & here]


def _swapped(frame: Sequence[Known]) -> list[str]:
    """Present expressions with their only colour replaced by one that no thing of the same name has."""
    found = set()
    for known in frame:
        nouns = _nouns(known.text)
        same = [other for other in frame if _nouns(other.text) & nouns]
        colours = {c for other in same for c in _IS_COLOUR.findall(other.text)}
        # If "all mugs" has three referents but only two colours are known, the third may have any colour.
        uncoloured = [o.referents for o in same if not _IS_COLOUR.search(o.text)]
        if len(_IS_COLOUR.findall(known.text)) == 1 and max(uncoloured, default=0) <= len(colours):
            found |= {_IS_COLOUR.sub(c, known.text) for c in COLOURS if c not in colours}
    return sorted(found)


def _nouns(text: str) -> set[str]:
    """The nouns of an expression, in every possible singular: two names of one thing share one."""
    words = {w for w in _WORDS.findall(text) if w not in _SMALL and w not in COLOURS}
    return {noun for word in words for noun in singulars(word)}
