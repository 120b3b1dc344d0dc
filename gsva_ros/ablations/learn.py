"""Training: first the base that every row starts from, then the rows.

The losses are GSVA's (cross-entropy of the answer, 2.0 BCE + 0.5 dice), with a separate cross-entropy of
slots as in gsva-mini's training, and one auxiliary loss that every row can use: the patches that a slot's
targets cover (`train.grounding`). The base is trained to mask present things in both kinds of conversation;
since its upper layers were initialised, it has neither decided a slot nor seen an absent thing.
"""

from __future__ import annotations

from math import isqrt
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.utils.data import Dataset

from ..chance import pick
from ..model.checkpoint import WEIGHTS_NAME, Checkpoint
from ..model.losses import IGNORE, mask_terms
from ..model.prompt import Prompt
from ..model.weights import write_state
from ..scenes import Expression
from ..train.batches import around, embedded
from ..train.config import Config
from ..train.grounding import Grounding, Read
from ..train.known import known
from ..train.mask_losses import iou_of, mask_logits
from ..train.packing import Branch, Packed, pack, read_packed
from ..train.parts import divided, export, group, select
from ..train.trainer import MODEL, Task, Trainer
from .rows import ROWS, Row, branches
from .shared import BASE_MODEL, EncodedScenes, initial_checkpoint

#: Number of expressions in each of a scene's prompts per step.
PROMPTS = (1, 1, 1, 3, 5)
#: Number of slots per step with a mask loss.
MASKS = 32
BATCH = 16
BASE_STEPS, ROW_STEPS = 120, 80
PARTS = {
    "language_model": 4e-4,
    "embed_tokens": 4e-4,
    "lm_head": 1e-3,
    "projector": 2e-4,
    "text_hidden_fcs": 1e-3,
    "mask_decoder": 1e-4,
}
HEADS = "grounding.safetensors"
SHORT = 4  # maximum words of an expression in the first half of the base's training


#: A scene's prompts in a step, each of some expressions.
Prompts = list[list[Expression]]


def draw(expressions: list[Expression], rng: np.random.Generator) -> Prompts:
    """Prompts of one scene, the same for every row."""
    order = rng.permutation(len(expressions))
    found, at = [], 0
    for count in PROMPTS:
        found.append([expressions[order[(at + k) % len(order)]] for k in range(count)])
        at += count
    return found


def without_absent(
    prompts: Prompts, everything: list[Expression], rng: np.random.Generator
) -> Prompts:
    """Replace absent expressions by present ones of `everything`, keeping the number of expressions."""
    there = [e for e in everything if e.targets]
    return [[e if e.targets else pick(there, rng) for e in prompt] for prompt in prompts]


class Steps(Dataset[Tensor]):
    """Step n at index n: the learner draws its own data."""

    def __getitem__(self, number: int) -> Tensor:
        """The step's number as a tensor."""
        return torch.tensor(number)


