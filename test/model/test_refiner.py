"""Masks drawn anew by the frame's pixels: where it looks, what it may change, and what it must not lose."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from tiny import tiny_checkpoint

import gsva_ros
from gsva_ros.engine import Engine
from gsva_ros.model.checkpoint import load_converted, save_pretrained
from gsva_ros.model.config import GSVAConfig
from gsva_ros.model.refiner import (
    LEAST,
    PARTS,
    SIDE,
    Refiner,
    drawn,
    filled,
    stretched,
    window,
    windows,
)
from gsva_ros.model.sam import SamPreprocessor, postprocess_masks

WIDTHS = [4, 6, 8]
CPU = torch.device("cpu")
DATA = Path(__file__).resolve().parents[1] / "data"


def picture(height: int, width: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)


def engine_of(**changes: object) -> Engine:
    return Engine(tiny_checkpoint(refiner=WIDTHS, **changes), "tiny", CPU, "float32")


@pytest.mark.parametrize("size", [(480, 640), (640, 480), (64, 64), (3, 400), (1080, 1920), (1, 1)])
@pytest.mark.parametrize("spot", [(5, 9), (0, 0), (31, 31), (0, 31)])
def test_a_window_holds_its_mask_and_stays_in_the_frame(
    size: tuple[int, int], spot: tuple[int, int]
) -> None:
    logits = torch.full((32, 32), -3.0)
    logits[spot] = 4.0
    found = window(picture(*size), logits, (32, 32))
    assert found
    x0, y0, x1, y1 = found.box
    assert 0 <= x0 < x1 <= size[1]
    assert 0 <= y0 < y1 <= size[0]
    for (first, last), place, length in (
        ((y0, y1), spot[0], size[0]),
        ((x0, x1), spot[1], size[1]),
    ):
        assert first <= max(0, place * length / 32 - LEAST + 1)
        assert last >= min(length, (place + 1) * length / 32 + LEAST - 1)
    assert found.rgb.shape == (SIDE, SIDE, 3)
    assert found.rgb.dtype == np.uint8
    assert found.logits.shape == (SIDE, SIDE)


def test_no_mask_has_no_window() -> None:
    assert window(picture(48, 64), torch.full((32, 32), -1.0), (32, 32)) is None
    assert window(picture(48, 64), torch.zeros(32, 32), (32, 32)) is None
    assert windows(picture(48, 64), torch.zeros(32, 32), (32, 32)) == []


def test_a_window_is_square_with_a_margin_of_a_quarter_and_four_pixels() -> None:
    logits = torch.full((32, 32), -3.0)
    logits[5, 9] = 4.0  # 20 x 15 pixels at (180, 75)
    found = window(picture(480, 640), logits, (32, 32))
    assert found
    half = 20 * (0.5 + 0.25) + 4
    assert found.box == (190 - half, round(82.5 - half), 190 + half, round(82.5 + half))


def test_rows_and_columns_that_a_frame_fills() -> None:
    assert filled(torch.zeros(2, 64, 32), 256, (192, 128)) == (48, 16)


def test_a_mask_goes_on_to_the_frames_edge() -> None:
    found = window(picture(48, 64), torch.full((32, 32), 3.0), (32, 32))
    assert found
    assert found.box == (0, 0, 64, 48)
    assert torch.allclose(found.logits, torch.tensor(3.0))


@pytest.mark.parametrize(("size", "inside"), [((40, 64), (20, 32)), ((64, 40), (32, 20))])
def test_a_mask_in_the_padding_counts_as_one_at_the_frames_edge(
    size: tuple[int, int], inside: tuple[int, int]
) -> None:
    logits = torch.full((32, 32), -3.0)
    logits[30, 30] = 4.0
    (found,) = windows(picture(*size), logits, inside)
    x0, y0, x1, y1 = found.box
    assert 0 <= x0 < x1 == size[1]
    assert 0 <= y0 < y1 == size[0]


def test_of_what_the_decoder_is_sure_the_network_can_still_move_the_edge() -> None:
    refiner = Refiner(WIDTHS).eval()
    with torch.no_grad():
        refiner.last.bias.fill_(-10.0)  # type: ignore[union-attr]
        logits = torch.full((1, SIDE, SIDE), 1000.0)
        assert (refiner(torch.zeros(1, 3, SIDE, SIDE), logits) == -2.0).all()


def test_pictures_shrink_by_area_and_grow_by_interpolation() -> None:
    stripes = np.zeros((4 * SIDE, 4 * SIDE, 3), np.uint8)
    stripes[:, ::4] = 252
    assert (stretched(stripes) == 63).all()
    halves = np.zeros((SIDE // 4, SIDE // 4, 3), np.uint8)
    halves[:, SIDE // 8 :] = 200
    assert len(np.unique(stretched(halves))) > 2


def test_what_the_network_sees_is_scaled_as_it_was_taught() -> None:
    refiner, given = Refiner(WIDTHS).eval(), []
    refiner.first.register_forward_pre_hook(lambda _, inputs: given.append(inputs[0]))
    rgb = torch.tensor([0.0, 0.5, 1.0])[None, :, None, None].expand(1, 3, SIDE, SIDE)
    with torch.inference_mode():
        refiner(rgb, torch.full((1, SIDE, SIDE), 2.0))
    means = given[0].unflatten(1, (5, 4)).mean((0, 2, 3, 4)).tolist()
    assert means == pytest.approx([-2, 0, 2, 2 * np.tanh(1), 2 * np.tanh(0.2)], abs=1e-3)


def test_the_bundled_models_edges_are_nearer_to_the_truth_than_its_decoders() -> None:
    """In the picture's own size and twice as large."""
    engine = gsva_ros.load("gsva-mini", device="cpu")
    rgb = cv2.cvtColor(cv2.imread(str(DATA / "scene.png")), cv2.COLOR_BGR2RGB)
    instances = cv2.imread(str(DATA / "scene_instances.png"), cv2.IMREAD_UNCHANGED)
    refiner, things = engine.model.refiner, {"the red can": 4, "the purple plate": 2}

    def ious(network: Refiner | None) -> np.ndarray:
        engine.model.refiner, found = network, []
        for scale in (1, 2):
            larger = cv2.resize(rgb, None, fx=scale, fy=scale, interpolation=cv2.INTER_CUBIC)
            truth = np.kron(instances, np.ones((scale, scale), np.uint8))
            slots = engine.segment(engine.encode(larger), list(things)).slots
            for slot, number in zip(slots, things.values(), strict=True):
                mask, true = slot.mask, truth == number
                found.append((mask & true).sum() / (mask | true).sum())
        return np.array(found)

    refined, plain = ious(refiner), ious(None)
    assert (plain > 0.9).all()
    assert refined.mean() > plain.mean() + 0.002


