"""Random models with a 7B's width and any number of layers, for measuring memory."""

from __future__ import annotations

import shutil
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import sentencepiece
import torch
from tiny import tiny_tokenizer_model
from torch import Tensor

from gsva_ros.model.config import GSVAConfig
from gsva_ros.model.gsva import GSVA

LAYER = 4 * 4096 * 4096 + 3 * 4096 * 11008


def llm(pieces: int, size: float) -> dict[str, Any]:
    """Configuration of a language model of about `size` GiB in 16 bits."""
    return {
        "vocab_size": pieces + 4,
        "hidden_size": 4096,
        "intermediate_size": 11008,
        "num_hidden_layers": max(1, round(size * 2**30 / 2 / LAYER)),
        "num_attention_heads": 32,
        "num_key_value_heads": 32,
    }


def tokenizer() -> tuple[bytes, int]:
    """A tokenizer model, and its number of pieces."""
    model = tiny_tokenizer_model()
    return model, sentencepiece.SentencePieceProcessor(model_proto=model).vocab_size()


def weights_of(config: GSVAConfig) -> dict[str, Tensor]:
    """A state dict in bfloat16."""
    with torch.device("meta"):
        shapes = GSVA(config).state_dict()
    return {k: torch.full(v.shape, 0.01, dtype=torch.bfloat16) for k, v in shapes.items()}


def in_a_folder(measure: Callable[[Path, float], None], size: float) -> None:
    """Measure with the command line's size, or else `size`, in a folder that is deleted afterwards."""
    size = float(sys.argv[1]) if len(sys.argv) > 1 else size
    folder = Path(tempfile.mkdtemp(dir=sys.argv[2] if len(sys.argv) > 2 else None))
    try:
        measure(folder, size)
    finally:
        shutil.rmtree(folder)
