"""The official implementation's recorded training batch, through the code that `gsva train` runs.

GSVA_GOLDEN names the folder (default: ../shared/golden/official_tiny beside this repository).
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from gsva_ros.model.checkpoint import Checkpoint, load_official, read_state
from gsva_ros.train.batches import Batch, Batcher
from gsva_ros.train.config import Config, Lora
from gsva_ros.train.conversations import ANSWERS, QUESTIONS, Conversations
from gsva_ros.train.objective import GSVAObjective
from gsva_ros.train.parts import select
from gsva_ros.train.sources.sample import Segments

DEFAULT = Path(__file__).resolve().parents[3] / "shared/golden/official_tiny"
GOLDEN = Path(os.environ.get("GSVA_GOLDEN") or DEFAULT)
RUNS = {"cases": "gsva_tiny.bin", "cases_lora": "gsva_tiny_lora.bin"}
PEFT = "base_model.model."

pytestmark = pytest.mark.skipif(not GOLDEN.is_dir(), reason=f"no golden folder at {GOLDEN}")


@dataclass
class Run:
    data: dict[str, Any]
    tensors: dict[str, torch.Tensor]
    checkpoint: Checkpoint
    config: Config


@pytest.fixture(params=RUNS)
def run(request: pytest.FixtureRequest, tmp_path: Path) -> Run:
    """A run's tensors, and our model as training has it: base weights, factors beside them."""
    data = json.loads((GOLDEN / f"{request.param}.json").read_text())
    state = {k.removeprefix(PEFT): v for k, v in read_state(GOLDEN / RUNS[request.param]).items()}
    factors = {name: value for name, value in state.items() if ".lora_" in name}
    weights = tmp_path / "base.safetensors"
    save_file({k: v.contiguous() for k, v in state.items() if k not in factors}, weights)
    checkpoint = load_official(
        GOLDEN / "llava",
        weights,
        vision_tower=GOLDEN / "clip-vit-tiny",
        sam=json.loads((GOLDEN / "sam_tiny.json").read_text()),
        conversation=data["conv_type"],
    )
    rank = data["lora_r"]
    lora = Lora(rank=rank, alpha=data["lora_alpha"], dropout=0.0) if rank else None
    config = Config(
        out=tmp_path, model="golden", sources=[{"kind": "none"}], lora=lora, precision="float32"
    )
    select(checkpoint.model, config)
    left = checkpoint.model.load_state_dict(factors, strict=False)
    assert not left.unexpected_keys
    assert bool(factors) == bool(lora)
    tensors = load_file(GOLDEN / f"{request.param}.safetensors")
    return Run(data, tensors, checkpoint, config)


def test_losses_and_gradient_norms(run: Run) -> None:
    objective = GSVAObjective(run.checkpoint.model)
    loss, figures = objective(golden_batch(run))
    for name, golden in run.data["train_losses"].items():
        assert float(figures[name]) == pytest.approx(golden, abs=1e-4), name
    loss.backward()
    gradients = {n: p.grad for n, p in run.checkpoint.model.named_parameters()}
    assert any(".lora_" in name for name in run.data["train_grad_norms"]) == bool(run.config.lora)
    for name, golden in run.data["train_grad_norms"].items():
        factor = name.replace(".lora_A.weight", ".lora_A.default.weight")
        factor = factor.replace(".lora_B.weight", ".lora_B.default.weight")
        gradient = gradients[factor.removeprefix(PEFT)]
        assert gradient is not None, name
        assert float(gradient.norm()) == pytest.approx(golden, rel=1e-3, abs=1e-7), name
    trained = {n for n, g in gradients.items() if g is not None and g.abs().sum() > 0}
    assert not any("vision_tower" in n or "image_encoder" in n for n in trained)


def test_batch_from_pictures_and_expressions(run: Run) -> None:
    """Our own prompts, labels and preprocessing give the recorded batch."""
    golden, samples = golden_batch(run), []
    asked = [
        (("the red cup", "left zebra"), 0),
        (("robot gripper", "nearest can", "two bowls"), 3),
    ]
    for i, (expressions, question) in enumerate(asked):
        image = run.tensors[f"train.image{i}"].numpy()
        masks = golden.masks[i].bool().numpy()
        words = drawing(question, answer=2)
        samples.append((Segments(image, expressions, masks), words))
    prompt = run.checkpoint.prompt
    ours = Batcher(Conversations(prompt, "official", True), run.checkpoint.model.config)(samples)
    assert torch.equal(ours.input_ids * ours.attention_mask, golden.input_ids * golden.attention_mask)
    for name in ("attention_mask", "labels", "image_of"):
        assert torch.equal(getattr(ours, name), getattr(golden, name)), name
    assert ours.resized == golden.resized
    for name in ("pixel_values", "sam_pixel_values"):
        assert (getattr(ours, name) - getattr(golden, name)).abs().max() < 1e-4, name


def golden_batch(run: Run) -> Batch:
    tensors, offset = run.tensors, run.tensors["train.offset"].tolist()
    images = range(len(offset) - 1)
    return Batch(
        pixel_values=tensors["train.images_clip"],
        sam_pixel_values=tensors["train.images"],
        resized=[tuple(size) for size in run.data["train_resize"]],
        image_of=torch.tensor([i for i in images for _ in range(offset[i], offset[i + 1])]),
        input_ids=tensors["train.input_ids"],
        attention_mask=tensors["train.attention_masks"],
        labels=tensors["train.labels"],
        masks=[tensors[f"train.masks{i}"].float() for i in images],
    )


def drawing(question: int, answer: int) -> np.random.Generator:
    """A generator that draws this question and this answer."""
    for seed in range(10_000):
        rng = np.random.default_rng(seed)
        if (int(rng.integers(len(QUESTIONS))), int(rng.integers(len(ANSWERS)))) == (
            question,
            answer,
        ):
            return np.random.default_rng(seed)
    raise AssertionError