@pytest.mark.parametrize(("count", "wanted"), [(1, 1), (2, 2), (PARTS, PARTS), (PARTS + 1, 1)])
def test_parts_that_lie_apart_have_windows_of_their_own(count: int, wanted: int) -> None:
    rgb, logits = picture(480, 640), torch.full((64, 64), -3.0)
    for number in range(count):
        logits[30, 8 * number + 2 : 8 * number + 5] = 3.0
    found = windows(rgb, logits, (64, 64))
    assert len(found) == wanted
    refined, none = Refiner(WIDTHS).eval().refine(rgb, [logits, logits - 9], (64, 64))
    assert none is None
    assert refined
    x0, _, x1, _ = refined.box
    assert x0 <= 25
    assert x1 >= 80 * (count - 1) + 45
    columns = np.any(refined.crop, 0).astype(int)
    assert (np.diff(columns) == 1).sum() == count - 1  # gaps stay


@pytest.mark.parametrize(
    ("size", "squash"), [((480, 640), False), ((360, 270), False), ((480, 640), True)]
)
def test_an_untaught_refiner_leaves_masks_where_the_decoder_drew_them(
    size: tuple[int, int], squash: bool
) -> None:
    """Behind the padding of a frame that is no square, too."""
    torch.manual_seed(0)
    side, grid = 256, 64
    coarse = torch.randn(1, 1, 7, 7)
    logits = 4 * torch.nn.functional.interpolate(coarse, (grid, grid), mode="bicubic")[0, 0]
    resized = (side, side) if squash else SamPreprocessor(side).resized(*size)
    inside = filled(logits[None], side, resized)
    logits[:, round(inside[1]) :] = logits[round(inside[0]) :] = -2.0
    golden = (postprocess_masks(logits[None], side, resized, size)[0] > 0).numpy()
    (found,) = Refiner(WIDTHS).eval().refine(picture(*size), [logits], inside)
    assert found
    mask = found.placed(size)
    assert (mask & golden).sum() / (mask | golden).sum() > 0.97


