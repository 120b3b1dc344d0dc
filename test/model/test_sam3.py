"""SAM 3 on a tiny random configuration: the third family answers as the others do."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import CLIPTokenizer, Sam3Config, Sam3Model

import gsva_ros
from gsva_ros import cli
from gsva_ros.answer import ExpressionError, Rejection
from gsva_ros.errors import InputError
from gsva_ros.sam3 import Sam3Engine

SIDE = 56


def tiny_directory(folder: Path) -> Path:
    """A SAM 3 as transformers saves one, and a tokenizer that spells letter by letter."""
    torch.manual_seed(0)
    width = {"hidden_size": 32, "num_attention_heads": 2, "intermediate_size": 48}
    vit = width | {"num_hidden_layers": 2, "image_size": SIDE, "patch_size": 14}
    vit |= {
        "model_type": "sam3_vit_model",
        "window_size": 2,
        "global_attn_indexes": [1],
        "pretrain_image_size": SIDE,
    }
    letters = [chr(c) for c in range(ord("a"), ord("z") + 1)]
    words = ["<|startoftext|>", "<|endoftext|>", *letters, *(f"{c}</w>" for c in letters)]
    text = width | {"num_hidden_layers": 2, "vocab_size": len(words), "projection_dim": 32}
    text |= {"max_position_embeddings": 32, "eos_token_id": 1, "bos_token_id": 0}
    config = Sam3Config(
        vision_config={
            "backbone_config": vit,
            "fpn_hidden_size": 32,
            "backbone_feature_sizes": [[16, 16], [8, 8], [4, 4]],
        },
        text_config=text,
        geometry_encoder_config=width | {"num_layers": 1},
        detr_encoder_config=width | {"num_layers": 1},
        detr_decoder_config=width | {"num_layers": 1, "num_queries": 5},
        mask_decoder_config={"hidden_size": 32, "num_attention_heads": 2},
    )
    Sam3Model(config).save_pretrained(folder)
    (folder / "vocab.json").write_text(json.dumps({w: n for n, w in enumerate(words)}))
    (folder / "merges.txt").write_text("#version: 0.2\n")
    tokenizer = CLIPTokenizer(str(folder / "vocab.json"), str(folder / "merges.txt"))
    tokenizer.save_pretrained(folder)
    preprocessor = {"size": {"height": SIDE, "width": SIDE}}
    preprocessor |= {"image_mean": [0.5] * 3, "image_std": [0.5] * 3}
    (folder / "preprocessor_config.json").write_text(json.dumps(preprocessor))
    return folder


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_directory(tmp_path_factory.mktemp("sam3"))


@pytest.fixture
def rgb() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (40, 60, 3), np.uint8)


def test_it_decides_by_presence_and_draws_all_instances(directory: Path, rgb: np.ndarray) -> None:
    engine = gsva_ros.load(directory)
    assert isinstance(engine, Sam3Engine)
    frame = engine.encode(rgb)
    (slot,) = engine.segment(frame, ["red mug"], threshold=0.0).slots
    assert 0.0 < slot.p_seg < 1.0
    ids = engine._tokenizer("red mug", return_tensors="pt")["input_ids"]
    with torch.inference_mode():
        plain = engine.model(vision_embeds=frame.vision, input_ids=ids)
    presence = float(plain.presence_logits.sigmoid())
    assert slot.p_seg == pytest.approx(presence)
    scores = plain.pred_logits[0].sigmoid() * presence
    masks = torch.nn.functional.interpolate(plain.pred_masks[0][:, None], (40, 60), mode="bilinear")
    union = (masks[scores >= 0.3, 0] > 0).any(0).numpy()
    if union.any():
        assert np.array_equal(slot.mask, union)
    else:
        assert slot.rejection is Rejection.EMPTY_MASK
    (rejected,) = engine.segment(frame, ["red mug"], threshold=1.0).slots
    assert (rejected.rejection, rejected.mask) == (Rejection.MODEL, None)
    (shown,) = engine.segment(frame, ["red mug"], threshold=1.0, mask_rejected=True).slots
    assert shown.rejection is Rejection.MODEL


def test_expressions_do_not_change_each_other(directory: Path, rgb: np.ndarray) -> None:
    engine = gsva_ros.load(directory)
    frame = engine.encode(rgb)
    together = engine.segment(frame, ["red mug", "a can", "box"]).slots
    for slot in together:
        (alone,) = engine.segment(frame, [slot.expression]).slots
        assert alone.p_seg == pytest.approx(slot.p_seg, abs=1e-6)


def test_what_it_cannot_do_is_said(directory: Path, rgb: np.ndarray) -> None:
    engine = gsva_ros.load(directory)
    frame = engine.encode(rgb)
    with pytest.raises(ExpressionError, match="no free requests"):
        engine.ask(frame, "hand me the mug")
    with pytest.raises(InputError, match="one thing at a time"):
        engine.segment(frame, ["a", "b"], joint=True)
    with pytest.raises(ExpressionError) as error:
        engine.segment(frame, ["mug", "", "x" * 50])
    assert set(error.value.faults) == {1, 2}


def test_a_damaged_directory_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "sam3"}')
    with pytest.raises(InputError, match="cannot be loaded as SAM 3"):
        gsva_ros.load(tmp_path)


def test_the_evaluation_runs_on_it(directory: Path, tmp_path: Path) -> None:
    demo = Path(__file__).resolve().parents[2] / "demo"
    out = tmp_path / "out.json"
    command = ["eval", "bag", str(demo / "tabletop"), "--truth", str(demo / "tabletop_truth.json")]
    assert cli.main([*command, "--model", str(directory), "--no-blind", "--out", str(out)]) in (
        0,
        2,
    )
