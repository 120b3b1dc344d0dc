"""Free-form requests for one to four things, as people ask a robot; some forms are held out of training."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ..chance import pick
from .words import ORDINALS, SIDE_OF, SIZE_OF, article

#: Maximum number of things in a request, and the probabilities of one, two, three and four.
MOST_THINGS = 4
SHARES = (0.5, 0.26, 0.14, 0.1)


@dataclass(frozen=True)
class Wording:
    """Templates of requests; "{}" stands for the things.

    openings and closings go before and after a command; sentences are complete questions and statements.
    joiners: between the last two things, and between the others.
    """

    openings: tuple[str, ...]
    commands: tuple[str, ...]
    closings: tuple[str, ...]
    sentences: tuple[str, ...]
    joiners: tuple[tuple[str, str], ...]


TAUGHT = Wording(
    openings=(
        "", "", "", "", "please", "please", "can you", "can you please", "could you",
        "could you please", "would you", "will you", "robot,", "hey robot,", "ok,", "now",
        "i want you to", "i'd like you to", "you should", "go and",
    ),
    commands=(
        "hand me {}", "give me {}", "pick up {}", "pick {} up", "grasp {}", "grab {}", "take {}",
        "bring me {}", "bring {}", "get me {}", "get {}", "fetch {}", "find {}", "find me {}",
        "locate {}", "segment {}", "show me {}", "pass me {}", "pass {}", "put {} away", "move {}",
        "move {} away", "lift {}", "hold {}", "look at {}", "look for {}", "point at {}",
        "point to {}", "mark {}", "highlight {}", "remove {}", "clean {}", "tell me where {is} {}",
    ),
    closings=(
        "", "", "", "", "", " please", " for me", " now", " over here", " to me", " from the table",
    ),
    sentences=(
        "where is {}", "where are {}", "can you see {}", "do you see {}", "i need {}", "i want {}",
        "is there {a}", "are there {a}", "is there {a} here", "is {} there", "do we have {a}",
        "i am looking for {}", "i'm looking for {}", "which one is {}", "i would like {}", "{}",
        "is {} on the table", "is there {a} on the table", "what about {}", "do you have {a}",
    ),
    joiners=(
        (" and ", ", "), (" and ", " and "), (", ", ", "), (", and ", ", "), (" and then ", ", "),
        (" and also ", ", "), (" then ", ", then "), (" and after that ", ", "),
    ),
)  # fmt: skip
HELD_OUT = Wording(
    openings=("", "would you mind to", "be so kind and", "let's", "it is time to"),
    commands=("collect {}", "give {} to me", "select {}", "reach for {}", "hand over {}"),
    closings=("", " right away", " if you can", " thank you"),
    sentences=(
        "have you seen {}", "is {} anywhere", "could it be that there is {a}", "i can't find {}",
        "{} is what i need", "do you know where {} is",
    ),
    joiners=((" as well as ", ", "), (" plus ", " plus "), (" & ", ", ")),
)  # fmt: skip
#: Words that make a thing unique: nobody asks for "a nearest mug".
RANKS = {*SIDE_OF, *SIZE_OF, *ORDINALS.values()}
_ENDS = ("", "", "", "", ".", "!")
_QUESTION = re.compile(r"(?:where|can|could|would|will|do|is|are|which|what|have)\b")
_SINGULAR = re.compile(r"the (?!two |three )")
_ALL = re.compile(r"(?:all|both|the two|the three)(?: the| of the)? ")


@dataclass(frozen=True)
class Request:
    """A sentence, and the expressions in it, in its wording and order."""

    text: str
    expressions: tuple[str, ...]


def how_many(rng: np.random.Generator) -> int:
    """Draw the number of things in a request."""
    return int(rng.choice(MOST_THINGS, p=SHARES)) + 1


def request(
    expressions: Sequence[str], rng: np.random.Generator, wording: Wording = TAUGHT
) -> Request:
    """A request for these things; its wording does not tell present from absent ones."""
    things = [e.rstrip(" .!?") for e in expressions]
    if rng.random() < 0.4:
        template = pick(wording.sentences, rng)
    else:
        command = pick(wording.commands, rng)
        template = f"{pick(wording.openings, rng)} {command}{pick(wording.closings, rng)}".strip()
    if "{a}" in template:
        things = [_indefinite(thing) for thing in things]
    last, others = pick(wording.joiners, rng)
    named = things[0]
    for number, thing in enumerate(things[1:], start=1):
        named += (last if number == len(things) - 1 else others) + thing
    text = template.replace("{is}", "is").replace("{a}", "{}").replace("{}", named)
    end = pick(_ENDS, rng)
    if _QUESTION.match(template) and rng.random() < 0.7:
        end = "?"
    return Request(text + end, tuple(things))


def words() -> list[str]:
    """All taught parts of requests, to train a tokenizer."""
    parts = [*TAUGHT.openings, *TAUGHT.commands, *TAUGHT.closings, *TAUGHT.sentences]
    joiners = [joiner for both in TAUGHT.joiners for joiner in both]
    blank = re.compile(r"\{\w*\}")
    return [blank.sub("", part) for part in parts if part] + joiners


def _indefinite(thing: str) -> str:
    """The thing as named in questions: "a red mug", "any red mugs"."""
    if _ALL.match(thing):
        return _ALL.sub("any ", thing, count=1)
    found = _SINGULAR.match(thing)
    rest = thing[found.end() :] if found else ""
    if not rest or rest.split()[0] in RANKS:
        return thing
    return f"{article(rest)} {rest}"
