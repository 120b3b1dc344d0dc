"""Patch embeddings of both vision towers: gsva-mini's departure from the official single convolution."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .backbone import SCALES, Backbone, Glance


class ConvStem(nn.Module):
    """Patch embedding by stride-2 convolutions instead of one large one (a departure of gsva-mini).

    Several 3x3 convolutions with GELU, widths doubling from 32 up to `embed_dim`, then a 1x1
    convolution. Maps [B, 3, H, W] to [B, embed_dim, H / stride, W / stride], or to
    [B, H / stride, W / stride, embed_dim] with `channels_last`, the layout of SAM's encoder.
    """

    def __init__(self, embed_dim: int, stride: int, channels_last: bool = False) -> None:
        super().__init__()
        stages = stride.bit_length() - 1  # a power of two, see `schema._stem`
        widths = [3] + [min(32 * 2**i, embed_dim) for i in range(stages)]
        self.stages = nn.Sequential(*self._layers(widths))
        self.proj = nn.Conv2d(widths[-1], embed_dim, 1)
        self.channels_last = channels_last

    @staticmethod
    def _layers(widths: list[int]) -> Iterator[nn.Module]:
        for inputs, outputs in pairwise(widths):
            yield nn.Conv2d(inputs, outputs, 3, stride=2, padding=1)
            yield nn.GELU()

    @property
    def weight(self) -> Tensor:
        """The projection's weight: transformers reads the input dtype from it."""
        return self.proj.weight

    def forward(self, pixels: Tensor) -> Tensor:
        """Embed the patches of `pixels`."""
        # channels_last halves the time of a bfloat16 convolution's backward pass on a CPU.
        pixels = pixels.contiguous(memory_format=torch.channels_last)
        x: Tensor = self.proj(self.stages(pixels))
        return x.permute(0, 2, 3, 1) if self.channels_last else x


class PretrainedStem(nn.Module):
    """Patch embedding from a frozen backbone's features plus a convolutional stem (a departure).

    The backbone provides objects and textures; the stem learns fine edges and colours. Each feature scale
    is normalised, resampled to the patch grid and projected; the sum is the embedding. Pixels must be
    normalised with ImageNet's values, and their sides multiples of 32. Shapes as in `ConvStem`.
    """

    def __init__(self, embed_dim: int, stride: int, channels_last: bool = False) -> None:
        super().__init__()
        self.backbone: nn.Module = Backbone()
        self.fine = ConvStem(embed_dim, stride)
        self.channels_last = channels_last
        self.norms = nn.ModuleList(nn.LayerNorm(channels) for _, channels in SCALES)
        self.laterals = nn.ModuleList(
            nn.Linear(channels * max(1, stride // scale) ** 2, embed_dim)
            for scale, channels in SCALES
        )

    @property
    def weight(self) -> Tensor:
        """The convolutional stem's weight: transformers reads the input dtype from it."""
        return self.fine.weight

    def forward(self, pixels: Tensor) -> Tensor:
        """Embed the patches of `pixels`."""
        pixels = pixels.contiguous(memory_format=torch.channels_last)
        x: Tensor = self.fine(pixels).permute(0, 2, 3, 1)
        scales = zip(self.backbone(pixels), self.norms, self.laterals, strict=True)
        for features, norm, lateral in scales:
            features = features.to(norm.weight.dtype).permute(0, 2, 3, 1)
            x = x + self._on_grid(norm(features), lateral, x.shape[1:3])
        return x if self.channels_last else x.permute(0, 3, 1, 2)

    def _on_grid(self, features: Tensor, lateral: nn.Module, grid: Sequence[int]) -> Tensor:
        """Features [B, h, w, C] to embeddings [B, *grid, D]; a patch is several cells, or part of one."""
        several = features.shape[1] // grid[0]
        if several > 1:
            cells = features.unflatten(2, (-1, several)).unflatten(1, (-1, several))
            return lateral(cells.permute(0, 1, 3, 2, 4, 5).flatten(3))
        embedded = lateral(features).permute(0, 3, 1, 2)
        if features.shape[1] != grid[0]:
            embedded = F.interpolate(embedded, tuple(grid), mode="bilinear", align_corners=False)
        return embedded.permute(0, 2, 3, 1)


def pretrained_stems(model: nn.Module) -> list[PretrainedStem]:
    """The stems of a model's towers that use a backbone."""
    return [module for module in model.modules() if isinstance(module, PretrainedStem)]


def share_backbone(model: nn.Module) -> None:
    """Let the stems of a model's towers share one backbone."""
    stems = pretrained_stems(model)
    if len(stems) > 1:
        glance = Glance(stems[0].backbone)
        for stem in stems:
            stem.backbone = glance


#: Patch embeddings by their name in a config, except "patch": one strided convolution.
STEMS: dict[str, type[ConvStem] | type[PretrainedStem]] = {
    "conv": ConvStem,
    "efficientnet-lite0": PretrainedStem,
}
