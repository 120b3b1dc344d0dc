"""Patches and words in one space, as CLIP's pictures and texts are.

An image token is taught to point along the embeddings of the words that are true of what it shows, and
along no other kind's or colour's. A language model that starts from there compares words with patches from
its first step, instead of finding an arbitrary translation between them.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..model.gsva import GSVA
from ..model.prompt import Prompt
from ..scenes import SceneSet
from .dense import DenseLabels


class WordContrast(nn.Module):
    """Sigmoid losses of every patch with every kind's and colour's word (SigLIP's, patch by patch)."""

    words: Tensor

    def __init__(self, model: GSVA, prompt: Prompt, scenes: SceneSet) -> None:
        super().__init__()
        spoken = [*scenes.kinds, *scenes.colours]
        self.kinds = len(scenes.kinds)
        rows = [
            model.embed(torch.tensor(prompt.tokenizer.encode([word]))).sum(0) for word in spoken
        ]
        self.register_buffer("words", F.normalize(torch.stack(rows).detach(), dim=-1))
        self.bias = nn.Parameter(torch.tensor(-4.0))

    def forward(
        self, image_tokens: Tensor, labels: DenseLabels
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss of image tokens [B, h, w, D] without their places, and accuracies where things are."""
        logits = image_tokens.float() @ self.words.T + self.bias
        kind, colour = logits.split([self.kinds, len(self.words) - self.kinds], -1)
        figures, wanted, told = {}, [], []
        for name, seen, truth in (("word", kind, labels.kind), ("hue", colour, labels.colour)):
            named = truth >= 0
            hot = F.one_hot(truth.clamp(min=0), seen.shape[-1]) * named[..., None]
            wanted.append(hot.float())
            # Of a thing without a name nothing is known, not even what it is not.
            told.append((~labels.known | named)[..., None].expand_as(hot))
            figures[name] = (seen.argmax(-1) == truth)[named].float().mean()
        target, known = torch.cat(wanted, -1), torch.cat(told, -1).float()
        loss = F.binary_cross_entropy_with_logits(logits, target, known, reduction="sum")
        return loss / target.sum().clamp(min=1.0), figures
