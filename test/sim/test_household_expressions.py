"""The household world's expressions: true, of all forms, and not to be guessed from their words."""

from __future__ import annotations

import re
from collections import Counter

import household
import numpy as np
import pytest
from wordsonly import Caption, words_only

from gsva_ros.phrasing.words import SIDE_OF, SIZE_OF, plural
from gsva_ros.sim.expressions import SeenObject
from gsva_ros.sim.household.asked import Asked, Ordinal, Plural, Single, Sized, Superlative
from gsva_ros.sim.household.colours import COLOURS
from gsva_ros.sim.household.expressions import Draw, Expressions
from gsva_ros.sim.household.shapes import KINDS
from gsva_ros.sim.household.view import Noun, View

WIDTH = household.WIDTH
#: Share of absence and presence that words may tell: of all captions, of one form's.
MOST, MOST_OF_A_FORM = 0.56, 0.62


def drawn(seed: int, cls: type[Expressions] = Expressions) -> Expressions:
    rng = np.random.default_rng([seed, 9])
    return cls(household.scene(seed), WIDTH, rng, household.COMMON)


# ---- truth, by an oracle that reads the words


SINGULAR = {plural(noun): noun for noun in (*KINDS, "object", "thing")}
SERVING = {
    "drink from": {"mug", "glass"},
    "eat from": {"plate", "bowl"},
    "cook in": {"pot", "pan"},
    "pour from": {"teapot", "pitcher"},
    "read": {"book"},
    "turn screws with": {"screwdriver"},
    "hit nails with": {"hammer"},
    "tighten bolts with": {"wrench"},
    "stir soup with": {"spoon"},
    "put flowers in": {"vase"},
    "play with": {"ball"},
    "stick paper with": {"tape"},
}
RELATION = re.compile(
    r"(.+?) (to the left of|left of|to the right of|right of|in front of|behind|next to|on|in|under)"
    r" the (.+)"
)


def named(words: str, things: list[SeenObject]) -> list[SeenObject]:
    """What a noun phrase without its determiner names."""
    words, _, other = words.replace(" that are not ", " that is not ").partition(" that is not ")
    words, without, lacked = words.partition(" without ")
    words, _, shown = words.partition(" with ")
    *colour, noun = words.split()
    noun = SINGULAR.get(noun, noun)
    assert noun in KINDS or noun in ("object", "thing"), words
    assert set(colour) <= set(COLOURS), words
    lacked, shown = lacked.removeprefix("a "), shown.removeprefix("a ")
    return [
        t
        for t in things
        if (noun in ("object", "thing") or t.kind == noun)
        and all(t.colour == c for c in colour)
        and (not other or t.colour != other)
        and (not without or lacked not in t.parts)
        and (not shown or shown in t.parts)
    ]


def beside(relation: str, t: SeenObject, a: SeenObject) -> bool:
    match relation.split()[-2:]:
        case [*_, "left", "of"]:
            return t.centroid[0] < a.centroid[0]
        case [*_, "right", "of"]:
            return t.centroid[0] > a.centroid[0]
        case ["front", "of"]:
            return t.place[1] < a.place[1]
        case ["behind"]:
            return t.place[1] > a.place[1]
        case ["next", "to"]:
            return bool(np.hypot(t.place[0] - a.place[0], t.place[1] - a.place[1]) < 0.24)
        case ["on"]:
            return t.support == a.id
        case ["in"]:
            return t.inside == a.id
        case ["under"]:
            return a.support == t.id
    raise AssertionError(relation)


def opened(t: SeenObject, a: SeenObject, b: SeenObject) -> float:
    """The angle in degrees under which a thing sees two others."""
    one, two = (np.subtract(end.place, t.place) for end in (a, b))
    cosine = one @ two / np.linalg.norm(one) / np.linalg.norm(two)
    return float(np.degrees(np.arccos(np.clip(cosine, -1, 1))))


