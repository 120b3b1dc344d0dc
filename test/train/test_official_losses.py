"""The official implementation's recorded training batch, through the code that `gsva train` runs.

GSVA_GOLDEN names the folder (default: ../shared/golden/official_tiny beside this repository).
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from golden import OFFICIAL as GOLDEN
from golden import needs
from safetensors.torch import load_file, save_file

from gsva_ros.model.checkpoint import Checkpoint, load_official
from gsva_ros.model.tokenizer import IMAGE_TOKEN_ID
from gsva_ros.model.weights import read_state
from gsva_ros.train.batches import Batch, Batcher, around
from gsva_ros.train.config import Config, Lora
from gsva_ros.train.conversations import ANSWERS, QUESTIONS, Conversations, Row
from gsva_ros.train.objective import GSVAObjective, read
from gsva_ros.train.packing import lay
from gsva_ros.train.parts import select
from gsva_ros.train.sources.sample import Segments

RUNS = {"cases": "gsva_tiny.bin", "cases_lora": "gsva_tiny_lora.bin"}
PEFT = "base_model.model."

pytestmark = needs(GOLDEN)


class Run(NamedTuple):
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
    for name in ("before", "after"):
        assert torch.equal(getattr(ours, name), getattr(golden, name)), name
    for name, value in vars(golden.laid).items():
        assert torch.equal(getattr(ours.laid, name), value), name
    assert ours.resized == golden.resized
    for name in ("pixel_values", "sam_pixel_values"):
        assert (getattr(ours, name) - getattr(golden, name)).abs().max() < 1e-4, name


def golden_batch(run: Run) -> Batch:
    """The recorded batch, one row a picture, each behind what stands before and after the picture."""
    tensors, prompt = run.tensors, run.checkpoint.prompt
    assert tensors["train.offset"].diff().eq(1).all()
    rows = []
    for padded, targets, kept in zip(
        tensors["train.input_ids"],
        tensors["train.labels"],
        tensors["train.attention_masks"],
        strict=True,
    ):
        # A recorded label is the id of its own position; the official loss shifts them.
        ids, labels = padded[kept].tolist(), targets[kept].roll(-1).tolist()
        at = ids.index(IMAGE_TOKEN_ID) + 1
        assert ids[:at] == [*prompt.before_image, IMAGE_TOKEN_ID]
        at += len(prompt.after_image)
        rows.append([Row(ids[at:], labels[at:], np.zeros((0, 1, 1), bool))])
    before, after = around(prompt)
    prefix = len(before) + run.checkpoint.model.config.image_tokens + len(after)
    return Batch(
        pixel_values=tensors["train.images_clip"],
        sam_pixel_values=tensors["train.images"],
        resized=[tuple(size) for size in run.data["train_resize"]],
        before=before,
        after=after,
        laid=lay(prefix, rows),
        masks=[tensors[f"train.masks{i}"].float() for i in range(len(rows))],
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


def test_rows_of_one_picture_are_read_as_if_each_stood_alone(run: Run) -> None:
    image, masks = run.tensors["train.image1"].numpy(), run.tensors["train.masks1"].bool().numpy()
    expressions = ("robot gripper", "nearest can", "two bowls")
    conversations = Conversations(run.checkpoint.prompt, "deployed", joint=False)
    batcher = Batcher(conversations, run.checkpoint.model.config)
    rng = np.random.default_rng(0)
    together = read(run.checkpoint.model, batcher([(Segments(image, expressions, masks), rng)]))[0]
    at = 0
    for k in range(3):
        alone = Segments(image, expressions[k : k + 1], masks[k : k + 1])
        hidden = read(run.checkpoint.model, batcher([(alone, rng)]))[0]
        assert (together[at : at + len(hidden)] - hidden).abs().max() < 1e-4
        at += len(hidden)
    assert at == len(together)
