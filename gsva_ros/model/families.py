"""Families of models that share these modules: what they are asked, and what they can answer.

A family is a row of FAMILIES. Sources: the official GSVA (LeapLabTHU/GSVA at 618dc79) and LISA
(dvlab-research/LISA at 3cb2d43), whose weights know these words.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from .tokenizer import Part, Special

#: A conversation's own question, expressions and which of them are rejected, to question and answer.
Turn = Callable[[str, Sequence[str], Sequence[bool]], tuple[str, list[Part]]]


@dataclass(frozen=True)
class Family:
    """How a model is asked for masks, and how it answers.

    Attributes:
        tokens: its special tokens, in the order in which training put them behind the vocabulary.
        rejects: whether a slot is decided between [SEG] and [REJ]; else it is [SEG], always, and an empty
            mask is the only no.
        joint: whether several expressions can stand in one conversation.
        turn: the words around expressions. The state before a slot decides it and prompts its mask.
    """

    tokens: tuple[Special, ...]
    rejects: bool
    joint: bool
    turn: Turn


def _gsva_turn(
    question: str, expressions: Sequence[str], rejected: Sequence[bool]
) -> tuple[str, list[Part]]:
    answer: list[Part] = ["Sure,"]
    for number, (expression, no_target) in enumerate(zip(expressions, rejected, strict=True)):
        answer += [", "] if number else []
        answer += [f"{expression}:", Special.REJ if no_target else Special.SEG]
    return question.format(", ".join(expressions)), [*answer, "."]


def region_turn(query: str, sentence: bool) -> tuple[str, list[Part]]:
    """One region asked for, as both official evaluations do on ReasonSeg.

    Args:
        sentence: the query is asked as it stands; else it is a phrase that names the region.
    """
    asked = query if sentence else f"What is {query} in this image?"
    return f"\n {asked} Please output segmentation mask.", [Special.SEG]


def _lisa_turn(
    question: str, expressions: Sequence[str], rejected: Sequence[bool]
) -> tuple[str, list[Part]]:
    """A phrase is asked for by what it is, a sentence as it stands; `question` is GSVA's, not used."""
    (expression,) = expressions
    asked, answer = region_turn(expression, expression.endswith(("?", ".", "!")))
    return asked, [*answer, "."]


FAMILIES = {
    "gsva": Family(
        (Special.SEG, Special.REJ, Special.IM_START, Special.IM_END), True, True, _gsva_turn
    ),
    "lisa": Family((Special.SEG, Special.IM_START, Special.IM_END), False, False, _lisa_turn),
}
