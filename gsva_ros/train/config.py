"""The file that `gsva train` reads: everything that fixes a run.

Defaults are those of the official training (LeapLabTHU/GSVA, `main.py` at 618dc79; the paper, section 4.1),
for one of its 8 GPUs.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    PositiveFloat,
    PositiveInt,
    model_validator,
)

from ..errors import InputError, validated
from ..settings import read_yaml

Part = Literal[
    "language_model",
    "embed_tokens",
    "lm_head",
    "projector",
    "text_hidden_fcs",
    "mask_decoder",
    "image_encoder",
    "vision_tower",
    "refiner",
]
LearningRate = Annotated[float, Field(gt=0, le=1)]
Share = Annotated[float, Field(ge=0, le=1)]
Decay = Annotated[float, Field(ge=0, lt=1)]


class _Fields(BaseModel):
    """Numbers may be written as YAML leaves them ("3e-4" is text to it); unknown fields are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Official(_Fields):
    """Weights as they were published, in the parts that `gsva convert` takes too."""

    llava: Path = Field(description="LLaVA directory that the weights were trained from")
    weights: Path = Field(description="GSVA's state dict")
    vision_tower: Path = Field(description="CLIP directory")
    conversation: Literal["llava_v1", "llava_llama_2"] = Field(
        "llava_v1", description="the conversation template"
    )


class Lora(_Fields):
    """Low-rank factors beside the language model's weights (peft)."""

    rank: PositiveInt = Field(8, description="8 for 7B, 64 for 13B")
    alpha: PositiveFloat = Field(
        16.0, allow_inf_nan=False, description="the factors' product is scaled by alpha / rank"
    )
    dropout: float = Field(0.05, ge=0, lt=1, description="on the factors' input")
    modules: list[Literal["q_proj", "k_proj", "v_proj", "o_proj"]] = Field(
        ["q_proj", "v_proj"], min_length=1, description="attention's projections that get factors"
    )
    lr: LearningRate = Field(3e-4, description="peak learning rate")


class Data(BaseModel):
    """One source; whatever else stands here is an option of its kind, described in docs/training.md."""

    model_config = ConfigDict(extra="allow", frozen=True)

    kind: str = Field(description="a kind of source")
    rate: PositiveFloat = Field(
        1.0, allow_inf_nan=False, description="samples are drawn in proportion to it"
    )

    @property
    def options(self) -> dict[str, Any]:
        """The options of the kind."""
        return dict(self.model_extra or {})


class Evaluation(_Fields):
    """Scores while training, by the project's own metrics."""

    cases: str = Field(description='what `gsva eval` is given: "bag validation.mcap"')
    every: PositiveInt = Field(500, description="steps between evaluations")
    metric: Literal["gIoU", "cIoU", "N_acc", "T_acc"] = Field(
        "gIoU", description="the best checkpoint is the one that is highest in it"
    )
    patience: int = Field(
        0, ge=0, description="stop after so many evaluations without a new best; 0: never"
    )


