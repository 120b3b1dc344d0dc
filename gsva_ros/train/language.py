"""Third stage: the language model learns to read expressions and to decide slots.

The CLIP-like encoder is frozen. On a CPU its features are cached, so that a step only runs the language
model; on a GPU it runs in each step, which is cheaper than reading them. Masks are trained in the joint
stage (`joint.py`), together with everything else.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ..model.gsva import GSVA
from ..model.losses import IGNORE
from ..model.prompt import Prompt
from ..scenes import SceneSet
from .batches import around, embedded
from .frames import Frames, Pictures
from .grounding import Grounding, Read
from .kept import kept, key_of
from .known import Known, known
from .movable import Movable
from .packing import Packed, pack, read_packed
from .text import BranchWriter


@dataclass
class Asked(Movable):
    """The branches about a batch's images, and their ground truth."""

    packed: Packed
    known: Known


class Questions:
    """Draws scenes that have expressions, and the questions about them."""

    def __init__(self, scenes: SceneSet, writer: BranchWriter, grid: int) -> None:
        """Args: grid: `GSVAConfig.patch_grid`."""
        self.scenes, self.writer = scenes, writer
        self._grid = grid
        self._prefix = writer.prompt.prefix_length(grid**2)
        self._asked = scenes.asked()

    def rows(self, rng: np.random.Generator, count: int) -> np.ndarray:
        """Draw `count` scenes; returns their rows [B]."""
        return self._asked[rng.integers(len(self._asked), size=count)]

    def about(self, rows: np.ndarray, rng: np.random.Generator, simple: float = 0.0) -> Asked:
        """Draw the questions about the scenes `rows` [B].

        Args:
            simple: fraction of the scenes with simple expressions only (`BranchWriter.sample`).
        """
        scenes, sample = self.scenes, self.writer.sample
        images = [
            sample(scenes.expressions[r], rng, bool(rng.random() < simple), scenes.photograph[r])
            for r in rows
        ]
        packed = pack(self._prefix, images)
        return Asked(packed, known(scenes, self._grid, rows, packed))


@dataclass
class Pass:
    """Results of one pass over packed branches, for the mask losses."""

    loss: Tensor
    figures: dict[str, Tensor]
    slots: Tensor  # hidden states that decide the slots [K, D]


class LanguageLoss:
    """Cross-entropy of the answers on packed branches, with extra terms that a small model needs.

    Besides GSVA's cross-entropy over the answer's text: a separate one of the slot decisions, which the
    text would outweigh, and `Grounding`.
    """

    def __init__(self, model: GSVA, prompt: Prompt, grounding: Grounding) -> None:
        grounding.check()
        self.model, self.grounding = model, grounding
        self._around = around(prompt, model.device)
        self._slot_ids = torch.tensor(prompt.tokenizer.slot_ids, device=model.device)

    def __call__(self, asked: Asked, clip_tokens: Tensor) -> Pass:
        """Run the branches about the images of clip_tokens [B, N, C]."""
        model, packed, (before, after) = self.model, asked.packed, self._around
        start, patches = len(before), clip_tokens.shape[1]
        prefix = start + patches + len(after)
        with torch.autocast(clip_tokens.device.type, torch.bfloat16):
            x = embedded(model, self._around, clip_tokens, packed.ids)
            bias = packed.bias(torch.bfloat16)[:, :, prefix:]
            *layers, last = read_packed(model.model, x, packed.position_ids, prefix, bias)
            hidden = last[:, prefix:]
            spoken = packed.labels != IGNORE
            logits = model.lm_head(hidden[spoken]).float()
            image, place = packed.slot_at.unbind(1)
            seen = slice(start, start + patches)
            grounding_loss, grounded = self.grounding(
                Read(tuple(layers), packed, asked.known, seen, prefix)
            )
        figures = self._figures(logits, packed.labels[spoken], asked.known.relations)
        loss = figures["text"] + figures["slot"] + grounding_loss
        return Pass(loss, figures | grounded, hidden[image, place])

    def _figures(self, logits: Tensor, labels: Tensor, relations: Tensor) -> dict[str, Tensor]:
        """The cross-entropies of text and slots, and the slots' accuracies.

        Args:
            logits: [N, V], of the answers' tokens. labels: int64 [N]. relations: bool [K], of the slots.
        """
        per_token = F.cross_entropy(logits, labels, reduction="none")
        is_slot = torch.isin(labels, self._slot_ids)
        right = (logits[is_slot].argmax(-1) == labels[is_slot]).float()
        absent = labels[is_slot] == self._slot_ids[1]
        return {
            "text": per_token[~is_slot].mean(),
            "slot": per_token[is_slot].mean(),
            "N": right[absent].mean(),
            "T": right[~absent].mean(),
            "relations": right[relations].mean(),
        }


@dataclass
class LanguageBatch(Movable):
    """Pictures, or the encoder's features of them, float16 [B, N, C], and the questions about them."""

    seen: Pictures | Tensor
    asked: Asked


class LanguageStage:
    """Trains the language model on a frozen vision encoder."""

    def __init__(
        self,
        loss: LanguageLoss,
        questions: Questions,
        frames: Frames,
        cache: Path | None,
        simple: float,
    ) -> None:
        """
        Args:
            cache: file for the encoder's features of every scene; None: the encoder runs in each step.
            simple: number of batches over which the fraction of scenes with simple expressions only falls
                from 1 to 0.
        """
        self._loss, self._questions, self._frames, self._simple = loss, questions, frames, simple
        self._kept = self._features(cache) if cache else None

    def draw(self, step: int, batch: int, rng: np.random.Generator) -> LanguageBatch:
        """The step's scenes and questions."""
        rows = self._questions.rows(rng, batch)
        simple = 1.0 - step / self._simple if step < self._simple else 0.0
        asked = self._questions.about(rows, rng, simple)
        if self._kept is not None:
            return LanguageBatch(torch.from_numpy(self._kept[rows]), asked)
        return LanguageBatch(self._frames.draw(rows, rng), asked)

    def losses(self, batch: LanguageBatch) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss, and metrics."""
        seen = batch.seen
        tokens = seen.float() if isinstance(seen, Tensor) else self._encode(seen)
        result = self._loss(batch.asked, tokens)
        return result.loss, result.figures

    @torch.no_grad()
    def _encode(self, pictures: Pictures) -> Tensor:
        pixels = self._frames.show(pictures)
        with torch.autocast(pixels.device.type, torch.bfloat16):
            return self._loss.model.encode_clip(pixels).float()

    def _features(self, path: Path) -> np.ndarray:
        def encode(rows: np.ndarray) -> list[Tensor]:
            return [self._encode(self._frames.draw(rows, np.random.default_rng(0)))]

        key = key_of(self._loss.model.model.vision_tower, self._frames.scenes.folders)
        (features,) = kept([path], key, len(self._frames), 64, encode)
        return features
