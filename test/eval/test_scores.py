"""Scores: what a perfect, a silent and a careless model get, intervals, thresholds, resuming."""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from copy import copy
from dataclasses import asdict, fields, replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import rendering  # noqa: F401 (skips this module where nothing can be rendered)
from tiny import tiny_gsva, tiny_lisa
from tiny_sam3 import tiny_directory

import gsva_ros
from gsva_ros import cli
from gsva_ros.answer import Rejection, Slot
from gsva_ros.errors import InputError
from gsva_ros.eval.calibrate import (
    TEMPERATURES,
    Rule,
    calibration_result,
    threshold_for_equal_t_acc,
    threshold_for_giou,
    threshold_for_t_acc,
    write_rule,
)
from gsva_ros.eval.cases import Case
from gsva_ros.eval.compare import common_cases
from gsva_ros.eval.metrics import Scoring, bootstrap, gres
from gsva_ros.eval.run import CaseRecord, Records, SlotRecord, evaluate
from gsva_ros.eval.sources.scenes import gather, scene_cases
from gsva_ros.eval.summary import Slots, calibration, rejection_curve, scores, summary
from gsva_ros.files import check_writable
from gsva_ros.masks import trimmed
from gsva_ros.scenes import SceneSet
from gsva_ros.sim.dataset import write_dataset
from gsva_ros.truth import Referring

RUN = {"of": "a test"}
Model = Callable[[Referring], tuple[float, np.ndarray]]  # p_seg and mask


class ScriptedEngine:
    """Stands for the engine: `model` answers each query."""

    device = "cpu"

    def __init__(self, cases: list[Case], model: Model) -> None:
        self.rejection_threshold = 0.5
        self.queries = {c.read()[0].tobytes(): c.read()[1] for c in cases}
        self.model = model
        self.calls = 0

    def encode(self, rgb: np.ndarray) -> bytes:
        return rgb.tobytes()

    def segment(
        self, frame: bytes, expressions: list[str], *, mask_rejected: bool
    ) -> SimpleNamespace:
        assert mask_rejected, "evaluation asks for every mask"
        self.calls += 1
        queries = self.queries[frame]
        assert expressions == [q.expression for q in queries]
        slots = []
        for query in queries:
            p_seg, mask = self.model(query)
            region = trimmed(mask)
            rejection = None if region else Rejection.EMPTY_MASK
            if p_seg < self.rejection_threshold:
                rejection = Rejection.MODEL
            slots.append(Slot(query.expression, p_seg, rejection, mask.shape, region, 0.5))
        return SimpleNamespace(slots=slots, timings={"encode": 0.1, "mask": 0.2})


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> SceneSet:
    folder = tmp_path_factory.mktemp("scenes") / "test"
    write_dataset(folder, "test", 6, workers=1)
    return SceneSet(folder, "test")


@pytest.fixture(scope="module")
def cases(scenes: SceneSet) -> list[Case]:
    return scene_cases(scenes)


def slots_of(cases: list[Case], model: Model) -> Slots:
    return Slots.of(evaluate(ScriptedEngine(cases, model), cases, Scoring()))


def perfect(query: Referring) -> tuple[float, np.ndarray]:
    return (0.9 if query.mask.any() else 0.1), query.mask


def careless(query: Referring) -> tuple[float, np.ndarray]:
    return 0.8, np.ones_like(query.mask)


def test_the_truth_scores_one(cases: list[Case]) -> None:
    slots = slots_of(cases, perfect)
    for group in scores(slots, slots.p_seg < 0.5, Scoring()).values():
        figures = {group[k] for k in ("gIoU", "cIoU", "N_acc", "T_acc")} - {None}
        assert list(figures) == pytest.approx([1.0] * len(figures))
        assert group["box_precision_0.5"] in (None, 1.0)


