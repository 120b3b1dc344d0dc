"""The configuration file of `gsva train`, which defines a run completely.

Defaults are those of the official training (LeapLabTHU/GSVA, `main.py` at 618dc79; the paper, section 4.1),
for one of its 8 GPUs.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, PositiveFloat, PositiveInt, model_validator

from ..errors import InputError, validated
from ..scoring import MetricName
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
    """Numbers may be strings (YAML parses "3e-4" as one); unknown fields are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Official(_Fields):
    """Published weights in separate parts, as `gsva convert` takes them."""

    llava: Path = Field(description="LLaVA directory that the weights were trained from")
    weights: Path = Field(description="GSVA's state dict")
    vision_tower: Path = Field(description="CLIP directory")
    conversation: Literal["llava_v1", "llava_llama_2"] = Field(
        "llava_v1", description="the conversation template"
    )
    lora_alpha: PositiveFloat = Field(
        16.0, allow_inf_nan=False, description="of LoRA factors that the weights hold unmerged"
    )


class Lora(_Fields):
    """LoRA on the language model's weights (peft)."""

    rank: PositiveInt = Field(8, description="8 for 7B, 64 for 13B")
    alpha: PositiveFloat = Field(
        16.0,
        allow_inf_nan=False,
        description="the product of the factors is scaled by alpha / rank",
    )
    dropout: float = Field(0.05, ge=0, lt=1, description="on the input of the factors")
    modules: list[Literal["q_proj", "k_proj", "v_proj", "o_proj"]] = Field(
        ["q_proj", "v_proj"], min_length=1, description="attention projections that get factors"
    )
    lr: LearningRate = Field(3e-4, description="peak learning rate")


class Data(BaseModel):
    """One source; all further fields are options of its kind, described in docs/training.md."""

    model_config = ConfigDict(extra="allow", frozen=True)

    kind: str = Field(description="one of the kinds of source below")
    rate: PositiveFloat = Field(
        1.0, allow_inf_nan=False, description="samples are drawn in proportion to it"
    )

    @property
    def options(self) -> dict[str, Any]:
        """The options that depend on the kind."""
        return dict(self.model_extra or {})


class Evaluation(_Fields):
    """Evaluation during training, with the project's metrics."""

    cases: str = Field(
        description='which data to score, as for `gsva eval`: "bag validation.mcap", "scenes --data DIR" '
        '(split `val` unless `--split` says otherwise), "dataset grefcoco val --root DIR"; options of the '
        "model and of the output are not taken"
    )
    every: PositiveInt = Field(500, description="steps between evaluations")
    metric: MetricName = Field(
        "gIoU", description="the best checkpoint is the one with the highest value"
    )
    patience: int = Field(
        0, ge=0, description="stop after this many evaluations without a new best; 0: never"
    )


