"""The stages that train gsva-mini from scratch, as tasks of the trainer.

A 7B GSVA starts from CLIP, SAM and LLaVA; for a small one there is nothing to start from. So its encoders
are first trained on dense labels of rendered scenes (`clip`, `sam`), then its language model with the
vision tower frozen (`language`), then everything together (`joint`), and last the refiner of mask edges
(`edges`). Auxiliary heads that only training needs are passed from stage to stage
(`auxiliary.safetensors`).
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import sentencepiece
import torch
from pydantic import BaseModel, ConfigDict, PositiveInt
from torch import Tensor, nn
from torch.utils.data import Dataset

from ..errors import InputError, validated
from ..model.checkpoint import Checkpoint
from ..model.gsva import GSVA
from ..model.prompt import Prompt
from ..model.refiner import Refiner
from ..model.tokenizer import TOKENIZER_NAME
from ..model.weights import read_state, write_state
from ..phrasing import requests, unknown
from ..phrasing.forms import reworded
from ..phrasing.words import SYNONYMS, Vocabulary
from ..processes import processes
from ..scenes import SceneSet, joined
from .config import Config
from .contrast import WordContrast
from .dense import DenseHead
from .edges import EdgeStage
from .frames import Frames
from .grounding import Grounding, give_places, names_of
from .joint import JointStage
from .language import LanguageLoss, LanguageStage, Questions
from .movable import Movable
from .parts import base_of, export, partway, select
from .prompts import SymbolicPrompt
from .recipe import REFINER, mini_config
from .text import Branches, train_tokenizer
from .trainer import Task, states
from .vision import ClipStage, SamStage

#: The value of `model` for a run that starts with random weights.
NEW = "new"
#: Factor on transformers' initial token embeddings, which image tokens would otherwise outweigh.
WORDS_LOUDER = 10.0
AUXILIARY = "auxiliary.safetensors"
#: The auxiliary heads that each stage trains.
TRAINED = {
    "clip": ("head", "contrast"),
    "sam": ("symbolic", "head"),
    "language": ("grounding",),
    "joint": ("grounding",),
    "edges": (),
}


class _Scenes(BaseModel):
    """The options of a stage's source."""

    model_config = ConfigDict(extra="forbid")

    path: Path
    limit: PositiveInt | None = None


class Lesson(Protocol):
    """A stage's data and losses."""

    def draw(self, step: int, batch: int, rng: np.random.Generator) -> Movable:
        """The step's batch of `batch` scenes, a function of step and `rng`; other processes may call it."""

    def losses(self, batch: Any) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss of a batch on the model's device, and metrics."""


class Steps(Dataset[Movable]):
    """An endless data set: the batch of step n at index n."""

    def __init__(self, lesson: Lesson, batch: int, seed: int) -> None:
        self._lesson, self._batch, self._seed = lesson, batch, seed

    def __getitem__(self, number: int) -> Movable:
        """The batch of this step."""
        rng = np.random.default_rng([self._seed, number])
        return self._lesson.draw(number, self._batch, rng)


class Stage(nn.Module):
    """The model with its auxiliary heads, and the losses of one stage."""

    def __init__(self, checkpoint: Checkpoint, scenes: SceneSet, name: str) -> None:
        super().__init__()
        model = checkpoint.model
        counts = len(scenes.kinds), len(scenes.colours), len(scenes.sizes)
        part = model.config.clip.hidden_size
        if name == "sam":
            part = model.config.sam.prompt_embed_dim
        self.model = model
        self.symbolic = SymbolicPrompt(*counts, model.config.sam.prompt_embed_dim)
        self.grounding = Grounding(model, names_of(checkpoint.prompt, scenes))
        self.head = DenseHead(part, *counts)
        self.contrast = WordContrast(model, checkpoint.prompt, scenes)
        self.lesson: Lesson | None = None

    def forward(self, batch: Movable) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss of a batch, and metrics."""
        assert self.lesson
        loss, figures = self.lesson.losses(batch)
        return loss, {name: value.detach() for name, value in (figures | {"loss": loss}).items()}

    def load_auxiliary(self, path: Path) -> set[str]:
        """Load the auxiliary heads that the previous stage saved, where shapes match; returns their names.

        Raises:
            InputError: the file is damaged.
        """
        own, left = self.state_dict(), read_state(path) if path.is_file() else {}
        fitting = {k: v for k, v in left.items() if k in own and v.shape == own[k].shape}
        self.load_state_dict(fitting, strict=False)
        return set(fitting)


def new_mini(config: Config) -> Checkpoint:
    """gsva-mini with random weights, and a tokenizer trained on the scenes' expressions."""
    scenes = _scenes(config)
    config.out.mkdir(parents=True, exist_ok=True)
    tokenizer = config.out / TOKENIZER_NAME
    if not states(config.out):  # a resumed run keeps its tokenizer
        train_tokenizer(_texts(scenes), tokenizer)
    torch.manual_seed(config.seed)
    pieces = sentencepiece.SentencePieceProcessor(model_file=str(tokenizer))
    sizes = mini_config(pieces.vocab_size())
    model = GSVA(sizes)
    assert model.model.mm_position is not None
    with torch.no_grad():  # see WORDS_LOUDER
        model.model.embed_tokens.weight.mul_(WORDS_LOUDER)
    give_places(model.model.mm_position, sizes.patch_grid)
    return Checkpoint(model, Prompt.load(tokenizer, sizes), weights_hash="")