def test_always_rejecting_scores_the_share_of_absent_things(cases: list[Case]) -> None:
    records = evaluate(ScriptedEngine(cases, careless), cases, Scoring())
    result = summary(records, records, 0.5, Scoring())["baselines"]["always [REJ]"]
    share = 1 - result["present"] / result["n"]
    assert result["gIoU"] == pytest.approx(share)
    assert (result["N_acc"], result["T_acc"], result["cIoU"]) == (1.0, 0.0, 0.0)
    assert 0.4 < share < 0.6


def test_marking_everything_earns_no_rejection(cases: list[Case]) -> None:
    slots = slots_of(cases, careless)
    result = scores(slots, slots.p_seg < 0.5, Scoring())["all"]
    assert (result["N_acc"], result["T_acc"]) == (0.0, 1.0)
    area = np.concatenate([[q.mask.mean() for q in c.read()[1]] for c in cases])
    assert result["gIoU"] == pytest.approx(area.mean(), abs=1e-6)
    assert result["cIoU"] == pytest.approx(area.sum() / len(area), rel=1e-5)


def test_intervals_hold_the_score_and_shrink_with_more_pictures() -> None:
    rng = np.random.default_rng(0)
    widths = []
    for pictures in (20, 2000):
        terms = np.zeros((pictures, 8))
        terms[:, 0] = 1
        terms[:, 1] = rng.random(pictures)
        terms[:, 4] = 1
        interval = bootstrap(terms, np.arange(pictures), gres)
        low, high = interval["gIoU"]
        assert low < terms[:, 1].mean() < high
        assert np.isnan(interval["T_acc"]).all()
        widths.append(high - low)
        # The standard error of a mean of uniform numbers, times 2 * 1.96.
        assert high - low == pytest.approx(3.92 / np.sqrt(12 * pictures), rel=0.25)
    assert widths[1] < widths[0] / 5


def test_cases_of_one_name_are_refused(cases: list[Case]) -> None:
    with pytest.raises(InputError, match="2 cases are called 'scene 0'"):
        evaluate(ScriptedEngine(cases, perfect), [*cases, cases[0]], Scoring())


def test_a_killed_run_goes_on(cases: list[Case], tmp_path) -> None:
    whole = evaluate(ScriptedEngine(cases, perfect), cases, Scoring())
    path = tmp_path / "records.jsonl"
    evaluate(ScriptedEngine(cases, perfect), cases[:3], Scoring(), records=Records(path, RUN))
    with path.open("a") as file:
        file.write('{"id": "scene 3", "seco')  # cut short by a kill
    engine = ScriptedEngine(cases, perfect)
    assert evaluate(engine, cases, Scoring(), records=Records(path, RUN)) == whole
    assert engine.calls == len(cases) - 3
    assert list(Records(path, RUN).done.values()) == whole


def noisy(seed: int) -> Model:
    rng = np.random.default_rng(seed)

    def model(query: Referring) -> tuple[float, np.ndarray]:
        there = query.mask.any()
        p_seg = float(np.clip(rng.normal(0.7 if there else 0.4, 0.2), 0, 1).round(2))
        return p_seg, query.mask if rng.random() < 0.7 else ~query.mask

    return model


def test_thresholds_do_what_they_promise(cases: list[Case]) -> None:
    slots = slots_of(cases, noisy(1))

    def at(threshold: float) -> dict[str, float]:
        return slots.figures(slots.rejected_below(threshold), Scoring())

    candidates = np.unique(np.concatenate([slots.p_seg, [2.0]]))
    for wanted in (0.8, 0.95, 1.0):
        chosen = threshold_for_t_acc(slots, wanted)
        assert at(chosen)["T_acc"] >= wanted
        assert all(at(t)["T_acc"] < wanted for t in candidates if t > chosen)
    equal = threshold_for_equal_t_acc(slots, 0.5)
    lost = at(0.5)["T_acc"] - at(equal)["T_acc"]
    assert lost <= 0.005 < at(0.5)["T_acc"] - at(candidates[candidates > equal][0])["T_acc"]
    assert at(equal)["N_acc"] >= at(0.5)["N_acc"]
    best = at(threshold_for_giou(slots))["gIoU"]
    assert best == pytest.approx(max(at(t)["gIoU"] for t in candidates))
    with pytest.raises(InputError, match="T-acc"):
        threshold_for_t_acc(slots, 0.0)
    curve = rejection_curve(slots, Scoring())
    assert [p["N_acc"] for p in curve] == sorted(p["N_acc"] for p in curve)
    assert [p["T_acc"] for p in curve] == sorted((p["T_acc"] for p in curve), reverse=True)


