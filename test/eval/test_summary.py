"""Numbers of a run and of two runs compared, from records whose numbers are worked out by hand."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest

from gsva_ros import cli
from gsva_ros.errors import InputError
from gsva_ros.eval.compare import common_cases, paired_differences, read_run
from gsva_ros.eval.metrics import Scoring
from gsva_ros.eval.run import CaseRecord, SlotRecord
from gsva_ros.eval.summary import Slots, calibration, latency, rejection_curve, scores, summary


def slot(p_seg: float, iou: float | None, box_iou: float = 0.0, area: int = 50) -> SlotRecord:
    """A slot kept from 0.5 on: of a target masked with this IoU, or (None) of an absent one."""
    there, intersection = iou is not None, round(100 * (iou or 0.0))
    union, truth = area, 0
    if there:  # pixels that two masks may have
        truth = max(90, intersection)
        area = max(area, 100 - truth + intersection) if area else 0
        union = 100 if area else truth
    return SlotRecord(
        expression="the mug",
        category="single",
        referents=int(there),
        p_seg=p_seg,
        kept=p_seg >= 0.5,
        predicted_iou=0.5,
        intersection=intersection,
        union=union,
        area=area,
        truth_area=truth,
        box_iou=box_iou,
        rejection="" if p_seg >= 0.5 else "model",
    )


def run(*images: list[SlotRecord]) -> list[CaseRecord]:
    return [CaseRecord(str(number), {}, slots) for number, slots in enumerate(images)]


def test_the_columns_are_the_numbers_of_the_records() -> None:
    """Whatever a rule may read, so that it can be chosen without the model."""
    (record,) = records = run([slot(0.9, 0.6, 0.3), slot(0.2, None, area=7)])
    columns = Slots.of(records)
    for name in ("p_seg", "kept", "predicted_iou", "intersection", "union", "area", "box_iou"):
        assert getattr(columns, name).tolist() == [getattr(s, name) for s in record.slots]


def test_a_rejected_target_scores_nothing_as_deployed_and_its_mask_by_the_paper() -> None:
    slots = Slots.of(run([slot(0.9, 0.6), slot(0.1, 0.4)], [slot(0.2, None), slot(0.8, None)]))
    deployed = scores(slots, ~slots.kept, Scoring())["all"]
    assert deployed["gIoU"] == pytest.approx((0.6 + 0 + 1 + 0) / 4)
    assert deployed["cIoU"] == pytest.approx(60 / (100 + 90 + 50))
    paper = scores(slots, ~slots.kept, Scoring("paper"))["all"]
    assert paper["gIoU"] == pytest.approx((0.6 + 0.4 + 1 + 0) / 4)
    assert paper["cIoU"] == pytest.approx(100 / (100 + 100 + 50))
    assert (paper["n"], paper["present"], paper["N_acc"], paper["T_acc"]) == (4, 2, 0.5, 0.5)


def test_a_box_is_right_from_half_its_iou_on() -> None:
    slots = Slots.of(
        run([slot(0.9, 0.6, iou) for iou in (0.49, 0.5, 0.51)] + [slot(0.1, 0.6, 0.9)])
    )
    for protocol, right in (("deployed", 2), ("paper", 3)):
        found = scores(slots, ~slots.kept, Scoring(protocol))["all"]
        assert found["box_precision_0.5"] == right / 4


def test_what_is_not_known_is_not_scored_and_told() -> None:
    known, unknown = slot(0.9, 1.0), replace(slot(0.9, None), referents=None)
    found = summary(run([known, unknown, unknown]), [], 0.5, Scoring())
    assert (found["scores"]["all"]["n"], found["unscored"]) == (1, 2)
    assert found["scores"]["all"]["gIoU"] == pytest.approx(1.0)


def test_rejections_are_counted_by_kind_and_the_baselines_are_of_the_same_things() -> None:
    empty = replace(slot(0.9, 0.0, area=0), kept=False, rejection="empty_mask")
    records = run([slot(0.9, 0.6), slot(0.1, None), slot(0.2, 0.3), empty])
    blind = run([slot(0.1, 0.6), slot(0.1, None), slot(0.1, 0.3), slot(0.1, 0.0)])
    found = summary(records, blind, 0.5, Scoring("paper"))
    assert found["rejections"] == {"model": 2, "empty_mask": 1}
    assert found["baselines"]["always [REJ]"]["gIoU"] == pytest.approx(1 / 4)
    assert found["baselines"]["blind"]["gIoU"] == pytest.approx((0.6 + 1 + 0.3 + 0) / 4)
    assert "blind" not in summary(records, [], 0.5, Scoring())["baselines"]


def test_an_empty_mask_is_rejected_at_every_threshold_and_one_pixel_is_not() -> None:
    slots = Slots.of(run([slot(0.9, 0.0, area=0), slot(0.9, 0.0, area=1)]))
    assert slots.rejected_below(0.0).tolist() == [True, False]
    assert slots.rejected_below(0.9).tolist() == [True, False]  # the threshold itself is kept
    assert slots.rejected_below(0.91).tolist() == [True, True]


def test_the_curve_goes_from_the_least_to_the_most_likely_slot() -> None:
    slots = Slots.of(run([slot(0.2, None), slot(0.4, 0.5), slot(0.9, 0.8)]))
    curve = rejection_curve(slots, Scoring())
    thresholds = [point["threshold"] for point in curve]
    assert (thresholds[0], thresholds[-1]) == (0.2, 0.9)
    assert thresholds == sorted(set(thresholds))
    assert len(thresholds) == 101
    first, last = curve[0], curve[-1]
    assert (first["N_acc"], first["T_acc"]) == (0.0, 1.0)
    assert (last["N_acc"], last["T_acc"]) == (1.0, 0.5)
    assert last["gIoU"] == pytest.approx((1 + 0 + 0.8) / 3)


def test_calibration_compares_within_each_tenth() -> None:
    """Gaps of opposite sign do not cancel, and certainty is in the last tenth."""
    there, gone = (0.5, None)
    said = [(0.02, there), (0.105, gone), (0.195, there), (0.85, there), (0.95, gone), (1.0, gone)]
    found = calibration(Slots.of(run([slot(p_seg, iou) for p_seg, iou in said])))
    assert [(b["p_seg"], b["present"], b["n"]) for b in found["bins"]] == [
        (pytest.approx(0.02), 1.0, 1),
        (pytest.approx(0.15), 0.5, 2),
        (pytest.approx(0.85), 1.0, 1),
        (pytest.approx(0.975), 0.0, 2),
    ]
    gap = (0.98 + 2 * 0.35 + 0.15 + 2 * 0.975) / 6
    assert found["expected_calibration_error"] == pytest.approx(gap)


def test_latency_is_in_milliseconds_of_each_stage_and_of_all() -> None:
    seconds = [{"encode": 0.1 * n, "mask": 0.01} for n in range(11)] + [{"encode": 1.1}]
    found = latency([CaseRecord(str(n), s, []) for n, s in enumerate(seconds)])
    assert found["encode"]["p50"] == pytest.approx(550.0)
    assert found["mask"]["p50"] == pytest.approx(10.0)
    assert found["total"]["p50"] == pytest.approx(560.0)
    assert found["total"]["p90"] == pytest.approx(1000.0)  # the last frame drew no mask
    assert list(found["total"]) == ["p50", "p90", "p99"]


def test_two_runs_differ_by_the_second_minus_the_first() -> None:
    """Image by image: where each gains as much, there is no doubt, however much the images differ."""
    ious = [0.1, 0.3, 0.5, 0.7]
    first = Slots.of(run(*([slot(0.9, iou), slot(0.9, None)] for iou in ious)))
    better = Slots.of(run(*([slot(0.9, iou + 0.2), slot(0.1, None)] for iou in ious)))
    found = paired_differences(first, better, Scoring())
    assert found["gIoU"].a == pytest.approx(0.2)
    assert found["gIoU"].b == pytest.approx((0.6 + 1) / 2)
    assert found["gIoU"].value == pytest.approx(0.6)
    assert found["gIoU"].interval == pytest.approx([0.6, 0.6])
    assert found["N_acc"].value == 1.0
    assert found["T_acc"].value == 0.0
    classic = paired_differences(first, better, Scoring("paper", "refcoco"))
    assert classic["gIoU"].value == pytest.approx((0.2 + 0) / 2)
    assert classic["gIoU"].interval == pytest.approx([0.1, 0.1])
    back = paired_differences(better, first, Scoring())
    assert back["gIoU"].value == pytest.approx(-0.6)
    assert back["gIoU"].interval == pytest.approx([-0.6, -0.6])


def test_instructions_about_one_image_do_not_narrow_the_interval() -> None:
    """Asked one by one or together, the images are as many, and one alone says nothing of others."""
    images = [[slot(0.9, iou + 0.01 * n) for n in range(8)] for iou in (0.1, 0.3, 0.5, 0.7)]
    better = [
        [replace(one, intersection=one.intersection + 9, area=one.area + 9) for one in some]
        for some in images
    ]

    def single(images: list[list[SlotRecord]]) -> list[CaseRecord]:
        names = [
            (f"{n} {i}", f"{n}", one) for n, all_ in enumerate(images) for i, one in enumerate(all_)
        ]
        return [CaseRecord(name, {}, [one], image) for name, image, one in names]

    apart, whole = Slots.of(single(images)), Slots.of(run(*images))
    found, expected = (scores(slots, ~slots.kept, Scoring())["all"] for slots in (apart, whole))
    assert found["interval"] == expected["interval"]
    first = single(images)
    unnamed = [replace(record, image="") for record in single(better)]  # of an earlier version
    a, b, _ = common_cases(first, unnamed)
    gained = paired_differences(Slots.of(a), Slots.of(b), Scoring())["gIoU"]
    both = paired_differences(whole, Slots.of(run(*better)), Scoring())["gIoU"]
    assert gained.interval == both.interval
    alone = scores(Slots.of(first[:8]), ~apart.kept[:8], Scoring())["all"]
    assert alone["gIoU"] is not None
    assert alone["interval"]["gIoU"] == [None, None]
    one = paired_differences(Slots.of(a[:8]), Slots.of(b[:8]), Scoring())["gIoU"]
    assert one.value == pytest.approx(0.09)
    assert np.isnan(one.interval).all()


def test_runs_that_share_nothing_are_not_compared() -> None:
    with pytest.raises(ValueError, match="none is in both"):
        paired_differences(Slots.of([]), Slots.of([]), Scoring())


def test_answers_without_truth_are_not_compared(tmp_path: Path, capsys) -> None:
    records = [asdict(each) for each in run([replace(slot(0.9, None), referents=None)])]
    path = tmp_path / "run.json"
    path.write_text(json.dumps(asdict(Scoring()) | {"records": records}))
    assert cli.main(["eval", "compare", str(path), str(path)]) == 2
    assert "nothing that both answered has known truth" in capsys.readouterr().err


def test_what_models_wrote_beside_the_truth_leaves_no_case_out() -> None:
    """Each writes its own answer to a free-form request, of which no truth is known."""
    said = [replace(slot(0.9, 0.5), expression=words, referents=None) for words in ("a cup", "it")]
    a, b = (run([slot(0.9, 0.5), each]) for each in said)
    assert common_cases(a, b) == (a, b, [])


@pytest.mark.parametrize("other", [slot(0.9, None), replace(slot(0.9, 0.5), truth_area=91)])
def test_runs_by_different_truths_are_not_compared(other: SlotRecord) -> None:
    with pytest.raises(ValueError, match="not of the same cases and expressions"):
        paired_differences(Slots.of(run([slot(0.9, 0.5)])), Slots.of(run([other])), Scoring())


@pytest.mark.parametrize(
    ("unknown", "known"),
    [
        ({"rules": "coco"}, "rules: .*'grefcoco', 'refzom' or 'refcoco'; compare files"),
        ({"protocol": "papers"}, "protocol: .*'deployed' or 'paper'; compare files"),
    ],
)
def test_a_run_by_unknown_rules_is_not_compared(
    tmp_path: Path, unknown: dict[str, str], known: str
) -> None:
    records = [asdict(record) for record in run([slot(0.9, 0.5)])]
    path = tmp_path / "run.json"
    path.write_text(json.dumps(asdict(Scoring()) | {"records": records} | unknown))
    with pytest.raises(InputError, match=rf"run\.json: {known}"):
        read_run(path)
