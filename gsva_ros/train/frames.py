"""Training renders as model input."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from ..model.clip import ClipPreprocessor
from ..model.config import GSVAConfig
from ..model.sam import SamPreprocessor
from ..scenes import SceneSet


class Frames:
    """Model inputs of the scenes, made by the same preprocessing that inference runs."""

    def __init__(self, scenes: SceneSet, config: GSVAConfig) -> None:
        self.scenes = scenes
        self._clip = ClipPreprocessor(config.preprocessor)
        self._sam = SamPreprocessor(config.sam["image_size"])
        height, width = scenes.rgb.shape[1:3]
        if max(height, width) != config.sam["image_size"]:
            raise ValueError(
                f"scenes are {width} x {height}; their longer side must be the SAM image size "
                f"{config.sam['image_size']}: render them so"
            )
        self.height = height

    def __len__(self) -> int:
        return len(self.scenes)

    def clip(self, rows: npt.NDArray[np.int64]) -> Tensor:
        """pixel_values float32 [B, 3, S, S] of these scenes."""
        return torch.stack([self._clip(self.scenes.rgb[row]) for row in rows])

    def sam(self, rows: npt.NDArray[np.int64]) -> Tensor:
        """sam_pixel_values float32 [B, 3, S, S] of these scenes, zero below the frame."""
        return torch.stack([self._sam(self.scenes.rgb[row]) for row in rows])


def jitter(pixels: Tensor, rng: np.random.Generator, height: int | None = None) -> Tensor:
    """Vary normalised pixels [B, 3, H, W] as cameras do: gain, offset, contrast per channel, noise.

    Rows from `height` on are padding and stay zero.
    """
    batch = len(pixels)
    gain = torch.from_numpy(rng.uniform(0.85, 1.15, (batch, 1, 1, 1)).astype(np.float32))
    tint = torch.from_numpy(rng.uniform(0.95, 1.05, (batch, 3, 1, 1)).astype(np.float32))
    offset = torch.from_numpy(rng.uniform(-0.15, 0.15, (batch, 1, 1, 1)).astype(np.float32))
    noise = torch.from_numpy(rng.standard_normal(pixels.shape, np.float32))
    level = torch.from_numpy(rng.uniform(0.0, 0.08, (batch, 1, 1, 1)).astype(np.float32))
    varied = pixels * gain * tint + offset + noise * level
    if height is not None:
        varied[:, :, height:] = 0.0
    return varied