class Learner(nn.Module):
    """The model, and the loss of one step of a row, or of the base if `row` is None."""

    def __init__(
        self, checkpoint: Checkpoint, data: EncodedScenes, row: Row | None, config: Config
    ) -> None:
        super().__init__()
        self.model, self.prompt = checkpoint.model, checkpoint.prompt
        self.grounding = Grounding(self.model)
        self._data, self._row, self._config = data, row, config

    def forward(self, step: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss and metrics of step number `step`."""
        number = int(step)
        rng = np.random.default_rng([7, self._config.seed, number])
        tokens = self.model.config.image_tokens
        prefix = self.prompt.prefix_length(tokens)
        rows = rng.integers(len(self._data.scenes), size=self._config.batch)
        device = self.model.device
        packed = pack(prefix, [self._branches(int(r), number, rng) for r in rows])
        truth = known(self._data.scenes, isqrt(tokens), rows, packed).to(device)
        packed = packed.to(device)
        layers, hidden = read(self.model, self.prompt, self._data.clip(rows).to(device), packed)
        start = len(self.prompt.before_image)
        patches = slice(start, start + tokens)
        looking, figures = self.grounding(Read(layers, packed, truth, patches, prefix))
        text, decided = self._words(hidden, packed)
        figures |= {"text": text, "slot": decided}
        masks, iou = self._masks(hidden, packed, rows, rng)
        figures |= {"mask": masks, "iou": torch.tensor(iou)}
        loss = looking + text + masks
        if self._row:
            loss = loss + decided
        return loss, {name: value.detach() for name, value in (figures | {"loss": loss}).items()}

    def _branches(self, scene: int, step: int, rng: np.random.Generator) -> list[Branch]:
        everything = self._data.scenes.expressions[scene]
        row = self._row
        if row is None and step < self._config.steps // 2:
            short = [e for e in everything if len(e.text.split()) <= SHORT and e.targets]
            everything = short or everything
        prompts = draw(everything, rng)
        if row is None or not row.absent:
            prompts = without_absent(prompts, everything, rng)
        # The base alternates between both kinds of conversation.
        row = row or ROWS["A" if step % 2 else "C"]
        return [
            branch
            for prompt in prompts
            for branch in branches(self.prompt, row, prompt, [bool(e.targets) for e in prompt])
        ]

    def _words(self, hidden: Tensor, packed: Packed) -> tuple[Tensor, Tensor]:
        """Cross-entropy of the answers' text, and of their slots."""
        slot_ids = torch.tensor(self.prompt.tokenizer.slot_ids, device=hidden.device)
        spoken = packed.labels != IGNORE
        labels = packed.labels[spoken]
        each = F.cross_entropy(self.model.lm_head(hidden[spoken]), labels, reduction="none")
        slots = torch.isin(labels, slot_ids)
        return each[~slots].mean(), each[slots].mean()

    def _masks(
        self, hidden: Tensor, packed: Packed, rows: npt.NDArray[np.int64], rng: np.random.Generator
    ) -> tuple[Tensor, float]:
        """2.0 BCE + 0.5 dice of slots drawn alike for every row; [REJ] slots have no mask but count."""
        rejects = bool(self._row and self._row.rejects)
        drawn = rng.permutation(len(packed.slot_targets))[:MASKS]
        chosen = [int(k) for k in drawn if packed.slot_targets[k] or not rejects]
        image, place = packed.slot_at[chosen].unbind(1)
        embeddings = self._data.sam(rows).to(hidden.device)[image]
        prompts = self.model.mask_prompts(hidden[image, place])
        low_res, _ = self.model.decode_masks(embeddings, prompts)
        targets = [packed.slot_targets[k] for k in chosen]
        masks = self._data.scenes.target_masks(rows[image.cpu().numpy()], targets)
        truth = torch.from_numpy(masks).float().to(hidden.device)
        logits = mask_logits(low_res, self.model.config.sam, truth.shape[1:])
        bce, dice = mask_terms(logits, truth, len(drawn))
        there = truth.flatten(1).any(1)
        return bce + dice, float(iou_of(logits, truth)[there].mean())


def read(
    model: Any, prompt: Prompt, clip_tokens: Tensor, packed: Packed
) -> tuple[tuple[Tensor, ...], Tensor]:
    """States of packed branches: every layer's [B, P + L, D], and the branches' last ones [B, L, D]."""
    x = embedded(model, around(prompt, model.device), clip_tokens, packed.ids)
    prefix = x.shape[1] - packed.ids.shape[1]
    bias = packed.bias(x.dtype)[:, :, prefix:]
    *layers, last = read_packed(model.model, x, packed.position_ids, prefix, bias)
    return tuple(layers), last[:, prefix:]


def teach(
    out: Path, data: EncodedScenes, name: str, seed: int, base: Path | None, steps: int
) -> Path:
    """Train the base or a row, resuming an earlier run; returns the model's folder."""
    config = Config.model_validate(
        {
            "out": out,
            "model": BASE_MODEL,
            "objective": "language",
            "sources": [{"kind": "scenes"}],
            "parts": PARTS,
            "steps": steps,
            "batch": BATCH,
            "schedule": "cosine",
            "warmup": 10,
            "betas": [0.9, 0.98],
            "weight_decay": 0.02,
            "clip_parts": True,
            "precision": "float32",
            "gradient_checkpointing": False,
            "seed": seed,
            "save_every": 40,
        }
    )
    checkpoint = initial_checkpoint(seed)
    learner = Learner(checkpoint, data, ROWS[name] if base else None, config)
    if base:
        _begin_with(learner, base)
    groups = select(checkpoint.model, config)
    groups.append(group("grounding", list(learner.grounding.parameters()), 1e-3))

    def write(state: dict[str, Tensor], to: Path) -> None:
        own, heads = divided(state)
        export(checkpoint, own, config, to)
        write_state(heads, to / HEADS)

    Trainer(config, Task(learner, groups, Steps(), write)).run()
    return out / MODEL


def _begin_with(learner: Learner, base: Path) -> None:
    """Load the base's weights."""
    learner.model.load_state_dict(load_file(base / WEIGHTS_NAME), strict=False)
    heads = load_file(base / HEADS)
    learner.grounding.load_state_dict({k.removeprefix("grounding."): v for k, v in heads.items()})
