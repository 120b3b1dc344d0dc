"""Samples to a batch of tensors, with the same preprocessing as inference.

All rows about an image follow its tokens in one sequence, as branches: each attends to the image and to
itself, and its positions continue from the image's. So a row is read as if it were the only one, and the
image's tokens are read once.
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
from ..model.gsva import GSVA
from ..model.losses import IGNORE
from ..model.prompt import Prompt
from ..model.sam import SamPreprocessor
from .conversations import Conversations, Row
from .movable import Movable
from .packing import Laid, lay
from .sources.sample import Sample


@dataclass(frozen=True)
class Batch(Movable):
    """B images, and rows (conversations) about them.

    Attributes:
        pixel_values: float32 [B, 3, S, S], CLIP's input.
        sam_pixel_values: float32 [B, 3, S, S], SAM's.
        resized: (height, width) of each image in SAM's padded square.
        before, after: int64 [.], the ids before and after an image's tokens.
        laid: the rows as branches after their images; labels are IGNORE where no loss is computed.
        masks: for each image, the masks of its rows' slots, float32 [K, H, W].
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
        """Args: jitter: by how much brightness and tint are varied, 0 to 1."""
        self.conversations, self._jitter = conversations, jitter
        self._clip = ClipPreprocessor(config.preprocessor)
        self._sam = SamPreprocessor.of(config.sam)
        self._slots = conversations.prompt.tokenizer.slot_ids
        self._prefix = conversations.prompt.prefix_length(config.image_tokens)
        self._longest = config.positions - self._prefix

    def __call__(self, drawn: Sequence[tuple[Sample, np.random.Generator]]) -> Batch:
        """Build a batch of samples, each with the random generator for its wording and jitter."""
        rows = [self.conversations.rows(sample, rng, self._longest) for sample, rng in drawn]
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

    def check(self, expression: str, place: str) -> None:
        """Raise InputError if an expression, asked alone, exceeds the model's context; names its place."""
        length = self.conversations.longest(expression)
        if length > self._longest:
            raise InputError(
                f"{place}: the expression {expression[:60]!r}… takes {length} tokens with its question, "
                f"but the model reads at most {self._longest}: shorten or remove it"
            )

    def _cut(self, row: Row) -> Row:
        """Truncate a row to the model's context; InputError if that would remove a slot."""
        end = min(len(row.ids), self._longest)
        # The last position predicts nothing, or what is cut off.
        cut = Row(row.ids[:end], [*row.labels[: end - 1], IGNORE], row.masks)
        if sum(token in self._slots for token in cut.ids) < len(row.masks):
            raise InputError(
                f"an expression takes {len(row.ids)} tokens with its question and answer, but the model "
                f"reads at most {self._longest}: shorten or remove it"
            )
        return cut


def jittered(image: NDArray[np.uint8], share: float, rng: np.random.Generator) -> NDArray[np.uint8]:
    """Vary the brightness of an image uint8 [H, W, 3], and that of each channel separately (tint)."""
    if not share:
        return image
    gain = rng.uniform(1 - share, 1 + share) * rng.uniform(1 - share / 2, 1 + share / 2, 3)
    table = np.clip(gain[:, None] * np.arange(256), 0, 255).astype(np.uint8)
    return np.asarray(Image.fromarray(np.ascontiguousarray(image)).point(table.ravel().tolist()))


def embedded(
    model: GSVA, around: tuple[Tensor, Tensor], clip_tokens: Tensor, ids: Tensor
) -> Tensor:
    """Embeddings [B, T, D] of images with the ids around each, and of the rows that follow them.

    Args:
        around: see `around`. clip_tokens: [B, N, Cv]. ids: int64 [B, L], of the rows.
    """
    before, after = (model.embed(part).expand(len(ids), -1, -1) for part in around)
    # What is trained is in float32, even where what is frozen is not; a CPU's layer norm takes no mixture.
    clip_tokens = clip_tokens.to(next(model.model.mm_projector.parameters()).dtype)
    return torch.cat([before, model.project(clip_tokens), after, model.embed(ids)], 1)


def around(prompt: Prompt, device: torch.device | None = None) -> tuple[Tensor, Tensor]:
    """The ids before and after an image's tokens, int64 [.]."""
    before, after = (
        torch.tensor(ids, dtype=torch.long, device=device)
        for ids in (prompt.before_image, prompt.after_image)
    )
    return before, after
