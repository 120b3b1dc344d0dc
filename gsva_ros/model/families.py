"""Model families that share these modules: how they are prompted, and what they can answer.

A family is a row of FAMILIES. Sources: the official GSVA (LeapLabTHU/GSVA at 618dc79) and LISA
(dvlab-research/LISA at 3cb2d43); their weights were trained on this wording.
Their tokens are those of the transformers that each requires: 4.44.2 for GSVA, 4.31.0 for LISA.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from .tokenizer import Part, Special

#: The template's question, the expressions, and whether each is rejected, to a question and its answer.
Wording = Callable[[str, Sequence[str], Sequence[bool]], tuple[str, list[Part]]]


@dataclass(frozen=True)
class Family:
    """How a model is asked for masks, and how it answers.

    Attributes:
        tokens: its special tokens, in the order in which training appended them to the vocabulary.
        rejects: whether a slot is decided between [SEG] and [REJ]; if not, it is always [SEG], and only an
            empty mask can reject.
        joint: whether one conversation can ask for several expressions.
        strips: whether whitespace next to added tokens is dropped, as by the slow tokenizer of
            transformers 4.31.0.
        turn: builds the text around expressions. The hidden state before a slot token decides the slot and
            prompts its mask.
        ends: characters that are dropped at both ends of expressions before `turn`, except under the
            official evaluation, which keeps a space before a full stop.
    """

    tokens: tuple[Special, ...]
    rejects: bool
    joint: bool
    strips: bool
    turn: Wording
    ends: str


def _gsva_turn(
    question: str, expressions: Sequence[str], rejected: Sequence[bool]
) -> tuple[str, list[Part]]:
    """Expressions are written as the weights know them: in lower case, without full stops at the ends."""
    words = [expression.lower().strip(".") for expression in expressions]
    answer: list[Part] = ["Sure,"]
    for number, (word, no_target) in enumerate(zip(words, rejected, strict=True)):
        answer += [", "] if number else []
        answer += [f"{word}:", Special.REJ if no_target else Special.SEG]
    return question.format(", ".join(words)), [*answer, "."]


def region_turn(query: str, sentence: bool) -> tuple[str, list[Part]]:
    """A question for one region, as both official evaluations word it on ReasonSeg, and its answer.

    Args:
        sentence: the query is a complete sentence, used unchanged; else it is a phrase naming the region.
    """
    asked = query if sentence else f"What is {query} in this image?"
    return f"\n {asked} Please output segmentation mask.", [Special.SEG]


def _lisa_turn(
    question: str, expressions: Sequence[str], rejected: Sequence[bool]
) -> tuple[str, list[Part]]:
    """As `region_turn`: text ending in ? . or ! is a sentence. `question` is GSVA's and not used."""
    (expression,) = expressions
    asked, answer = region_turn(expression, expression.endswith(("?", ".", "!")))
    return asked, [*answer, "."]


FAMILIES = {
    "gsva": Family(
        (Special.SEG, Special.REJ, Special.IM_START, Special.IM_END),
        rejects=True,
        joint=True,
        strips=False,
        turn=_gsva_turn,
        ends=" .",
    ),
    "lisa": Family(
        (Special.SEG, Special.IM_START, Special.IM_END),
        rejects=False,
        joint=False,
        strips=True,
        turn=_lisa_turn,
        ends="",
    ),
}
