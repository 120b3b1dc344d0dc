"""Training renders as model input, and what a frozen backbone sees in them, computed once."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from ..model.backbone import SCALES
from ..model.clip import ClipPreprocessor
from ..model.config import GSVAConfig
from ..model.gsva import GSVA
from ..model.images import pretrained_stems
from ..model.sam import SamPreprocessor
from ..scenes import SceneSet, Stacked
from .kept import kept

BATCH = 32


class Frames:
    """Model inputs of the scenes, made by the same preprocessing that inference runs."""

    def __init__(self, scenes: SceneSet, config: GSVAConfig) -> None:
        self.scenes = scenes
        self.size = scenes.rgb.shape[1:3]
        self._clip = ClipPreprocessor(config.preprocessor)
        self._sam = SamPreprocessor.of(config.sam)
        self.resized = self._sam.resized(*self.size)
        self._seen: Seen | None = None

    def __len__(self) -> int:
        return len(self.scenes)

    def clip(self, rows: npt.NDArray[np.int64]) -> Tensor:
        """pixel_values float32 [B, 3, S, S] of these scenes."""
        return torch.stack([self._clip(frame) for frame in self._frames(rows)])

    def sam(self, rows: npt.NDArray[np.int64]) -> Tensor:
        """sam_pixel_values float32 [B, 3, S, S] of these scenes; `resized` of it is the frame."""
        return torch.stack([self._sam(frame) for frame in self._frames(rows)])

    def remember(self, model: GSVA) -> None:
        """Let the model's stems recall what their frozen backbones see in each scene: files beside them.

        The stems then know the scenes that `clip` or `sam` was asked for last, and no others. Nothing is
        done for a model whose stems have no such backbone, or whose towers see different pixels.
        """
        stems = pretrained_stems(model)
        if stems and torch.allclose(self.clip(np.arange(1)), self.sam(np.arange(1)), atol=1e-4):
            self._seen = Seen(self, stems[0].backbone)
            for stem in stems:
                stem.backbone = self._seen

    def _frames(self, rows: npt.NDArray[np.int64]) -> Iterator[npt.NDArray[np.uint8]]:
        if self._seen:
            self._seen.rows = rows
        return (self.scenes.rgb[row] for row in rows)


class Seen(nn.Module):
    """Stands where a backbone stands, and gives its features of the scenes `rows` from a file (float16)."""

    def __init__(self, frames: Frames, backbone: nn.Module) -> None:
        super().__init__()
        self.rows = np.arange(0)

        def look(rows: npt.NDArray[np.int64]) -> list[Tensor]:
            pixels = frames.sam(rows).contiguous(memory_format=torch.channels_last)
            with torch.autocast(pixels.device.type, torch.bfloat16):
                return [scale.permute(0, 2, 3, 1) for scale in backbone(pixels)]

        first, files = 0, []
        for folder, count in frames.scenes.folders:
            paths = [folder / f"backbone_{stride}.npy" for stride, _ in SCALES]
            files.append(kept(paths, count, BATCH, lambda rows, first=first: look(rows + first)))
            first += count
        self._scales = [Stacked(parts) for parts in zip(*files, strict=True)]

    def forward(self, pixels: Tensor) -> list[Tensor]:
        """The features of `rows` at each of SCALES, float32 [B, C, h, w]."""
        return [
            torch.from_numpy(scale[self.rows]).to(pixels.device).float().permute(0, 3, 1, 2)
            for scale in self._scales
        ]
