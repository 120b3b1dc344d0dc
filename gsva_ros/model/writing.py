"""Greedy decoding of an answer, with several guessed (draft) tokens verified in one pass.

An answer repeats the question and much of itself. The next tokens are therefore looked up in an expected
answer and in the answer so far, and read in one pass with the last token. The longest correct beginning of
a guess is kept, so every token is the most likely one after those before it, as in decoding one at a time.
Only rounding differs: in 16 bits it may decide a near tie differently. Source: "Inference with Reference:
Lossless Acceleration of Large Language Models" (arXiv:2304.04487); the reference is the expected answer.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass

from torch import Tensor

from .continuation import Continuation
from .prompt import Prompt

#: Maximum number of tokens guessed at once.
GUESSED = 11
#: Numbers of last tokens that a match must share, tried in order; a single one matches too often.
LOOKED_UP = (4, 3, 2)
#: What separates the things that a request names, and what one begins with; words are one space apart.
JOINER = re.compile(r" ?(?:, ?)?\b(?:and then|and also|then|and|or)\b ?| ?, ?", re.I)
THING = re.compile(
    r"\b(?:the|an?|any|all|both|every|each|anything|something|everything|two|three)\b", re.I
)


@dataclass(frozen=True)
class Next:
    """The most likely next token, all logits, float32 [V], and the hidden state [D] they come from."""

    token: int
    scores: Tensor
    state: Tensor


class Writer:
    """Decodes an answer to a prompt: `next` proposes a token, and the caller says which one to `write`."""

    def __init__(
        self,
        continuation: Continuation,
        score: Callable[[Tensor], Tensor],
        asked: Sequence[int],
        expected: Sequence[int],
        slots: Collection[int],
        most: int,
    ) -> None:
        """
        Args:
            continuation: reads after the frame's prefix; nothing was read with it yet.
            score: hidden states [K, D] to logits [K, V].
            asked: ids of the prompt after the prefix, up to where the answer begins.
            expected: ids of an answer to look up guesses in, see `expected_answer`.
            slots: ids of the slot tokens, [SEG] and [REJ].
            most: maximum number of tokens to write.
        """
        self._continuation, self._score = continuation, score
        self._tokens, self._expected, self._slots = list(asked), list(expected), slots
        self._prompt, self._most = len(asked), len(asked) + most
        self._read = 0  # how many of self._tokens were read
        self._guess: list[int] = []
        self._ahead: list[Next] = []  # what follows self._tokens and each guessed token

    @property
    def written(self) -> list[int]:
        """Ids of the answer so far."""
        return self._tokens[self._prompt :]

    def next(self) -> Next:
        """The next token."""
        if not self._ahead:
            self._look_ahead()
        return self._ahead[0]

    def write(self, token: int) -> None:
        """Append a token to the answer: the most likely one or another."""
        self._tokens.append(token)
        self._ahead = self._ahead[1:]
        if self._guess[:1] == [token]:
            self._guess = self._guess[1:]
            self._read += 1
        elif self._guess:
            self._continuation.rewind(self._read)
            self._guess, self._ahead = [], []

    def _look_ahead(self) -> None:
        new, self._guess = self._tokens[self._read :], self._looked_up()
        count = len(new) + len(self._guess)
        states = self._continuation.append(new + self._guess, range(len(new) - 1, count))
        scores = self._scored(states)
        tokens = scores.argmax(-1).tolist()
        self._ahead = [Next(*found) for found in zip(tokens, scores, states, strict=True)]
        self._read = len(self._tokens)

    def _scored(self, states: Tensor) -> Tensor:
        """Logits float32 [K, V] of hidden states [K, D]."""
        return self._score(states).float()

    def _looked_up(self) -> list[int]:
        """What followed an earlier occurrence of the last tokens: the longest match, then the latest."""
        known = self._expected + self.written
        looked_in, last = self._alike(known), self._alike(self._tokens[-LOOKED_UP[0] :])
        # No pass is needed after the last token.
        room = min(GUESSED, self._most - len(self._tokens) - 1)
        for size in LOOKED_UP:
            for start in range(len(known) - size - 1, -1, -1):
                if looked_in[start : start + size] == last[-size:]:
                    return known[start + size : start + size + room]
        return []

    def _alike(self, tokens: Sequence[int]) -> list[int]:
        """Replace [SEG] and [REJ] by one id: the text after a slot does not depend on which it is."""
        return [-1 if token in self._slots else token for token in tokens]


def expected_answer(prompt: Prompt, text: str) -> list[int]:
    """Ids of an instruction and of an answer that names everything it seems to ask for, all found."""
    things = things_named(text) if prompt.family.joint else [text]
    return prompt.ask_turn(text, things, [False] * len(things)).ids


def things_named(text: str) -> list[str]:
    """The things that an English request seems to name, in its words; the whole text if none is found."""
    parts = JOINER.split(" ".join(text.split()))
    begun = ((part, THING.search(part)) for part in parts)
    return [_unclosed(part[begin.start() :]) for part, begin in begun if begin] or [text]


def _unclosed(words: str) -> str:
    """Strip trailing punctuation and a trailing "please"."""
    words = words.rstrip(" .!?")
    if words.lower().endswith(" please"):
        words = words[: -len(" please")].rstrip(" ,.!?")
    return words
