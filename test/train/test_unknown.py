"""What training says of things that no scene holds."""

from __future__ import annotations

import re
from types import SimpleNamespace

import household
import numpy as np

from gsva_ros.phrasing.unknown import HELD_OUT, SPELT, TAUGHT, invented
from gsva_ros.phrasing.words import Vocabulary, plural
from gsva_ros.scenes import Expression
from gsva_ros.sim.household.colours import COLOURS
from gsva_ros.sim.household.shapes import KINDS
from gsva_ros.train.text import BranchWriter


def test_training_asks_for_unknown_things_and_none_that_are_held_out() -> None:
    writer = BranchWriter(SimpleNamespace(), Vocabulary(KINDS, COLOURS), 0.04)  # type: ignore[arg-type]
    rng = np.random.default_rng(0)
    like = [
        e
        for seed in range(30)
        for e in household.Expressions(
            household.scene(seed), household.WIDTH, np.random.default_rng(seed)
        ).sample(20)
    ]
    nouns = {noun for noun in (*TAUGHT, *SPELT) if noun not in writer.vocabulary.names}
    nouns |= {plural(noun) for noun in nouns}
    listed = 0
    held_out = {word for noun in HELD_OUT for word in (noun, plural(noun))}
    shapes = set()
    for expression in like:
        asked = writer._unseen(expression, like, rng)
        words = asked.text.split()
        assert asked == Expression(asked.text, "unseen", ())
        listed += bool(nouns & set(words))
        assert not held_out & set(words), asked
        shapes |= set(words) & {"left", "under", "without", "between", "all", "second", "not"}
    assert {"left", "all", "between"} <= shapes
    assert 0.5 < listed / len(like) < 0.8  # the others are invented


def test_what_a_picture_shows_is_not_asked_for_as_absent() -> None:
    writer = BranchWriter(SimpleNamespace(), Vocabulary(KINDS, COLOURS), 0.04)  # type: ignore[arg-type]
    writer.unknown = ["person", "chair", "clock"]
    shown = [Expression("the person", "one", (1,)), Expression("all chairs", "several", (2, 3))]
    shown.append(Expression("the clock", "no such kind", ()))
    rng = np.random.default_rng(0)
    asked = [writer._unseen(shown[0], shown, rng).text for _ in range(300)]
    words = {word for text in asked for word in text.split()}
    assert "clock" in words
    assert not words & {"person", "persons", "chair", "chairs"}


def test_invented_words_are_no_names_and_never_run_out() -> None:
    words, rng = Vocabulary(KINDS, COLOURS), np.random.default_rng(0)
    drawn = {invented(words, rng) for _ in range(1000)}
    assert len(drawn) > 900
    assert not drawn & {*words.names, *HELD_OUT}
    assert all(noun.isalpha() and noun.islower() for noun in drawn)
    assert {len(re.findall("[aeiou]+", noun)) for noun in drawn} == {1, 2, 3}  # syllables


def test_what_means_something_is_not_invented() -> None:
    """Nor what is held out: "thing", "pink", "can" and "lamp" are drawn before a word that is new."""
    drawn = iter("th i ng p i nk c a n l a mp z oo mp".split())  # noqa: SIM905
    rng = SimpleNamespace(integers=lambda low, high: 1, choice=lambda options: next(drawn))
    assert invented(Vocabulary(KINDS, COLOURS), rng) == "zoomp"  # type: ignore[arg-type]


def test_no_list_says_what_is_held_out() -> None:
    assert not {*TAUGHT, *SPELT} & {word for noun in HELD_OUT for word in (noun, plural(noun))}
    assert not {*TAUGHT} & {*SPELT}
