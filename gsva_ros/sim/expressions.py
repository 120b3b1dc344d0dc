"""Referring expressions about a scene, with their truth.

Expressions are drawn in pairs with the same form and word pattern, one present in the scene and one absent,
so that the wording alone does not reveal which.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ..chance import pick
from ..phrasing.words import GENERIC, NUMBERS, RELATIONS, SIZE_WORDS, SUPERLATIVES, plural
from ..scenes import Expression
from .shapes import COLOURS, KINDS, SIZES

# A relation holds beyond the first margin and clearly fails beyond the second; cases between are not asked.
# Fractions of the image width for left and right, metres on the table for in front of and behind.
HOLDS = {"left": 0.06, "right": 0.06, "front": 0.04, "behind": 0.04}
FAILS = {"left": 0.01, "right": 0.01, "front": 0.01, "behind": 0.01}
TRIES = 40


@dataclass(frozen=True)
class SeenObject:
    """An object as the camera sees it.

    id: its value in the instance image. centroid, box: pixels; box is (x0, y0, x1, y1), x1 and y1
    exclusive. distance: metres from the camera along the ground, in the viewing direction. kind, colour,
    size: "" if no word applies, as for an unnamed or a two-coloured thing.

    The household world adds: support: the id of the thing it stands on (0: the table). inside: the id of
    the thing it stands in. parts: which of "handle", "lid", "label", "stripes" are visible. scale: its size
    relative to a usual thing of its kind. place: metres on the ground, (to the right of the camera, away
    from it).
    """

    id: int
    kind: str
    colour: str
    size: str
    pixels: int
    box: tuple[int, int, int, int]
    centroid: tuple[float, float]
    distance: float
    support: int = 0
    inside: int = 0
    parts: tuple[str, ...] = ()
    scale: float = 1.0
    place: tuple[float, float] = (0.0, 0.0)


def extent(
    rows: npt.NDArray[np.int64], columns: npt.NDArray[np.int64]
) -> tuple[tuple[int, int, int, int], tuple[float, float]]:
    """Box and centroid (see SeenObject) of the pixels in these rows and columns; zeros if there is none."""
    if not len(rows):
        return (0, 0, 0, 0), (0.0, 0.0)
    box = (int(columns.min()), int(rows.min()), int(columns.max()) + 1, int(rows.max()) + 1)
    # A pixel's centre is half a pixel after its index.
    return box, (round(float(columns.mean()) + 0.5, 2), round(float(rows.mean()) + 0.5, 2))


def measure(thing: SeenObject, side: str) -> float:
    """A value that is smaller the further left, right (pixels), in front or behind (metres) a thing is."""
    return {
        "left": thing.centroid[0],
        "right": -thing.centroid[0],
        "front": thing.distance,
        "behind": -thing.distance,
    }[side]


def margin(side: str, width: int) -> float:
    """The lead that a thing needs over the next to be the furthest, in the unit of `measure`."""
    return HOLDS[side] * _unit(side, width)


def leads(thing: SeenObject, anchor: SeenObject, side: str, width: int) -> bool | None:
    """Whether a thing is further to a side than the anchor; None if people might disagree."""
    lead = (measure(anchor, side) - measure(thing, side)) / _unit(side, width)
    if lead > HOLDS[side]:
        return True
    return False if lead < -FAILS[side] else None


def _unit(side: str, width: int) -> float:
    """The factor from values in HOLDS and FAILS to the unit of `measure`."""
    return width if side in ("left", "right") else 1.0


@dataclass(frozen=True)
class Words:
    """The attributes that a noun phrase names; None for those it does not."""

    kind: str | None
    colour: str | None
    size: str | None

    def fits(self, thing: SeenObject) -> bool:
        """Whether the phrase is true of the thing."""
        return (
            self.kind in (None, thing.kind)
            and self.colour in (None, thing.colour)
            and self.size in (None, thing.size)
        )


@dataclass(frozen=True)
class Pattern:
    """Which attributes a noun phrase names."""

    kind: bool
    colour: bool
    size: bool


PATTERNS = (
    (Pattern(True, True, False), 0.5),
    (Pattern(True, False, False), 0.2),
    (Pattern(True, False, True), 0.1),
    (Pattern(True, True, True), 0.1),
    (Pattern(False, True, False), 0.1),
)


class Expressions:
    """Draws expressions about one scene; width: of the image in pixels."""

    def __init__(self, things: Sequence[SeenObject], width: int, rng: np.random.Generator) -> None:
        self.things, self.width, self.rng = list(things), width, rng

    def sample(self, count: int) -> list[Expression]:
        """At most `count` different expressions, as many absent as present."""
        found: dict[str, Expression] = {}
        for _ in range(count * 6):
            if len(found) + 1 >= count:
                break
            pair = self._pair()
            if pair and not any(e.text in found for e in pair):
                found.update((e.text, e) for e in pair)
        return list(found.values())

    def _pair(self) -> tuple[Expression, Expression] | None:
        draw = self.rng.random()
        make: Callable[[Pattern, bool, str], Expression | None]
        form = ""
        if draw < 0.30:
            make = self._single
        elif draw < 0.55:
            make, form = self._plural, pick(("all", "all", "every", "the", "number"), self.rng)
        elif draw < 0.82:
            make, form = self._relation, pick(tuple(RELATIONS), self.rng)
        else:
            make, form = self._superlative, pick(tuple(SUPERLATIVES), self.rng)
        weights = [w for _, w in PATTERNS]
        pattern = PATTERNS[int(self.rng.choice(len(PATTERNS), p=weights))][0]
        present = make(pattern, True, form)
        absent = make(pattern, False, form) if present else None
        return (present, absent) if present and absent else None

    def _words(self, pattern: Pattern, seen: bool) -> Words:
        """Words of one object in the scene, or a mixture of words that mostly occur in the scene."""
        rng, things = self.rng, self.things
        if seen:
            thing = pick(things, rng)
            kind, colour, size = thing.kind, thing.colour, thing.size
        else:
            kind = pick(things, rng).kind
            colour = pick(things, rng).colour
            size = pick(tuple(SIZES), rng)
            if rng.random() < 0.35:
                kind = pick(KINDS, rng)
            if rng.random() < 0.35:
                colour = pick(tuple(COLOURS), rng)
        return Words(
            kind if pattern.kind else None,
            colour if pattern.colour else None,
            size if pattern.size else None,
        )

    def _phrase(self, words: Words, several: bool = False) -> str:
        noun = words.kind or pick(GENERIC, self.rng)
        if several:
            noun = plural(noun)
        size = pick(SIZE_WORDS[words.size], self.rng) if words.size else None
        return " ".join(word for word in (size, words.colour, noun) if word)

    def _fitting(self, words: Words) -> list[SeenObject]:
        return [thing for thing in self.things if words.fits(thing)]

    def _absence(self, words: Words) -> str:
        kinds = {thing.kind for thing in self.things}
        return "absent_kind" if words.kind and words.kind not in kinds else "absent_attribute"

    def _single(self, pattern: Pattern, present: bool, form: str) -> Expression | None:
        for _ in range(TRIES):
            words = self._words(pattern, present)
            fitting = self._fitting(words)
            if len(fitting) == int(present):
                category = "single" if present else self._absence(words)
                return Expression(
                    f"the {self._phrase(words)}", category, tuple(t.id for t in fitting)
                )
        return None

    def _plural(self, pattern: Pattern, present: bool, form: str) -> Expression | None:
        for _ in range(TRIES):
            words = self._words(pattern, present)
            fitting = self._fitting(words)
            if bool(fitting) != present:
                continue
            if form == "number":
                count = len(fitting) if present else int(self.rng.choice([2, 2, 2, 3]))
                if count not in NUMBERS:
                    continue
                text = f"the {NUMBERS[count]} {self._phrase(words, several=True)}"
            elif form == "every":
                text = f"every {self._phrase(words)}"
            else:
                if form == "the" and len(fitting) == 1:
                    continue
                text = f"{form} {self._phrase(words, several=True)}"
            category = "multiple" if present else self._absence(words)
            return Expression(text, category, tuple(t.id for t in fitting))
        return None

    def _superlative(self, pattern: Pattern, present: bool, form: str) -> Expression | None:
        for _ in range(TRIES):
            words = self._words(pattern, present)
            fitting = self._fitting(words)
            if bool(fitting) != present:
                continue
            fitting.sort(key=lambda t: measure(t, form))
            if len(fitting) == 1 and self.rng.random() < 0.7:
                continue
            if len(fitting) > 1:
                first, second = (measure(t, form) for t in fitting[:2])
                if second - first < margin(form, self.width):
                    continue
            text = f"the {pick(SUPERLATIVES[form], self.rng)} {self._phrase(words)}"
            category = "relative" if present else self._absence(words)
            return Expression(text, category, tuple(t.id for t in fitting[:1]))
        return None

    def _relation(self, pattern: Pattern, present: bool, form: str) -> Expression | None:
        asked_relation = present or self.rng.random() < 0.75
        several = self.rng.random() < 0.2
        for _ in range(TRIES):
            words = self._words(pattern, asked_relation)
            anchor_words = self._words(
                Pattern(True, self.rng.random() < 0.5, False), asked_relation
            )
            anchors = self._fitting(anchor_words)
            if words == anchor_words:
                continue
            fitting = [t for t in self._fitting(words) if t not in anchors]
            if asked_relation:
                if len(anchors) != 1 or not fitting:
                    continue
                holds = [leads(t, anchors[0], form, self.width) for t in fitting]
                if None in holds:
                    continue
                targets = tuple(t.id for t, h in zip(fitting, holds, strict=True) if h)
                if bool(targets) != present or (len(targets) > 1 and not several):
                    continue
                category = "relative" if present else "absent_relation"
            else:
                if len(anchors) > 1 or (anchors and fitting):
                    continue
                targets = ()
                category = self._absence(words if not fitting else anchor_words)
            subject = self._phrase(words, several)
            where = f"{pick(RELATIONS[form], self.rng)} the {self._phrase(anchor_words)}"
            return Expression(f"{'all' if several else 'the'} {subject} {where}", category, targets)
        return None
