"""The rows of the comparison, and how each builds conversations from expressions.

A prompt is a set of expressions about one image, asked for together. The rows differ in how many
conversations and slots a prompt becomes, and in how a slot answers for an absent thing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ..model.families import FAMILIES
from ..model.prompt import Prompt
from ..model.tokenizer import Part, Special
from ..scenes import Expression
from ..train.packing import Branch


@dataclass(frozen=True)
class Row:
    """One way to ask and to answer.

    Attributes:
        absent: whether training includes absent things.
        together: whether a prompt's expressions share one conversation.
        rejects: whether absent things are answered with [REJ]; else with an empty mask.
        own_slots: whether each expression has its own slot; else there is one for the whole prompt.
    """

    title: str
    absent: bool
    together: bool
    rejects: bool
    own_slots: bool


ROWS = {
    "A": Row("LISA, never shown an absent thing", False, False, False, True),
    "B": Row("LISA, absent things as empty masks", True, False, False, True),
    "C": Row("one [SEG] an expression, no [REJ]", True, True, False, True),
    "D": Row("one [SEG] or [REJ] for the whole prompt", True, True, True, False),
    "E": Row("GSVA: [SEG] or [REJ] for each expression", True, True, True, True),
}


def branches(
    prompt: Prompt, row: Row, asked: Sequence[Expression], kept: Sequence[bool]
) -> list[Branch]:
    """The conversations for a prompt.

    Args:
        kept: which expressions are answered with [SEG]; the others with [REJ], if the row has it.
    """
    groups = [range(len(asked))] if row.together else [range(k, k + 1) for k in range(len(asked))]
    return [_branch(prompt, row, [asked[k] for k in g], [kept[k] for k in g]) for g in groups]


def _branch(prompt: Prompt, row: Row, asked: Sequence[Expression], kept: Sequence[bool]) -> Branch:
    question = prompt.conversation.question.format(", ".join(e.text for e in asked))
    turn = prompt.rounds([(question, _answer(row, asked, kept))])
    targets = [e.targets for e in asked]
    if not row.own_slots:
        targets = [tuple(sorted({k for e in asked for k in e.targets}))]
    return Branch.of(prompt, turn, targets, [""] * len(targets))


def _answer(row: Row, asked: Sequence[Expression], kept: Sequence[bool]) -> list[Part]:
    rejected = [row.rejects and not seen for seen in kept]
    if row.together and row.own_slots:
        _, answer = FAMILIES["gsva"].turn("", [e.text for e in asked], rejected)
        return answer
    return [Special.REJ if all(rejected) else Special.SEG, "."]