def meant(text: str, things: list[SeenObject]) -> set[int]:
    """The ids of what an expression means."""
    if found := re.fullmatch(r"(?:anything to|something to|something i can) (.+)", text):
        return {t.id for t in things if t.kind in SERVING[found[1]]}
    if found := re.fullmatch(r"everything (?:but|except) the (.+)", text):
        (out,) = named(found[1], things)
        return {t.id for t in things} - {out.id}
    if found := re.fullmatch(r"(?:all|every) (.+) (?:but|except) the (.+)", text):
        all_of = named(found[1], things)
        left_out = found[2].removesuffix(" one")
        if all_of:
            assert len([t for t in all_of if left_out in (t.kind, t.colour)]) == 1
        return {t.id for t in all_of if left_out not in (t.kind, t.colour)}
    if found := re.fullmatch(r"the (\w+) (.+) from the (left|right)", text):
        rank = {"second": 1, "third": 2}[found[1]]
        order = sorted(named(found[2], things), key=lambda t: t.centroid[0])
        order = order if found[3] == "left" else order[::-1]
        return {order[rank].id} if len(order) > rank else set()
    determiner = re.match(r"the two|the three|the|all|every|both", text)
    assert determiner, text
    rest = text[determiner.end() + 1 :]
    if found := re.fullmatch(r"(.+) between the (.+) and the (.+)", rest):
        subjects, ones, others = (named(words, things) for words in found.groups())
        if not ones or not others:
            return set()
        (a,), (b,) = ones, others
        subjects = [t for t in subjects if t not in (a, b)]
        return {t.id for t in subjects if opened(t, a, b) > 95}
    if found := RELATION.fullmatch(rest):
        subjects, anchors = named(found[1], things), named(found[3], things)
        assert len(anchors) <= 1
        return {t.id for t in subjects for a in anchors if t is not a and beside(found[2], t, a)}
    rank, _, after = rest.partition(" ")
    if rank in SIDE_OF or rank in SIZE_OF:
        order = named(after, things)
        keys = {
            "left": lambda t: t.centroid[0],
            "right": lambda t: -t.centroid[0],
            "front": lambda t: t.place[1],
            "behind": lambda t: -t.place[1],
            "large": lambda t: -t.scale,
            "small": lambda t: t.scale,
        }
        key = keys[SIDE_OF.get(rank) or SIZE_OF[rank]]
        if rank in SIZE_OF and order:
            assert len(order) == 2 if rank.endswith("er") else len(order) > 1
        return {min(order, key=key).id} if order else set()
    found_things = named(rest, things)
    sizes = {"both": 2, "the two": 2, "the three": 3}
    assert len(found_things) in (0, sizes.get(determiner[0], len(found_things)))
    return {t.id for t in found_things}


def test_every_form_means_what_its_words_say() -> None:
    counts: Counter[str] = Counter()
    for seed in range(150):
        things = household.scene(seed)
        for form, *pair in drawn(seed).pairs(60):
            counts[form] += 1
            for expression, present in zip(pair, (True, False), strict=True):
                assert set(expression.targets) == meant(expression.text, things), expression
                assert bool(expression.targets) == present
                assert expression.category.startswith("absent") != present
                if present and expression.text.startswith("the "):
                    several = SINGULAR.keys() & set(expression.text.split())
                    assert several or len(expression.targets) == 1, expression
    assert set(counts) == set(drawn(0).forms)
    assert min(counts.values()) > 20, counts


def test_as_many_absent_as_present_and_none_twice() -> None:
    for seed in range(60):
        asked = drawn(seed).sample(20)
        assert len({e.text for e in asked}) == len(asked) <= 20
        assert sum(bool(e.targets) for e in asked) * 2 == len(asked)
        assert asked == drawn(seed).sample(20)
        assert len(drawn(seed).sample(5)) <= 4


def test_absences_lie_near_what_is_there() -> None:
    """Not only things that the scene has nothing of."""
    categories = Counter(e.category for seed in range(150) for e in drawn(seed).sample(20))
    absent = {name: n for name, n in categories.items() if name.startswith("absent")}
    assert set(absent) == {"absent_kind", "absent_attribute", "absent_relation"}
    assert min(absent.values()) > 0.15 * sum(absent.values())
    assert {"single", "multiple", "relative"} <= set(categories)


# ---- what is not asked


def thing(number: int, kind: str, colour: str = "red", **fields: object) -> SeenObject:
    at = {"centroid": (60.0 * number, 100.0), "place": (0.3 * number, 0.8)} | fields
    box, distance = (0, 0, 9, 9), at["place"][1]
    return SeenObject(number, kind, colour, "", 300, box, distance=distance, **at)


