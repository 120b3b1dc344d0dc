"""gsva-mini with random weights, which its first training stage starts from."""

from __future__ import annotations

import numpy as np
import sentencepiece
import torch
from torch import Tensor, nn

from ..model.checkpoint import Checkpoint
from ..model.gsva import GSVA
from ..model.prompt import Prompt
from ..model.tokenizer import TOKENIZER_NAME
from ..phrasing import requests, unknown
from ..phrasing.forms import reworded
from ..phrasing.words import SYNONYMS
from ..scenes import SceneSet
from .config import Config
from .recipe import mini_config
from .stages import scenes_of, vocabulary_of
from .text import train_tokenizer
from .trainer import states

#: The value of `model` for a run that starts with random weights.
NEW = "new"
#: Factor on transformers' initial token embeddings, which image tokens would otherwise outweigh.
WORDS_LOUDER = 10.0


def new_mini(config: Config) -> Checkpoint:
    """gsva-mini with random weights, and a tokenizer trained on the scenes' expressions."""
    scenes = scenes_of(config)
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
    _give_places(model.model.mm_position, sizes.patch_grid)
    return Checkpoint(model, Prompt.load(tokenizer, sizes), weights_hash="")


def _texts(scenes: SceneSet) -> list[str]:
    """The tokenizer's training text: expressions, rewordings of them, and the prompt's own words."""
    rng, words = np.random.default_rng(0), vocabulary_of(scenes)
    texts = [
        f"\nSegment {e.text}, {e.text}. ASSISTANT: Sure,{reworded(e.text, words, rng)}:"
        for expressions in scenes.expressions[:: max(1, len(scenes) // 4000)]
        for e in expressions
    ]
    synonyms = [word for kind in scenes.kinds for word in SYNONYMS.get(kind, ())]
    return texts + ["USER:", *requests.words(), *unknown.TAUGHT, *synonyms] * 200


def _give_places(positions: nn.Embedding, grid: int) -> None:
    """Initialise the image tokens' position embeddings as a 2-D code.

    The code is a random vector per row and per column, plus a linear slope along each axis. Initialised
    near zero, positions would be weak next to patch features, and relations would not be learnt.
    """
    generator = torch.Generator().manual_seed(0)
    width = positions.embedding_dim

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, width, generator=generator)

    cells = torch.arange(grid * grid)
    row, column = cells // grid, cells % grid
    middle, spread = (grid - 1) / 2, (grid**2 / 12) ** 0.5
    slopes = torch.stack([row - middle, column - middle], 1) / spread
    code = normal(grid)[row] + normal(grid)[column] + slopes @ normal(2)
    with torch.no_grad():
        positions.weight.copy_(0.3 * code)
