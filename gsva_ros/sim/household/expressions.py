"""Referring expressions about a scene of the household world, with their truth.

Expressions are drawn in pairs, one present in the scene and one absent, so that the wording alone does not
reveal which: the two share their form and every word that correlates with presence ("on the book", "with a
lid"), and differ only in kinds and colours that are equally frequent in scenes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import permutations
from typing import TypeVar

import numpy as np

from ...chance import pick
from ...phrasing.words import EXCEPT, GENERIC, MORE_RELATIONS, RELATIONS, SIDE_OF, SIZE_OF
from ...scenes import Expression
from ..expressions import SeenObject
from .asked import (
    DETERMINERS,
    Asked,
    Between,
    Everything,
    Except,
    Ordinal,
    Plural,
    Related,
    Single,
    Sized,
    Superlative,
    Useful,
)
from .common import TRAINING, Common, Shares
from .names import PARTED, STACKS, USES
from .view import STACKED, Noun, View

TRIES = 40
#: Number of pairs tried per requested expression.
PAIRS = 8
#: Probabilities of what a noun phrase names: (kind, colour).
PATTERNS = ((0.55, (True, True)), (0.33, (True, False)), (0.12, (False, True)))
WANTED = ("anything to", "something to", "something i can")
#: Draws an expression that should be present or absent; the caller checks whether it is.
Draw = Callable[[bool], Asked | None]
Pair = tuple[SeenObject, SeenObject]
T = TypeVar("T")


@dataclass(frozen=True)
class Blank:
    """What a noun phrase names, and the generic noun it uses if it names no kind."""

    kind: bool
    colour: bool
    generic: str

    def filled(self, kind: str, colour: str) -> Noun:
        """The noun phrase with these words, as far as the pattern names them."""
        return Noun(kind * self.kind, colour * self.colour, generic=self.generic)

    def of(self, thing: SeenObject) -> Noun | None:
        """The noun phrase for a thing; None if the thing has no word for what the pattern names."""
        if (self.kind and not thing.kind) or (self.colour and not thing.colour):
            return None
        return self.filled(thing.kind, thing.colour)


class Expressions:
    """Draws expressions about one scene; width: of the image in pixels.

    common: how often such scenes contain a kind or a colour; absent ones are asked for equally often.
    """

    def __init__(
        self,
        things: Sequence[SeenObject],
        width: int,
        rng: np.random.Generator,
        common: Common = TRAINING,
    ) -> None:
        self.view, self.rng, self.common = View(things, width), rng, common
        self.named = [thing for thing in things if thing.kind]
        # Weights with which forms are tried: most scenes allow no expression in some of them.
        self.forms: dict[str, tuple[float, Callable[[], Draw | None]]] = {
            "single": (0.20, self._single),
            "plural": (0.14, self._plural),
            "relation": (0.17, self._side),
            "next to": (0.07, self._next),
            "between": (0.06, self._between),
            "stacked": (0.25, self._stacked),
            "superlative": (0.08, self._superlative),
            "sized": (0.10, self._sized),
            "ordinal": (0.08, self._ordinal),
            "not": (0.04, self._other_than),
            "except": (0.06, self._except),
            "part": (0.08, self._part),
            "use": (0.05, self._use),
            "everything": (0.01, self._everything),
        }

    def sample(self, count: int) -> list[Expression]:
        """At most `count` different expressions, as many absent as present."""
        found: dict[str, Expression] = {}
        for _, *pair in self.pairs(count * PAIRS):
            if len(found) + 1 >= count:
                break
            if not any(e.text in found for e in pair):
                found.update((e.text, e) for e in pair)
        return list(found.values())

    def pairs(self, tries: int) -> Iterator[tuple[str, Expression, Expression]]:
        """Form names, each with a present and an absent expression, where the scene allows both."""
        names, weights = list(self.forms), [weight for weight, _ in self.forms.values()]
        for _ in range(tries):
            name = self._weighted(names, weights)
            draw = self.forms[name][1]()
            present = self._find(draw, True) if draw else None
            absent = self._find(draw, False) if draw and present else None
            if present and absent:
                yield name, present, absent

    def _find(self, draw: Draw, present: bool) -> Expression | None:
        for _ in range(TRIES):
            asked = draw(present)
            meant = asked.meant(self.view) if asked else None
            if asked is None or meant is None or bool(meant) != present:
                continue
            category = asked.category if present else asked.lacking(self.view)
            return Expression(asked.text, category, tuple(thing.id for thing in meant))
        return None

    def _one_of(self, options: Sequence[T]) -> T:
        return pick(options, self.rng)

    def _chance(self, share: float) -> bool:
        return bool(self.rng.random() < share)

    def _blank(self, must_name: bool = False) -> Blank:
        """Draw a noun phrase's pattern; must_name: it must name a kind."""
        weights, patterns = zip(*PATTERNS, strict=True)
        kind, colour = self._weighted(patterns, weights)
        if must_name:
            kind, colour = True, colour and kind
        return Blank(kind, colour, self._one_of(GENERIC))

    def _weighted(self, options: Sequence[T], weights: Sequence[float]) -> T:
        shares = np.cumsum(weights)
        return options[int(np.searchsorted(shares, self.rng.random() * shares[-1], "right"))]

    def _some(self, blank: Blank, kinds: Shares | None = None) -> Noun:
        """A noun phrase of words by their frequency in scenes, most of which occur in this one.

        kinds: frequencies of kinds to use instead of those in scenes.
        """
        kind = self._mostly([t.kind for t in self.named], kinds or self.common.kinds, 0.7)
        return blank.filled(kind, self._some_colour(kind))

    def _some_colour(self, kind: str) -> str:
        here = [thing.colour for thing in self.view.things]
        return self._mostly(here, self.common.colours[kind], 0.5)

    def _mostly(self, here: Sequence[str], usual: Shares, share: float) -> str:
        """One of the usual words; with probability `share` one that occurs here."""
        kept = [word for word in here if word in usual]
        options = kept if kept and self._chance(share) else list(usual)
        return self._weighted(options, [usual[word] for word in options])

    def _noun(self, blank: Blank, there: bool) -> Noun | None:
        """A noun phrase for a thing of the scene, or of usual words."""
        return blank.of(self._one_of(self.view.things)) if there else self._some(blank)

    def _single(self) -> Draw:
        blank = self._blank()
        return _of_noun(lambda there: self._noun(blank, there), Single)

    def _plural(self) -> Draw:
        blank, determiner = self._blank(), self._one_of((*DETERMINERS, "all"))
        return _of_noun(lambda there: self._noun(blank, there), lambda n: Plural(n, determiner))

    def _superlative(self) -> Draw:
        blank, rank = self._blank(), self._one_of(tuple(SIDE_OF))

        def noun(there: bool) -> Noun | None:
            made = self._noun(blank, there)
            alone = there and made and len(self.view.fitting(made) or ()) == 1
            return None if alone and self._chance(0.7) else made

        return _of_noun(noun, lambda n: Superlative(n, rank))

    def _sized(self) -> Draw:
        blank, rank = self._blank(must_name=True), self._one_of(tuple(SIZE_OF))
        return _of_noun(lambda there: self._noun(blank, there), lambda n: Sized(n, rank))

    def _ordinal(self) -> Draw:
        blank, number = self._blank(), 2 if self._chance(0.7) else 3
        side = self._one_of(("left", "right"))
        return _of_noun(lambda there: self._noun(blank, there), lambda n: Ordinal(n, number, side))

    def _side(self) -> Draw | None:
        return self._related(self._one_of(tuple(RELATIONS)))

    def _next(self) -> Draw | None:
        return self._related("next")

    def _related(self, relation: str) -> Draw | None:
        """A relation between two things; absent ones mostly have both things, but elsewhere."""
        words = self._one_of((RELATIONS | MORE_RELATIONS)[relation])
        subject, anchor, several = self._blank(), self._blank(must_name=True), self._chance(0.2)
        where: dict[bool | None, list[Pair]] = {True: [], False: [], None: []}
        for pair in permutations(self.view.things, 2):
            where[self.view.holds(*pair, relation)].append(pair)

        def draw(present: bool) -> Asked | None:
            if not where[present]:
                return None
            thing, other = self._one_of(where[present])
            nouns = [subject.of(thing), anchor.of(other)]
            if not present and self._chance(0.25):
                number = int(self.rng.integers(2))
                nouns[number] = self._some((subject, anchor)[number])
            if nouns[0] is None or nouns[1] is None or nouns[0] == nouns[1]:
                return None
            return Related(nouns[0], several, relation, words, nouns[1])

        return draw

    def _between(self) -> Draw | None:
        blanks = [self._blank(), self._blank(must_name=True), self._blank(must_name=True)]

        def draw(present: bool) -> Asked | None:
            if not self._triples[present]:
                return None
            things = self._one_of(self._triples[present])
            nouns = [blank.of(thing) for blank, thing in zip(blanks, things, strict=True)]
            if not present and self._chance(0.25):
                number = int(self.rng.integers(3))
                nouns[number] = self._some(blanks[number])
            subject, one, other = nouns
            if subject is None or one is None or other is None or len(set(nouns)) < 3:
                return None
            return Between(subject, one, other)

        return draw

    @cached_property
    def _triples(self) -> dict[bool | None, list[tuple[SeenObject, SeenObject, SeenObject]]]:
        """Triples of a thing and two others in either order, by whether it is between them."""
        found: dict[bool | None, list[tuple[SeenObject, SeenObject, SeenObject]]]
        found = {True: [], False: [], None: []}
        for thing in self.view.things:
            for one, other in permutations((t for t in self.named if t is not thing), 2):
                found[self.view.between(thing, one, other)].append((thing, one, other))
        return found

    def _stacked(self) -> Draw | None:
        """On, in or under: both of a pair share one side of the relation, since its words reveal much."""
        things, view = self.named, self.view
        relation = self._one_of(STACKED)
        uppers, lowers = STACKS["on" if relation == "under" else relation]
        if relation == "under":
            uppers, lowers = lowers, uppers
        pairs = [p for p in permutations(things, 2) if p[0].kind in uppers and p[1].kind in lowers]
        holding = [pair for pair in pairs if view.holds(*pair, relation)]
        if not holding:
            return None
        both, shared = self._one_of(holding), int(self.rng.integers(2))
        blanks = [self._blank(must_name=True), self._blank(must_name=True)]
        kept = blanks[shared].of(both[shared])
        free, kinds = blanks[1 - shared], (uppers, lowers)[1 - shared]

        fits = [p[1 - shared] for p in holding if p[shared] is both[shared]]
        fails = [p[1 - shared] for p in pairs if p[shared] is both[shared] and p not in holding]

        def draw(present: bool) -> Asked | None:
            if present:
                other = free.of(self._one_of(fits))
            elif fails and self._chance(0.6):
                other = free.of(self._weighted(fails, [kinds[thing.kind] for thing in fails]))
            else:
                other = self._some(free, kinds)
            if kept is None or other is None or kept == other:
                return None
            noun, anchor = (kept, other) if shared == 0 else (other, kept)
            return Related(noun, False, relation, MORE_RELATIONS[relation][0], anchor)

        return draw

    def _other_than(self) -> Draw | None:
        several = self._one_of(("", "", "the", "all"))

        def noun(there: bool) -> Noun | None:
            if there or self._chance(0.6):
                if not self.named:
                    return None
                thing = self._one_of(self.named)
                colour = self._some_colour(thing.kind) if there else thing.colour
                return Noun(thing.kind, other_than=colour) if colour else None
            kind = self._mostly([], self.common.kinds, 0.0)
            return Noun(kind, other_than=self._some_colour(kind))

        return _of_noun(noun, lambda n: Plural(n, several) if several else Single(n))

    def _except(self) -> Draw | None:
        by_kind, words = self._chance(0.5), self._one_of(EXCEPT)
        determiner = self._one_of(("all", "all", "every"))
        generic = self._one_of(GENERIC)

        def draw(present: bool) -> Asked | None:
            kind, colour = self._mostly([], self.common.kinds, 0.0), ""
            if present or self._chance(0.7):
                thing = self._one_of(self.view.things)
                kind, colour = thing.kind, thing.colour
            elif not by_kind and self.named:
                kind = self._one_of(self.named).kind
            colour = colour or (self._some_colour(kind) if kind else "")
            if not kind or not colour:
                return None
            if by_kind:
                return Except(Noun(kind), Noun(kind, colour), determiner, words)
            return Except(Noun(colour=colour, generic=generic), Noun(kind), determiner, words)

        return draw

    def _part(self) -> Draw | None:
        """With or without a part: both of a pair share the kind if colours can differ."""
        part, shown, coloured = self._one_of(tuple(PARTED)), self._chance(0.6), self._chance(0.6)
        rates = {k: rate if shown else 1 - rate for k, rate in PARTED[part].items()}
        here = [thing for thing in self.named if thing.kind in rates]
        if here and coloured:
            kind = self._one_of(here).kind
            here, rates = [thing for thing in here if thing.kind == kind], {kind: 0.5}
        blank = Blank(True, coloured, "")
        fits = [thing for thing in here if (part in thing.parts) == shown]
        fails = [thing for thing in here if thing not in fits]
        # Present things have a kind as often as its rate says; these odds make it the same for absent ones.
        odds = [rates[thing.kind] / (1 - rates[thing.kind]) for thing in fails]

        def noun(there: bool) -> Noun | None:
            if there:
                made = blank.of(self._one_of(fits)) if fits else None
            elif fails and self._chance(0.7):
                made = blank.of(self._weighted(fails, odds))
            else:
                made = self._some(blank, rates)
            return made and replace(made, part=part, shown=shown)

        return _of_noun(noun, Single)

    def _use(self) -> Draw:
        """Uses are compared among those served by the same number of kinds, which are equally frequent."""
        count, words = self._one_of((1, 2)), self._one_of(WANTED)
        uses = [use for use, (serve, _) in USES.items() if len(serve) == count]
        there = [sum(self.common.kinds[kind] for kind in USES[use][0]) for use in uses]
        odds = [share / (1 - share) for share in there]

        def draw(present: bool) -> Asked:
            # A use that scenes often serve is rarely absent, so it is drawn more often when it is.
            use = self._one_of(uses) if present else self._weighted(uses, odds)
            return Useful(use, words)

        return draw

    def _everything(self) -> Draw:
        """Everything but one thing: this almost always has referents, so absent ones use another form."""
        blank, words = self._blank(), self._one_of(EXCEPT)

        def draw(present: bool) -> Asked | None:
            noun = self._noun(blank, present)
            if noun is None:
                return None
            return Everything(noun, words) if present else Single(noun)

        return draw


def _of_noun(noun: Callable[[bool], Noun | None], make: Callable[[Noun], Asked]) -> Draw:
    """A `Draw` for expressions with one noun phrase; it gives None if `noun` does."""

    def draw(present: bool) -> Asked | None:
        made = noun(present)
        return make(made) if made else None

    return draw
