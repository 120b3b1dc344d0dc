"""The report in a browser: no console error, filters work, legible on a desk and on a phone."""

from __future__ import annotations

import re
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from contrast import contrasts

from gsva_ros.answer import Answer, Slot
from gsva_ros.errors import InputError
from gsva_ros.eval import report
from gsva_ros.eval.cases import Case
from gsva_ros.eval.metrics import Scoring
from gsva_ros.eval.report import Card, Pick, choose, gallery, kind_of, render
from gsva_ros.eval.run import CaseRecord, SlotRecord, answering, evaluate
from gsva_ros.eval.summary import summary
from gsva_ros.masks import Region, trimmed
from gsva_ros.truth import Referring

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
# One white pixel.
PIXEL = (
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAAAAAA6fptVAAAACklEQVR4nGP4DwABAQEANl9ngAAAAABJRU5ErkJggg=="
)


def records() -> list[CaseRecord]:
    rng = np.random.default_rng(0)
    made = []
    for number in range(30):
        slots = []
        for _ in range(4):
            p_seg = float(rng.random())
            referents = int(rng.choice([0, 0, 1, 2]))
            truth = 100 if referents else 0
            slots.append(
                SlotRecord(
                    "the <b>red</b> mug & co",
                    "single",
                    referents,
                    p_seg,
                    p_seg >= 0.5,
                    0.5,
                    80 if referents else 0,
                    120 if referents else 50,
                    100 if referents else 50,
                    truth,
                    0.7 if referents else 0.0,
                )
            )
        made.append(CaseRecord(f"scene {number}", {"encode": 0.01, "mask": 0.02}, slots))
    return made


def test_a_category_called_all_does_not_hide_the_whole() -> None:
    run = records()
    run = [
        replace(r, slots=[r.slots[0], *(replace(s, category="all") for s in r.slots[1:])])
        for r in run
    ]
    found = summary(run, [], 0.5, Scoring())["scores"]
    counts = {name: row["n"] for name, row in found.items()}
    assert counts == {"all": 120, "single": 30, "all (category)": 90}


class Blocks:
    """Stands for the engine: everything is everywhere."""

    device = "cpu"

    def encode(self, rgb: np.ndarray) -> tuple[int, int]:
        return rgb.shape[:2]

    def segment(self, size: tuple[int, int], expressions: list[str], **_: bool) -> Answer:
        everywhere = Region((0, 0, size[1], size[0]), np.ones(size, bool))
        return Answer([Slot(e, 0.9, None, size, everywhere, 0.5) for e in expressions])


def test_cards_are_of_their_own_pictures_where_a_case_was_left_out() -> None:
    def case(number: int) -> Case:
        def read() -> tuple[np.ndarray, list[Referring]]:
            if number == 1:
                raise InputError("damaged")
            mask = np.ones((20, 30), bool)
            return np.zeros((20, 30, 3), np.uint8), [Referring(f"thing {number}", "x", 1, mask)]

        return Case(f"picture {number}", read)

    cases, problems = [case(number) for number in range(4)], []
    run = evaluate(Blocks(), cases, Scoring(), problems=problems)
    assert len(problems) == 1
    cards = gallery(answering(Blocks(), Scoring()), cases, run, choose(run, 0.5))
    said = {(card.case, card.expression) for card in cards}
    assert said == {(f"picture {n}", f"thing {n}") for n in (0, 2, 3)}


def test_many_instructions_about_one_image_show_it_once() -> None:
    several = [replace(record, image=f"image {n % 3}") for n, record in enumerate(records())]
    worst = [p.case % 3 for p in choose(several, 0.5) if p.why == "worst"]
    assert sorted(worst) == [0, 1, 2]


def rendered(how: Scoring) -> str:
    run = records()
    numbers = summary(run, run, 0.5, how)
    numbers |= {"model": "m", "weights_hash": "0" * 64, "device": "cpu", "data": "30 scenes"}
    numbers["calibrated"] = {
        "before": {"threshold": 0.5, "N_acc": 0.8, "T_acc": 0.9, "gIoU": 0.7},
        "chosen": {"threshold": 0.625, "N_acc": 0.85, "T_acc": 0.896, "gIoU": 0.72},
        "goal": "best N-acc",
        "split": "val",
        "scenes": 10,
    }
    cards = [
        Card(p.why, kind_of(s), "scene", s.expression, "segmented", s.p_seg, 0.5, PIXEL, PIXEL)
        for p in choose(run, 0.5)
        for s in [run[p.case].slots[p.slot]]
    ]
    return render(numbers, cards)


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("report") / "report.html"
    path.write_text(rendered(Scoring()))
    return path


def test_each_protocol_states_its_own_rule() -> None:
    deployed, paper = (" ".join(rendered(Scoring(p)).split()) for p in ("deployed", "paper"))
    for said in (
        "is lower than 0.500",
        "gIoU at every rejection threshold. The dot is",
        "encode: ",
    ):
        assert said in deployed
        assert said not in paper
    assert "if [SEG] is not the likeliest token" in paper
    assert 'r="5"' in paper, "its decisions among those of all thresholds"
    assert deployed.count('r="5"') - paper.count('r="5"') == 1


