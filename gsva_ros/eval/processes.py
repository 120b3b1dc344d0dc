"""The processes that share an evaluation: one, or those started by accelerate or torchrun."""

from __future__ import annotations

import torch
from accelerate import PartialState


def processes() -> PartialState:
    """This process's state: process_index, num_processes, is_main_process, device."""
    # Without `cpu`, accelerate does not connect several processes on a machine without GPUs.
    return PartialState(cpu=not torch.cuda.is_available())
