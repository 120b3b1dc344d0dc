"""The stages that train gsva-mini from scratch, as tasks of the trainer.

A 7B GSVA starts from CLIP, SAM and LLaVA; for a small one there is nothing to start from. So its encoders
are first trained on dense labels of rendered scenes (`clip`, `sam`), then its language model with the
vision tower frozen (`language`), then everything together (`joint`), and the refiner of mask edges
(`edges`). Auxiliary heads that only training needs are passed from stage to stage
(`auxiliary.safetensors`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from operator import attrgetter
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict, PositiveInt
from torch import Tensor, nn
from torch.utils.data import Dataset

from ..errors import InputError, validated
from ..model.checkpoint import Checkpoint
from ..model.config import AUXILIARY_NAME, GSVAConfig
from ..model.gsva import GSVA
from ..model.refiner import Refiner
from ..model.weights import read_state, write_state
from ..phrasing.words import Vocabulary
from ..processes import processes
from ..scenes import SceneSet, joined
from .config import Config
from .contrast import WordContrast
from .dense import DenseHead
from .edges import EdgeStage
from .frames import Frames
from .grounding import Grounding, names_of
from .joint import JointStage
from .language import LanguageLoss, LanguageStage, Questions
from .movable import Movable
from .parts import base_of, divided, export, group, partway, select
from .prompts import SymbolicPrompt
from .recipe import REFINER
from .text import BranchWriter
from .trainer import Task
from .vision import ClipStage, SamStage


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
        self.kind = STAGES[name]
        self.scenes, self.prompt = scenes, checkpoint.prompt
        self.model = model
        self.symbolic = SymbolicPrompt(*counts, model.config.sam.prompt_embed_dim)
        self.grounding = Grounding(model, names_of(checkpoint.prompt, scenes))
        self.head = DenseHead(self.kind.width(model.config), *counts)
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


@dataclass(frozen=True)
class StageKind:
    """What a stage trains besides the model's parts, and how.

    Attributes:
        lesson: makes the stage's data and losses; the stage is on its device by then.
        trains: the auxiliary heads that it trains.
        width: channels of the features that the head of dense labels reads; those of CLIP by default.
        needs_symbolic: it learns from the symbolic prompts that an earlier stage trained.
        adds_refiner: it gives the model a refiner, unless it has one.
    """

    lesson: Callable[[Config, Stage], Lesson]
    trains: tuple[str, ...]
    width: Callable[[GSVAConfig], int] = attrgetter("clip.hidden_size")
    needs_symbolic: bool = False
    adds_refiner: bool = False


def task(config: Config, checkpoint: Checkpoint, base: Path | None) -> Task:
    """The `Trainer` task of a stage.

    Args:
        base: the folder of the previous stage, if any.

    Raises:
        InputError: a source is not of kind scenes, the scenes do not match, or `base` lacks an auxiliary
            head that the stage does not train.
    """
    processes()  # makes this process's GPU the current one
    scenes, model = scenes_of(config), checkpoint.model
    torch.manual_seed(config.seed)
    if STAGES[config.objective].adds_refiner and model.refiner is None:
        _add_refiner(model, config)
    stage = Stage(checkpoint, scenes, config.objective)
    loaded = stage.load_auxiliary(base / AUXILIARY_NAME) if base else set()
    if stage.kind.needs_symbolic:
        _check_symbolic(stage, loaded, base)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    groups = [*select(model, config), *_head_groups(stage, config)]
    stage.lesson = stage.kind.lesson(config, stage.to(device))
    blend = partway(model, config.blend)

    def write(state: dict[str, Tensor], to: Path) -> None:
        own, heads = divided(state)
        export(checkpoint, blend(own), config, to)
        write_state(heads, to / AUXILIARY_NAME)

    batches = Steps(stage.lesson, config.batch, config.seed)
    return Task(stage, groups, batches, write, base_of(checkpoint))


def _check_symbolic(stage: Stage, loaded: set[str], base: Path | None) -> None:
    """Check that the symbolic prompts, which the stage learns from as they are, are not random."""
    if not loaded >= {f"symbolic.{name}" for name in stage.symbolic.state_dict()}:
        raise InputError(
            f"{base or 'model'}: no {AUXILIARY_NAME} with symbolic prompts for the kinds and colours of "
            "these scenes, which this objective needs: start from the model that an earlier stage wrote, "
            "or from gsva-mini, and give scenes with its kinds and colours"
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
        module.requires_grad_(name in stage.kind.trains)
        if name in stage.kind.trains:
            yield group(name, list(module.parameters()), config.heads)


def _remembers(config: Config, model: GSVA) -> bool:
    """Features of frozen parts are cached, unless jitter changes them or a GPU computes them faster."""
    return model.device.type == "cpu" and not config.jitter


def _frames(config: Config, stage: Stage) -> Frames:
    """The scenes' frames, as both towers see them."""
    frames = Frames(stage.scenes, stage.model.config, config.jitter)
    frames.check()
    if _remembers(config, stage.model):
        frames.remember(stage.model)
    return frames


def _language_loss(config: Config, stage: Stage) -> tuple[LanguageLoss, Questions]:
    """The language model's losses, and the questions that they are about."""
    model, prompt = stage.model, stage.prompt
    writer = BranchWriter(prompt, vocabulary_of(stage.scenes), config.unseen)
    questions = Questions(stage.scenes, writer, model.config.patch_grid)
    return LanguageLoss(model, prompt, stage.grounding), questions


def _clip(config: Config, stage: Stage) -> Lesson:
    return ClipStage(stage.model, _frames(config, stage), stage.head, stage.contrast)


def _sam(config: Config, stage: Stage) -> Lesson:
    frames = _frames(config, stage)
    return SamStage(stage.model, frames, stage.symbolic, stage.head, config.masks)


def _language(config: Config, stage: Stage) -> Lesson:
    frames = _frames(config, stage)
    loss, questions = _language_loss(config, stage)
    cache = config.out / "clip_tokens.npy" if _remembers(config, stage.model) else None
    passes = config.steps * config.accumulation * processes().num_processes
    return LanguageStage(loss, questions, frames, cache, config.simple * passes)


def _joint(config: Config, stage: Stage) -> Lesson:
    frames = _frames(config, stage)
    loss, questions = _language_loss(config, stage)
    return JointStage(loss, questions, stage.symbolic, frames, config.masks)


def _edges(config: Config, stage: Stage) -> Lesson:
    # Each tower is shown its own pixels here, so they may differ.
    frames = Frames(stage.scenes, stage.model.config, config.jitter)
    return EdgeStage(stage.model, stage.prompt, frames, config.out / "masks.npy", config.jitter)


#: The stages by their objective.
STAGES = {
    "clip": StageKind(_clip, trains=("head", "contrast")),
    "sam": StageKind(_sam, trains=("symbolic", "head"), width=attrgetter("sam.prompt_embed_dim")),
    "language": StageKind(_language, trains=("grounding",)),
    "joint": StageKind(_joint, trains=("grounding",), needs_symbolic=True),
    "edges": StageKind(_edges, trains=(), adds_refiner=True),
}


def scenes_of(config: Config) -> SceneSet:
    """All sources of a stage, as one set of scenes.

    Raises:
        InputError: a source is not of kind scenes or has an option of other objectives, or the scenes do
            not match.
    """
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


def vocabulary_of(scenes: SceneSet) -> Vocabulary:
    """The words of the scenes' expressions."""
    return Vocabulary(tuple(scenes.kinds), tuple(scenes.colours))
