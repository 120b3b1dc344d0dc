"""Masks carried by optical flow: where the thing goes, and what is said when it cannot be followed."""

from __future__ import annotations

import gc
import weakref

import cv2
import numpy as np
import pytest

from gsva_ros.flow import MEETS, SCENE_CUT, KeyFrame, _check, _turned_round, reduced
from gsva_ros.masks import Region, iou, trimmed
from gsva_ros.tracking import BACKWARDS, DRIFTED, HIDDEN, KEPT, RESIZED, Tracker

SIZE = (240, 320)
STEP = 33_000_000  # nanoseconds


def texture(seed: int, size: tuple[int, int] = (480, 640)) -> np.ndarray:
    """A picture with structure at several scales, uint8 [H, W, 3]."""
    rng = np.random.default_rng(seed)
    whole = np.zeros((*size, 3), np.float32)
    for cells in (8, 24, 80):
        noise = rng.uniform(0, 255, (cells, cells, 3)).astype(np.float32)
        whole += cv2.resize(noise, size[::-1], interpolation=cv2.INTER_CUBIC) / 3
    return whole.clip(0, 255).astype(np.uint8)


GROUND, THING, OTHER = texture(1), texture(2) // 3, texture(3)
#: A picture of the ground alone.
PLAIN = GROUND[: SIZE[0], : SIZE[1]]


