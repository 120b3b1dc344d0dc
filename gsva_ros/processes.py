"""The processes that share a training run or an evaluation: one, or those of accelerate or torchrun."""

from __future__ import annotations

import atexit

import torch
from accelerate import PartialState
from accelerate.utils import parse_flag_from_env


def processes() -> PartialState:
    """This process's state: process_index, num_processes, is_main_process, device."""
    # Without `cpu`, accelerate does not connect several processes on a machine without GPUs.
    asked = parse_flag_from_env("ACCELERATE_USE_CPU")
    return PartialState(cpu=asked or not torch.cuda.is_available())


@atexit.register
def _disconnect() -> None:
    """Close the connections to the other processes: their threads can abort a Python that ends."""
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()
