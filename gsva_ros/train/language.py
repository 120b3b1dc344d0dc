"""Second stage: the language model learns to read expressions and to decide slots.

The CLIP-like encoder is frozen and its features cached, so that a step costs the language model alone.
Masks come in the joint stage (`joint.py`), which runs and trains everything.
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
from ..scenes import SceneSet
from .batches import around
from .frames import Frames
from .grounding import ANCHOR, Grounding, Read
from .kept import kept
from .packing import Packed, pack, read_packed
from .text import Branches
from .vision import Losses


class FeatureCache:
    """The CLIP-like encoder's features of every scene, float16 on disk, computed once."""

    def __init__(self, model: GSVA, frames: Frames, path: Path, device: torch.device) -> None:
        def encode(rows: np.ndarray) -> list[Tensor]:
            with torch.autocast(device.type, torch.bfloat16):
                return [model.encode_clip(frames.clip(rows).to(device))]

        (self.clip_tokens,) = kept([path], len(frames), 64, encode)

    def clip(self, rows: np.ndarray, device: torch.device) -> Tensor:
        """clip_tokens [B, N, C] of these scenes."""
        return torch.from_numpy(self.clip_tokens[rows]).to(device).float()


@dataclass
class Pass:
    """One pass over packed branches: what the mask losses go on from."""

    loss: Tensor
    figures: dict[str, float]
    packed: Packed
    slots: Tensor  # hidden states that decide the slots [K, D]


class LanguageLoss:
    """Cross-entropy of the answers on packed branches, with terms that make a small model learn.

    Besides GSVA's cross-entropy over the answer's words: the slot decisions' own, which the words would
    drown, and `Grounding`.
    """

    def __init__(
        self,
        model: GSVA,
        scenes: SceneSet,
        branches: Branches,
        grounding: Grounding,
    ) -> None:
        self.model, self.scenes, self.branches = model, scenes, branches
        self.grounding = grounding
        self._asked = np.flatnonzero([bool(e) for e in scenes.expressions])

    def rows(self, rng: np.random.Generator, count: int) -> np.ndarray:
        """So many scenes [B] of those that something is asked about."""
        return self._asked[rng.integers(len(self._asked), size=count)]

    @property
    def device(self) -> torch.device:
        """Where the model is."""
        return self.model.device

    def __call__(
        self,
        rows: np.ndarray,
        rng: np.random.Generator,
        clip_tokens: Tensor,
        simple: float = 0.0,
    ) -> Pass:
        """One pass over the scenes `rows` [B].

        Args:
            simple: which share of them is asked about in simple expressions alone (`Branches.sample`).
        """
        model, batch = self.model, len(rows)
        before, after = (ids.to(self.device) for ids in around(self.branches.prompt))
        slot_ids = torch.tensor(self.branches.slot_ids, device=self.device)
        images = [
            self.branches.sample(self.scenes.expressions[int(r)], rng, bool(rng.random() < simple))
            for r in rows
        ]
        start, patches = len(before), clip_tokens.shape[1]
        prefix = start + patches + len(after)
        packed = pack(prefix, images).to(self.device)
        with torch.autocast(self.device.type, torch.bfloat16):
            x = torch.cat(
                [
                    model.embed(before).expand(batch, -1, -1),
                    model.project(clip_tokens),
                    model.embed(after).expand(batch, -1, -1),
                    model.embed(packed.ids),
                ],
                1,
            )
            allowed = packed.allowed[:, :, prefix:]
            bias = torch.zeros(allowed.shape, device=self.device, dtype=torch.bfloat16)
            bias.masked_fill_(~allowed, float("-inf"))
            *layers, last = read_packed(model.model, x, packed.position_ids, prefix, bias)
            hidden = last[:, prefix:]
            spoken = packed.labels != IGNORE
            logits = model.lm_head(hidden[spoken]).float()
            image, place = packed.slot_at.unbind(1)
            seen = slice(start, start + patches)
            grounding_loss, grounded = self.grounding(
                Read(tuple(layers), packed, rows, seen, prefix)
            )
        labels = packed.labels[spoken]
        per_token = F.cross_entropy(logits, labels, reduction="none")
        is_slot = torch.isin(labels, slot_ids)
        slot_loss, text_loss = per_token[is_slot].mean(), per_token[~is_slot].mean()
        right = logits[is_slot].argmax(-1) == labels[is_slot]
        absent = labels[is_slot] == slot_ids[1]
        related = torch.tensor([bool(ANCHOR.search(t)) for t in packed.slot_texts])
        figures = {
            "text": text_loss.item(),
            "slot": slot_loss.item(),
            "N": right[absent].float().mean().item(),
            "T": right[~absent].float().mean().item(),
            "relations": right[related.to(right.device)].float().mean().item(),
        }
        loss = text_loss + slot_loss + grounding_loss
        return Pass(loss, figures | grounded, packed, hidden[image, place])


def language_losses(loss: LanguageLoss, cache: FeatureCache, simple: float) -> Losses:
    """The language model learns on cached features.

    Args:
        simple: steps after which no scene is asked about in simple expressions alone; at first all are.
    """

    def losses(step: int, batch: int) -> tuple[Tensor, dict[str, float]]:
        rng = np.random.default_rng([3, step])
        rows = loss.rows(rng, batch)
        share = 1.0 - step / simple if step < simple else 0.0
        result = loss(rows, rng, cache.clip(rows, loss.device), share)
        return result.loss, result.figures

    return losses
