"""Agreement with the official GSVA implementation on every tensor of its recorded runs.

GSVA_GOLDEN names the folder (default: ../shared/golden/official_tiny beside this repository). The
runs use a seeded tiny model with random weights. Nothing here knows the folder's sizes or its
conversation type.
"""

from __future__ import annotations

import json
import os
import re
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from golden import OFFICIAL as GOLDEN
from golden import needs
from safetensors.torch import load_file

from gsva_ros import cli
from gsva_ros.engine import Engine
from gsva_ros.eval.metrics import gres, gres_terms, overlap, res, res_terms
from gsva_ros.eval.paper import paper_slots
from gsva_ros.eval.run import pixels_of
from gsva_ros.model.checkpoint import Checkpoint, load_converted, load_official
from gsva_ros.model.clip import ClipPreprocessor
from gsva_ros.model.official import official_pass
from gsva_ros.model.sam import SamPreprocessor
from gsva_ros.model.tokenizer import Part, Special
from gsva_ros.truth import Referring

TOLERANCE = 1e-4
RUNS = {"cases": "gsva_*[!a].bin", "cases_lora": "gsva_*_lora.bin"}  # state dicts, as patterns
FOUND = [name for name in RUNS if (GOLDEN / f"{name}.json").exists()]
METRICS = GOLDEN / "metrics.json"

pytestmark = needs(GOLDEN)


class Run(NamedTuple):
    """One recorded run, and our model with its weights."""

    name: str
    data: dict[str, Any]
    tensors: dict[str, torch.Tensor]
    checkpoint: Checkpoint


def only(pattern: str) -> Path:
    """The one file or folder of this name in the golden folder."""
    found = sorted(GOLDEN.glob(pattern))
    assert len(found) == 1, f"{GOLDEN} holds {len(found)} of {pattern}, not one"
    return found[0]


@cache
def load_run(name: str) -> Run:
    data = json.loads((GOLDEN / f"{name}.json").read_text())
    checkpoint = load_official(
        GOLDEN / "llava",
        only(RUNS[name]),
        vision_tower=only("clip*"),
        sam=json.loads(only("sam_*.json").read_text()),
        conversation=data["conv_type"],
        lora_alpha=data["lora_alpha"],
    )
    return Run(name, data, load_file(GOLDEN / f"{name}.safetensors"), checkpoint)


@pytest.fixture(params=FOUND)
def run(request: pytest.FixtureRequest) -> Run:
    return load_run(request.param)


def close(
    name: str, ours: torch.Tensor, golden: torch.Tensor, tolerance: float = TOLERANCE
) -> None:
    assert ours.shape == golden.shape, f"{name}: {tuple(ours.shape)}, not {tuple(golden.shape)}"
    off = (ours.double() - golden.double()).abs().max().item() if golden.numel() else 0.0
    assert off <= tolerance, f"{name}: off by {off:.3g}"  # NaN fails too
    if os.environ.get("GSVA_PARITY_REPORT"):
        print(f"{name}: {off:.2e}")


def parts(text: str) -> list[Part]:
    """Text of the official code, which spells special tokens out, as typed parts."""
    spelling = {s.value: s for s in Special}
    pieces = re.split("(" + "|".join(map(re.escape, spelling)) + ")", text)
    return [spelling.get(piece, piece) for piece in pieces if piece]


def test_golden_folder_is_complete() -> None:
    assert FOUND or METRICS.exists(), f"{GOLDEN} holds none of {[*RUNS, 'metrics']} as .json"


def test_special_token_ids(run: Run) -> None:
    config = run.checkpoint.model.config
    assert config.seg_token_id == run.data["seg_token_idx"]
    assert config.rej_token_id == run.data["rej_token_idx"]


def test_tokenization(run: Run) -> None:
    tokenizer = run.checkpoint.prompt.tokenizer
    assert run.data["tokenization"]
    for case in run.data["tokenization"]:
        assert tokenizer.encode([Special.BOS, *parts(case["text"])]) == case["ids"], case["text"]