def test_a_two_coloured_thing_makes_its_kinds_colours_unclear() -> None:
    view = View([thing(1, "mug", ""), thing(2, "can", "red")], WIDTH)
    assert view.fitting(Noun("mug", "red")) is None
    assert view.fitting(Noun("mug", other_than="red")) is None
    assert view.fitting(Noun(colour="red")) is None
    assert view.fitting(Noun("can", "red")) == [view.things[1]]
    assert view.fitting(Noun("mug")) == [view.things[0]]


def test_unnamed_things_are_things() -> None:
    view = View([thing(1, "", "red"), thing(2, "can", "blue")], WIDTH)
    assert view.fitting(Noun(colour="red")) == [view.things[0]]
    assert view.fitting(Noun("mug")) == []
    for seed in range(30):
        rng = np.random.default_rng(seed)
        for _, present, absent in Expressions(view.things, WIDTH, rng).pairs(20):
            assert set(present.targets) == meant(present.text, view.things)
            assert not meant(absent.text, view.things)


@pytest.mark.parametrize(
    ("relation", "place", "centroid", "truth"),
    [
        ("left", (0.0, 0.8), (40.0, 100.0), True),
        ("left", (0.0, 0.8), (110.0, 100.0), None),  # nearly below each other
        ("left", (0.0, 0.8), (160.0, 100.0), False),
        ("front", (0.3, 0.7), (60.0, 130.0), True),
        ("front", (0.3, 0.78), (60.0, 130.0), None),
        ("front", (0.3, 0.9), (60.0, 90.0), False),
        ("behind", (0.3, 0.9), (60.0, 90.0), True),
        ("next", (0.5, 0.85), (100.0, 100.0), True),
        ("next", (0.35, 0.8), (80.0, 100.0), None),
        ("next", (0.1, 0.8), (60.0, 100.0), False),
    ],
)
def test_where_people_would_disagree_nobody_asks(
    relation: str, place: tuple[float, float], centroid: tuple[float, float], truth: bool | None
) -> None:
    anchor = thing(2, "can")
    one = thing(1, "mug", place=place, centroid=centroid)
    assert View([one, anchor], WIDTH).holds(one, anchor, relation) is truth


MUG = Noun("mug")
#: Nothing is asked; nothing is meant; or these are, by their numbers.
UNCLEAR, NOTHING = None, ()


@pytest.mark.parametrize(
    ("asked", "places", "meant"),
    [  # The lead that a thing needs is 19.2 pixels.
        (Superlative(MUG, "leftmost"), (100, 120, 121), (1,)),
        (Superlative(MUG, "leftmost"), (119, 100), UNCLEAR),
        (Superlative(MUG, "rightmost"), (119, 100), UNCLEAR),
        (Superlative(MUG, "rightmost"), (100, 120, 10), (2,)),
        (Superlative(MUG, "leftmost"), (100,), (1,)),
        (Superlative(MUG, "leftmost"), (), NOTHING),
        (Ordinal(MUG, 2, "left"), (40, 20, 0), (2,)),
        (Ordinal(MUG, 2, "left"), (0, 20, 40, 41), (2,)),
        (Ordinal(MUG, 2, "right"), (0, 20, 40, 41), UNCLEAR),
        (Ordinal(MUG, 2, "left"), (0, 20, 39), UNCLEAR),
        (Ordinal(MUG, 2, "left"), (0, 19, 40), UNCLEAR),
        (Ordinal(MUG, 3, "left"), (0, 20, 40, 59), UNCLEAR),
        (Ordinal(MUG, 3, "left"), (0, 20, 40), (3,)),
        (Ordinal(MUG, 3, "left"), (0, 20), NOTHING),
        *((Plural(MUG, word), (0,), UNCLEAR) for word in ("the", "both", "the two", "the three")),
        *((Plural(MUG, word), (0,), (1,)) for word in ("all", "every")),
        *((Plural(MUG, word), (0, 9), (1, 2)) for word in ("all", "the", "both", "the two")),
        *((Plural(MUG, word), (0, 9, 18), UNCLEAR) for word in ("both", "the two")),
        (Plural(MUG, "the three"), (0, 9, 18), (1, 2, 3)),
        (Plural(MUG, "the three"), (0, 9, 18, 27), UNCLEAR),
        (Plural(MUG, "the three"), (), NOTHING),
        (Single(MUG), (0,), (1,)),
        (Single(MUG), (0, 9), UNCLEAR),
    ],
)
def test_ranks_and_numbers_are_asked_where_all_would_agree(
    asked: Asked, places: tuple[float, ...], meant: tuple[int, ...] | None
) -> None:
    mugs = [thing(n, "mug", centroid=(float(x), 100.0)) for n, x in enumerate(places, start=1)]
    found = asked.meant(View([*mugs, thing(9, "can")], WIDTH))
    assert (found if found is None else tuple(t.id for t in found)) == meant


