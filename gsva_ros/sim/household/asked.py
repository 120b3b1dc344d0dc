"""The forms of expressions: how each is worded, and what it refers to in a view.

`meant` returns the referents of an expression, an empty list if nothing fits, and None if people would
disagree or would not say it; such expressions are not used.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import pairwise

from ...phrasing.words import ORDINALS, SIDE_OF, SIZE_OF
from ..expressions import SeenObject, margin, measure
from .names import USES
from .view import LARGER, Noun, View, matching

Meant = list[SeenObject] | None
#: Minimum and maximum number of things for a determiner.
DETERMINERS = {
    "all": (1, 99),
    "every": (1, 99),
    "the": (2, 99),
    "both": (2, 2),
    "the two": (2, 2),
    "the three": (3, 3),
}


class Asked(ABC):
    """An expression; category: its category if it has a referent."""

    category: str

    @property
    @abstractmethod
    def text(self) -> str:
        """The expression's text."""

    @abstractmethod
    def meant(self, view: View) -> Meant:
        """The things that it refers to."""

    @abstractmethod
    def lacking(self, view: View) -> str:
        """The category if it has no referent."""


def singular(found: Meant) -> Meant:
    """The referent of a singular noun, or none; None if there would be several."""
    return None if found and len(found) > 1 else found


def lacking(noun: Noun, view: View) -> str:
    """The category of an absent noun: its kind is absent, or only its attributes."""
    kinds = {thing.kind for thing in view.things}
    return "absent_kind" if noun.kind and noun.kind not in kinds else "absent_attribute"


def lacking_of(nouns: Iterable[Noun], view: View) -> str:
    """The category of a relation without referent: of an absent noun, or that the relation fails."""
    for noun in nouns:
        if not view.fitting(noun):
            return lacking(noun, view)
    return "absent_relation"


@dataclass(frozen=True)
class OfNoun(Asked):
    """An expression with one noun phrase; if it has no referent, the noun phrase has none either."""

    noun: Noun

    def lacking(self, view: View) -> str:
        return lacking(self.noun, view)


@dataclass(frozen=True)
class Single(OfNoun):
    """ "the red mug"."""

    category = "single"

    @property
    def text(self) -> str:
        return f"the {self.noun.words()}"

    def meant(self, view: View) -> Meant:
        return singular(view.fitting(self.noun))


@dataclass(frozen=True)
class Plural(OfNoun):
    """ "all red mugs"; determiner: of DETERMINERS."""

    determiner: str
    category = "multiple"

    @property
    def text(self) -> str:
        return f"{self.determiner} {self.noun.words(several=self.determiner != 'every')}"

    def meant(self, view: View) -> Meant:
        found = view.fitting(self.noun)
        least, most = DETERMINERS[self.determiner]
        return found if found is not None and (not found or least <= len(found) <= most) else None


@dataclass(frozen=True)
class Related(Asked):
    """ "the red mug left of the box"; words: the relation's, as written."""

    noun: Noun
    several: bool
    relation: str
    words: str
    anchor: Noun
    category = "relative"

    @property
    def text(self) -> str:
        subject = f"{'all' if self.several else 'the'} {self.noun.words(self.several)}"
        return f"{subject} {self.words} the {self.anchor.words()}"

    def meant(self, view: View) -> Meant:
        anchors, subjects = view.fitting(self.anchor), view.fitting(self.noun)
        if anchors is None or subjects is None or len(anchors) > 1:
            return None
        subjects = [thing for thing in subjects if thing not in anchors]
        if not anchors or not subjects:
            return []
        found = matching(subjects, lambda thing: view.holds(thing, anchors[0], self.relation))
        return found if self.several else singular(found)

    def lacking(self, view: View) -> str:
        return lacking_of((self.noun, self.anchor), view)


@dataclass(frozen=True)
class Between(Asked):
    """ "the can between the mug and the box"."""

    noun: Noun
    one: Noun
    other: Noun
    category = "relative"

    @property
    def text(self) -> str:
        ends = f"the {self.one.words()} and the {self.other.words()}"
        return f"the {self.noun.words()} between {ends}"

    def meant(self, view: View) -> Meant:
        subjects, ones, others = map(view.fitting, (self.noun, self.one, self.other))
        if subjects is None or ones is None or others is None or max(len(ones), len(others)) > 1:
            return None
        if ones == others != []:
            return None
        subjects = [thing for thing in subjects if thing not in ones + others]
        if not (subjects and ones and others):
            return []
        return singular(matching(subjects, lambda thing: view.between(thing, ones[0], others[0])))

    def lacking(self, view: View) -> str:
        return lacking_of((self.noun, self.one, self.other), view)


