"""What both vision inputs share: checked frames, PIL resizing, and the convolutional stem."""

from __future__ import annotations

import math
from collections.abc import Iterator
from itertools import pairwise

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn

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


def resize(rgb: Rgb, height: int, width: int, resample: Image.Resampling) -> Rgb:
    """Resize with PIL, whose filters both official preprocessings use (antialiased, 8 bits)."""
    image = Image.fromarray(np.ascontiguousarray(rgb))
    return np.asarray(image.resize((width, height), resample))


class ConvStem(nn.Module):
    """Patches by stride-2 convolutions instead of one large one (gsva-mini's departure).

    Several 3x3 convolutions with GELU, widths doubling from 32 up to `embed_dim`, then a 1x1
    convolution. Maps [B, 3, H, W] to [B, embed_dim, H / stride, W / stride], or to
    [B, H / stride, W / stride, embed_dim] with `channels_last`, as SAM's encoder wants it.
    """

    def __init__(self, embed_dim: int, stride: int, channels_last: bool = False) -> None:
        super().__init__()
        stages = int(math.log2(stride))
        if 2**stages != stride:
            raise ValueError(
                f"a convolutional stem needs a patch size of a power of two, not {stride}"
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
        # Channels last: the backward pass of a bfloat16 convolution takes half the time on a CPU.
        pixels = pixels.contiguous(memory_format=torch.channels_last)
        x: Tensor = self.proj(self.stages(pixels))
        return x.permute(0, 2, 3, 1) if self.channels_last else x


def to_tensor(pixels: NDArray[np.float32]) -> Tensor:
    """float32 array (H, W, 3) to a tensor [3, H, W]."""
    return torch.from_numpy(np.ascontiguousarray(pixels.transpose(2, 0, 1)))