def task(config: Config, checkpoint: Checkpoint, base: Path | None) -> Task:
    """The `Trainer` task of a stage.

    Args:
        base: the folder of the previous stage, if any.

    Raises:
        InputError: a source is not of kind scenes, the scenes do not match, or `base` lacks an auxiliary
            head that the stage does not train.
    """
    processes()  # makes this process's GPU the current one
    scenes, model = _scenes(config), checkpoint.model
    torch.manual_seed(config.seed)
    if config.objective == "edges" and model.refiner is None:
        _add_refiner(model, config)
    stage = Stage(checkpoint, scenes, config.objective)
    loaded = stage.load_auxiliary(base / AUXILIARY) if base else set()
    if config.objective == "joint":
        _check_symbolic(stage, loaded, base)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    groups = [*select(model, config), *_head_groups(stage, config)]
    stage.lesson = _lesson(config, stage.to(device), scenes, checkpoint.prompt)
    blend = partway(model, config.blend)

    def write(state: dict[str, Tensor], to: Path) -> None:
        prefix = "model."
        own = {k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)}
        export(checkpoint, blend(own), config, to)
        others = {k: v for k, v in state.items() if not k.startswith(prefix)}
        write_state(others, to / AUXILIARY)

    batches = Steps(stage.lesson, config.batch, config.seed)
    return Task(stage, groups, batches, write, base_of(checkpoint))


def _check_symbolic(stage: Stage, loaded: set[str], base: Path | None) -> None:
    """Check that the symbolic prompts, which the stage learns from as they are, are not random."""
    if not loaded >= {f"symbolic.{name}" for name in stage.symbolic.state_dict()}:
        raise InputError(
            f"{base or 'model'}: no {AUXILIARY} with symbolic prompts for the kinds and colours of these "
            "scenes, which the objective joint needs: start from the model that an earlier stage wrote, or "
            "from gsva-mini, and give scenes with its kinds and colours"
        )


def _add_refiner(model: GSVA, config: Config) -> None:
    if config.export == "adapter":
        raise InputError(
            "export: an adapter needs a base with a refiner, which this one lacks: use merged"
        )
    model.config.refiner = list(REFINER)
    model.refiner = Refiner(REFINER)


def _head_groups(stage: Stage, config: Config) -> Iterator[dict[str, Any]]:
    """The optimiser groups of the auxiliary heads that the stage trains; the others are frozen."""
    for name in ("symbolic", "grounding", "head", "contrast"):
        module = getattr(stage, name)
        module.requires_grad_(name in TRAINED[config.objective])
        parameters = [p for p in module.parameters() if p.requires_grad]
        if parameters:
            yield {"name": name, "params": parameters, "lr": config.heads, "peak": config.heads}


def _lesson(config: Config, stage: Stage, scenes: SceneSet, prompt: Prompt) -> Lesson:
    model = stage.model
    frames = Frames(scenes, model.config, config.jitter)
    if config.objective == "edges":
        return EdgeStage(model, prompt, frames, config.out / "masks.npy", config.jitter)
    frames.check()
    # Features of frozen parts are cached, unless jitter changes them or a GPU computes them faster.
    remembers = model.device.type == "cpu" and not config.jitter
    if remembers:
        frames.remember(model)
    if config.objective == "clip":
        return ClipStage(model, frames, stage.head, stage.contrast)
    if config.objective == "sam":
        return SamStage(model, frames, stage.symbolic, stage.head, config.masks)
    branches = Branches(prompt, _vocabulary(scenes), config.unseen)
    questions = Questions(scenes, branches, model.config.patch_grid)
    loss = LanguageLoss(model, prompt, branches.slot_ids, stage.grounding)
    if config.objective == "joint":
        return JointStage(loss, questions, stage.symbolic, frames, config.masks)
    if config.objective == "language":
        cache = config.out / "clip_tokens.npy" if remembers else None
        passes = config.steps * config.accumulation * processes().num_processes
        return LanguageStage(loss, questions, frames, cache, config.simple * passes)
    raise NotImplementedError(f"objective {config.objective}: stages._lesson has no lesson for it")


def _scenes(config: Config) -> SceneSet:
    """All sources of a stage, as one set of scenes."""
    sets = []
    for number, source in enumerate(config.sources):
        place = f"sources.{number}"
        if source.kind != "scenes":
            raise InputError(
                f"{place}: objective {config.objective} needs sources of kind scenes, not {source.kind}"
            )
        if source.rate != 1.0:
            raise InputError(
                f"{place}.rate: objective {config.objective} draws all scenes equally often: use `limit`"
            )
        given = validated(_Scenes, source.options, place, "a stage's source has path and limit")
        sets.append(SceneSet(given.path, "train", given.limit))
    return joined(sets)


def _vocabulary(scenes: SceneSet) -> Vocabulary:
    return Vocabulary(tuple(scenes.kinds), tuple(scenes.colours))


def _texts(scenes: SceneSet) -> list[str]:
    """The tokenizer's training text: expressions, rewordings of them, and the prompt's own words."""
    rng, words = np.random.default_rng(0), _vocabulary(scenes)
    texts = [
        f"\nSegment {e.text}, {e.text}. ASSISTANT: Sure,{reworded(e.text, words, rng)}:"
        for expressions in scenes.expressions[:: max(1, len(scenes) // 4000)]
        for e in expressions
    ]
    synonyms = [word for kind in scenes.kinds for word in SYNONYMS.get(kind, ())]
    return texts + ["USER:", *requests.words(), *unknown.TAUGHT, *synonyms] * 200