@pytest.mark.parametrize("seed", range(5))
def test_thresholds_know_that_an_empty_mask_is_a_rejection(cases: list[Case], seed: int) -> None:
    slots = slots_of(cases, noisy(1))
    empty = np.random.default_rng(seed).random(len(slots.p_seg)) < 0.3
    slots = replace(
        slots,
        area=np.where(empty, 0, slots.area),
        intersection=np.where(empty, 0, slots.intersection),
        union=np.where(empty, slots.truth_area, slots.union),
    )

    def at(threshold: float) -> dict[str, float]:
        return slots.figures(slots.rejected_below(threshold), Scoring())

    candidates = np.unique(np.concatenate([slots.p_seg, [0.0, 2.0]]))
    best = at(threshold_for_giou(slots))["gIoU"]
    assert best == pytest.approx(max(at(t)["gIoU"] for t in candidates))
    assert at(threshold_for_t_acc(slots, 0.5))["T_acc"] >= 0.5
    with pytest.raises(InputError, match="with a mask"):
        threshold_for_t_acc(slots, 1.0)
    lost = at(0.5)["T_acc"] - at(threshold_for_equal_t_acc(slots, 0.5))["T_acc"]
    assert 0 <= lost <= 0.005
    nothing = replace(slots, area=np.zeros_like(slots.area))
    assert 0.0 <= threshold_for_giou(nothing) <= 1.0


def test_calibration_sees_overconfidence() -> None:
    def slots(p_seg: float, present: float) -> Slots:
        n = 1000
        there = np.arange(n) < present * n
        zeros = np.zeros(n, np.int64)
        return Slots(
            zeros,
            np.full(n, "x"),
            there,
            np.full(n, p_seg),
            there,
            zeros * 1.0,
            zeros,
            zeros,
            zeros,
            zeros,
            zeros * 1.0,
        )

    assert calibration(slots(0.75, 0.75))["expected_calibration_error"] == pytest.approx(0.0)
    assert calibration(slots(0.95, 0.55))["expected_calibration_error"] == pytest.approx(0.4)


def test_a_temperature_and_a_bias_make_p_seg_honest(cases: list[Case]) -> None:
    """Scores half as big again as they should be and 0.6 too low, decided at half a temperature."""
    rng = np.random.default_rng(0)
    slots = slots_of(cases, careless)
    n = 20_000
    scores_true = rng.normal(0.0, 1.0, n)
    present = rng.random(n) < 1 / (1 + np.exp(-scores_true))
    columns = {f.name: np.resize(getattr(slots, f.name), n) for f in fields(slots)}
    p_seg = 1 / (1 + np.exp(-(1.5 * (scores_true - 0.6) / 0.5 + 0.25)))
    sure = Slots(**columns | {"present": present, "p_seg": p_seg})
    before = Rule(0.5, 0.25, 0.7)
    found = before.calibrated(sure)
    assert found.temperature == pytest.approx(1.5, rel=0.05)
    assert found.bias == pytest.approx(0.6, abs=0.05)
    how = calibration_result(sure, found, before)
    assert how["before"]["expected_calibration_error"] > 0.1
    assert how["chosen"]["expected_calibration_error"] < 0.02
    for name in ("gIoU", "N_acc", "T_acc"):  # the decisions stay
        assert how["chosen"][name] == pytest.approx(how["before"][name], abs=1e-3)
    score = (np.log(7 / 3) - 0.25) * 0.5
    threshold = 1 / (1 + np.exp(-(score / found.temperature + found.bias)))
    assert how["chosen"]["threshold"] == pytest.approx(threshold, abs=1e-4)


