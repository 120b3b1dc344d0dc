"""The processes that share an evaluation: one, or as many as accelerate or torchrun started."""

from __future__ import annotations

import torch
from accelerate import PartialState


def processes() -> PartialState:
    """This process among them: process_index, num_processes, is_main_process, device."""
    # Told nothing, accelerate takes several processes without GPUs for strangers to each other.
    return PartialState(cpu=not torch.cuda.is_available())