@pytest.mark.parametrize(
    ("rank", "scales", "meant"),
    [
        ("larger", (1.0, 1.3), 2),
        ("larger", (1.0, 1.29), None),
        ("smaller", (1.0, 1.3), 1),
        ("larger", (1.0, 1.5, 2.0), None),
        ("largest", (1.4, 2.0, 1.5), 2),
        ("smallest", (2.0, 1.0, 1.9), 2),
        ("smallest", (2.0, 1.0, 1.2), None),
        ("largest", (1.0,), None),
    ],
)
def test_sizes_are_compared_where_they_differ(
    rank: str, scales: tuple[float, ...], meant: int | None
) -> None:
    mugs = [thing(number, "mug", scale=scale) for number, scale in enumerate(scales, start=1)]
    found = Sized(MUG, rank).meant(View(mugs, WIDTH))
    assert (found and [t.id for t in found]) == (meant and [meant])


def test_on_in_and_under() -> None:
    book, plate = thing(1, "book"), thing(2, "plate", support=1)
    mug, ball, bowl = thing(3, "mug", support=2), thing(4, "ball", inside=5), thing(5, "bowl")
    view = View([book, plate, mug, ball, bowl], WIDTH)
    assert view.holds(plate, book, "on") is True
    assert view.holds(book, plate, "under") is True
    assert view.holds(book, plate, "on") is False
    assert view.holds(mug, book, "on") is None, "it is on what is on the book"
    assert view.holds(ball, bowl, "in") is True
    assert view.holds(ball, bowl, "on") is None
    assert view.holds(mug, bowl, "in") is False
    assert view.holds(plate, book, "next") is None
    assert view.holds(plate, book, "left") is None


def test_between() -> None:
    ends = [
        thing(1, "mug", place=(-0.3, 0.8), centroid=(40.0, 100.0)),
        thing(2, "box", place=(0.3, 0.8), centroid=(280.0, 100.0)),
    ]
    for place, centroid, truth in (
        ((0.0, 0.82), (160.0, 96.0), True),
        ((0.0, 1.0), (160.0, 60.0), None),
        ((0.32, 0.8), (290.0, 100.0), None),
        ((0.7, 0.8), (319.0, 100.0), False),
    ):
        can = thing(3, "can", place=place, centroid=centroid)
        found = View([*ends, can], WIDTH).between(can, *ends)
        assert found is truth, (place, found)


# ---- the words alone


def captions(seeds: range, cls: type[Expressions] = Expressions) -> list[Caption]:
    made: list[Caption] = []
    for seed in seeds:
        for form, present, absent in drawn(seed, cls).pairs(25):
            made += [(form, present.text, True), (form, absent.text, False)]
    return made


class Leaking(Expressions):
    """Says "every" more often of what is not there."""

    def _plural(self) -> Draw:
        blank = self._blank()

        def draw(present: bool) -> Plural | None:
            noun = self._noun(blank, present)
            words = ("all", "all", "every") if present else ("all", "every", "every")
            return Plural(noun, self._one_of(words)) if noun else None

        return draw


def test_words_alone_do_not_tell_what_is_there() -> None:
    train, held_out = range(300), range(10_000, 10_150)
    told = words_only(captions(train), captions(held_out))
    assert told["all"][0] <= MOST, told
    # "everything but the mug" is always something; it is one pair in a hundred.
    assert told.pop("everything")[1] < 0.02 * told["all"][1]
    assert all(share <= MOST_OF_A_FORM for share, _ in told.values()), told


def test_words_that_leak_are_found() -> None:
    seeds = (range(150), range(10_000, 10_080))
    leaking = words_only(*(captions(each, Leaking) for each in seeds))
    assert leaking["plural"][0] > MOST_OF_A_FORM, leaking
    assert leaking["single"][0] <= MOST_OF_A_FORM, leaking