def test_slots_that_a_threshold_divides_keep_a_rule_of_numbers(cases: list[Case]) -> None:
    """Their best temperature is 0: what is found is the lowest allowed, and decides the same."""
    slots = slots_of(cases, careless)
    sure = replace(slots, p_seg=np.where(slots.present, 0.9, 0.2))
    found = Rule(1.0, 0.0, 0.5).calibrated(sure)
    assert TEMPERATURES[0] <= found.temperature < 1
    assert np.isfinite([found.bias, found.threshold]).all()
    p_seg = found.p_seg(Rule(1.0, 0.0, 0.5).scores(sure.p_seg))
    assert ((p_seg >= found.threshold) == sure.present).all()


def clusters(slots: Slots, absent: float, present: float) -> Slots:
    """Slots whose scores stand in two clusters, one unit wide each."""
    rng = np.random.default_rng(0)
    logits = np.where(slots.present, present, absent) + rng.uniform(-0.5, 0.5, len(slots.present))
    return replace(slots, p_seg=1 / (1 + np.exp(-logits)))


@pytest.mark.parametrize(("absent", "present"), [(-5.5, -4.0), (2.0, 3.5), (2.0, 12.0)])
def test_clusters_far_from_zero_are_divided_as_before(
    cases: list[Case], absent: float, present: float
) -> None:
    """A temperature at its bound has a bias of its own, and the threshold stays inside 0 to 1."""
    slots = clusters(slots_of(cases, careless), absent, present)
    before = Rule(1.0, 0.0, threshold_for_giou(slots))
    found = before.calibrated(slots)
    assert 0.1 < found.threshold < 0.99
    p_seg = found.p_seg(before.scores(slots.p_seg))
    assert ((p_seg >= found.threshold) == slots.present).all()
    # Midway: the same new score, a little to either side, is decided alike.
    edges = before.scores(slots.p_seg)
    gap = edges[slots.present].min() - edges[~slots.present].max()
    moved = found.p_seg(edges + np.where(slots.present, -0.4, 0.4) * gap)
    assert ((moved >= found.threshold) == slots.present).all()


def test_a_rule_that_rejects_nothing_here_still_can(cases: list[Case]) -> None:
    slots = clusters(slots_of(cases, careless), -2.0, 2.0)
    assert Rule(1.0, 0.0, 0.0).calibrated(slots).threshold > 0.0


@pytest.mark.parametrize("there", [True, False])
def test_one_class_alone_is_no_calibration(cases: list[Case], there: bool) -> None:
    slots = slots_of(cases, careless)
    same = replace(slots, present=np.full(len(slots.present), there))
    with pytest.raises(InputError, match="both present and absent"):
        Rule(1.0, 0.0, 0.5).calibrated(same)


