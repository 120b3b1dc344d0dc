"""Shared by both vision towers: frame checks, resizing, normalisation, and the convolutional stems."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from itertools import pairwise

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn

from .backbone import SCALES, Backbone, Glance
from .resample import columns_first, in_strips, resample

Rgb = NDArray[np.uint8]


def check_rgb(rgb: object) -> Rgb:
    """Return `rgb` if it is a non-empty uint8 array of shape (H, W, 3).

    Raises:
        TypeError: not a uint8 array.
        ValueError: wrong shape or empty.
    """
    if not isinstance(rgb, np.ndarray):
        raise TypeError(f"a frame is a numpy array, not {type(rgb).__name__}")
    if rgb.dtype != np.uint8:
        raise TypeError(f"a frame holds uint8 values 0 to 255, not {rgb.dtype}; convert it first")
    if rgb.ndim != 3 or rgb.shape[2] != 3:
        raise ValueError(f"a frame has shape (H, W, 3) in RGB order, not {rgb.shape}")
    if rgb.size == 0:
        raise ValueError(f"the frame is empty: shape {rgb.shape}")
    return rgb


def upload(rgb: Rgb, device: torch.device) -> Rgb | Tensor:
    """The frame for preprocessing on `device`: unchanged for a CPU, else copied to the device once."""
    if device.type == "cpu":
        return rgb
    staged = torch.empty(rgb.shape, dtype=torch.uint8, pin_memory=device.type == "cuda")
    staged.numpy()[...] = rgb
    return staged.to(device, non_blocking=True)


def blank(shape: tuple[int, ...], beside: Rgb | Tensor) -> Tensor:
    """Float32 zeros on the device of the frame `beside`; on a CPU by numpy, as in `normalise`."""
    if isinstance(beside, Tensor):
        return torch.zeros(shape, device=beside.device)
    return torch.from_numpy(np.zeros(shape, np.float32))


def resize(rgb: Rgb | Tensor, height: int, width: int, method: Image.Resampling) -> Tensor:
    """Resize uint8 [H, W, 3] to uint8 [height, width, 3] like PIL, which both official preprocessings use.

    An array is resized by PIL itself, a tensor on its device, bit for bit the same.
    """
    if isinstance(rgb, Tensor):
        if columns_first(rgb.shape[0], rgb.shape[1], method):
            return resample(rgb, height, width, method)
        return resize(rgb.cpu().numpy(), height, width, method).to(rgb.device)
    resized = np.empty((height, width, 3), np.uint8)
    in_strips(rgb, height, width, method, resized.__setitem__)
    return torch.from_numpy(resized)


def resize_normalised(
    rgb: Rgb | Tensor,
    pixels: Tensor,
    method: Image.Resampling,
    mean: NDArray[np.float32],
    std: NDArray[np.float32],
) -> None:
    """`resize` uint8 [H, W, 3] into float32 `pixels` [height, width, 3], and `normalise` in place."""
    height, width, _ = pixels.shape
    if isinstance(rgb, Tensor):
        normalise(pixels.copy_(resize(rgb, height, width, method)), mean, std)
        return

    def put(rows: slice, strip: Rgb) -> None:
        pixels[rows].numpy()[...] = strip
        normalise(pixels[rows], mean, std)

    in_strips(rgb, height, width, method, put)


def normalise(pixels: Tensor, mean: NDArray[np.float32], std: NDArray[np.float32]) -> None:
    """(pixels - mean) / std per channel of float32 pixels [H, W, 3], in place.

    On a CPU by numpy in the calling thread: torch would wake its thread pool for a millisecond of work,
    which can take ten.
    """
    height, width, _ = pixels.shape
    rows = pixels.view(height, -1)  # broadcasting over an innermost dimension of 3 is slow
    means, deviations = np.tile(mean, width), np.tile(std, width)
    if rows.is_cpu:
        values = rows.numpy()
        np.subtract(values, means, out=values)
        np.divide(values, deviations, out=values)
    else:
        rows.sub_(torch.from_numpy(means).to(rows.device))
        rows.div_(torch.from_numpy(deviations).to(rows.device))


class ConvStem(nn.Module):
    """Patch embedding by stride-2 convolutions instead of one large one (a departure of gsva-mini).

    Several 3x3 convolutions with GELU, widths doubling from 32 up to `embed_dim`, then a 1x1
    convolution. Maps [B, 3, H, W] to [B, embed_dim, H / stride, W / stride], or to
    [B, H / stride, W / stride, embed_dim] with `channels_last`, the layout of SAM's encoder.
    """

    def __init__(self, embed_dim: int, stride: int, channels_last: bool = False) -> None:
        super().__init__()
        stages = int(math.log2(stride))
        if 2**stages != stride:
            raise ValueError(
                f"a convolutional stem needs a patch size that is a power of two, not {stride}"
            )
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
