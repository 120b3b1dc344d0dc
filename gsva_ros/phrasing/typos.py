"""Typing errors."""

from __future__ import annotations

import re

import numpy as np

from ..chance import pick

#: Shorter words stay unchanged: "rd" and "bd", for example, could not be told apart.
SHORTEST = 4
_ROWS = ("qwertyuiop", "asdfghjkl", "zxcvbnm")


def mistyped(text: str, rng: np.random.Generator) -> str | None:
    """The text with one letter lost, doubled, swapped with the next or replaced by its keyboard neighbour.

    A word's first letter is never changed. None if all words are too short.
    """
    words = [m.span() for m in re.finditer(rf"[a-z]{{{SHORTEST},}}", text)]
    if not words:
        return None
    start, end = pick(words, rng)
    at = int(rng.integers(start + 1, end - 1))
    slip = int(rng.integers(4))
    letter, following = text[at], text[at + 1]
    wrong = {
        0: following,
        1: letter + letter + following,
        2: following + letter,
        3: _neighbour(letter, rng) + following,
    }[slip]
    return text[:at] + wrong + text[at + 2 :]


def _neighbour(letter: str, rng: np.random.Generator) -> str:
    row = next(r for r in _ROWS if letter in r)
    place = row.index(letter) + (1 if rng.random() < 0.5 else -1)
    return row[place % len(row)]
