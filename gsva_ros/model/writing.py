"""An answer written word by word, of which guessed words are read several in one pass.

An answer says again what was asked, and much of what it said before. So what follows is looked up in an
answer as one would expect it and in what is written so far, and read together with the last word. Of a
guess its beginning stands, as far as it is right: every word is the likeliest one after those before it, as
if each had been read by itself, up to rounding, which in 16 bits may tip what is nearly a tie. Source:
"Inference with Reference: Lossless Acceleration of Large Language Models" (arXiv:2304.04487), whose
reference is here the expected answer.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass

from torch import Tensor

from .behind import Behind
from .prompt import Prompt

#: Words guessed at once, at the most.
GUESSED = 11
#: By how many last words they are looked up: one alone stands in too many places to tell.
LOOKED_UP = (4, 3, 2)
#: Between the things that a request names, and where one begins; words are one space apart.
JOINER = re.compile(r" ?(?:, ?)?\b(?:and then|and also|then|and|or)\b ?| ?, ?", re.I)
THING = re.compile(
    r"\b(?:the|an?|any|all|both|every|each|anything|something|everything|two|three)\b", re.I
)


@dataclass(frozen=True)
class Next:
    """After the words so far: the likeliest next one, the scores of all [V], the state [D] that says so."""

    word: int
    scores: Tensor
    state: Tensor


class Writer:
    """Writes behind a prompt; the caller takes the next word, and says which one is written."""

    def __init__(
        self,
        behind: Behind,
        score: Callable[[Tensor], Tensor],
        asked: Sequence[int],
        expected: Sequence[int],
        slots: Collection[int],
        most: int,
    ) -> None:
        """
        Args:
            behind: has read nothing yet.
            score: states [K, D] to scores of every word [K, V].
            asked: the prompt, up to where the answer begins.
            expected: an answer to look up guesses in, see `expected_answer`.
            slots: the words that stand for a slot, [SEG] and [REJ].
            most: words that are written, at most.
        """
        self._behind, self._score = behind, score
        self._words, self._expected, self._slots = list(asked), list(expected), slots
        self._prompt, self._most = len(asked), len(asked) + most
        self._read = 0  # of the words, that many were read
        self._guess: list[int] = []
        self._ahead: list[Next] = []  # after the words, and after each that was guessed

    @property
    def written(self) -> list[int]:
        """The words of the answer so far."""
        return self._words[self._prompt :]

    def next(self) -> Next:
        """What comes next."""
        if not self._ahead:
            self._look_ahead()
        return self._ahead[0]

    def write(self, word: int) -> None:
        """Write a word, the likeliest or another one."""
        self._words.append(word)
        self._ahead = self._ahead[1:]
        if self._guess[:1] == [word]:
            self._guess = self._guess[1:]
            self._read += 1
        elif self._guess:
            self._behind.back(self._read)
            self._guess, self._ahead = [], []

    def _look_ahead(self) -> None:
        new, self._guess = self._words[self._read :], self._looked_up()
        count = len(new) + len(self._guess)
        states = self._behind.words(new + self._guess, range(len(new) - 1, count))
        scores = self._scored(states)
        words = scores.argmax(-1).tolist()
        self._ahead = [Next(*found) for found in zip(words, scores, states, strict=True)]
        self._read = len(self._words)

    def _scored(self, states: Tensor) -> Tensor:
        """Scores of every word, float32 [K, V], after states [K, D]."""
        return self._score(states).float()

    def _looked_up(self) -> list[int]:
        """What followed where these last words stood before: the longest match, of these the latest."""
        known = self._expected + self.written
        looked_in, last = self._alike(known), self._alike(self._words[-LOOKED_UP[0] :])
        # Nothing is asked behind the last word.
        room = min(GUESSED, self._most - len(self._words) - 1)
        for size in LOOKED_UP:
            for start in range(len(known) - size - 1, -1, -1):
                if looked_in[start : start + size] == last[-size:]:
                    return known[start + size : start + size + room]
        return []

    def _alike(self, words: Sequence[int]) -> list[int]:
        """[SEG] and [REJ] as one: what follows a slot does not depend on it."""
        return [-1 if word in self._slots else word for word in words]


def expected_answer(prompt: Prompt, text: str) -> list[int]:
    """An instruction, and the answer that names and finds all that it seems to ask for."""
    things = things_named(text) if prompt.family.joint else [text]
    return prompt.ask_turn(text, things, [False] * len(things)).ids


def things_named(text: str) -> list[str]:
    """What an English request seems to name, in its own words; all of it where nothing is found."""
    parts = JOINER.split(" ".join(text.split()))
    begun = ((part, THING.search(part)) for part in parts)
    return [_unclosed(part[begin.start() :]) for part, begin in begun if begin] or [text]


def _unclosed(words: str) -> str:
    """Words without the punctuation, and the "please", that end them."""
    words = words.rstrip(" .!?")
    if words.lower().endswith(" please"):
        words = words[: -len(" please")].rstrip(" ,.!?")
    return words