def test_the_worst_come_first_and_pictures_differ() -> None:
    picks = choose(records(), 0.5)
    worst = [p for p in picks if p.why == "worst"]
    assert len(worst) == len({p.case for p in worst}) == 24
    assert len(picks) == 48
    assert len({(p.case, p.slot) for p in picks}) == 48
    first = records()[worst[0].case].slots[worst[0].slot]
    rejected = first.p_seg < 0.5
    assert rejected if first.referents else not rejected


def test_the_page_stands_alone(page: Path) -> None:
    html = page.read_text()
    assert not re.search(r"""(src|href)=["']?(https?:|//|[\w./]+\.(js|css|png))""", html)
    assert "the &lt;b&gt;red&lt;/b&gt; mug &amp; co" in html
    assert "nan" not in re.sub(r"data:image[^\"]+", "", html.lower())


def dom(page: Path, choice: str, width: int) -> tuple[str, str]:
    """The page as the browser has it after its script ran, and what the console said."""
    done = subprocess.run(
        [
            str(CHROMIUM),
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--enable-logging=stderr",
            f"--window-size={width},900",
            "--dump-dom",
            f"file://{page}#{choice}",
        ],
        capture_output=True,
        text=True,
        timeout=600,
        check=True,
    )
    return done.stdout, done.stderr


@pytest.mark.skipif(CHROMIUM is None, reason="no chromium or google-chrome on this machine")
@pytest.mark.parametrize("width", [1280, 400])
@pytest.mark.parametrize("kind", ["all", "absent", "multi"])
def test_filters_work_without_a_console_error(page: Path, kind: str, width: int) -> None:
    html, console = dom(page, f"kind={kind}&why=worst", width)
    assert "CONSOLE" not in console, console
    cards = re.findall(r'<div class="card" data-kind="(\w+)" data-why="(\w+)"( hidden="")?>', html)
    assert len(cards) == 48
    for card_kind, why, hidden in cards:
        assert bool(hidden) == (why != "worst" or kind not in ("all", card_kind))
    shown = sum(not hidden for _, _, hidden in cards)
    assert 0 < shown <= 24
    assert f"{shown} shown" in html


def test_the_page_is_for_every_reader(page: Path) -> None:
    """In light and in dark, without seeing colours, with a keyboard, and with a screen reader."""
    html = page.read_text()
    for name, found in contrasts(html, ("ink", "quiet", "bad")).items():
        assert min(found) >= 4.5, name
    for name, found in contrasts(html, ("a", "b", "c")).items():
        assert min(found) >= 3.0, f"lines and dots: {name}"
    assert not re.search(r"<th[^>]*></th>|<th>", html), "each header has words and a scope"
    assert html.count('<div class="wide" tabindex="0" role="region"') == html.count("<table>") == 3
    assert html.count("<caption>") == 3
    assert html.index("<main>") < html.index("<h1>")
    assert 'alt="Ground truth: the &lt;b&gt;red' in html
    assert 'alt="Answer: segmented"' in html
    for term in ("gIoU", "cIoU", "N-acc", "T-acc", "boxes right", "always [REJ]", "blind"):
        assert f"<dt>{term}</dt>" in html
    assert re.search(r"\.card {[^}]*break-inside: avoid", html), "a card stays on one page of paper"


def test_every_number_stands_under_its_name(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also once there is another metric."""
    monkeypatch.setattr(report, "NAMES", ("T_acc", "gIoU"))
    table = re.search("<table>.*?</table>", rendered(Scoring()), re.DOTALL)
    assert table
    names = re.findall('<th scope="col">(.*?)</th>', table[0])
    assert names == ["model", "T-acc", "gIoU", "boxes right", "expressions"]
    assert table[0].count("<td>") == (len(names) - 1) * table[0].count('<th scope="row">')


def test_gallery_draws_truth_and_answer() -> None:
    truth = np.zeros((60, 80), bool)
    truth[10:30, 10:40] = True
    rgb = np.full((60, 80, 3), 120, np.uint8)
    cases = [
        Case(
            "a",
            lambda: (
                rgb,
                [Referring("mug", "single", 1, truth), Referring("can", "x", 0, ~truth & truth)],
            ),
        )
    ]
    slot = Slot("mug", 0.9, None, truth.shape, trimmed(truth), 0.5)
    run = [
        CaseRecord(
            "a",
            {},
            [
                SlotRecord("mug", "single", 1, 0.9, True, 0.5, 600, 600, 600, 600, 1.0),
                SlotRecord("can", "x", 0, 0.9, True, 0.5, 0, 600, 600, 0, 0.0),
            ],
        )
    ]
    picks = [Pick(0, 0, "random"), Pick(0, 1, "worst")]
    right, wrong = gallery(lambda rgb, asked: ([slot] * len(asked), {}), cases, run, picks)
    assert (right.kind, right.verdict, right.iou) == ("single", "segmented", 1.0)
    assert (wrong.kind, wrong.verdict, wrong.iou) == ("absent", "wrongly segmented", None)
    assert len({right.truth, right.answer, wrong.truth, wrong.answer}) == 4
