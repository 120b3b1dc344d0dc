"""Samples as one batch of tensors, by the preprocessing that inference runs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..errors import InputError
from ..model.clip import ClipPreprocessor
from ..model.config import GSVAConfig
from ..model.losses import IGNORE
from ..model.sam import SamPreprocessor
from .conversations import Conversations, Row
from .sources.sample import Sample


@dataclass(frozen=True)
class Batch:
    """B pictures and R rows (conversations) about them.

    Attributes:
        pixel_values: float32 [B, 3, S, S], CLIP's input.
        sam_pixel_values: float32 [B, 3, S, S], SAM's.
        resized: (height, width) of each picture in SAM's padded square.
        image_of: int64 [R], each row's picture, in rising order.
        input_ids: int64 [R, T], with one IMAGE_TOKEN_ID at the same place in every row; 0 behind a row's end.
        attention_mask: bool [R, T], False behind a row's end.
        labels: int64 [R, T], IGNORE where nothing is learnt.
        masks: for each picture, the masks of its rows' slots, float32 [K, H, W].
    """

    pixel_values: Tensor
    sam_pixel_values: Tensor
    resized: list[tuple[int, int]]
    image_of: Tensor
    input_ids: Tensor
    attention_mask: Tensor
    labels: Tensor
    masks: list[Tensor]

    def to(self, device: torch.device) -> Batch:
        """The same batch on another device."""
        moved: dict[str, Any] = {"masks": [mask.to(device) for mask in self.masks]}
        for field in fields(self):
            value = getattr(self, field.name)
            if isinstance(value, Tensor):
                moved[field.name] = value.to(device)
        return replace(self, **moved)


class Batcher:
    """Makes batches for one model."""

    def __init__(self, conversations: Conversations, config: GSVAConfig) -> None:
        self.conversations = conversations
        self._clip = ClipPreprocessor(config.preprocessor)
        self._sam = SamPreprocessor(config.sam["image_size"])
        # One id stands for all of a picture's tokens.
        self._longest = int(config.llm["max_position_embeddings"]) - config.image_tokens + 1

    def __call__(self, drawn: Sequence[tuple[Sample, np.random.Generator]]) -> Batch:
        """Samples, each with the generator that its words are drawn with."""
        rows = [self.conversations.rows(sample, rng) for sample, rng in drawn]
        images = [sample.image for sample, _ in drawn]
        flat = [row for of_image in rows for row in of_image]
        input_ids, attention_mask, labels = self._padded(flat)
        return Batch(
            pixel_values=torch.stack([self._clip(image) for image in images]),
            sam_pixel_values=torch.stack([self._sam(image) for image in images]),
            resized=[self._sam.resized(*image.shape[:2]) for image in images],
            image_of=torch.tensor([i for i, of_image in enumerate(rows) for _ in of_image]),
            input_ids=input_ids,
            attention_mask=attention_mask,
            labels=labels,
            masks=[
                torch.from_numpy(np.concatenate([row.masks for row in of_image])).float()
                for of_image in rows
            ],
        )

    def check(self, expression: str) -> None:
        """InputError where an expression, asked alone, is longer than the model can read."""
        turn = self.conversations.prompt.segment_turn([expression], [False])
        length = len(self.conversations.prompt.full(turn))
        if length > self._longest:
            raise InputError(
                f"the expression {expression[:60]!r}… takes {length} tokens with its prompt, and the "
                f"model reads at most {self._longest}: shorten or remove it"
            )

    def _padded(self, rows: Sequence[Row]) -> tuple[Tensor, Tensor, Tensor]:
        """Ids, attention mask and labels [R, T]; what a model cannot read is cut off, as the official does."""
        length = min(max(len(row.ids) for row in rows), self._longest)
        ids = torch.zeros(len(rows), length, dtype=torch.long)
        labels = torch.full((len(rows), length), IGNORE)
        lengths = torch.tensor([len(row.ids) for row in rows])
        for at, row in enumerate(rows):
            kept = row.ids[:length]
            ids[at, : len(kept)] = torch.tensor(kept)
            labels[at, : len(kept)] = torch.tensor(row.labels[:length])
        return ids, torch.arange(length) < lengths[:, None], labels