class Config(_Fields):
    """A run. Paths are relative to the folder that the command is started in."""

    out: Path = Field(description="folder of checkpoints, curves and the finished model")
    model: str | Official = Field(
        description="a bundled name, a converted directory, official weights in their parts, or `new`: "
        "gsva-mini with random weights, for the objectives of its stages alone"
    )
    objective: Literal["gsva", "clip", "sam", "language", "joint", "edges"] = Field(
        "gsva", description="what is minimised: GSVA's losses, or those of a stage of gsva-mini"
    )
    sources: list[Data] = Field(min_length=1, description="what is learnt from")
    side: PositiveInt | None = Field(
        None,
        description="pixels a side of the square that gsva-mini's frames are squashed to, where that is to "
        "be another size than the model's",
    )
    parts: dict[Part, LearningRate] = Field(
        {"lm_head": 3e-4, "embed_tokens": 3e-4, "mask_decoder": 3e-4, "text_hidden_fcs": 3e-4},
        description="parts that are trained whole, with their peak learning rates; others are frozen",
    )
    heads: LearningRate = Field(
        1e-3, description="of what a stage of gsva-mini trains beside the model and throws away"
    )
    simple: Share = Field(
        0.5,
        description="share of gsva-mini's language stage in which simple expressions give way to all",
    )
    unseen: Share = Field(
        0.04, description="share of what a stage of gsva-mini asks for that no scene holds"
    )
    blend: float = Field(
        1.0,
        gt=0,
        le=1,
        description="how far what is exported goes from the weights that training began with to those "
        "that it learnt: less than 1 forgets less (Wortsman et al., CVPR 2022)",
    )
    lora: Lora | None = Field(None, description="low-rank factors; none where it is left out")
    export: Literal["merged", "adapter"] = Field(
        "merged", description="a whole model, or what was trained alone, which loads on its base"
    )
    words: Literal["official", "deployed"] = Field(
        "official",
        description="the official training's questions and answers, or those that the node asks with",
    )
    jitter: Share = Field(
        0.0, description="vary brightness and tint by up to this share, as lamps and cameras do"
    )
    joint: bool = Field(True, description="all expressions of a picture in one conversation")
    steps: PositiveInt = Field(5000, description="optimiser steps")
    batch: PositiveInt = Field(20, description="pictures a process and a forward pass")
    accumulation: PositiveInt = Field(1, description="forward passes a step")
    schedule: Literal["linear", "cosine"] = Field(
        "linear", description="how the learning rate falls to 0 after the warm-up"
    )
    warmup: int = Field(100, ge=0, description="steps in which the learning rate rises from 0")
    betas: tuple[Decay, Decay] = Field((0.9, 0.95), description="AdamW's")
    weight_decay: float = Field(0.0, ge=0, allow_inf_nan=False, description="AdamW's")
    clip: PositiveFloat = Field(1.0, description="largest norm of the gradient")
    clip_parts: bool = Field(False, description="clip each part by itself instead of all together")
    precision: Literal["float32", "bfloat16"] = Field(
        "bfloat16", description="of the forward pass, and of the weights that are frozen"
    )
    gradient_checkpointing: bool = Field(
        True, description="compute the language model's activations twice instead of keeping them"
    )
    seed: int = Field(0, ge=0, lt=2**32, description="of the samples, their words and dropout")
    workers: int = Field(
        0, ge=0, description="processes that prepare batches; 0: none of their own"
    )
    save_every: PositiveInt = Field(500, description="steps between checkpoints")
    evaluation: Evaluation | None = Field(None, description="none where it is left out")

    @model_validator(mode="after")
    def _fits(self) -> Config:
        edges = self.objective == "edges"
        if ("refiner" in self.parts) != edges or (self.parts.keys() == {"refiner"}) != edges:
            raise ValueError(
                "parts: the objective edges teaches the part refiner and nothing else, and no other "
                "objective reaches it"
            )
        if self.side and self.export == "adapter":
            raise ValueError(
                "side: an adapter loads on its base, which is of another size: export: merged"
            )
        if self.export == "adapter" and self.model == "new":
            raise ValueError("export: a new model is no base that an adapter could load on: merged")
        if self.export == "adapter" and self.evaluation and isinstance(self.model, Official):
            raise ValueError(
                "evaluation: an adapter on official weights in their parts loads by `gsva convert` alone: "
                "export: merged, or convert the weights first and begin with that folder"
            )
        if self.side and self.model == "new":
            raise ValueError(
                "side: a new model has the size of its recipe; the next stage can change it"
            )
        return self


def read_config(path: Path) -> Config:
    """Read and check a run's file.

    Raises:
        InputError: no such file, not YAML, an unknown field or a value that cannot be; names it.
    """
    data = read_yaml(path)
    if not isinstance(data, dict):
        raise InputError(f"{path}: holds no fields; see docs/training.md")
    return validated(Config, data, str(path), "see docs/training.md")