@dataclass(frozen=True)
class Ranked(OfNoun):
    """ "the leftmost red mug", "the larger mug"."""

    rank: str
    category = "relative"

    @property
    def text(self) -> str:
        return f"the {self.rank} {self.noun.words()}"


@dataclass(frozen=True)
class Superlative(Ranked):
    """ "the leftmost red mug"; rank: of SIDE_OF."""

    def meant(self, view: View) -> Meant:
        found = view.fitting(self.noun)
        if not found:
            return found
        side = SIDE_OF[self.rank]
        found.sort(key=lambda thing: measure(thing, side))
        places = [measure(thing, side) for thing in found[:2]]
        clear = places[-1] - places[0] >= margin(side, view.width)
        return found[:1] if clear or len(found) == 1 else None


@dataclass(frozen=True)
class Sized(Ranked):
    """ "the larger mug" of two, "the smallest box"; rank: of SIZE_OF."""

    def meant(self, view: View) -> Meant:
        found = view.fitting(self.noun)
        if not found:
            return found
        if len(found) < 2 or (len(found) > 2 and self.rank.endswith("er")):
            return None
        large = SIZE_OF[self.rank] == "large"
        found.sort(key=lambda thing: thing.scale, reverse=large)
        scales = sorted(thing.scale for thing in found[:2])
        return found[:1] if scales[1] / scales[0] >= LARGER else None


@dataclass(frozen=True)
class Ordinal(OfNoun):
    """ "the second can from the left"."""

    number: int
    side: str
    category = "relative"

    @property
    def text(self) -> str:
        return f"the {ORDINALS[self.number]} {self.noun.words()} from the {self.side}"

    def meant(self, view: View) -> Meant:
        found = view.fitting(self.noun)
        if found is None or len(found) < self.number:
            return None if found is None else []
        found.sort(key=lambda thing: measure(thing, self.side))
        places = [measure(thing, self.side) for thing in found[: self.number + 1]]
        gaps = [after - before for before, after in pairwise(places)]
        return [found[self.number - 1]] if min(gaps) >= margin(self.side, view.width) else None


@dataclass(frozen=True)
class Except(OfNoun):
    """ "all cans except the red one", "all red things but the can".

    Attributes:
        noun: a kind or a colour; all such things are meant, except one.
        but: the excepted thing: a colour of that kind, or a kind.
        determiner: "all" or "every". words: "except" or the like.
    """

    but: Noun
    determiner: str
    words: str
    category = "multiple"

    @property
    def text(self) -> str:
        all_of = f"{self.determiner} {self.noun.words(several=self.determiner != 'every')}"
        left_out = f"{self.but.colour} one" if self.but.colour else self.but.kind
        return f"{all_of} {self.words} the {left_out}"

    def meant(self, view: View) -> Meant:
        found, out = view.fitting(self.noun), view.fitting(self.but)
        if not found:
            return found
        if out is None or len(out) != 1 or out[0] not in found:
            return None
        return [thing for thing in found if thing not in out]


@dataclass(frozen=True)
class Everything(Asked):
    """ "everything but the mug"."""

    but: Noun
    words: str
    category = "multiple"

    @property
    def text(self) -> str:
        return f"everything {self.words} the {self.but.words()}"

    def meant(self, view: View) -> Meant:
        out = view.fitting(self.but)
        if out is None or len(out) != 1:
            return None
        return [thing for thing in view.things if thing not in out]

    def lacking(self, view: View) -> str:
        return "absent_attribute"


@dataclass(frozen=True)
class Useful(Asked):
    """ "anything to drink from"; use: of USES."""

    use: str
    words: str
    category = "multiple"

    @property
    def text(self) -> str:
        return f"{self.words} {self.use}"

    def meant(self, view: View) -> Meant:
        serve, may_serve = USES[self.use]
        if any(thing.kind in may_serve for thing in view.things):
            return None
        return [thing for thing in view.things if thing.kind in serve]

    def lacking(self, view: View) -> str:
        return "absent_kind"
