"""The metrics of the official evaluations on numbers worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest

from gsva_ros.eval.metrics import (
    Scoring,
    bootstrap,
    gres,
    gres_terms,
    metric,
    overlap,
    res,
    res_terms,
    terms,
)

#: A target masked and kept, one masked and rejected, two absent things: one rejected, one masked.
INTERSECTION = np.array([30, 10, 0, 0])
UNION = np.array([60, 40, 25, 20])
TRUTH_AREA = np.array([50, 20, 0, 0])
PRESENT = np.array([True, True, False, False])
REJECTED = np.array([False, True, True, False])


def scored(rules: str, chosen: slice = slice(None)) -> dict[str, float]:
    rows = (r[chosen] for r in (INTERSECTION, UNION, TRUTH_AREA, PRESENT, REJECTED))
    sums = terms(*rows, Scoring("paper", rules)).sum(0)
    return {k: float(v) for k, v in metric(rules)(sums).items()}


def test_overlap_counts_pixels() -> None:
    mask, truth = np.array([[True, True, False]]), np.array([[False, True, True]])
    assert overlap(mask, truth) == (1, 3)


def test_a_mask_that_equals_its_truth_has_an_iou_of_exactly_one() -> None:
    present = np.array([True, True])
    rows = gres_terms(np.array([30, 0]), np.array([30, 0]), present, ~present)
    assert rows[:, 1].tolist() == [1.0, 0.0]  # the second: two empty masks


def test_grefcoco_counts_rejections_and_masks_of_what_is_not_there() -> None:
    wanted = {"gIoU": (0.5 + 0.25 + 1 + 0) / 4, "cIoU": 40 / 120, "N_acc": 0.5, "T_acc": 0.5}
    assert scored("grefcoco") == pytest.approx(wanted)


def test_refzom_leaves_masks_of_what_is_not_there_out_of_ciou() -> None:
    wanted = {"gIoU": (0.5 + 0.25 + 1 + 0) / 4, "cIoU": 40 / 100, "N_acc": 0.5, "T_acc": 0.5}
    assert scored("refzom") == pytest.approx(wanted)


def test_refcoco_takes_every_mask_as_it_is() -> None:
    found = scored("refcoco")
    assert found["gIoU"] == pytest.approx((0.5 + 0.25 + 0 + 0) / 4)
    assert found["cIoU"] == pytest.approx(40 / 145)
    nothing = res(res_terms(np.array([0]), np.array([0])).sum(0))
    assert float(nothing["gIoU"]) == 1.0
    assert np.isnan(nothing["cIoU"])


def test_what_nothing_was_counted_for_is_not_a_number() -> None:
    present, absent = scored("grefcoco", slice(0, 2)), scored("grefcoco", slice(2, 3))
    assert np.isnan(present["N_acc"])
    assert np.isnan([absent["T_acc"], absent["cIoU"]]).all()


def test_unknown_rules_are_refused() -> None:
    with pytest.raises(ValueError, match='"grefcoco", "refzom" or "refcoco", not \'coco\''):
        metric("coco")


def test_the_interval_is_of_95_percent() -> None:
    rng = np.random.default_rng(0)
    rows = np.zeros((200, 8))
    rows[:, 0] = 1
    rows[:, 1] = rng.random(200)
    low, high = bootstrap(rows, np.arange(200), gres, draws=20_000)["gIoU"]
    assert low < rows[:, 1].mean() < high
    error = rows[:, 1].std() / np.sqrt(200)
    for end in (rows[:, 1].mean() - low, high - rows[:, 1].mean()):
        assert end == pytest.approx(1.96 * error, rel=0.02)


def test_expressions_of_one_image_are_drawn_together() -> None:
    """Asked twice, they say no more: the interval stays as wide."""
    rng = np.random.default_rng(0)
    rows = np.zeros((50, 8))
    rows[:, 0] = 1
    rows[:, 1] = rng.random(50)
    images = np.arange(50) * 7 - 100  # any integers
    once = bootstrap(rows, images, gres)
    twice = bootstrap(np.tile(rows, (2, 1)), np.tile(images, 2), gres)
    assert twice["gIoU"] == pytest.approx(once["gIoU"])


def test_as_many_images_are_drawn_as_there_are() -> None:
    """And where few of them have an absent thing, draws without any do not spoil its interval."""
    rows = np.zeros((5, 8))
    rows[:, 0] = 1
    rows[0, 4:6] = 1
    images = bootstrap(rows, np.arange(5), lambda sums: {"n": sums[..., 0]})
    assert images == {"n": (5.0, 5.0)}
    assert bootstrap(rows, np.arange(5), gres)["N_acc"] == (1.0, 1.0)
