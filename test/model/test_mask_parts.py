"""Faint parts of a mask are left out, sure ones stay, however small."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from tiny import tiny_checkpoint

from gsva_ros.engine import Engine
from gsva_ros.model.mask_parts import sure_parts


def _logits() -> torch.Tensor:
    logits = torch.full((32, 32), -4.0)
    logits[4:14, 4:14] = 6.0  # a thing
    logits[20:22, 20:22] = 5.0  # a far one, as sure
    logits[26:31, 4:12] = 0.5  # a speck, larger than the far one
    return logits


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_part_stays_by_how_sure_it_is_and_not_by_its_size(dtype: torch.dtype) -> None:
    given = _logits().to(dtype)
    kept = given.clone()
    kept[26:31, 4:12] = 0
    assert torch.equal(sure_parts(given, 0.3), kept)
    assert torch.equal(given, _logits().to(dtype))  # what was given is as it was
    assert torch.equal(sure_parts(given, 0.05), given)


def test_of_two_parts_the_faint_one_goes_and_one_at_the_limit_stays() -> None:
    logits = torch.full((16, 16), -1.0)
    logits[2:5, 2:5], logits[10:12, 10:12] = 8.0, 2.0
    assert torch.equal(sure_parts(logits, 0.25), logits)
    assert not sure_parts(logits, 0.26)[10:12, 10:12].any()


def test_what_touches_by_a_corner_is_one_part() -> None:
    logits = torch.full((16, 16), -1.0)
    logits[2:5, 2:5], logits[5:7, 5:7], logits[12, 12] = 8.0, 1.0, 1.0
    kept = logits.clone()
    kept[12, 12] = 0
    assert torch.equal(sure_parts(logits, 0.5), kept)


@pytest.mark.parametrize("share", [0.3, 1.0])
def test_a_mask_of_one_part_or_none_stays(share: float) -> None:
    one = torch.full((16, 16), -1.0)
    one[2:9, 2:9] = torch.linspace(0.01, 9, 49).reshape(7, 7)
    none = torch.full((16, 16), -1.0)
    for logits in (one, none, torch.zeros(16, 16)):
        assert torch.equal(sure_parts(logits, share), logits)


def test_an_engine_draws_what_its_configuration_trusts(monkeypatch: pytest.MonkeyPatch) -> None:
    rgb = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    found = {}
    for share in (0.0, 0.3):
        checkpoint = tiny_checkpoint()
        checkpoint.model.config.part_confidence = share
        engine = Engine(checkpoint, "tiny", torch.device("cpu"), "float32")
        monkeypatch.setattr(
            engine.model,
            "decode_masks",
            lambda embeddings, prompts: (_logits()[None], torch.ones(1)),
        )
        (slot,) = engine.segment(engine.encode(rgb), ["the mug"], threshold=0.0).slots
        assert slot.mask is not None
        found[share] = slot.mask
    assert not found[0.3][50:].any()  # the speck's rows
    assert found[0.0][50:].any()
    assert (found[0.3][:48] == found[0.0][:48]).all()
    assert found[0.3][38:46].any()  # the far thing


def test_the_refiner_brings_no_faint_part_back(monkeypatch: pytest.MonkeyPatch) -> None:
    checkpoint = tiny_checkpoint(refiner=[4, 6, 8])
    checkpoint.model.config.part_confidence = 0.3
    engine = Engine(checkpoint, "tiny", torch.device("cpu"), "float32")
    monkeypatch.setattr(
        engine.model, "decode_masks", lambda embeddings, prompts: (_logits()[None], torch.ones(1))
    )
    frame = engine.encode(np.zeros((64, 64, 3), np.uint8))
    (slot,) = engine.segment(frame, ["the mug"], threshold=0.0).slots
    assert slot.mask is not None
    assert slot.mask[8:28, 8:28].all()
    assert not slot.mask[50:].any()
