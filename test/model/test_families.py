"""A family without a rejection token through the programs: what it says, and its only no."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from tiny import tiny_lisa

import gsva_ros
from gsva_ros import cli
from gsva_ros.answer import Rejection
from gsva_ros.errors import InputError
from gsva_ros.model.families import FAMILIES
from gsva_ros.model.tokenizer import Special

DEMO = Path(__file__).resolve().parents[2] / "demo"
PICTURE = Path(__file__).resolve().parents[1] / "data/scene.png"


@pytest.mark.parametrize("sees", [True, False])
def test_an_empty_mask_is_its_only_no(sees: bool, tmp_path: Path) -> None:
    engine = gsva_ros.load(tiny_lisa(tmp_path, sees))
    frame = engine.encode(np.zeros((40, 60, 3), np.uint8))
    slots = engine.segment(frame, ["a mug", "a zebra"], threshold=1.0).slots
    expected = None if sees else Rejection.EMPTY_MASK
    assert [(s.p_seg, s.rejection) for s in slots] == [(1.0, expected)] * 2


def test_the_text_is_worded_as_the_family_answers(tmp_path: Path) -> None:
    frame = np.zeros((40, 60, 3), np.uint8)
    lisa = gsva_ros.load(tiny_lisa(tmp_path, True))
    assert lisa.segment(lisa.encode(frame), ["a mug", "a zebra"]).text == "[SEG]. [SEG]."
    mini = gsva_ros.load()
    frame = mini.encode(frame)
    said = mini.segment(frame, ["a mug", " a [REJ] can "], threshold=[0.0, 1.0])
    assert said.text == "Sure, a mug: [SEG], a [rej] can: [REJ]."
    assert mini.segment(frame, []).text == ""


@pytest.mark.parametrize(("sees", "n_acc", "t_acc"), [(True, 0.0, 1.0), (False, 1.0, 0.0)])
def test_the_evaluation_counts_it_as_a_no(
    sees: bool, n_acc: float, t_acc: float, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model, out = tiny_lisa(tmp_path / "model", sees), tmp_path / "out.json"
    command = ["eval", "bag", str(DEMO / "tabletop"), "--truth", str(DEMO / "tabletop_truth.json")]
    assert cli.main([*command, "--model", str(model), "--no-blind", "--out", str(out)]) == 0
    scores = json.loads(out.read_text())["scores"]["all"]
    assert (scores["N_acc"], scores["T_acc"]) == (n_acc, t_acc)
    assert capsys.readouterr().err.count("cannot reject") == 1


@pytest.mark.parametrize(("model", "times"), [("lisa", 1), ("gsva-mini", 0)])
def test_the_command_says_that_it_cannot_reject(
    model: str, times: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    name = str(tiny_lisa(tmp_path / "model", True)) if model == "lisa" else model
    options = ["--model", name, "--output", str(tmp_path / "out.png")]
    assert cli.main(["segment", str(PICTURE), "the mug", *options]) == 0
    assert capsys.readouterr().err.count("cannot reject") == times


def test_a_row_of_the_table_is_all_that_a_family_needs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    directory = tiny_lisa(tmp_path, True)
    config = json.loads((directory / "config.json").read_text())
    (directory / "config.json").write_text(json.dumps(config | {"family": "other"}))
    with pytest.raises(InputError, match="family is 'other'; there are gsva, lisa"):
        gsva_ros.load(directory)
    monkeypatch.setitem(FAMILIES, "other", FAMILIES["lisa"])
    engine = gsva_ros.load(directory)
    frame = engine.encode(np.zeros((40, 60, 3), np.uint8))
    assert not engine.segment(frame, ["a mug"]).slots[0].rejected
    (directory / "config.json").write_text(json.dumps(config | {"family": "gsva"}))
    with pytest.raises(InputError, match="rej_token_id is None: gsva has one"):
        gsva_ros.load(directory)


def test_a_family_has_an_id_for_each_of_its_tokens_and_for_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those that it never decides between, too: without an id, its first prompt with one would fail."""
    directory = tiny_lisa(tmp_path, True)
    config = json.loads((directory / "config.json").read_text())
    tokens = (*FAMILIES["lisa"].tokens, Special.REJ)
    monkeypatch.setitem(FAMILIES, "other", replace(FAMILIES["lisa"], tokens=tokens))
    (directory / "config.json").write_text(json.dumps(config | {"family": "other"}))
    with pytest.raises(InputError, match="rej_token_id is None: other has one"):
        gsva_ros.load(directory)
    (directory / "config.json").write_text(json.dumps(config | {"rej_token_id": 331}))
    with pytest.raises(InputError, match=r"rej_token_id is 331: lisa has none \(null\)"):
        gsva_ros.load(directory)
