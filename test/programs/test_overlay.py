"""Answers on pictures: things stay as they look, words cover neither things nor each other."""

from __future__ import annotations

import base64
from dataclasses import replace

import cv2
import numpy as np
import pytest
from contrast import luminance

from gsva_ros.answer import Rejection, Slot
from gsva_ros.masks import Region
from gsva_ros.overlay import (
    COLOURS,
    Target,
    colour_of,
    draw,
    fitted,
    jpeg_text,
    label_image,
    labels,
    poster,
)
from gsva_ros.overlay.labels import LINES, placed_labels
from gsva_ros.overlay.marks import marked


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The words that are drawn; they are not drawn in fact."""
    words: list[str] = []
    monkeypatch.setattr(cv2, "putText", lambda *a: words.append(a[1]))
    return words


def noise(height: int = 240, width: int = 320, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(40, 200, (height, width, 3), np.uint8)


def disc(x: int, y: int, radius: int, shape: tuple[int, int] = (240, 320)) -> np.ndarray:
    mask = np.zeros(shape, np.uint8)
    cv2.circle(mask, (x, y), radius, 1, -1)
    return mask > 0


def scattered(seed: int) -> list[Target]:
    """Up to eight things and three rejections in a small picture."""
    rng = np.random.default_rng(seed)
    targets = []
    for slot in range(int(rng.integers(1, 9))):
        x, y, radius = int(rng.integers(320)), int(rng.integers(240)), int(rng.integers(4, 40))
        words = "the " + " ".join(["red", "large", "nearest", "can"][: int(rng.integers(1, 5))])
        targets.append(Target(slot, words, disc(x, y, radius), 0.9))
    for slot in range(len(targets), len(targets) + int(rng.integers(4))):
        targets.append(Target(slot, "the apple", None, 0.1))
    return targets


@pytest.mark.parametrize("seed", range(12))
def test_labels_cover_neither_things_nor_each_other(seed: int) -> None:
    targets = scattered(seed)
    placed = placed_labels((240, 320), targets)
    cover = np.zeros((240, 320), int)
    for each in placed:
        label = each.label
        inside = np.s_[each.y : each.y + label.height, each.x : each.x + label.width]
        assert cover[inside].size == label.width * label.height, "inside the picture"
        cover[inside] += 1
        if each.free:
            assert not any(t.mask[inside].any() for t in targets if t.mask is not None)
    assert cover.max() == 1


def test_every_label_of_a_usual_picture_has_a_place() -> None:
    spots = ((60, 60), (160, 60), (260, 60), (60, 160), (160, 160), (260, 160))
    things = [Target(i, f"the mug number {i}", disc(*at, 22), 0.9) for i, at in enumerate(spots)]
    placed = placed_labels((240, 320), [*things, Target(6, "the apple", None, 0.1)])
    assert len(placed) == 7
    assert all(each.free for each in placed)


def test_a_mask_is_bool() -> None:
    """Numbers would choose rows of the picture."""
    Target(0, "the plate", None, 0.1)
    with pytest.raises(TypeError, match="'the plate' holds uint8, not bool"):
        Target(0, "the plate", disc(160, 120, 50).astype(np.uint8), 0.9)


def test_a_thing_keeps_its_own_colour() -> None:
    rgb, mask = noise(), disc(160, 120, 50)
    tinted = draw(rgb, [Target(1, "the plate", mask, 0.9)]).astype(float)
    tint = tinted[mask].mean(0) - rgb[mask].mean(0)
    assert np.abs(tint).max() < 40
    assert np.abs(tint).max() > 4, "and yet it is marked"
    plain = draw(rgb, [Target(1, "the plate", mask, 0.9)], opacity=0.0)
    assert (plain[mask] == rgb[mask]).all(), "outline and label lie outside of it"


def test_expressions_on_one_thing_are_told_apart() -> None:
    rgb, mask = noise(), disc(160, 120, 50)
    targets = [Target(slot, f"name {slot}", mask, 0.9) for slot in range(3)]
    picture = draw(rgb, targets, opacity=1.0)
    for slot in range(3):
        inside = (picture[mask] == colour_of(slot)).all(1).mean()
        assert inside == pytest.approx(1 / 3, abs=0.08)
        ring = disc(160, 120, 56) & ~mask
        assert (picture[ring] == colour_of(slot)).all(1).sum() > 200
    assert [each.label.lines for each in placed_labels((240, 320), targets)] == [
        (f"name {slot}",) for slot in range(3)
    ]


def test_fourteen_expressions_have_colours_of_their_own() -> None:
    """Each pair differs by more than 15 in CIELAB, of which 2 are just noticeable."""
    rgb = np.array([[colour_of(slot) for slot in range(14)]], np.float32) / 255
    (lab,) = cv2.cvtColor(rgb, cv2.COLOR_RGB2LAB)
    apart = np.linalg.norm(lab[:, None] - lab[None], axis=2)
    assert (apart + 100 * np.eye(14)).min() > 15


@pytest.mark.parametrize(("scale", "line"), [(1, 1), (3, 3)])
def test_outlines_are_nested_and_closed(scale: int, line: int) -> None:
    """On every side of two expressions' object, one line beside the other, in a large picture too."""
    shape = (240 * scale, 320 * scale)
    mask = np.zeros(shape, bool)
    top, bottom, left, right = 60 * scale, 90 * scale, 100 * scale, 160 * scale
    mask[top:bottom, left:right] = True
    picture = marked(noise(*shape), [Target(0, "a", mask, 0.9), Target(1, "b", mask, 0.9)], 0.0)
    for slot, near, far in ((0, 0, line), (1, line, 2 * line)):
        for side in (
            picture[top - far : top - near, left:right],
            picture[bottom + near : bottom + far, left:right],
            picture[top:bottom, left - far : left - near],
            picture[top:bottom, right + near : right + far],
        ):
            assert side.size
            assert (side == colour_of(slot)).all()