def test_prompts(run: Run) -> None:
    prompt = run.checkpoint.prompt
    assert run.data["cases"]
    for i, case in enumerate(run.data["cases"]):
        turn = prompt.segment_turn(case["expressions"], [not p for p in case["present"]])
        ids = torch.tensor([prompt.full(turn)])
        assert torch.equal(ids, run.tensors[f"case{i}.input_ids"]), case["prompt"]
        before = ids.shape[1] - len(turn.ids)
        labels = torch.tensor([[-100] * before + turn.ids])
        labels[:, : before + turn.answers[0][0]] = -100
        assert torch.equal(labels, run.tensors[f"case{i}.labels"])


def test_training_prompts(run: Run) -> None:
    encode = run.checkpoint.prompt.tokenizer.encode
    rows = [encode([Special.BOS, *parts(text)]) for text in run.data["train_prompts"]]
    golden, masks = run.tensors["train.input_ids"], run.tensors["train.attention_masks"]
    assert len(rows) == len(golden)
    for row, ids, mask in zip(rows, golden, masks, strict=True):
        assert row == ids[mask].tolist()


def test_preprocessing(run: Run) -> None:
    config = run.checkpoint.model.config
    clip, sam = ClipPreprocessor(config.preprocessor), SamPreprocessor(config.sam.image_size)
    for i, case in enumerate(run.data["cases"]):
        image = run.tensors[f"case{i}.image"].numpy()
        assert list(image.shape[:2]) == case["original"]
        assert list(sam.resized(*image.shape[:2])) == case["resize"]
        close(f"case{i} clip input", clip(image)[None], run.tensors[f"case{i}.images_clip"])
        close(f"case{i} sam input", sam(image)[None], run.tensors[f"case{i}.images"])
    for i, resize in enumerate(run.data["train_resize"]):
        image = run.tensors[f"train.image{i}"].numpy()
        assert list(sam.resized(*image.shape[:2])) == resize
        close(f"train{i} clip input", clip(image), run.tensors["train.images_clip"][i])
        close(f"train{i} sam input", sam(image), run.tensors["train.images"][i])


def test_cases(run: Run) -> None:
    model, tensors = run.checkpoint.model, run.tensors
    for i, case in enumerate(run.data["cases"]):
        with torch.inference_mode():
            image_tokens = model.project(model.encode_clip(tensors[f"case{i}.images_clip"]))
            image_embeddings = model.encode_sam(tensors[f"case{i}.images"])
        close(f"case{i}.clip_tokens", image_tokens, tensors[f"case{i}.clip_tokens"])
        close(f"case{i}.sam_embedding", image_embeddings, tensors[f"case{i}.sam_embedding"])
        for kind in ("plain", "reeval"):
            ours = official_pass(
                model,
                image_tokens,
                image_embeddings,
                tensors[f"case{i}.input_ids"][0],
                (case["resize"][0], case["resize"][1]),
                (case["original"][0], case["original"][1]),
                reeval=kind == "reeval",
            )
            name = f"case{i}.{kind}"
            if kind == "plain":
                close(f"{name}.logits", ours.logits[None], tensors[f"{name}.logits"])
            close(f"{name}.hidden_last", ours.hidden_last[None], tensors[f"{name}.hidden_last"])
            close(f"{name}.low_res", ours.low_res_masks[:, None], tensors[f"{name}.low_res"])
            close(f"{name}.iou", ours.predicted_iou[:, None], tensors[f"{name}.iou"])
            close(f"{name}.pred_masks", ours.pred_masks, tensors[f"{name}.pred_masks"])
            assert torch.equal(ours.output_ids, tensors[f"{name}.output_ids"]), name