class Config(_Fields):
    """A run. Paths are relative to the working directory."""

    out: Path = Field(description="folder for checkpoints, curves and the finished model")
    model: str | Official = Field(
        description="a bundled name, a converted directory, official weights in their parts, or `new`: "
        "gsva-mini with random weights, only for the objectives of its training stages"
    )
    objective: Literal["gsva", "clip", "sam", "language", "joint", "edges"] = Field(
        "gsva",
        description="what is minimised: GSVA's losses, or those of one of gsva-mini's training stages",
    )
    sources: list[Data] = Field(min_length=1, description="where the training samples come from")
    side: PositiveInt | None = Field(
        None,
        description="side, in pixels, of the square that gsva-mini squashes frames to, if it is to differ "
        "from the model's",
    )
    parts: dict[Part, LearningRate] = Field(
        {"lm_head": 3e-4, "embed_tokens": 3e-4, "mask_decoder": 3e-4, "text_hidden_fcs": 3e-4},
        description="parts that are trained fully, with their peak learning rates; all others are frozen",
    )
    heads: LearningRate = Field(
        1e-3,
        description="learning rate of the auxiliary heads that a gsva-mini stage trains: not part of the "
        "model, but saved next to it (auxiliary.safetensors) for the next stage",
    )
    simple: Share = Field(
        0.5,
        description="share of gsva-mini's language stage over which simple expressions give way to all",
    )
    unseen: Share = Field(
        0.04,
        description="share of a gsva-mini stage's prompts that ask for an object that no scene contains",
    )
    masks: PositiveInt = Field(
        3, description="masks per image, averaged over a batch, that a gsva-mini stage learns from"
    )
    blend: float = Field(
        1.0,
        gt=0,
        le=1,
        description="how far the exported weights lie from the initial weights (0) towards the trained "
        "ones (1): less than 1 forgets less (Wortsman et al., CVPR 2022)",
    )
    lora: Lora | None = Field(None, description="low-rank factors; none if omitted")
    export: Literal["merged", "adapter"] = Field(
        "merged",
        description="the whole model, or only what was trained, which loads on top of its base",
    )
    words: Literal["official", "deployed"] = Field(
        "official",
        description="the questions and answers of the official training, whose answers keep the "
        "capitals of the data's expressions, or those that the node uses, without capitals",
    )
    jitter: Share = Field(
        0.0, description="vary brightness and tint by up to this share, as lamps and cameras do"
    )
    joint: bool = Field(
        True,
        description="all expressions of an image in one conversation, or in several if it were too long",
    )
    steps: PositiveInt = Field(5000, description="optimiser steps")
    batch: PositiveInt = Field(20, description="images per process and forward pass")
    accumulation: PositiveInt = Field(1, description="forward passes per optimiser step")
    schedule: Literal["linear", "cosine"] = Field(
        "linear", description="how the learning rate falls to 0 after the warm-up"
    )
    warmup: int = Field(100, ge=0, description="steps over which the learning rate rises from 0")
    betas: tuple[Decay, Decay] = Field((0.9, 0.95), description="of AdamW")
    weight_decay: float = Field(0.0, ge=0, allow_inf_nan=False, description="of AdamW")
    clip: PositiveFloat = Field(1.0, description="maximum gradient norm")
    clip_parts: bool = Field(
        False, description="clip the gradients of each part separately instead of all together"
    )
    precision: Literal["float32", "bfloat16"] = Field(
        "bfloat16", description="of the forward pass and of the frozen weights"
    )
    gradient_checkpointing: bool = Field(
        True, description="recompute the language model's activations instead of keeping them"
    )
    seed: int = Field(
        0, ge=0, lt=2**32, description="random seed of the samples, their wording and dropout"
    )
    workers: int = Field(0, ge=0, description="worker processes that prepare batches; 0: none")
    save_every: PositiveInt = Field(500, description="steps between checkpoints")
    evaluation: Evaluation | None = Field(None, description="no evaluation if omitted")

    @model_validator(mode="after")
    def _fits(self) -> Config:
        edges = self.objective == "edges"
        if ("refiner" in self.parts) != edges or (self.parts.keys() == {"refiner"}) != edges:
            raise ValueError(
                "parts: the objective edges trains the part refiner and nothing else, and no other "
                "objective trains it"
            )
        if self.side and self.export == "adapter":
            raise ValueError("side: an adapter needs a base of the same size: set export: merged")
        if self.export == "adapter" and self.model == "new":
            raise ValueError("export: an adapter needs a base, which a new model lacks: use merged")
        if self.export == "adapter" and self.evaluation and isinstance(self.model, Official):
            raise ValueError(
                "evaluation: an adapter on official weights in separate parts only loads through "
                "`gsva convert`: set export: merged, or convert the weights and start from that folder"
            )
        if self.side and self.model == "new":
            raise ValueError(
                "side: a new model has the size of its recipe; the next stage can change it"
            )
        return self


def read_config(path: Path) -> Config:
    """Read and check a run's file.

    Raises:
        InputError: no such file, not YAML, an unknown field or an invalid value; the message names it.
    """
    data = read_yaml(path)
    if not isinstance(data, dict):
        raise InputError(f"{path}: has no fields; see docs/training.md")
    return validated(Config, data, str(path), "see docs/training.md")