def test_a_rule_that_cannot_be_written_leaves_the_model_whole(tmp_path: Path, monkeypatch) -> None:
    config = tmp_path / "config.json"
    config.write_text('{"rejection_threshold": 0.5}\n')
    write = Path.write_bytes

    def full(self: Path, data: bytes) -> int:
        write(self, data[: len(data) // 2])
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(OSError, match="No space"):
        write_rule(tmp_path, Rule(1.0, 0.0, 0.7), {})
    assert json.loads(config.read_text()) == {"rejection_threshold": 0.5}


def test_no_rule_is_written_that_decides_otherwise(cases: list[Case]) -> None:
    """Scores that one threshold divided may be one probability at the precision of the engine's."""
    slots = slots_of(cases, careless)
    high = np.where(slots.present, 3.0, -3.0)
    high[np.flatnonzero(slots.present)[:3]] = 12.0, 12.001, 12.002
    sure = replace(slots, p_seg=1 / (1 + np.exp(-high)))
    with pytest.raises(InputError, match="decisions would change"):
        Rule(1.0, 0.0, float(np.sort(sure.p_seg)[-2])).calibrated(sure)


def test_an_equal_t_acc_of_nothing_is_refused(cases: list[Case]) -> None:
    slots = slots_of(cases, careless)
    with pytest.raises(InputError, match="keeps 0 of"):
        threshold_for_equal_t_acc(slots, 0.95)


@pytest.mark.parametrize("share", ["95", "0", "-0.1", "nan"])
def test_a_share_is_checked_before_anything_is_run(
    share: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = ["calibrate", "--data", str(tmp_path), "--model", str(tmp_path), "--t-acc", share]
    assert cli.main(given) == 2
    assert "--t-acc is a share" in capsys.readouterr().err


def test_the_bundled_model_is_not_calibrated(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["calibrate", "--data", str(tmp_path), "--model", "gsva-mini"]) == 2
    assert "cp -r" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        cli.main(["calibrate", "--data", str(tmp_path)])
    assert "--model" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("model", "why"),
    [
        (partial(tiny_lisa, sees=True), "writes no [REJ]"),
        (tiny_directory, "not read from config.json"),
    ],
)
def test_a_model_that_cannot_be_calibrated_is_told_why(
    model: Callable[..., Path],
    why: str,
    scenes: SceneSet,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    given = ["--data", str(scenes.folders[0][0]), "--split", "test", "--limit", "1"]
    assert cli.main(["calibrate", *given, "--model", str(model(tmp_path))]) == 2
    assert why in capsys.readouterr().err


def test_scenes_of_several_folders_are_asked_together(scenes: SceneSet, tmp_path: Path) -> None:
    write_dataset(tmp_path / "other", "test", 2, workers=1)
    args = argparse.Namespace(
        data=[scenes.folders[0][0], tmp_path / "other"],
        split="test",
        limit=None,
        forms="as written",
    )
    with gather(args) as gathered:
        assert len({case.id for case in gathered.cases}) == len(scenes) + 2
        assert gathered.data == "8 scenes of split test"


def test_commands_end_to_end(scenes: SceneSet, tmp_path, capsys) -> None:
    """Calibration changes the model's own decisions; two runs compare."""
    data, model = tmp_path / "val", tmp_path / "model"
    write_dataset(data, "val", 3, workers=1)
    tiny_gsva(model)
    common = ["--data", str(data), "--split", "val", "--model", str(model), "--device", "cpu"]
    assert cli.main(["eval", "scenes", *common, "--out", str(tmp_path / "a.json")]) == 0
    assert cli.main(["calibrate", *common, "--t-acc", "0.9"]) == 0
    engine = gsva_ros.load(model, device="cpu")
    how = json.loads((model / "calibration.json").read_text())
    assert engine.rejection_threshold == how["chosen"]["threshold"]
    chosen = how["chosen"]
    assert engine.rule == {"slot_temperature": chosen["temperature"], "slot_bias": chosen["bias"]}
    assert how["chosen"]["T_acc"] >= 0.9
    page = tmp_path / "b.html"
    report = ["--out", str(tmp_path / "b.json"), "--report", str(page)]
    assert cli.main(["eval", "scenes", *common, *report]) == 0
    assert page.read_text().count('<div class="card"') == 24 + 3  # one worst a picture
    b = json.loads((tmp_path / "b.json").read_text())
    assert b["scores"]["all"]["T_acc"] == pytest.approx(how["chosen"]["T_acc"])
    gap = how["chosen"]["expected_calibration_error"]
    assert b["calibration"]["expected_calibration_error"] == pytest.approx(gap, abs=1e-3)
    assert b["baselines"]["always [REJ]"]["N_acc"] == 1.0
    assert "scenes of split val (goal:" in " ".join(page.read_text().split())
    capsys.readouterr()
    assert cli.main(["eval", "compare", str(tmp_path / "a.json"), str(tmp_path / "b.json")]) == 0
    said = capsys.readouterr().out
    assert "3 cases in both" in said
    assert "95 % CI" in said
    b["records"] = b["records"][:2]  # as a live run that missed a frame
    (tmp_path / "b.json").write_text(json.dumps(b))
    assert cli.main(["eval", "compare", str(tmp_path / "a.json"), str(tmp_path / "b.json")]) == 0
    assert "2 cases in both" in capsys.readouterr().out
    (tmp_path / "one.json").write_text(json.dumps(b | {"records": b["records"][:1]}))
    assert cli.main(["eval", "compare", str(tmp_path / "a.json"), str(tmp_path / "one.json")]) == 0
    assert re.search(r"gIoU .*\d  -\n", capsys.readouterr().out)  # one image: no interval
    slot = b["records"][0]["slots"][0]
    for truth, said in (
        (
            {"truth_area": slot["truth_area"] + 1, "union": slot["union"] + 1},
            "not of the same cases",
        ),
        ({"referents": int(not slot["referents"])}, "not of the same cases"),
        ({"union": 10**30}, "no two masks have"),
    ):
        b["records"][0]["slots"][0] = slot | truth
        (tmp_path / "b.json").write_text(json.dumps(b))
        files = (str(tmp_path / "a.json"), str(tmp_path / "b.json"))
        assert cli.main(["eval", "compare", *files]) == 2
        assert said in capsys.readouterr().err


def test_a_model_may_be_called_as_a_baseline_is(
    scenes: SceneSet, tmp_path: Path, capsys, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    tiny_gsva(Path("blind"))
    data = ["--data", str(scenes.folders[0][0]), "--limit", "1"]
    command = ["eval", "scenes", *data, "--model", "blind", "--device", "cpu"]
    assert cli.main(command) == 0
    rows = [line[:20].strip() for line in capsys.readouterr().out.splitlines()]
    assert rows.count("blind") == 2


@pytest.mark.parametrize("other", ["--report", "--records"])
def test_results_of_two_kinds_need_two_files(tmp_path: Path, capsys, other: str) -> None:
    path = str(tmp_path / "out.json")
    assert cli.main(["eval", "scenes", "--data", "/nowhere", "--out", path, other, path]) == 2
    assert "name one file twice" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_records_are_plain_data(cases: list[Case], tmp_path) -> None:
    records = Records(tmp_path / "r.jsonl", RUN)
    evaluate(ScriptedEngine(cases, perfect), cases[:1], Scoring(), records=records)
    first, second = (tmp_path / "r.jsonl").read_text().splitlines()
    assert json.loads(first) == RUN
    line = json.loads(second)
    assert set(line) == {"id", "seconds", "slots", "image", "device"}
    assert isinstance(records.done["scene 0"], CaseRecord)
    with pytest.raises(ValueError, match="another model"):
        Records(tmp_path / "r.jsonl", {"of": "another model"})
    line["slots"][0]["p_seg"] = "likely"
    for wrong, said in ((json.dumps(line), "0.slots.0.p_seg"), ("[" * 100_000, "recursion")):
        (tmp_path / "r.jsonl").write_text(f"{first}\n{wrong}\n")
        with pytest.raises(InputError, match=f"r.jsonl: not records of .*{said}"):
            Records(tmp_path / "r.jsonl", RUN)


@pytest.mark.parametrize("content", ['{"images": []}', '{"images": []}\n', "[1]\n", "some notes"])
def test_what_are_no_records_is_not_overwritten(tmp_path: Path, content: str) -> None:
    path = tmp_path / "truth.json"
    path.write_text(content)
    with pytest.raises(InputError, match=r"truth\.json: not records of .*give another file"):
        Records(path, RUN)
    assert path.read_text() == content
    path.write_text(json.dumps(RUN)[:5])  # killed while it wrote its first line
    assert not Records(path, RUN).done
    assert path.read_text() == json.dumps(RUN) + "\n"


def test_records_lose_only_the_line_that_a_kill_cut(cases: list[Case], tmp_path: Path) -> None:
    path = tmp_path / "r.jsonl"
    evaluate(ScriptedEngine(cases, perfect), cases[:2], Scoring(), records=Records(path, RUN))
    whole = path.read_text()
    path.write_text(whole[:-9])
    assert Records(path, RUN).done.keys() == {"scene 0"}
    assert path.read_text() == "".join(whole.splitlines(keepends=True)[:2])
    path.write_text(whole)
    os.utime(path, (0, 0))
    assert Records(path, RUN).done.keys() == {"scene 0", "scene 1"}
    assert path.stat().st_mtime == 0, "nothing was cut, so nothing is written"


def test_records_of_an_earlier_version_are_told_from_other_files(tmp_path: Path) -> None:
    """Their run lacks what has been added since."""
    Records(tmp_path / "r.jsonl", RUN)
    with pytest.raises(
        InputError, match=r"another run \(version None, not '2'\); give another file"
    ):
        Records(tmp_path / "r.jsonl", RUN | {"version": "2"})


def test_records_that_a_full_disk_does_not_hold_are_named(tmp_path: Path, monkeypatch) -> None:
    """The error of a write names no file; only that of opening one does."""
    path, named = tmp_path / "r.jsonl", r"No space .*: '.*r\.jsonl'"
    records = Records(path, RUN)
    path.unlink()
    monkeypatch.setattr(Path, "open", partial(open, "/dev/full"))
    with pytest.raises(OSError, match=named):
        records.add(CaseRecord("a", {}, []))
    with pytest.raises(OSError, match=named):
        Records(path, RUN)


def test_regions_are_asked_of_any_engine() -> None:
    """ReasonSeg's, which GSVA itself is asked in other words than the node's."""
    rgb, mask = np.zeros((6, 8, 3), np.uint8), np.ones((6, 8), bool)
    case = Case("a", lambda: (rgb, [Referring("what is edible?", "x", 1, mask, region="sentence")]))
    (record,) = evaluate(ScriptedEngine([case], perfect), [case], Scoring())
    assert (record.slots[0].intersection, record.slots[0].kept) == (48, True)


def test_what_is_no_number_is_told_and_not_scored(cases: list[Case]) -> None:
    for model in (lambda q: (np.nan, q.mask), lambda q: (np.inf, q.mask)):
        with pytest.raises(InputError, match="not made of finite numbers: its weights are damaged"):
            evaluate(ScriptedEngine(cases, model), cases, Scoring())


def test_runs_that_asked_other_things_are_not_compared() -> None:
    def run(expression: str, case: str = "a", referents: int | None = 0) -> CaseRecord:
        slot = SlotRecord(expression, "x", referents, 0.1, False, 0.0, 0, 0, 0, 0, 0.0)
        return CaseRecord(case, {}, [slot])

    mug, can = run("the mug"), run("the can")
    assert common_cases([mug], [mug]) == ([mug], [mug], [])
    with pytest.raises(ValueError, match="same expressions of 'a'"):
        common_cases([mug], [can])
    rest = run("the bowl", "b")
    assert common_cases([mug, rest], [can, rest]) == ([rest], [rest], ["a"])
    # A live run may have missed a frame.
    assert common_cases([mug, rest], [rest]) == ([rest], [rest], [])
    assert common_cases([mug], [rest]) == ([], [], [])
    # What each model wrote by itself: nobody knows whether it is true.
    free = run("the red mug", referents=None), run("a mug", referents=None)
    assert common_cases([free[0]], [free[1]]) == ([free[0]], [free[1]], [])


def test_processes_of_one_run_may_all_look_whether_its_file_can_be_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, unlink = tmp_path / "out.json", Path.unlink

    def faster(self: Path, missing_ok: bool = False) -> None:
        unlink(self)  # another process's
        unlink(self, missing_ok=missing_ok)

    monkeypatch.setattr(Path, "unlink", faster)
    check_writable(path)
    assert not path.exists()


def test_two_processes_find_what_one_finds(scenes: SceneSet, tmp_path) -> None:
    """accelerate spreads the cases; a killed run goes on from what all its processes kept."""
    data, model = tmp_path / "val", tmp_path / "model"
    write_dataset(data, "val", 5, workers=1)
    tiny_gsva(model)
    command = ["eval", "scenes", "--data", str(data), "--split", "val", "--model", str(model)]
    command += ["--device", "cpu", "--records"]
    assert cli.main([*command, str(tmp_path / "one"), "--out", str(tmp_path / "one.json")]) == 0
    # On CPUs torchrun starts what `accelerate launch --multi_gpu` starts on GPUs.
    launch = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", "2"]
    launch += ["--standalone", "-m", "gsva_ros", *command, str(tmp_path / "two")]
    subprocess.run([*launch, "--out", str(tmp_path / "two.json")], check=True, timeout=600)
    one, two = (json.loads((tmp_path / f"{n}.json").read_text()) for n in ("one", "two"))
    assert [r["id"] for r in one["records"]] == [r["id"] for r in two["records"]]
    for a, b in zip(one["records"], two["records"], strict=True):
        assert a["slots"] == b["slots"]
    assert one["scores"] == two["scores"]
    kept = [(tmp_path / name).read_text().splitlines() for name in ("two", "two.1")]
    assert [len(lines) for lines in kept] == [1 + 3, 1 + 2]
    # One process goes on with what two left, and has nothing to do.
    run = json.loads(kept[0][0])
    found = Records(tmp_path / "two", run).done
    assert [asdict(found[r["id"]])["slots"] for r in one["records"]] == [
        r["slots"] for r in one["records"]
    ]
    # What the blind baseline's processes kept are not the model's, nor the other way round.
    assert {path.name for path in tmp_path.glob("two.blind*")} == {"two.blind", "two.blind.1"}
    with pytest.raises(InputError, match=r"two\.blind holds records of"):
        Records(tmp_path / "two.blind", run)


def test_what_another_process_could_not_read_is_told(tmp_path: Path) -> None:
    script = tmp_path / "share.py"
    script.write_text(
        "import sys, numpy as np\n"
        "from gsva_ros.errors import InputError\n"
        "from gsva_ros.eval.cases import Case\n"
        "from gsva_ros.eval.metrics import Scoring\n"
        "from gsva_ros.eval.run import evaluate\n"
        "from test_report import Blocks\n"
        "def reader(number):\n"
        "    def read():\n"
        "        if number == 1: raise InputError('damaged')\n"
        "        return np.zeros((4, 4, 3), np.uint8), []\n"
        "    return read\n"
        "told = []\n"
        "asked = [Case(f'c{n}', reader(n)) for n in range(4)]\n"
        "evaluate(Blocks(), asked, Scoring(), problems=told)\n"
        "print(*told)\n"
    )
    launch = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", "2"]
    here = str(Path(__file__).parent)
    path = os.pathsep.join([here, *sys.path])
    done = subprocess.run(
        [*launch, "--standalone", str(script)],
        check=True, timeout=600, capture_output=True, text=True, env=os.environ | {"PYTHONPATH": path},
    )  # fmt: skip
    assert done.stdout.count("c1: damaged") == 2


def test_expressions_in_other_forms_keep_their_truth(scenes: SceneSet) -> None:
    from gsva_ros.eval.sources.scenes import FORMS

    for name, forms in FORMS.items():
        cases = scene_cases(scenes, forms)
        again = scene_cases(scenes, forms)
        seen = set()
        for row, (case, other) in enumerate(zip(cases, again, strict=True)):
            _, asked = case.read()
            assert [r.expression for r in asked] == [r.expression for r in other.read()[1]]
            assert {r.category for r in asked} <= forms.keys(), name
            seen |= {r.category for r in asked}
            plain = scenes.expressions[row]
            truth = scenes.target_masks(np.full(len(plain), row), [e.targets for e in plain])
            # In the same order, without those that have no form.
            left = zip(plain, truth, strict=True)
            for referring in asked:
                assert any(
                    len(expression.targets) == referring.referents
                    and np.array_equal(mask, referring.mask)
                    for expression, mask in left
                ), referring.expression
        assert len(seen) > 4, name


def test_a_scene_that_nothing_is_asked_about_is_passed_over(scenes: SceneSet) -> None:
    silent = copy(scenes)
    silent.expressions = [[], *scenes.expressions[1:]]
    slots = slots_of(scene_cases(silent), perfect)
    assert len(slots.p_seg) == sum(map(len, silent.expressions))