def test_engine_on_converted_weights(run: Run, tmp_path: Path) -> None:
    """`gsva convert`, then the engine: the golden logits decide its first slot."""
    config = run.checkpoint.model.config
    arguments = {
        "llava": GOLDEN / "llava",
        "weights": only(RUNS[run.name]),
        "vision-tower": only("clip*"),
        "sam": only("sam_*.json"),
        "conversation": run.data["conv_type"],
        "lora-alpha": run.data["lora_alpha"],
    }
    options = [f"--{name}={value}" for name, value in arguments.items() if value is not None]
    assert cli.main(["convert", *options, str(tmp_path)]) == 0
    checkpoint = load_converted(tmp_path)
    assert checkpoint.model.config == config
    engine = Engine(checkpoint, "golden", torch.device("cpu"), "float32")
    for i, case in enumerate(run.data["cases"]):
        frame = engine.encode(run.tensors[f"case{i}.image"].numpy())
        slot = engine.segment(frame, case["expressions"], joint=True).slots[0]
        ids = run.tensors[f"case{i}.plain.output_ids"]
        slots = (ids == config.seg_token_id) | (ids == config.rej_token_id)
        logits = run.tensors[f"case{i}.plain.logits"][0, int(slots.nonzero()[0]) - 1]
        golden = logits[[config.seg_token_id, config.rej_token_id]].softmax(-1)[0]
        assert slot.p_seg == pytest.approx(float(golden), abs=TOLERANCE)
        if not slot.rejected:
            assert slot.mask is not None
            golden_mask = run.tensors[f"case{i}.reeval.pred_masks"][0].numpy() > 0
            assert (slot.mask != golden_mask).mean() < 1e-3
        if len(case["expressions"]) == 1:
            alone = engine.segment(frame, case["expressions"]).slots[0]
            assert alone.p_seg == pytest.approx(float(golden), abs=TOLERANCE)


def test_paper_protocol(run: Run) -> None:
    """The evaluation's slots are the official ones: decisions of the first pass, masks of the second."""
    engine = Engine(run.checkpoint, "golden", torch.device("cpu"), "float32")
    seg = run.checkpoint.model.config.seg_token_id
    for i, case in enumerate(run.data["cases"]):
        rgb = run.tensors[f"case{i}.image"].numpy()
        queries = [
            Referring(expression, "", int(there), np.full(rgb.shape[:2], bool(there)))
            for expression, there in zip(case["expressions"], case["present"], strict=True)
        ]
        slots, _ = paper_slots(engine, rgb, queries)
        golden_masks = run.tensors[f"case{i}.reeval.pred_masks"].numpy() >= 0
        ids = run.tensors[f"case{i}.plain.output_ids"].flatten()
        rej = run.checkpoint.model.config.rej_token_id
        golden_ids = ids[(ids == seg) | (ids == rej)]
        assert len(slots) == len(golden_masks) == len(golden_ids)
        for slot, mask, decided in zip(slots, golden_masks, golden_ids, strict=True):
            assert (slot.rejection is None) == (int(decided) == seg)
            assert (pixels_of(slot) != mask).mean() < 1e-3


@pytest.mark.skipif(not METRICS.exists(), reason="no metrics.json in the golden folder")
def test_metrics() -> None:
    golden, arrays = json.loads(METRICS.read_text()), np.load(METRICS.with_suffix(".npz"))
    assert golden
    for dataset, expected in golden.items():
        generalised = "N_acc" in expected
        terms = []
        images = {name.split(".")[1] for name in arrays.files if name.startswith(f"{dataset}.")}
        for i in images:
            logits, truth, rejected = (
                arrays[f"{dataset}.{i}.{name}"] for name in ("logits", "gt", "rejected")
            )
            masks, truth = logits >= 0 if generalised else logits > 0, truth > 0
            pixels = [overlap(m, t) for m, t in zip(masks, truth, strict=True)]
            intersection, union = np.array(pixels).T
            terms.append(
                gres_terms(
                    intersection,
                    union,
                    truth.any((1, 2)),
                    rejected.astype(bool),
                    false_positives=dataset == "grefcoco",
                )
                if generalised
                else res_terms(intersection, union)
            )
        sums = np.concatenate(terms).sum(0)
        ours = (gres if generalised else res)(sums) | {"n": len(images)}  # golden: images
        assert ours.keys() == expected.keys()
        for name, value in expected.items():
            assert ours[name] == pytest.approx(value, abs=1e-6), f"{dataset} {name}"