def picture(
    x: int, y: int = 90, pan: int = 0, cover: int | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """A disc of radius 30 at (x, y) on a panned ground, a square in front of it; its truth, bool."""
    rgb = GROUND[100 : 100 + SIZE[0], 100 + pan : 100 + pan + SIZE[1]].copy()
    mask = np.zeros(SIZE, np.uint8)
    cv2.circle(mask, (x, y), 30, 1, -1)
    shift = np.float32([[1, 0, x - 60], [0, 1, y - 60]])
    rgb[mask > 0] = cv2.warpAffine(THING[:120, :120], shift, SIZE[::-1])[mask > 0]
    if cover is not None:
        rgb[:, cover : cover + 90] = OTHER[: SIZE[0], : SIZE[1] - cover][:, :90]
        mask[:, cover : cover + 90] = 0
    return rgb, mask > 0


def region(mask: np.ndarray) -> Region:
    found = trimmed(mask)
    assert found is not None
    return found


def block(x0: int, x1: int) -> np.ndarray:
    mask = np.zeros(SIZE, bool)
    mask[40:80, x0:x1] = True
    return mask


def answer(
    tracker: Tracker, stamp: int, rgb: np.ndarray, *masks: np.ndarray, name: str = "look"
) -> None:
    """The model has found these instances in a picture."""
    tracker.answer(name, stamp, rgb, {"disc": [region(mask) for mask in masks]})


def started(x: int = 100) -> Tracker:
    """A tracker with an answer about a picture with the disc at x."""
    tracker = Tracker()
    answer(tracker, 0, *picture(x))
    return tracker


def ids(tracker: Tracker) -> list[int]:
    return [each.id for each in tracker.carried("look")["disc"]]


def only(tracker: Tracker, name: str = "look", key: str = "disc"):
    (found,) = tracker.carried(name)[key]
    return found


def test_regions_together_cover_what_each_covers() -> None:
    whole = np.zeros((40, 50), bool)
    parts = []
    for x, y in ((30, 2), (4, 20), (28, 8)):
        mask = np.zeros_like(whole)
        mask[y : y + 9, x : x + 12] = True
        mask[y, x + 3] = False
        whole |= mask
        parts.append(region(mask))
    union = Region.around(parts)
    assert union.box == (4, 2, 42, 29)
    assert np.array_equal(union.placed((40, 50)), whole)


def test_the_iou_of_two_regions() -> None:
    """The measure of the tests below."""

    def box(x0: int, y0: int, x1: int, y1: int) -> Region:
        return Region((x0, y0, x1, y1), np.ones((y1 - y0, x1 - x0), bool))

    assert iou(box(0, 0, 4, 4), box(0, 0, 4, 4)) == 1.0
    assert iou(box(0, 0, 4, 4), box(2, 1, 6, 5)) == pytest.approx(6 / 26)
    assert iou(box(0, 0, 4, 4), box(4, 0, 8, 4)) == 0.0
    assert iou(box(0, 0, 4, 4), box(0, 5, 4, 9)) == iou(box(0, 5, 4, 9), box(0, 0, 4, 4)) == 0.0
    hole = np.ones((4, 4), bool)
    hole[1:3, 1:3] = False
    assert iou(Region((0, 0, 4, 4), hole), box(1, 1, 3, 3)) == 0.0
    assert iou(Region((0, 0, 4, 4), hole), box(0, 0, 2, 4)) == pytest.approx(6 / 14)


def test_a_mask_follows_its_thing_while_the_camera_moves() -> None:
    tracker = started()
    first = only(tracker)
    assert first.confidence == 1.0
    for number in range(1, 21):
        rgb, truth = picture(100 + 4 * number, 90 + number, pan=-2 * number)
        tracker.observe(number * STEP, rgb)
        found = only(tracker)
        assert found.id == first.id
        assert found.region is not None
        assert iou(found.region, region(truth)) > 0.8, number
        assert 0.5 < found.confidence < 1.0


def test_carrying_beats_leaving_the_mask_where_it_was() -> None:
    """The test above could pass on a thing that hardly moves."""
    _, here = picture(100)
    _, there = picture(180, 110)
    assert iou(region(here), region(there)) < 0.1


def test_a_mask_of_a_full_size_picture_keeps_its_pixels() -> None:
    """The reduced picture is half as large: carried to the same picture, no pixel is lost."""
    rgb = texture(4, (480, 640))
    mask = np.zeros((480, 640), bool)
    mask[201:303, 111:222] = True
    mask[240:250, 150:160] = False
    tracker = Tracker()
    answer(tracker, 0, rgb, mask)
    tracker.observe(STEP, rgb)
    found = only(tracker).region
    assert found is not None
    assert np.array_equal(found.placed(mask.shape), mask)


def test_a_thing_that_leaves_the_picture_is_lost() -> None:
    tracker = started()
    # In the last one it has just gone; of later ones OpenCV's versions see different flow.
    for number in range(1, 24):
        tracker.observe(number * STEP, picture(100 - 6 * number)[0])
        found = only(tracker)
    assert found.region is None
    assert found.lost == HIDDEN


def test_a_thing_that_is_covered_is_lost_and_never_the_cover() -> None:
    tracker = started()
    for number in range(1, 25):
        rgb, truth = picture(100, cover=240 - 8 * number)
        tracker.observe(number * STEP, rgb)
        found = only(tracker)
        if found.region is not None and truth.any():
            assert iou(found.region, region(truth)) > 0.4, number
    assert not truth.any()
    assert found.region is None
    assert found.lost


@pytest.mark.parametrize("colour", [(215, 65, 60), (60, 100, 235), (40, 145, 50)])
def test_a_thing_that_is_taken_from_a_table_as_bright_is_lost(colour: tuple[int, int, int]) -> None:
    """Its colour alone tells it from the table."""
    table = np.clip(texture(4)[: SIZE[0], : SIZE[1]] // 16 + np.array([112, 92, 72]), 0, 255)
    table = table.astype(np.uint8)
    mask = np.zeros(SIZE, bool)
    mask[80:150, 120:190] = True
    there = table.copy()
    there[mask] = texture(5)[: SIZE[0], : SIZE[1]][mask] // 16 + np.array(colour) - 8
    tracker = Tracker()
    answer(tracker, 0, there, mask)
    tracker.observe(STEP, there)
    assert only(tracker).region is not None
    tracker.observe(2 * STEP, table)
    assert only(tracker).region is None


def test_a_new_white_balance_loses_nothing() -> None:
    tracker = started()
    for number in range(1, 16):
        rgb, truth = picture(100)
        gain = np.array([1, 1, 1]) + number / 15 * np.array([0.4, 0.0, -0.3])
        tracker.observe(number * STEP, (rgb * gain).clip(0, 255).astype(np.uint8))
        found = only(tracker)
        assert found.region is not None, number
        assert found.confidence > 0.6
    assert iou(found.region, region(truth)) > 0.95


def test_what_is_lost_stays_lost_until_the_next_answer() -> None:
    """What comes to look like it again may be another thing."""
    tracker = started()
    lost = []
    for number in range(1, 49):  # the cover comes and goes
        rgb, truth = picture(100, cover=48 + 8 * abs(24 - number))
        tracker.observe(number * STEP, rgb)
        lost.append(only(tracker).lost)
    assert truth.sum() > 2000
    first = next(number for number, why in enumerate(lost) if why)
    assert set(lost[first:]) == {lost[first]}
    answer(tracker, 49 * STEP, rgb, truth)
    assert only(tracker).region is not None


def test_a_thing_that_looks_otherwise_is_lost_and_its_confidence_told() -> None:
    """As where it has been exchanged for another; less than a third that looks the same is too little."""
    rgb, mask = picture(100)
    part = np.zeros(SIZE, bool)
    for share, kept in ((0.4, True), (0.8, False)):
        tracker = started()
        part[:] = mask
        part[:, int(70 + 60 * share) :] = False
        other = rgb.copy()
        other[part] = rgb[part] // 2 + 127
        tracker.observe(STEP, other)
        found = only(tracker)
        assert (found.region is not None) == kept
        assert (found.confidence > 0.3) == kept
        assert found.lost == ("" if kept else DRIFTED.format(found.confidence))


def test_a_scene_cut_loses_everything_until_the_next_answer() -> None:
    tracker = started()
    tracker.observe(STEP, picture(104)[0])
    assert not tracker.unrecognised("look")
    cut = texture(10)[:240, :320] // 3
    tracker.observe(2 * STEP, cut)
    assert only(tracker).lost == SCENE_CUT
    assert tracker.unrecognised("look") == SCENE_CUT
    # Nor is it found again by chance: only the model tells what is there.
    tracker.observe(3 * STEP, picture(104)[0])
    assert only(tracker).lost == SCENE_CUT
    answer(tracker, 4 * STEP, *picture(108))
    assert only(tracker).region is not None


def test_pictures_of_another_size_lose_everything_until_the_next_answer() -> None:
    tracker = started()
    small = cv2.resize(picture(104)[0], (160, 120))
    tracker.observe(STEP, small)
    assert only(tracker).lost == RESIZED
    # A late answer about a picture of the old size says nothing about now.
    rgb, mask = picture(102)
    answer(tracker, STEP // 2, rgb, mask)
    assert only(tracker).lost == RESIZED
    half = cv2.resize(mask.astype(np.uint8), (160, 120)) > 0
    answer(tracker, STEP, small, half)
    assert only(tracker).region is not None


def test_what_a_forgotten_answer_left_says_nothing_about_pictures_of_another_size() -> None:
    tracker, (rgb, mask) = started(), picture(102)
    answer(tracker, STEP, rgb, mask, name="forgotten")
    tracker.forget("forgotten")
    tracker.observe(2 * STEP, cv2.resize(rgb, (160, 120)))
    answer(tracker, STEP, rgb, mask)  # a late one, on the same frame
    assert only(tracker).lost == RESIZED


def test_time_that_goes_back_loses_everything_until_the_next_answer() -> None:
    tracker, (rgb, mask) = Tracker(), picture(100)
    answer(tracker, 100 * STEP, rgb, mask)
    tracker.observe(STEP, rgb)
    assert only(tracker).lost == BACKWARDS
    tracker.observe(100 * STEP, rgb)  # the same frame again, as of a recording in a loop
    answer(tracker, 100 * STEP, rgb, mask)
    assert only(tracker).region is not None


def test_a_recording_that_begins_anew_in_another_size_is_followed() -> None:
    """What was seen before, under later stamps, is no step on the way."""
    tracker = Tracker()
    for number in range(100, 110):
        tracker.observe(number * STEP, cv2.resize(picture(100)[0], (200, 300)))
    for number in range(1, 12):
        rgb, truth = picture(100 + 4 * number)
        tracker.observe(number * STEP, rgb)
    answer(tracker, STEP, *picture(104))
    found = only(tracker).region
    assert found is not None
    assert iou(found, region(truth)) > 0.8


def test_pictures_without_stamps_are_never_guessed_about() -> None:
    tracker = started()
    tracker.observe(0, picture(100)[0])  # the same one again
    assert only(tracker).confidence == 1.0
    tracker.observe(0, picture(130)[0])
    assert only(tracker).lost == BACKWARDS
    answer(tracker, 0, *picture(100))
    assert only(tracker).lost == BACKWARDS


@pytest.mark.parametrize("size", [(320, 240), (160, 120)])
def test_another_picture_with_the_stamp_of_an_answer_has_masks_of_its_own(size) -> None:
    """As of a clock that stands still; the tracker has not seen it, when the model answers on it."""
    tracker = started(60)
    other, mask = (cv2.resize(each.astype(np.uint8), size) for each in picture(200))
    answer(tracker, 0, other, mask > 0, name="other")
    assert only(tracker).region is not None
    assert only(tracker, "other").lost == (BACKWARDS if size == (320, 240) else RESIZED)
    tracker.observe(STEP, picture(60)[0])
    assert only(tracker).region is not None
    tracker.observe(STEP, other)  # of all answers, also the one whose stamp another has taken
    assert {only(tracker, name).region for name in ("look", "other")} == {None}


def test_a_pixel_of_a_huge_picture_leaves_a_footprint() -> None:
    """Of what the carried mask is looked for with."""
    tracker, huge = Tracker(), np.zeros((6000, 8000, 3), np.uint8)
    huge[:] = np.arange(8000, dtype=np.uint16)[None, :, None] % 251
    tracker.observe(1, huge)
    tracker.answer("a", 1, huge, {"x": [Region((4000, 3000, 4001, 3001), np.ones((1, 1), bool))]})
    tracker.observe(2, huge)
    (seen,) = tracker.carried("a")["x"]
    assert seen.region is not None, seen.lost


@pytest.mark.parametrize("late", [1, 7, 15, 40])
def test_a_late_answer_is_carried_to_now(late: int) -> None:
    tracker = Tracker()
    for number in range(late + 1):
        rgb, truth = picture(80 + 3 * number)
        tracker.observe(number * STEP, rgb)
    answer(tracker, 0, *picture(80))
    found = only(tracker)
    assert found.region is not None
    assert found.confidence < 1.0
    assert iou(found.region, region(truth)) > 0.8


def test_the_first_late_answer_needs_no_picture_between() -> None:
    tracker = Tracker()
    rgb, truth = picture(120)
    tracker.observe(10 * STEP, rgb)
    answer(tracker, 0, *picture(100))
    found = only(tracker).region
    assert found is not None
    assert iou(found, region(truth)) > 0.8


def test_ids_stay_with_their_things_and_are_never_used_again() -> None:
    tracker = started()
    seen = {only(tracker).id}
    for number in range(1, 4):
        rgb, truth = picture(100 + 5 * number)
        tracker.observe(number * STEP, rgb)
        answer(tracker, number * STEP, rgb, truth)
        assert only(tracker).id in seen
    elsewhere, truth = picture(250)
    for number in range(4, 10):
        answer(tracker, number * STEP, elsewhere, truth)
        new = only(tracker).id
        assert (new in seen) == (number > 4)  # another place, another thing; then the same again
        seen.add(new)
    tracker.answer("look", 10 * STEP, elsewhere, {"disc": []})
    assert tracker.carried("look") == {"disc": []}
    answer(tracker, 11 * STEP, elsewhere, truth)
    assert only(tracker).id not in seen
    answer(tracker, 11 * STEP, elsewhere, truth, name="other")
    assert only(tracker, "other").id not in {*seen, only(tracker).id}


def test_a_late_answer_keeps_the_id_of_what_has_gone_on_meanwhile() -> None:
    """Where the thing is now counts, not where the answer saw it, nor where it was last asked for.

    And no key frame is kept for long.
    """
    tracker = started(60)
    first = only(tracker).id
    kept = [weakref.ref(tracker._groups["look"].key_frame)]
    for number in range(1, 41):
        tracker.observe(number * STEP, picture(60 + 5 * number)[0])
        if number % 8 == 0:
            answer(tracker, (number - 6) * STEP, *picture(60 + 5 * (number - 6)))
            assert only(tracker).id == first
            kept.append(weakref.ref(tracker._groups["look"].key_frame))
    answer(tracker, 20 * STEP, *picture(60 + 5 * 20))
    assert only(tracker).id == first
    gc.collect()
    assert not any(each() for each in kept), "the newest answer's alone is left"


def test_in_an_image_of_another_size_no_instance_has_the_id_of_another() -> None:
    """Of a camera that now leaves out the left 20 columns: one instance is where the other one was."""
    tracker, seen = Tracker(), []
    for cut in (0, 20):
        found = [mask[:, cut:] for mask in (block(40, 60), block(60, 80))]
        answer(tracker, (1 + cut) * STEP, PLAIN[:, cut:], *found)
        seen += ids(tracker)
    assert len(set(seen)) == 4


def test_two_instances_of_one_expression_do_not_swap_ids() -> None:
    tracker, left, right = Tracker(), block(40, 80), block(70, 120)  # they overlap
    answer(tracker, 0, PLAIN, left, right)
    a, b = ids(tracker)
    assert a != b
    answer(tracker, STEP, PLAIN, right, left)
    assert ids(tracker) == [b, a]


def test_of_two_that_lie_on_one_seen_before_the_better_keeps_its_id() -> None:
    tracker = Tracker()
    before, worse, better = block(40, 80), block(56, 96), block(42, 82)
    answer(tracker, 0, PLAIN, before)
    first = only(tracker).id
    for found in ([worse, better], [better, worse]):
        answer(tracker, STEP, PLAIN, *found)
        assert ids(tracker).index(first) == (found[0] is worse)
        assert len(set(ids(tracker))) == 2
        answer(tracker, STEP, PLAIN, before)


def test_what_was_lost_has_its_id_again_where_it_was_last_seen() -> None:
    tracker = started(60)
    first = only(tracker).id
    for number in range(1, 21):
        tracker.observe(number * STEP, picture(60 + 5 * number)[0])
        assert only(tracker).region is not None
    tracker.observe(21 * STEP, texture(10)[:240, :320] // 3)
    assert only(tracker).lost == SCENE_CUT
    answer(tracker, 22 * STEP, *picture(160))
    assert only(tracker).id == first


def test_what_hardly_overlaps_or_answers_another_expression_is_another_instance() -> None:
    tracker = Tracker()
    before, beside = region(block(40, 80)), region(block(64, 104))  # an IoU of a quarter
    tracker.answer("look", 0, PLAIN, {"mug": [before]})
    first = only(tracker, key="mug").id
    tracker.answer("look", STEP, PLAIN, {"mug": [beside], "can": [before]})
    new = {only(tracker, key=key).id for key in ("mug", "can")}
    assert len(new - {first}) == 2


def test_an_answer_can_hold_nothing_and_be_forgotten() -> None:
    tracker = started()
    tracker.answer("nothing", STEP, picture(100)[0], {"absent": []})
    assert tracker.carried("nothing") == {"absent": []}
    assert len(tracker._groups) == 2
    tracker.forget("nothing")
    tracker.forget("never asked")
    assert len(tracker._groups) == 1
    with pytest.raises(KeyError):
        tracker.carried("nothing")


def test_a_single_pixel_and_a_mask_of_the_whole_picture() -> None:
    tracker = Tracker()
    rgb = texture(5)
    dot, whole = np.zeros((480, 640), bool), np.ones((480, 640), bool)
    dot[479, 639] = True
    tracker.answer("look", 0, rgb, {"dot": [region(dot)], "whole": [region(whole)]})
    tracker.observe(STEP, np.roll(rgb, 4, 1))
    found = tracker.carried("look")
    assert found["whole"][0].region is not None
    assert found["dot"][0].region is None  # it went out at the right


# One pixel in three channels is what OpenCV 4.5.4 (Ubuntu 22.04) cannot resize.
@pytest.mark.parametrize("size", [(1, 2), (3, 300), (300, 3), (17, 23), (1080, 1920)])
def test_pictures_of_any_size(size: tuple[int, int]) -> None:
    rgb = cv2.resize(GROUND, size[::-1])
    tracker = Tracker()
    answer(tracker, 0, rgb, np.ones(size, bool))
    tracker.observe(STEP, rgb)
    found = only(tracker).region
    assert found is not None
    assert found.crop.mean() > 0.9


def test_every_pixel_counts_in_a_reduced_picture() -> None:
    """Or fine structure would flicker while the camera moves, and look as if it had changed."""
    rgb = np.zeros((960, 1280, 3), np.uint8)
    rgb[:, 1::4] = rgb[:, 2::4] = 255
    assert {*reduced(rgb).ravel().tolist()} <= {127, 128}


def test_what_passes_the_check_and_what_has_been_uncovered() -> None:
    """In four bands: the flows agree, they do not, nor do the pixels; they lead out of the picture."""
    colour = np.full((240, 320, 3), 100, np.uint8)
    key_frame = KeyFrame(0, colour, SIZE, 0)
    newest = colour.copy()
    newest[120:180] = 200
    key_frame.forth[60:180, :, 0] = 2 * MEETS
    key_frame.back[180:, :, 1], key_frame.forth[180:, :, 1] = 70, -70
    _check(key_frame, newest)
    inner = [slice(10, 50), slice(70, 110), slice(130, 170), slice(190, 230)]
    assert [key_frame.passed[rows].mean() for rows in inner] == [1, 0, 0, 0]
    assert [key_frame.uncovered[rows].mean() for rows in inner] == [0, 0, 255, 0]


def test_a_flow_turned_round_leads_back() -> None:
    """Of what arrives at one place what moves unlike the rest, and like the rest where nothing arrives."""
    flow = np.zeros((*SIZE, 2), np.float32)
    flow[100:140, 100:140, 0] = 16
    assert _turned_round(flow)[120, 120:150, 0] == pytest.approx(-16)
    flow[..., 0] = 80
    assert _turned_round(flow)[..., 0] == pytest.approx(-80)


def test_kept_pictures_do_not_grow_without_end() -> None:
    """And the newest are kept: what is beyond them is reached in longer steps."""
    tracker = started()
    for number in range(1, KEPT + 20):
        x = 100 + max(0, number - KEPT)
        rgb, truth = picture(x)
        tracker.observe(number * STEP, rgb)
    assert len(tracker._pictures) == KEPT
    assert reduced(rgb).shape == (240, 320, 3)
    found = only(tracker).region
    assert found is not None
    assert iou(found, region(truth)) > 0.8
