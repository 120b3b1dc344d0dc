"""What is true of the things in a picture, and what people would disagree about.

Answers are True, False, or None where nobody should be asked.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from ...phrasing.words import plural
from ..expressions import SeenObject, leads
from .names import PARTS

#: Metres between two things' places: next to each other up to the first, clearly not from the second.
NEAR, FAR = 0.16, 0.32
#: One thing is larger than another of its kind from this ratio of their scales on.
LARGER = 1.3
#: Between two things: the part of their line where a thing surely is, and how far beside it, as a share
#: of its length; and where it surely is not.
ALONG, BESIDE = (0.2, 0.8), 0.25
OUTSIDE, ASIDE = (-0.1, 1.1), 0.6
#: Things closer than this, in metres and as a share of the width, hold nothing between them.
ROOM, ROOM_SEEN = 0.15, 0.15
#: Relations that are read from what stands on or in what.
STACKED = ("on", "in", "under")


@dataclass(frozen=True)
class Noun:
    """A noun phrase; "" for what it does not say.

    Attributes:
        kind: "": any thing, called `generic`.
        colour: its colour. other_than: a colour that it has not.
        part: of PARTS, which it shows, or does not where not `shown`.
    """

    kind: str = ""
    colour: str = ""
    other_than: str = ""
    part: str = ""
    shown: bool = True
    generic: str = "object"

    def fits(self, thing: SeenObject) -> bool | None:
        """Whether it names the thing."""
        if self.kind and thing.kind != self.kind:
            return False
        if self.part and (self.part in thing.parts) != self.shown:
            return False
        if not (self.colour or self.other_than):
            return True
        if not thing.colour:
            return None
        return self.colour in ("", thing.colour) and thing.colour != self.other_than

    def words(self, several: bool = False) -> str:
        """As written behind a determiner."""
        noun = self.kind or self.generic
        text = f"{self.colour} {plural(noun) if several else noun}".strip()
        if self.part:
            text += f" {'with' if self.shown else 'without'} {PARTS[self.part]}"
        if self.other_than:
            text += f" that {'are' if several else 'is'} not {self.other_than}"
        return text


def matching(
    things: Sequence[SeenObject], holds: Callable[[SeenObject], bool | None]
) -> list[SeenObject] | None:
    """The things of which it holds; None where it may hold of another."""
    answers = [holds(thing) for thing in things]
    if None in answers:
        return None
    return [thing for thing, yes in zip(things, answers, strict=True) if yes]


class View:
    """The things of one picture, of a width in pixels."""

    def __init__(self, things: Sequence[SeenObject], width: int) -> None:
        self.things, self.width = list(things), width
        self._by_id = {thing.id: thing for thing in things}

    def fitting(self, noun: Noun) -> list[SeenObject] | None:
        """The things that a noun names; None where it may name another."""
        return matching(self.things, noun.fits)

    def holds(self, thing: SeenObject, anchor: SeenObject, relation: str) -> bool | None:
        """Whether `thing` is left, right, front, behind, next, on, in or under the anchor."""
        if relation == "under":
            return self.holds(anchor, thing, "on")
        if relation in STACKED:
            return self._rests(thing, anchor, relation)
        if self._stacked(thing, anchor):
            return None
        if relation == "next":
            apart = float(np.hypot(*np.subtract(thing.place, anchor.place)))
            return True if apart <= NEAR else False if apart >= FAR else None
        return leads(thing, anchor, relation, self.width)

    def between(self, thing: SeenObject, one: SeenObject, other: SeenObject) -> bool | None:
        """Whether a thing is between two others, on the ground and in the picture alike."""
        pairs = ((thing, one), (thing, other), (one, other))
        if any(self._stacked(*pair) for pair in pairs):
            return None
        ground = _between(thing.place, one.place, other.place, ROOM)
        seen = _between(thing.centroid, one.centroid, other.centroid, ROOM_SEEN * self.width)
        return ground if ground == seen else None

    def _rests(self, thing: SeenObject, anchor: SeenObject, relation: str) -> bool | None:
        holder = thing.inside if relation == "in" else 0 if thing.inside else thing.support
        if holder == anchor.id:
            return True
        # In it, on what is in it, or on it where "in" is asked: some would say so.
        return None if self._above(thing, anchor) else False

    def _stacked(self, one: SeenObject, other: SeenObject) -> bool:
        """Whether one stands on or in the other, or on something that does."""
        return self._above(one, other) or self._above(other, one)

    def _above(self, thing: SeenObject, base: SeenObject) -> bool:
        below = thing
        for _ in self.things:
            holder = below.inside or below.support
            if holder == base.id:
                return True
            if holder not in self._by_id:
                return False
            below = self._by_id[holder]
        return False


def _between(
    at: tuple[float, float], one: tuple[float, float], other: tuple[float, float], room: float
) -> bool | None:
    """Whether a point is between two others that are at least `room` apart."""
    line, offset = np.subtract(other, one), np.subtract(at, one)
    length = float(np.hypot(*line))
    if length < room:
        return None
    along = float(offset @ line) / length**2
    aside = abs(float(line[0] * offset[1] - line[1] * offset[0])) / length**2
    if ALONG[0] <= along <= ALONG[1] and aside <= BESIDE:
        return True
    outside = not OUTSIDE[0] <= along <= OUTSIDE[1]
    return False if outside or aside >= ASIDE else None