def test_logits_of_a_window_become_pixels_of_its_box() -> None:
    logits = torch.full((SIDE, SIDE), -1.0)
    logits[: SIDE // 2] = 1.0
    found = drawn(logits, (10, 20, 50, 40))
    assert found
    assert found.box == (10, 20, 50, 30)
    assert found.crop.shape == (10, 40)
    assert found.crop.all()
    assert drawn(torch.full((SIDE, SIDE), -1.0), (10, 20, 50, 40)) is None


def test_masks_that_are_all_empty_stay_so() -> None:
    empty = torch.full((64, 64), -1.0)
    assert Refiner(WIDTHS).refine(picture(60, 80), [empty, empty], (64, 64)) == [None, None]


def test_an_engine_draws_by_the_picture() -> None:
    """What the refiner draws is the mask; of each mask by itself, though they are refined together."""
    engine, rgb = engine_of(), picture(60, 80)
    frame = engine.encode(rgb)
    names = [f"the mug {n}" for n in range(20)]  # more than one pass
    before = engine.segment(frame, names, threshold=0.0)
    assert any(slot.box for slot in before.slots)
    refiner = engine.model.refiner
    assert refiner
    with torch.no_grad():
        refiner.last.weight.normal_(std=3.0)
    together = engine.segment(frame, names, threshold=0.0)
    changed = 0
    for one, old, name in zip(together.slots, before.slots, names, strict=True):
        (alone,) = engine.segment(frame, [name], threshold=0.0).slots
        assert alone.box == one.box
        assert (one.mask is None) == (alone.mask is None)
        assert one.mask is None or (one.mask == alone.mask).all()
        changed += one.box != old.box or not np.array_equal(one.crop, old.crop)  # type: ignore[arg-type]
        assert one.predicted_iou == old.predicted_iou
        assert (one.p_seg, one.rejection) == (old.p_seg, old.rejection)
    assert changed


def test_a_frame_stays_as_it_was_encoded() -> None:
    """A camera's buffer may hold the next picture by the time that a mask is drawn."""
    engine, buffer = engine_of(), picture(60, 80)
    refiner = engine.model.refiner
    assert refiner
    with torch.no_grad():
        refiner.last.weight.normal_(std=3.0)
    frame = engine.encode(buffer)
    (first,) = engine.segment(frame, ["the mug"], threshold=0.0).slots
    buffer[:] = 0
    (second,) = engine.segment(frame, ["the mug"], threshold=0.0).slots
    assert first.mask is not None
    assert second.mask is not None
    assert (first.mask == second.mask).all()
    black = engine.encode(buffer)
    assert black.rgb is not None
    assert not black.rgb.any()


@pytest.mark.parametrize("value", [-1e4, float("nan")])
def test_a_mask_that_the_refiner_loses_stays_the_decoders(value: float) -> None:
    """It says where a thing is, and never whether it is there."""
    engine, names = engine_of(), ["the mug", "the can"]
    frame = engine.encode(picture(60, 80))
    refiner = engine.model.refiner
    assert refiner
    engine.model.refiner = None
    plain = engine.segment(frame, names, threshold=0.0)
    engine.model.refiner = refiner
    with torch.no_grad():
        refiner.last.bias.fill_(value)  # type: ignore[union-attr]
    lost = engine.segment(frame, names, threshold=0.0)
    for one, other in zip(plain.slots, lost.slots, strict=True):
        assert one.box == other.box
        assert one.rejection == other.rejection
        assert np.array_equal(one.crop, other.crop)  # type: ignore[arg-type]


def test_a_model_without_one_keeps_no_picture() -> None:
    engine = Engine(tiny_checkpoint(), "tiny", CPU, "float32")
    assert engine.encode(picture(60, 80)).rgb is None


def test_it_is_saved_and_loaded_with_the_model(tmp_path) -> None:  # type: ignore[no-untyped-def]
    checkpoint = tiny_checkpoint(refiner=WIDTHS)
    refiner = checkpoint.model.refiner
    assert refiner
    with torch.no_grad():
        refiner.last.weight.normal_()
    save_pretrained(checkpoint.model, checkpoint.prompt.tokenizer, tmp_path)
    assert GSVAConfig.load(tmp_path).refiner == WIDTHS
    loaded = load_converted(tmp_path).model.refiner
    assert loaded
    for (name, one), other in zip(
        refiner.state_dict().items(), loaded.state_dict().values(), strict=True
    ):
        assert torch.equal(one, other), name
