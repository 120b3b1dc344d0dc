"""Samples to token ids: the user's question, the target answer, and where its slots are.

There are two wordings: "deployed", used by the node, and "official", the questions and answers that the
official GSVA draws from at random. Sources: the official data loaders and their constants
(LeapLabTHU/GSVA at 618dc79), which the published weights were trained on verbatim.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..model.prompt import Prompt, Turn
from ..model.tokenizer import Part, Special
from .sources.sample import Reasoning, Sample, Segments, Talk

#: "{}": the expressions, joined by ", ".
QUESTIONS = (
    "Can you segment {} in this image?",
    "Please segment {} in this image.",
    "What are {} in this image? Please respond with segmentation masks.",
    "What are {} in this image? Please output segmentation masks.",
)
#: The beginning of an answer, and the text before and after each expression in it, up to its slot.
ANSWERS = (
    ("The segmentation results are", "", " "),
    ("Sure, they are", "", ":"),
    ("Sure,", "the mask of ", " is "),
    ("Sure,", "the segmentation of ", " is "),
    ("Sure,", "the referred ", " is "),
)
#: Questions about one region, given as a phrase, or as a sentence of the user's.
PHRASE_QUESTIONS = (
    "Can you segment the {} in this image?",
    "Please segment the {} in this image.",
    "What is {} in this image? Please respond with segmentation mask.",
    "What is {} in this image? Please output segmentation mask.",
)
SENTENCE_QUESTIONS = (
    "{} Please respond with segmentation mask.",
    "{} Please output segmentation mask.",
)
EXPLAIN_QUESTIONS = (
    "{} Please output segmentation mask and explain why.",
    "{} Please output segmentation mask and explain the reason.",
    # The official code's spelling, which the weights were trained on.
    "{} Please output segmentation mask and give some explaination.",
)
#: The text before the single [SEG] of such an answer; a full stop follows it.
REGION_ANSWERS = ("It is ", "Sure, ", "Sure, it is ", "Sure, the segmentation result is ", "")
#: Fraction of the regions with an explanation that are answered in words alone.
EXPLAIN_ONLY = 0.1


@dataclass(frozen=True)
class Row:
    """One conversation about an image: what follows the image's tokens.

    Attributes:
        ids: token ids.
        labels: the id to predict at each position, or IGNORE (`Prompt.labels`).
        masks: bool [K, H, W], one for each slot in `ids`; empty (no pixel) if the slot is [REJ].
    """

    ids: list[int]
    labels: list[int]
    masks: NDArray[np.bool_]


class Conversations:
    """Turns samples into rows, for one model."""

    def __init__(self, prompt: Prompt, words: str, joint: bool) -> None:
        """Args: words: "deployed" or "official". joint: several expressions of a sample in one row."""
        self.prompt, self.words, self.joint = prompt, words, joint
        patterns = itertools.product(range(len(QUESTIONS)), range(len(ANSWERS)))
        self._longest = max(patterns, key=lambda pattern: self._tokens("it", pattern))

    def rows(self, sample: Sample, rng: np.random.Generator, most: int) -> list[Row]:
        """The rows of one sample; the wording depends on `rng` alone.

        Args: most: maximum number of tokens of a row that asks for several expressions; one that asks for a
            single expression may be longer.
        """
        if isinstance(sample, Segments):
            pattern = int(rng.integers(len(QUESTIONS))), int(rng.integers(len(ANSWERS)))
            every = list(range(len(sample.expressions)))
            if not self.joint:
                return [self._segments(sample, [k], pattern) for k in every]
            return self._joint(sample, every, pattern, most)
        if isinstance(sample, Reasoning):
            return [self._reasoning(sample, rng)]
        return [self._talk(sample)]

    def _joint(
        self, sample: Segments, chosen: list[int], pattern: tuple[int, int], most: int
    ) -> list[Row]:
        """The chosen expressions in one row, or halved until each row has at most `most` tokens."""
        row, half = self._segments(sample, chosen, pattern), len(chosen) // 2
        if not half or len(row.ids) <= most:
            return [row]
        halves = chosen[:half], chosen[half:]
        return [row for part in halves for row in self._joint(sample, part, pattern, most)]

    def longest(self, expression: str) -> int:
        """Number of tokens of a row that asks for one expression, in the longest possible wording."""
        return self._tokens(expression, self._longest)

    def _tokens(self, expression: str, pattern: tuple[int, int]) -> int:
        alone = Segments(np.zeros((1, 1, 3), np.uint8), (expression,), np.zeros((1, 1, 1), bool))
        return len(self._segments(alone, [0], pattern).ids)

    def _segments(self, sample: Segments, chosen: list[int], pattern: tuple[int, int]) -> Row:
        expressions = [sample.expressions[k].strip().strip(".") for k in chosen]
        masks = sample.masks[chosen]
        rejected = [not mask.any() for mask in masks]
        if self.words == "deployed":
            return self._row(self.prompt.segment_turn(expressions, rejected), masks)
        start, before, after = ANSWERS[pattern[1]]
        answer: list[Part] = [f"{start} "]
        for number, (expression, no_target) in enumerate(zip(expressions, rejected, strict=True)):
            answer += ["," if sample.classes else ", "] if number else []
            answer += [f"{before}{expression}{after}", Special.REJ if no_target else Special.SEG]
        question = QUESTIONS[pattern[0]].format(", ".join(expressions).lower())
        return self._rounds([(f"\n{question}", [*answer, "."])], masks)

    def _reasoning(self, sample: Reasoning, rng: np.random.Generator) -> Row:
        asked, form, answered = (int(n) for n in rng.integers([4, 2, len(REGION_ANSWERS)]))
        if sample.explanation and rng.random() < EXPLAIN_ONLY:
            words: list[Part] = [sample.explanation]
            return self._rounds([(f"\n{sample.query}", words)], sample.mask[None][:0])
        region: list[Part] = [REGION_ANSWERS[answered], Special.SEG, "."]
        forms: tuple[str, ...] = SENTENCE_QUESTIONS if sample.sentence else PHRASE_QUESTIONS
        query = sample.query if sample.sentence else sample.query.lower()
        if sample.explanation and form:
            forms, query = EXPLAIN_QUESTIONS, sample.query
            region = [*region, f" {sample.explanation}"]
        question = forms[asked % len(forms)].format(query)
        return self._rounds([(f"\n{question}", region)], sample.mask[None])

    def _talk(self, sample: Talk) -> Row:
        none = np.zeros((0, *sample.image.shape[:2]), bool)
        first, *others = sample.rounds
        rounds: list[tuple[str, Sequence[Part]]] = [(f"\n{first[0]}", [first[1]])]
        return self._rounds([*rounds, *((q, [a]) for q, a in others)], none)

    def _rounds(
        self, rounds: Sequence[tuple[str, Sequence[Part]]], masks: NDArray[np.bool_]
    ) -> Row:
        """Rounds of question and answer as one row; only answers are training targets."""
        return self._row(self.prompt.rounds(rounds), masks)

    def _row(self, turn: Turn, masks: NDArray[np.bool_]) -> Row:
        return Row(turn.ids, self.prompt.labels(turn), masks)
