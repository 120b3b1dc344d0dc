"""Samples as one batch of tensors, by the preprocessing that inference runs.

All rows about a picture stand behind its tokens in one sequence, as branches: each sees the picture and
itself, and its positions go on from the picture's. So a row is read as if it stood there alone, and the
picture's tokens are read once.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from ..errors import InputError
from ..model.clip import ClipPreprocessor
from ..model.config import GSVAConfig
from ..model.prompt import Prompt
from ..model.sam import SamPreprocessor
from .conversations import Conversations, Row
from .movable import Movable
from .packing import Laid, lay
from .sources.sample import Sample


@dataclass(frozen=True)
class Batch(Movable):
    """B pictures, and rows (conversations) about them.

    Attributes:
        pixel_values: float32 [B, 3, S, S], CLIP's input.
        sam_pixel_values: float32 [B, 3, S, S], SAM's.
        resized: (height, width) of each picture in SAM's padded square.
        before, after: int64 [.], the ids around a picture's tokens.
        laid: the rows as branches behind their pictures; labels are IGNORE where nothing is learnt.
        masks: for each picture, the masks of its rows' slots, float32 [K, H, W].
    """

    pixel_values: Tensor
    sam_pixel_values: Tensor
    resized: list[tuple[int, int]]
    before: Tensor
    after: Tensor
    laid: Laid
    masks: list[Tensor]


class Batcher:
    """Makes batches for one model."""

    def __init__(
        self, conversations: Conversations, config: GSVAConfig, jitter: float = 0.0
    ) -> None:
        """Args: jitter: how much brightness and tint are varied, 0 to 1."""
        self.conversations, self._jitter = conversations, jitter
        self._clip = ClipPreprocessor(config.preprocessor)
        self._sam = SamPreprocessor.of(config.sam)
        self._slots = {config.seg_token_id, config.rej_token_id}
        prompt = conversations.prompt
        self._prefix = len(prompt.before_image) + config.image_tokens + len(prompt.after_image)
        self._longest = int(config.llm["max_position_embeddings"]) - self._prefix

    def __call__(self, drawn: Sequence[tuple[Sample, np.random.Generator]]) -> Batch:
        """Samples, each with the generator that its words are drawn with."""
        rows = [self.conversations.rows(sample, rng) for sample, rng in drawn]
        rows = [[self._cut(row) for row in of_image] for of_image in rows]
        images = [jittered(sample.image, self._jitter, rng) for sample, rng in drawn]
        before, after = around(self.conversations.prompt)
        return Batch(
            pixel_values=torch.stack([self._clip(image) for image in images]),
            sam_pixel_values=torch.stack([self._sam(image) for image in images]),
            resized=[self._sam.resized(*image.shape[:2]) for image in images],
            before=before,
            after=after,
            laid=lay(self._prefix, rows),
            masks=[
                torch.from_numpy(np.concatenate([row.masks for row in of_image])).float()
                for of_image in rows
            ],
        )

    def check(self, expression: str) -> None:
        """InputError where an expression, asked alone, is longer than the model can read."""
        length = self.conversations.longest(expression)
        if length > self._longest:
            raise InputError(
                f"the expression {expression[:60]!r}… takes {length} tokens with its question, and "
                f"the model reads at most {self._longest}: shorten or remove it"
            )

    def _cut(self, row: Row) -> Row:
        """A row as far as the model reads; with a slot behind that, it cannot be learnt."""
        cut = Row(row.ids[: self._longest], row.labels[: self._longest], row.masks)
        if sum(token in self._slots for token in cut.ids) < len(row.masks):
            many = "lower the source's per_image, or set joint: false"
            raise InputError(
                f"a conversation with {len(row.masks)} expressions takes {len(row.ids)} tokens, and "
                f"the model reads at most {self._longest}: "
                f"{many if len(row.masks) > 1 else 'shorten or remove the expression'}"
            )
        return cut


def jittered(image: NDArray[np.uint8], share: float, rng: np.random.Generator) -> NDArray[np.uint8]:
    """Another brightness, and another one for each of red, green and blue; uint8 [H, W, 3]."""
    if not share:
        return image
    gain = rng.uniform(1 - share, 1 + share) * rng.uniform(1 - share / 2, 1 + share / 2, 3)
    table = np.clip(gain[:, None] * np.arange(256), 0, 255).astype(np.uint8)
    return np.asarray(Image.fromarray(np.ascontiguousarray(image)).point(table.ravel().tolist()))


def around(prompt: Prompt) -> tuple[Tensor, Tensor]:
    """The ids before and after a picture's tokens, int64 [.]."""
    return (
        torch.tensor(prompt.before_image, dtype=torch.long),
        torch.tensor(prompt.after_image, dtype=torch.long),
    )
