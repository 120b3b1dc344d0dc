"""GSVA's own training: any sources, any base model, the paper's losses."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import torch
from accelerate.utils import set_seed
from torch import Tensor

from ..errors import InputError
from ..model.checkpoint import Checkpoint
from .batches import Batcher
from .config import Config
from .conversations import Conversations
from .mixture import Mixture
from .objective import GSVAObjective
from .parts import export, memory, partway, select
from .sources.table import make
from .trainer import Task


def task(config: Config, checkpoint: Checkpoint) -> Task:
    """What `Trainer` runs: the checkpoint's model, learning from the config's sources.

    Everything that can be known to fail before the first step is tried here.

    Raises:
        InputError: a model without [REJ], a source's data, an expression or a conversation that is too
            long, too little memory.
    """
    set_seed(config.seed)  # the factors' first values, and dropout
    model = checkpoint.model
    if not checkpoint.prompt.family.rejects:
        raise InputError(
            f"model: its family, {model.config.family}, has no [REJ], with which training answers what is "
            "not there: begin with a GSVA"
        )
    conversations = Conversations(checkpoint.prompt, config.words, config.joint)
    batcher = Batcher(conversations, model.config, config.jitter)
    rng = np.random.default_rng(config.seed)
    sources = [(make(data, f"sources.{n}"), data.rate) for n, data in enumerate(config.sources)]
    for source, _ in sources:
        for expression in source.expressions():
            batcher.check(expression)
        # A rare source would tell hours into a run that its pictures are not there.
        batcher([(source.draw(rng), rng)])
    groups = select(model, config)
    _check_memory(memory(groups, model), config)
    if config.gradient_checkpointing:
        model.model.activation_checkpointing_enable({"use_reentrant": False})

    blend = partway(model, config.blend)

    def write(state: dict[str, Tensor], to: Path) -> None:
        model_state = {n.removeprefix("model."): v for n, v in state.items()}
        export(checkpoint, blend(model_state), config, to)

    mixture = Mixture(sources, batcher, config.batch, config.seed)
    return Task(GSVAObjective(model), groups, mixture, write)


def _check_memory(needed: int, config: Config) -> None:
    if torch.cuda.is_available():
        device, have = "the GPU", torch.cuda.get_device_properties(0).total_memory
    else:
        device, have = "this machine", os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    if needed > have:
        raise InputError(
            f"weights, gradients and the optimiser's moments take {needed / 2**30:.1f} GiB before any "
            f"picture, and {device} has {have / 2**30:.1f} GiB: train fewer `parts`, use `lora`, or "
            "share them out over several GPUs (accelerate's FSDP or DeepSpeed)"
        )
