"""GSVA's own training: any sources, any base model, the paper's losses."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import torch
from accelerate.utils import parse_flag_from_env, set_seed
from torch import Tensor

from ..errors import InputError
from ..model.checkpoint import Checkpoint
from ..processes import processes
from .batches import Batcher
from .config import Config
from .conversations import Conversations
from .mixture import Mixture
from .objective import GSVAObjective
from .parts import base_of, divided, export, memory, partway, select
from .sources.table import make
from .trainer import Task


def task(config: Config, checkpoint: Checkpoint) -> Task:
    """The `Trainer` task that trains the checkpoint's model on the config's sources.

    Whatever can be known to fail before the first step is checked here.

    Raises:
        InputError: the model has no [REJ], a source cannot be used, an expression is too long, or there is
            too little memory.
    """
    set_seed(config.seed)  # for the LoRA factors' initial values and dropout
    model = checkpoint.model
    if not checkpoint.prompt.family.rejects:
        raise InputError(
            f"model: its family, {model.config.family}, has no [REJ], which training needs for absent "
            "things: start from a GSVA model"
        )
    conversations = Conversations(checkpoint.prompt, config.words, config.joint)
    batcher = Batcher(conversations, model.config, config.jitter)
    rng = np.random.default_rng(config.seed)
    sources = [(make(data, f"sources.{n}"), data.rate) for n, data in enumerate(config.sources)]
    for number, (source, _) in enumerate(sources):
        for expression in source.expressions():
            batcher.check(expression, f"sources.{number}")
        # Otherwise missing images of a rarely drawn source would only be found hours into a run.
        batcher([(source.draw(rng), rng)])
    groups = select(model, config)
    _check_memory(memory(groups, model))
    if config.gradient_checkpointing:
        # The transformers that Python 3.10 gets has only the older name.
        new = getattr(model.model, "activation_checkpointing_enable", None)
        (new or model.model.gradient_checkpointing_enable)({"use_reentrant": False})

    blend = partway(model, config.blend)

    def write(state: dict[str, Tensor], to: Path) -> None:
        own, _ = divided(state)
        export(checkpoint, blend(own), config, to)

    mixture = Mixture(sources, batcher, config.batch, config.seed)
    return Task(GSVAObjective(model), groups, mixture, write, base_of(checkpoint))


def _check_memory(needed: int) -> None:
    """InputError if weights, gradients and moments, `needed` bytes, do not fit one device's share."""
    if any(parse_flag_from_env(f"ACCELERATE_USE_{kind}") for kind in ("FSDP", "DEEPSPEED")):
        needed //= processes().num_processes
    if torch.cuda.is_available():
        device, have = "the GPU", torch.cuda.get_device_properties(0).total_memory
    else:
        device, have = "this machine", os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    if needed > have:
        raise InputError(
            f"weights, gradients and the optimiser's moments take {needed / 2**30:.1f} GiB before any "
            f"image, but {device} has {have / 2**30:.1f} GiB: train fewer `parts`, use `lora`, or "
            "shard them over several GPUs (accelerate's FSDP or DeepSpeed)"
        )
