"""`gsva eval tracking`: what is counted, on videos whose numbers are known beforehand."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import rendering  # noqa: F401 (skips this module where nothing can be rendered)

from gsva_ros.bags.bag import Bag
from gsva_ros.cli import main
from gsva_ros.errors import InputError
from gsva_ros.eval.tracking import Masks, Pace, _turns, evaluate_tracking, perfect
from gsva_ros.sim.bag import TOPIC, write_video
from gsva_ros.stamps import SECOND
from gsva_ros.truth import Referring, read_truth

PERIOD = SECOND // 30


@pytest.fixture(scope="module")
def video(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("video")
    write_video(folder / "bag", [20_900_002], 1.5, 30.0, 160, 120, folder / "truth.json")
    return folder


def test_the_models_turns_are_those_of_a_model_that_takes_the_newest_frame() -> None:
    stamps = [n * PERIOD for n in range(60)]
    turns = _turns(stamps, 0.5)
    assert [frame for frame, _ in turns] == [0, 15, 30, 45]
    assert turns[1][1] == pytest.approx(SECOND, abs=PERIOD)
    # A model faster than the camera answers on each frame once.
    assert [frame for frame, _ in _turns(stamps, 0.001)] == list(range(60))


def test_carrying_beats_waiting_and_is_deterministic(video: Path) -> None:
    truth = read_truth(video / "truth.json")
    with Bag(video / "bag") as bag:
        one = evaluate_tracking(bag, truth, perfect, Pace(0.5, 0.02))
        two = evaluate_tracking(bag, truth, perfect, Pace(0.5, 0.02))
    for numbers in (one, two):
        numbers.pop("carry_ms_measured")
    assert one == two
    assert one["own"]["iou"] == 1.0
    assert one["frames"] == 30
    assert one["flow"]["iou"] > one["off"]["iou"] + 0.1
    assert one["flow"]["age_mean"] == pytest.approx(0.6 + 0.5, abs=0.05)
    assert one["off"]["age_mean"] == pytest.approx(22, abs=1)


def test_what_the_truth_lists_is_measured_in_the_order_of_time(video: Path, tmp_path: Path) -> None:
    """And without frames that the bag lacks, or has in another size."""
    truth = read_truth(video / "truth.json")
    wrong = [replace(truth[3], stamp=7), replace(truth[20], size=(60, 80), annotations=[])]
    left = [frame for frame in truth if frame is not truth[20]]
    with Bag(video / "bag") as bag:
        expected = evaluate_tracking(bag, left, perfect, Pace(0.5, 0.02))
        found = evaluate_tracking(bag, [*wrong, *left[::-1]], perfect, Pace(0.5, 0.02))
        assert "at 7 ns: no such frame" in bag.problems[0]
        assert "its truth (60, 80)" in bag.problems[1]
        with pytest.raises(InputError, match="no mask is due before the last of 10 frames"):
            evaluate_tracking(bag, truth[:10], perfect, Pace(0.5, 0.02))
    for numbers in (expected, found):
        numbers.pop("carry_ms_measured")
    assert found == expected


def test_frames_without_truth_are_seen_and_not_scored(video: Path) -> None:
    """The clock and the tracker take each frame of the camera, whichever of them are labelled."""
    truth = read_truth(video / "truth.json")
    masks = {frame.stamp: frame for frame in truth}
    with Bag(video / "bag") as bag:
        stamps = {bag.rgb(TOPIC, stamp).tobytes(): stamp for stamp in masks}

        def model(rgb: np.ndarray, asked: Sequence[Referring]) -> Masks:
            return perfect(rgb, masks[stamps[rgb.tobytes()]].expressions())

        dense = evaluate_tracking(bag, truth, model, Pace(0.5, 0.02))
        labelled = [*truth[:-1:7], truth[-1]]
        sparse = evaluate_tracking(bag, labelled, model, Pace(0.5, 0.02))
        with pytest.raises(InputError, match="label every frame"):
            evaluate_tracking(bag, labelled, perfect, Pace(0.5, 0.02))
    assert (dense["frames"], sparse["frames"]) == (30, 5)
    for way in ("off", "flow"):
        for number in ("age_mean", "age_max"):
            assert sparse[way][number] == dense[way][number]
    assert sparse["flow"]["iou"] == pytest.approx(dense["flow"]["iou"], abs=0.05)
    assert sparse["flow"]["id_switches"] == dense["flow"]["id_switches"]


def test_a_model_that_finds_nothing_scores_nothing(video: Path) -> None:
    truth = read_truth(video / "truth.json")
    with Bag(video / "bag") as bag:
        numbers = evaluate_tracking(
            bag,
            truth,
            lambda rgb, asked: {each.expression: None for each in asked},
            Pace(0.5, 0.02),
        )
    seen = np.mean([a.referents > 0 for frame in truth[15:] for a in frame.annotations])
    for name in ("own", "off", "flow"):
        assert numbers[name]["iou"] == pytest.approx(1 - seen)


def test_the_command_prints_and_writes(video: Path, tmp_path: Path, capsys) -> None:
    arguments = ["eval", "tracking", str(video / "bag"), "--truth", str(video / "truth.json")]
    assert main([*arguments, "--perfect", "--out", str(tmp_path / "out.json")]) == 0
    table = capsys.readouterr().out.splitlines()[1:5]
    assert table[3].startswith("track flow")
    assert max(map(len, table)) <= 80, "as wide as a terminal"
    assert json.loads((tmp_path / "out.json").read_text())["model"] == "truth"
    assert main([*arguments, "--perfect", "--carry-ms", "inf"]) == 2
    with pytest.raises(SystemExit, match="2"):
        main([*arguments, "--perfect", "--model-rate", "0"])
    assert main([*arguments[:3], "--perfect"]) == 2  # this bag carries no truth
    assert "give --truth" in capsys.readouterr().err
