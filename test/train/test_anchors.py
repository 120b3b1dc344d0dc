"""The anchor of a relation: which expressions have one, and what it fits."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from gsva_ros.phrasing.forms import FORMS, in_form
from gsva_ros.phrasing.words import MORE_RELATIONS, RELATIONS, Vocabulary
from gsva_ros.train.known import ANCHOR, anchor_objects

KINDS, COLOURS = ("mug", "box", "teapot", "pot", "tape"), ("red", "blue")
# 1: red mug, 2: blue mug, 3: red box, 4: unnamed and red, 5: a two-coloured teapot, 6: blue pot.
SCENES = SimpleNamespace(
    kinds=list(KINDS),
    colours=list(COLOURS),
    kind=np.array([[-1, 0, 0, 1, -1, 2, 3, -1]]),
    colour=np.array([[-1, 0, 1, 0, 0, -1, 1, -1]]),
)


@pytest.mark.parametrize(
    ("text", "objects"),
    [
        ("the can left of the red mug", (1,)),
        ("the can to the right of the mug", (1, 2)),
        ("all cans in front of the box", (3,)),
        ("the can next to the blue pot", (6,)),
        ("the can beside the coffee mug", (1, 2)),
        ("the can on the box", (3,)),
        ("the can on top of the red box", (3,)),
        ("the can in the pot", (6,)),
        ("the can inside of the pot", (6,)),
        ("the book under the mug", (1, 2)),
        ("the can by the tea pot", (5,)),
        ("the can that is on the left side of the box", (3,)),
        ("the can behind the knife", ()),
        ("the can left of the mgu", None),  # a slip: nobody knows whose
        ("the can between the mug and the box", None),
        ("the can on the far left", None),
        ("the second can from the left", None),
        ("all red things but the mug", None),
        ("the red mug in blue", None),
        ("everything except the mug", None),
        ("the can left of the mug.", None),  # the mug is not the last word
    ],
)
def test_what_an_anchor_fits(text: str, objects: tuple[int, ...] | None) -> None:
    assert anchor_objects(SCENES, 0, text) == objects


def test_every_relation_has_its_anchor_at_the_end() -> None:
    for words in (*RELATIONS.values(), *MORE_RELATIONS.values()):
        for relation in words:
            found = ANCHOR.search(f"the can {relation} the red mug")
            assert found
            assert found.groups() == ("red", "mug")


def test_forms_keep_what_the_anchor_fits() -> None:
    words = Vocabulary(KINDS, COLOURS)
    rng = np.random.default_rng(0)
    forms = {
        name: FORMS[name]
        for name in FORMS
        if name in ("relation", "article", "coloured", "other relation")
    }
    for relation in ("left of", "right of", "next to", "on", "in", "under", "behind"):
        for _ in range(60):
            made = in_form(f"the red box {relation} the blue mug", forms, words, rng)
            assert made
            assert anchor_objects(SCENES, 0, made[0]) == (2,), made
