"""Masks computed where they can be equal those of the whole frame."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from gsva_ros.masks import Region, box_text, iou, mask_box, trimmed
from gsva_ros.model.mask_pixels import enlarger
from gsva_ros.model.sam import SamPreprocessor, postprocess_masks

CPU = torch.device("cpu")


@pytest.mark.parametrize(
    "size", [(480, 640), (640, 480), (37, 500), (64, 64), (1080, 1920), (3, 7)]
)
@pytest.mark.parametrize(("low", "side"), [(64, 256), (48, 192)])
@pytest.mark.parametrize("kind", ["noise", "spot", "zeros", "edge", "all", "none"])
def test_equal_to_the_whole_frame(size: tuple[int, int], low: int, side: int, kind: str) -> None:
    torch.manual_seed(0)
    logits = torch.randn(low, low) if kind == "noise" else torch.full((low, low), -1.0)
    if kind == "zeros":  # as `sure_parts` leaves what is outside
        logits[:] = 0.0
    if kind == "spot":
        logits[5, 9] = 3.0
    elif kind in ("edge", "zeros"):
        logits[0, :] = logits[:, 0] = 2.0
    elif kind == "all":
        logits[:] = 1.0
    resized = SamPreprocessor(side).resized(*size)
    if not all(resized):
        pytest.skip("too thin for the preprocessing, which refuses it")
    golden = postprocess_masks(logits[None], side, resized, size)[0]
    found = enlarger((low, low), side, resized, size, CPU)(logits)
    mask = np.zeros(size, bool)
    if found is not None:
        mask = found.placed(size)
        assert found.crop.any(0)[[0, -1]].all()
        assert found.crop.any(1)[[0, -1]].all()
    sure = (golden.abs().numpy() > 1e-4) | (golden.numpy() == 0)
    assert np.array_equal(mask[sure], (golden > 0).numpy()[sure])
    assert (found is None) == (not mask.any())


def test_a_small_thing_on_a_large_frame_is_all_that_is_computed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    logits = torch.full((64, 64), -1.0)
    logits[30, 30] = 1.0
    enlarge = enlarger((64, 64), 256, (192, 256), (3000, 4000), CPU)
    sizes = []
    product = torch.Tensor.__matmul__

    def counted(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        out = product(a, b)
        sizes.append(out.numel())
        return out

    monkeypatch.setattr(torch.Tensor, "__matmul__", counted)
    assert enlarge(logits) is not None
    assert max(sizes) < 3000 * 4000 / 50


def test_a_crop_lies_where_its_mask_does() -> None:
    mask = np.zeros((6, 8), bool)
    mask[2, 3] = mask[4, 5] = True
    found = trimmed(mask) or pytest.fail("nothing found")
    assert found.box == mask_box(mask) == (3, 2, 6, 5)
    assert np.array_equal(found.placed(mask.shape), mask)
    moved = trimmed(mask, 10, 20) or pytest.fail("nothing found")
    assert moved.box == (13, 22, 16, 25)
    assert np.array_equal(moved.crop, found.crop)
    assert box_text(moved.box) == "box x 13, y 22, width 3, height 3 px"
    mask[:] = True
    assert found.crop.sum() == 2  # it is a copy
    whole = trimmed(mask) or pytest.fail("nothing found")
    assert not np.shares_memory(whole.crop, mask)
    assert trimmed(~mask) is mask_box(~mask) is None


def test_parts_of_a_union_keep_their_places() -> None:
    rng = np.random.default_rng(0)
    for _ in range(30):
        masks = [np.zeros((20, 30), bool) for _ in range(3)]
        for mask in masks:
            y, x = rng.integers(1, 12), rng.integers(1, 20)
            mask[y : y + 7, x : x + 9] = rng.random((7, 9)) < 0.3
        parts = [part for mask in masks if (part := trimmed(mask))]
        found, union = Region.around(parts), np.any(masks, 0)
        assert found.box == mask_box(union)
        assert np.array_equal(found.placed((20, 30)), union)


def test_the_iou_is_that_of_the_whole_masks() -> None:
    """Wherever the two lie: on each other, side by side, or far apart."""
    rng = np.random.default_rng(0)
    for _ in range(300):
        masks = np.zeros((2, 20, 30), bool)
        for mask in masks:
            y, x, height, width = rng.integers((0, 0, 1, 1), (14, 24, 14, 20))
            mask[y : y + height, x : x + width] = (
                rng.random(mask[y:, x:][:height, :width].shape) < 0.7
            )
        parts = [part for mask in masks if (part := trimmed(mask))]
        if len(parts) == 2:
            assert iou(*parts) == pytest.approx(np.all(masks, 0).sum() / np.any(masks, 0).sum())
