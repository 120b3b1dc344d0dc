"""GSVA's losses on numbers worked out by hand."""

from __future__ import annotations

import math

import pytest
import torch

from gsva_ros.model.losses import (
    IGNORE,
    dice_loss,
    gsva_loss,
    place_masks,
    sigmoid_bce_loss,
    token_loss,
)

SURE = 30.0  # a logit whose sigmoid is 1


def test_a_label_is_predicted_at_its_position() -> None:
    logits = torch.zeros(1, 4, 5)
    logits[0, 0, 3] = logits[0, 2, 1] = SURE
    assert float(token_loss(logits, torch.tensor([[3, IGNORE, 1, IGNORE]]))) == pytest.approx(0.0)
    # The mean is over what is learnt, wherever it stands in the batch.
    wrong = token_loss(logits, torch.tensor([[3, 4, IGNORE, IGNORE]]))
    assert float(wrong) == pytest.approx(math.log(5) / 2)


def test_nothing_to_learn_costs_nothing() -> None:
    logits = torch.randn(2, 3, 5, requires_grad=True)
    loss = token_loss(logits, torch.full((2, 3), IGNORE))
    loss.backward()
    assert loss.item() == 0.0
    assert logits.grad is not None
    assert not logits.grad.any()


def test_bce_is_a_mean_over_pixels_and_over_masks() -> None:
    truth = torch.tensor([[[1.0, 0.0]], [[1.0, 1.0]]])
    logits = torch.tensor([[[0.0, 0.0]], [[SURE, SURE]]])
    assert float(sigmoid_bce_loss(logits, truth, 2)) == pytest.approx(math.log(2) / 2)


def test_dice_is_of_each_mask_and_defined_for_empty_ones() -> None:
    """1 - (2 sum(pt) + 0.001) / (sum(p) + sum(t) + 0.001): 1000 times the official 1e-6."""
    truth = torch.tensor([[[1.0, 1.0, 0.0, 0.0]], [[0.0, 0.0, 0.0, 0.0]]])
    logits = torch.tensor([[[SURE, 0.0, 0.0, -SURE]], [[0.0, -SURE, -SURE, -SURE]]])
    first = 1 - (2 * 1.5 + 1e-3) / (2.0 + 2.0 + 1e-3)
    second = 1 - 1e-3 / (0.5 + 1e-3)
    assert float(dice_loss(logits[:1], truth[:1], 1)) == pytest.approx(first)
    assert float(dice_loss(logits[1:], truth[1:], 1)) == pytest.approx(second)
    assert float(dice_loss(logits, truth, 2)) == pytest.approx((first + second) / 2)
    assert float(dice_loss(logits[1:] - SURE, truth[1:], 1)) == pytest.approx(0.0, abs=1e-6)


def test_terms_are_weighted_and_every_mask_of_the_batch_counts_alike() -> None:
    truth = torch.rand(3, 2, 4).round()
    logits = torch.randn(3, 2, 4)
    words, labels = torch.randn(2, 3, 5), torch.tensor([[0, 1, 2], [3, 4, IGNORE]])
    nothing = torch.zeros(0, 2, 4)
    loss = gsva_loss(
        words, labels, [logits[:1], nothing, logits[1:]], [truth[:1], nothing, truth[1:]]
    )
    assert torch.allclose(loss.ce, token_loss(words, labels))
    assert torch.allclose(loss.mask_bce, 2.0 * sigmoid_bce_loss(logits, truth, 3))
    assert torch.allclose(loss.mask_dice, 0.5 * dice_loss(logits, truth, 3))
    assert torch.allclose(loss.mask, loss.mask_bce + loss.mask_dice)
    assert torch.allclose(loss.total, loss.ce + loss.mask)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_masks_take_the_places_of_seg_slots(dtype: torch.dtype) -> None:
    masks = torch.ones(2, 3, 3, dtype=dtype) * torch.tensor([1.0, 2.0])[:, None, None]
    placed = place_masks(masks, torch.tensor([False, True, False, True]))
    assert placed.mean((1, 2)).tolist() == [0.0, 1.0, 0.0, 2.0]
