"""What is true of the things in an image, and where people would disagree.

Answers are True, False, or None for unclear cases, which should not be asked about.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from ...phrasing.words import plural
from ..expressions import SeenObject, leads
from .names import PARTS

#: Metres between two things: next to each other up to the first, clearly not from the second on.
NEAR, FAR = 0.16, 0.32
#: Minimum ratio of scales for one thing to be larger than another of its kind.
LARGER = 1.3
#: Between two things: the range along the line that connects them and the distance from it, as fractions
#: of its length, within which a thing clearly is between them; and those beyond which it clearly is not.
ALONG, BESIDE = (0.2, 0.8), 0.25
OUTSIDE, ASIDE = (-0.1, 1.1), 0.6
#: Nothing counts as between things that are closer than this, in metres or as a fraction of the width.
ROOM, ROOM_SEEN = 0.15, 0.15
#: Relations that follow from what stands on or in what.
STACKED = ("on", "in", "under")


@dataclass(frozen=True)
class Noun:
    """A noun phrase; "" for what it does not mention.

    Attributes:
        kind: "": any thing, called `generic`.
        colour: its colour. other_than: a colour that it does not have.
        part: a part of PARTS that it shows or, if not `shown`, does not show.
    """

    kind: str = ""
    colour: str = ""
    other_than: str = ""
    part: str = ""
    shown: bool = True
    generic: str = "object"

    def fits(self, thing: SeenObject) -> bool | None:
        """Whether it applies to the thing."""
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
        """Its text after a determiner."""
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
    """The things for which `holds` is true; None if it is unclear for any thing."""
    answers = [holds(thing) for thing in things]
    if None in answers:
        return None
    return [thing for thing, yes in zip(things, answers, strict=True) if yes]


class View:
    """The things in one image; width: in pixels."""

    def __init__(self, things: Sequence[SeenObject], width: int) -> None:
        self.things, self.width = list(things), width
        self._by_id = {thing.id: thing for thing in things}

    def fitting(self, noun: Noun) -> list[SeenObject] | None:
        """The things that a noun applies to; None if that is unclear for any thing."""
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
        """Whether a thing is between two others, both on the ground and in the image."""
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
        # In it, on something in it, or on it when asked for "in": some people would say so.
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