def test_outlines_are_nested_on_a_small_thing_of_a_large_one_and_not_where_two_touch() -> None:
    """Shared is what is shared of the smaller one, from 5 % on."""
    plate, knob, beside = (np.zeros((240, 320), bool) for _ in range(3))
    plate[60:160, 60:160] = knob[100:110, 100:110] = beside[60:160, 159:259] = True
    masks = (plate, knob, beside)
    rgb = noise()
    picture = marked(rgb, [Target(n, "a", mask, 0.9) for n, mask in enumerate(masks)], 0.0)
    assert (picture[98, 100:110] == colour_of(1)).all(), "outside the plate's line"
    assert not (picture[99, 100:110] == colour_of(1)).all(1).any()
    assert (picture[59, 170:250] == colour_of(2)).all(), "right at the thing"


def test_a_line_leads_from_a_label_to_its_object() -> None:
    ring = disc(160, 120, 100) & ~disc(160, 120, 20)
    rgb = noise()
    targets = [Target(0, "the mug", disc(160, 120, 10), 0.9), Target(1, "the plate", ring, 0.9)]
    labelled = placed_labels((240, 320), targets)[0]
    assert labelled.free
    assert not ring[labelled.area].any()
    crossing = (draw(rgb, targets, opacity=0.0) != rgb).any(2) & ring
    assert crossing.sum() > 80, "over the plate, of which nothing else is drawn on"


@pytest.mark.parametrize("y", [20, 220])
def test_a_label_is_near_the_largest_part_of_its_object(y: int) -> None:
    mask = disc(20, y, 3) | disc(250, 120, 30)
    (placed,) = placed_labels((240, 320), [Target(0, "the mug", mask, 0.9)])
    assert disc(250, 120, 45)[placed.area].any()


