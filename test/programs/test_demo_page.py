"""The demo's verdicts, and its page."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from contrast import contrasts

from gsva_ros.programs.demo_page import Card, Line, Verdict, headline, verdict, write_page
from gsva_ros.truth import Referring, read_truth

DEMO = Path(__file__).resolve().parents[2] / "demo"


def block(x0: int, x1: int) -> np.ndarray:
    mask = np.zeros((40, 100), bool)
    mask[10:30, x0:x1] = True
    return mask


THING = Referring("all cans", "", 2, block(0, 20) | block(40, 60))
NOTHING = Referring("the apple", "", 0, np.zeros((40, 100), bool))


@pytest.mark.parametrize(
    ("truth", "mask", "right", "words"),
    [
        (THING, THING.mask, True, "IoU 1.00"),
        (THING, block(0, 20), False, "mask lacks a part"),
        (THING, THING.mask | block(80, 90), False, "mask covers something else"),
        (THING, THING.mask | block(96, 98), False, "mask covers something else"),
        (THING, block(0, 100), False, "IoU 0.40"),
        (THING, None, False, "the object is in the image"),
        (NOTHING, None, True, "the object is not in the image"),
        (NOTHING, block(0, 5), False, "the object is not in the image"),
        (None, block(0, 5), None, "no ground truth"),
        (None, None, None, "no ground truth"),
        (THING, np.ones((80, 200), bool), None, "of another size"),
    ],
)
def test_verdicts(
    truth: Referring | None, mask: np.ndarray | None, right: bool | None, words: str
) -> None:
    found = verdict(truth, mask, decided=True)
    assert found.right is right
    assert words in found.text


def test_a_speck_is_no_part() -> None:
    speck = np.zeros((40, 100), bool)
    speck[0, 99] = True
    assert verdict(THING, THING.mask | speck, decided=True).right


def test_an_answer_that_failed_is_wrong_where_the_truth_is_known() -> None:
    assert verdict(THING, None, decided=False).right is False
    assert verdict(None, None, decided=False).right is None


def test_the_truth_of_the_demo_knows_every_question_of_its_script() -> None:
    from gsva_ros.eval.asks import read_script

    script = read_script(DEMO.parent / "config" / "demo.yaml")
    frames = read_truth(DEMO.parent / script.truth)
    first = min(frame.stamp for frame in frames)
    truths = {f.stamp: f.expressions() for f in frames if f.topic == script.image_topic}
    for entry in script.instructions:
        stamps = [f.stamp for f in frames if f.stamp >= first + round(entry.at * 1e9)]
        known = {each.expression for each in truths[stamps[0]]}
        assert set(entry.expressions) <= known, entry.id
    referents = {each.expression: each.referents for each in truths[frames[0].stamp]}
    assert referents["all cans"] == 3
    assert referents["the green box"] == 0


def test_the_page_is_for_every_reader(tmp_path: Path) -> None:
    """In light and in dark, without seeing colours, and with a screen reader."""
    line = Line("the mug", (1, 2, 3), "SEGMENTED", "", Verdict(None, "no ground truth"))
    page = tmp_path / "index.html"
    write_page(page, [Card("mugs", 1.0, 1.0, np.zeros((9, 9, 3), np.uint8), [line])], {})
    text = page.read_text(encoding="utf-8")
    for name, found in contrasts(text, ("ink", "quiet", "good", "bad")).items():
        assert min(found) >= 4.5, name
    assert text.index("<main>") < text.index("<h1>")
    assert "<legend>Show</legend>" in text
    assert 'alt="Frame at 1.000 s' in text
    assert '<span aria-hidden="true" class="swatch' in text
    assert 'data-number="1">the mug' in text, "the overlay may have its number alone"
    assert "not judged" in text, "a dash would say nothing"
    assert "lazy" not in text, "a page that is saved as PDF at once would have no images"
    assert re.search(r"\.swatch {[^}]* print-color-adjust: exact", text), (
        "browsers print no background"
    )
    assert "article { break-inside: avoid; }" in text, "a card stays on one page of paper"


def test_the_page_needs_nothing_beside_it(tmp_path: Path) -> None:
    lines = [
        Line("the <b>red</b> mug", (1, 2, 3), "SEGMENTED", "9 pixels", Verdict(True, "IoU 0.9")),
        Line("the apple", (4, 5, 6), "REJECTED", "", Verdict(False, "is there")),
        Line("the pear", (4, 5, 6), "FAILED", "no memory", Verdict(None, "not answered")),
    ]
    card = Card("mugs", 1.25, 41.7, np.full((30, 40, 3), 90, np.uint8), lines)
    assert headline([card]) == "1 of 2 answers are right, 1 not judged"
    assert headline([Card("mugs", 1.0, 1.0, None, lines[:2])]) == "1 of 2 answers are right"
    page = tmp_path / "index.html"
    write_page(page, [card, Card("none", 2.0, 1.0, None, lines[:1])], {"model": "gsva-mini"})
    text = page.read_text(encoding="utf-8")
    assert "<h1>2 of 3 answers are right, 1 not judged</h1>" in text
    assert "<b>red</b>" not in text, "words are text, never markup"
    assert not re.search(r"""(src|href)=(?!"data:)""", text)
    assert "http" not in text
    assert "42 ms" in text
    for outcome in ("SEGMENTED", "REJECTED", "FAILED"):
        assert outcome in text
    write_page(page, [Card("pears", 2.0, 1.0, None, lines[2:])], {})
    assert "<h1>No ground truth for this bag" in page.read_text(encoding="utf-8"), "not 0 of 0"
