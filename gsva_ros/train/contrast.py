"""A contrastive loss that aligns image patches with word embeddings, like CLIP's images and texts.

An image token is trained to point along the embeddings of the words that describe what it shows, and away
from those of other kinds and colours. A language model that starts from there can compare words with
patches from its first step, instead of having to learn an arbitrary mapping between them.
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
    """Sigmoid loss of every patch with the word of every kind and colour (SigLIP's, per patch)."""

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
        """The loss of image tokens [B, h, w, D] without position embeddings, and accuracies on objects."""
        logits = image_tokens.float() @ self.words.T + self.bias
        kind, colour = logits.split([self.kinds, len(self.words) - self.kinds], -1)
        figures, wanted, told = {}, [], []
        for name, seen, truth in (("word", kind, labels.kind), ("hue", colour, labels.colour)):
            named = truth >= 0
            hot = F.one_hot(truth.clamp(min=0), seen.shape[-1]) * named[..., None]
            wanted.append(hot.float())
            # For an unnamed thing nothing is known, not even which names are wrong.
            told.append((~labels.known | named)[..., None].expand_as(hot))
            figures[name] = (seen.argmax(-1) == truth)[named].float().mean()
        target, known = torch.cat(wanted, -1), torch.cat(told, -1).float()
        loss = F.binary_cross_entropy_with_logits(logits, target, known, reduction="sum")
        return loss / target.sum().clamp(min=1.0), figures