def test_a_long_label_is_cut_to_a_line_where_there_is_room_for_no_more() -> None:
    mask = np.ones((240, 320), bool)
    mask[:26] = False
    words = "the large table on the left of the window in the kitchen"
    (placed,) = placed_labels((240, 320), [Target(0, words, mask, 0.9)])
    assert placed.free
    assert len(placed.label.lines) == 1
    assert placed.label.lines[0].endswith(" ...")


def test_later_labels_cover_neither_earlier_ones_nor_their_things() -> None:
    can = Target(0, "the can", disc(160, 115, 15), 0.9)
    mug = Target(1, "the mug", disc(160, 150, 15), 0.9)
    before = placed_labels((240, 320), [can])
    for target in (mug, replace(can, slot=2)):
        (placed,) = placed_labels((240, 320), [target], before=before)
        assert not can.mask[placed.area].any()
        covered = np.zeros((240, 320), bool)
        covered[placed.area] = True
        assert not covered[before[0].area].any()


def test_words_lie_where_they_do_in_whatever_order_things_were_asked_for() -> None:
    rgb = noise()
    thing = Target(0, "the mug", disc(12, 230, 6), 0.9)
    absent = Target(1, "the apple", None, 0.1)
    assert np.array_equal(draw(rgb, [absent, thing]), draw(rgb, [thing, absent]))


@pytest.mark.parametrize(("x", "y"), [(160, 120), (90, 180), (230, 100)])
def test_a_label_is_above_its_object_and_centred(x: int, y: int) -> None:
    mask = np.zeros((240, 320), bool)
    mask[y - 20 : y + 20, x - 50 : x + 50] = True
    (placed,) = placed_labels((240, 320), [Target(0, "the mug", mask, 0.9)])
    assert placed.free
    assert placed.x + placed.label.width / 2 == pytest.approx(x, abs=2)
    assert 0 <= y - 20 - (placed.y + placed.label.height) <= 6


def test_a_long_label_has_three_lines_that_leave_room_beside_them() -> None:
    words = " ".join(f"word{n}" for n in range(60))
    (placed,) = placed_labels((240, 320), [Target(0, words, disc(160, 120, 20), 0.9)])
    label = placed.label
    assert len(label.lines) == LINES == 3
    assert label.lines[-1].endswith(" ...")
    assert 0.4 * 320 < label.width < 0.7 * 320


def test_a_label_without_room_above_is_beside_its_object() -> None:
    (placed,) = placed_labels((240, 320), [Target(0, "the mug", disc(160, 20, 20), 0.9)])
    assert placed.free
    label = placed.label
    near = disc(160, 20, 30)[placed.y : placed.y + label.height, placed.x : placed.x + label.width]
    assert near.any()


def test_a_picture_in_which_nothing_was_found_is_darkened() -> None:
    rgb = noise()
    dark = draw(rgb, [Target(0, "the apple", None, 0.1), Target(1, "the can", None, 0.2)])
    assert np.array_equal(dark[:100], rgb[:100] // 2)


@pytest.mark.parametrize("size", [(240, 320), (100, 240)])
def test_a_mask_of_the_whole_picture_has_an_outline(size: tuple[int, int]) -> None:
    whole = draw(noise(*size), [Target(0, "the table", np.ones(size, bool), 0.9)], opacity=0.0)
    assert (whole[0, :] == COLOURS[0]).all(1).mean() > 0.5


@pytest.mark.parametrize("size", [(1000, 10), (100, 1), (3000, 300)])
def test_a_slit_is_not_enlarged_without_end(size: tuple[int, int]) -> None:
    picture = poster(np.zeros((*size, 3), np.uint8), [Target(0, "mug", None, 0.9)])
    assert picture.shape[0] < max(size[0], 2000) + 100
    assert picture.shape[1] >= 480


def test_no_word_of_a_poster_covers_a_thing() -> None:
    rgb = noise(480, 640)
    mask = np.ones((480, 640), bool)
    mask[:2] = False
    targets = [Target(0, "the table", mask, 0.9), Target(1, "the apple", None, 0.1)]
    picture = poster(rgb, targets, opacity=0.0)
    assert picture.shape[0] > 480
    assert picture.shape[1] == 640
    inside = cv2.erode(np.pad(mask, 1).astype(np.uint8), np.ones((9, 9)))[1:-1, 1:-1] > 0
    assert (picture[:480][inside] == rgb[inside]).all()
    assert (picture[480:] == COLOURS[0]).all(2).any(), "its label stands below"


@pytest.mark.parametrize("words", ["w" * 90, "the yellow plate on the left of the box"])
def test_the_lines_below_a_poster_use_its_width_and_no_more(words: str) -> None:
    plain = np.zeros((480, 640, 3), np.uint8)
    strip = poster(plain, [Target(0, words, None, 0.03)])[480:]
    (columns,) = np.nonzero((strip != strip[0, 0]).any((0, 2)))
    assert 0.75 * 640 < columns.max() < 640 - 3, "of the longest line; and nothing is cut off"


def test_labels_on_a_table_that_fills_the_picture_hide_nothing_on_it() -> None:
    """From above, every label is on the table; each is still beside the small things, and near its own."""
    shape, spots = (480, 640), ((80, 20, 10), (320, 240, 12), (560, 14, 10))
    table = Target(0, "the table", np.ones(shape, bool), 0.9)
    things = [Target(n, f"the bolt {n}", disc(*at, shape), 0.9) for n, at in enumerate(spots, 1)]
    placed = placed_labels(shape, [table, *things])
    assert [each.target.slot for each in placed] == [0, 1, 2, 3]
    for each in placed:
        for thing in things:
            assert thing.mask is not None
            assert not thing.mask[each.area].any()
    for each, (x, y, _) in zip(placed[1:], spots, strict=True):
        assert disc(x, y, 30, shape)[each.area].any()


def test_a_hundred_labels_sum_the_image_once_each(monkeypatch: pytest.MonkeyPatch) -> None:
    """Sums of whole images are what takes time where there are many labels."""
    summed, integral = [], cv2.integral
    monkeypatch.setattr(cv2, "integral", lambda *a: summed.append(a) or integral(*a))
    spots = [(x, y) for y in range(24, 480, 48) for x in range(32, 640, 64)]
    targets = [
        Target(n, f"the red screw number {n}", disc(*at, 12, (480, 640)), 0.9)
        for n, at in enumerate(spots)
    ]
    placed = placed_labels((480, 640), targets)
    assert not all(each.free for each in placed)
    assert len(summed) == 1 + len(targets) == 101


def test_a_large_image_has_no_more_places_for_labels_than_a_small_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Its labels are as much larger; at each of its pixels, thirty of them would take seconds."""
    tried, inside = [], labels._inside
    monkeypatch.setattr(labels, "_inside", lambda *a: tried.append(inside(*a)) or tried[-1])
    shape = (2160, 3840)
    crowded = [Target(0, "the table", np.ones(shape, bool), 0.9)]
    (placed,) = placed_labels(shape, crowded)
    assert not placed.free
    assert 10_000 < max(each.size for each in tried) < 960 * 1706


def test_words_that_the_font_lacks_are_told_apart(drawn: list[str]) -> None:
    words = ["赤いボウル", "الكوب", "Café – l’été “Größe”", "the mug ☕", "苹果"]
    masks = [disc(60 + 120 * n, 200, 20, (480, 640)) for n in range(4)]
    poster(
        noise(480, 640),
        [*map(Target, range(4), words, masks, [0.9] * 4), Target(4, words[4], None, 0.1)],
    )
    told = ["no. 1", "no. 2", 'Cafe - l\'ete "Grosse"', "the mug ?", "not here: no. 5 (90%)"]
    assert drawn == told


def test_objects_whose_labels_stand_below_have_numbers(drawn: list[str]) -> None:
    """With more objects than colours, one of these is that of several."""
    spots = [(x, y) for y in (60, 180, 300, 420) for x in (60, 180, 300, 420, 540)]
    targets = [
        Target(slot, f"the object called {slot}", disc(*at, 55, (480, 640)), 0.9)
        for slot, at in enumerate(spots)
    ]
    targets.append(Target(20, "the apple", None, 0.1))
    poster(noise(480, 640), targets)
    below = [text for text in drawn if ": " in text]
    numbers = [text.partition(": ")[0] for text in below[:-1]]
    assert below[-1] == "not here: the apple (90%)"
    assert len(numbers) > 1
    assert sorted(text for text in drawn if text.isdigit()) == sorted(numbers)
    assert len(drawn) == 21 + len(numbers), "each label once, and numbers also at their objects"


@pytest.mark.parametrize("others", [(), ("the red washers",)])
def test_an_expression_of_many_instances_is_listed_once(
    others: tuple[str, ...], drawn: list[str]
) -> None:
    """Otherwise they would crowd out the rejections."""
    spots = [(x, y) for y in range(30, 480, 85) for x in range(20, 640, 100)]
    words = ["all the small silver screws that lie on the table", *others]
    targets = [
        Target(n % len(words), words[n % len(words)], disc(*at, 38, (480, 640)), 0.9)
        for n, at in enumerate(spots)
    ]
    targets.append(Target(len(words), "the hammer", None, 0.1))
    poster(noise(480, 640), targets)
    below = [text for text in drawn if not text.isdigit()]
    numbered = [f"{n}: {each}" for n, each in enumerate(words, 1)]
    assert below == [*(numbered if others else words), "not here: the hammer (90%)"]
    assert len(drawn) > len(spots) // 2 if others else drawn == below


def test_hundreds_of_rejections_leave_the_image_its_place(drawn: list[str]) -> None:
    picture = poster(noise(480, 640), [Target(n, "the apple", None, 0.1) for n in range(300)])
    assert picture.shape[0] < 3 * 480
    assert drawn[-1] == "and 276 more"
    assert len(drawn) == 25


def test_a_rejection_is_told_in_words_within_the_picture() -> None:
    rgb = noise()
    picture = draw(rgb, [Target(0, "the apple", None, 0.1), Target(1, "a", disc(99, 9, 5), 0.9)])
    changed = (picture != rgb).any(2)
    assert picture.shape == rgb.shape
    assert changed[200:, :160].sum() > 500, "in the lower left"
    assert not changed[100:180].any(), "and the picture is not darkened"


@pytest.mark.parametrize("text", ["", "ü" * 400, "word " * 200, "line\nbreak", "\0"])
# One pixel in three channels is what OpenCV 4.5.4 (Ubuntu 22.04) cannot resize.
@pytest.mark.parametrize("shape", [(1, 2), (8, 300), (300, 8), (60, 80)])
def test_any_words_on_any_picture(text: str, shape: tuple[int, int]) -> None:
    rgb = noise(*shape)
    some = np.zeros(shape, bool)
    some[:1, :1] = True
    targets = [
        Target(0, text, some, 0.5),
        Target(1, text, np.zeros(shape, bool), 0.5),
        Target(9, text, None, 0.5),
    ]
    assert draw(rgb, targets).shape == rgb.shape
    large = poster(rgb, targets)
    assert large.shape[1] >= 480


@pytest.mark.parametrize("height", [480, 1080, 3000])
def test_letters_are_as_thick_as_they_are_large(
    height: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """OpenCV before version 5 draws lines: hairlines vanish when a large image is displayed."""
    shape = height, height * 4 // 3
    mug = Target(0, "a mug", disc(height // 2, height // 2, height // 8, shape), 0.9)
    picture = draw(np.full((*shape, 3), 120, np.uint8), [mug])
    shown = cv2.resize(picture, (320, 240), interpolation=cv2.INTER_AREA)
    assert (shown[..., 0] > 180).sum() > 20, "white letters are white"
    drawn = []
    monkeypatch.setattr(labels, "DRAWN_AS_LINES", True)
    monkeypatch.setattr(cv2, "putText", lambda *a: drawn.append((a[4], a[6])))
    draw(picture, [mug])
    ((scale, thickness),) = drawn
    assert 2.0 * scale <= thickness < 2.0 * scale + 1


@pytest.mark.parametrize("shape", [(480, 640), (720, 1280), (375, 1242), (720, 2560), (640, 480)])
def test_letters_are_legible_in_an_image_of_any_proportions(shape: tuple[int, int]) -> None:
    """At least 5 pixels high when it is displayed 320 wide."""
    (placed,) = placed_labels(shape, [Target(0, "a mug", disc(99, 99, 9, shape), 0.9)])
    capital, _ = cv2.getTextSize("H", labels.FONT, placed.label.scale, 1)
    assert capital[1] * 320 / shape[1] > 5


@pytest.mark.parametrize("slot", range(len(COLOURS)))
def test_every_label_has_contrast(slot: int) -> None:
    """At least 4.5 to 1 (WCAG AA)."""
    ((label,), (rejected,)) = (
        [p.label for p in placed_labels((240, 320), [Target(slot, "a mug", mask, 0.5)])]
        for mask in (disc(99, 99, 9), None)
    )
    for each in (label, rejected):
        low, high = sorted(luminance(f"rgb{colour}") for colour in (each.ground, each.ink))
        assert (high + 0.05) / (low + 0.05) >= 4.5


def test_a_rejected_slots_mask_is_not_drawn() -> None:
    """An engine draws it all the same if it is asked to (`mask_rejected`)."""
    region = Region((1, 0, 3, 2), np.ones((2, 2), bool))
    kept = Slot("the mug", 0.9, None, (4, 4), region, 0.8)
    rejected = replace(kept, p_seg=0.2, rejection=Rejection.MODEL)
    shown, told = Target.of(0, kept), Target.of(1, rejected)
    assert (shown.slot, shown.expression, shown.p_seg) == (0, "the mug", 0.9)
    assert np.array_equal(shown.mask, kept.mask)
    assert (told.slot, told.p_seg, told.mask) == (1, 0.2, None)


def test_a_large_image_is_shrunk_and_no_mask_is_lost() -> None:
    mask = np.zeros((3000, 4000), bool)
    mask[1234, 2345] = True
    targets = [Target(0, "a speck", mask, 0.9), Target(1, "the apple", None, 0.1)]
    rgb, (speck, apple) = fitted(np.zeros((3000, 4000, 3), np.uint8), targets, 1600)
    assert rgb.shape == (1200, 1600, 3)
    assert speck.mask is not None
    assert speck.mask.shape == (1200, 1600)
    assert speck.mask.any()
    assert apple == targets[1]
    assert fitted(rgb, [], 1600)[0] is rgb
    assert fitted(np.zeros((4000, 1, 3), np.uint8), [], 1600)[0].shape == (1600, 1, 3)


def test_a_page_shows_the_colours_of_the_image() -> None:
    """And a lower quality is a smaller file."""
    rgb = np.full((32, 32, 3), (200, 100, 30), np.uint8)
    data = np.frombuffer(base64.b64decode(jpeg_text(rgb)), np.uint8)
    shown = cv2.cvtColor(cv2.imdecode(data, cv2.IMREAD_COLOR), cv2.COLOR_BGR2RGB)
    assert np.abs(shown.astype(int) - rgb).max() <= 3
    assert len(jpeg_text(noise(), 30)) < len(jpeg_text(noise())) / 2


def test_nothing_to_draw() -> None:
    rgb = noise()
    assert (draw(rgb, []) == rgb).all()


def test_label_image_shows_the_later_slot() -> None:
    first, second = disc(100, 100, 20), disc(110, 100, 20)
    labels = label_image((240, 320), [Target(0, "a", first, 1.0), Target(4, "b", second, 1.0)])
    assert (labels[second] == 5).all()
    assert (labels[first & ~second] == 1).all()
    assert labels.dtype == np.uint16
