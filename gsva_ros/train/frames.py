"""Rendered training scenes as model input, with features of the frozen backbone computed once."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from ..errors import InputError
from ..model.backbone import SCALES, same_pixels
from ..model.clip import ClipPreprocessor
from ..model.config import GSVAConfig
from ..model.gsva import GSVA
from ..model.sam import SamPreprocessor
from ..model.stems import pretrained_stems
from ..scenes import SceneSet, Stacked
from .batches import jittered
from .kept import kept, key_of
from .movable import Movable

BATCH = 32


@dataclass
class Pictures(Movable):
    """Input of both towers of gsva-mini.

    Attributes:
        pixels: float32 [B, 3, S, S].
        features: cached features of the frozen backbone, if any: float16 [B, h, w, C] per scale.
    """

    pixels: Tensor
    features: list[Tensor]


class Frames:
    """Model inputs of the scenes, with the same preprocessing as inference."""

    def __init__(self, scenes: SceneSet, config: GSVAConfig, jitter: float = 0.0) -> None:
        """Args: jitter: of the images from `draw` (`jittered`)."""
        self.scenes, self._jitter = scenes, jitter
        self.size = scenes.rgb.shape[1:3]
        self._clip = ClipPreprocessor(config.preprocessor)
        self._sam = SamPreprocessor.of(config.sam)
        self.resized = self._sam.resized(*self.size)
        self._seen: Seen | None = None

    def __len__(self) -> int:
        return len(self.scenes)

    def clip(self, rows: npt.NDArray[np.int64]) -> Tensor:
        """pixel_values float32 [B, 3, S, S] of these scenes."""
        return torch.stack([self._clip(self.scenes.rgb[row]) for row in rows])

    def sam(self, rows: npt.NDArray[np.int64]) -> Tensor:
        """sam_pixel_values float32 [B, 3, S, S] of these scenes; the frame fills `resized` of it."""
        return torch.stack([self._sam(self.scenes.rgb[row]) for row in rows])

    def draw(self, rows: npt.NDArray[np.int64], rng: np.random.Generator) -> Pictures:
        """Input of both towers for these scenes, jittered anew at each call if there is jitter."""
        seen = self._seen.of(rows) if self._seen else []
        frames = (jittered(self.scenes.rgb[row], self._jitter, rng) for row in rows)
        return Pictures(torch.stack([self._sam(frame) for frame in frames]), seen)

    def show(self, pictures: Pictures) -> Tensor:
        """The pixels, for encoders whose cached backbone then returns the features of these pictures.

        Only the last call counts. The pixels are channels-last, as the stems need them: neither copies
        them, so that both share one pass of the backbone (`Glance`).
        """
        if self._seen:
            self._seen.last = pictures.features
        return pictures.pixels.contiguous(memory_format=torch.channels_last)

    def check(self) -> None:
        """Raise InputError if the towers see different pixels: `draw` makes only one kind."""
        first = np.arange(1)
        if not same_pixels(self.clip(first), self.sam(first)):
            raise InputError(
                "the stages of gsva-mini train a model whose two towers see the same pixels; for any other "
                "model, choose objective: gsva"
            )

    def remember(self, model: GSVA) -> None:
        """Let the model's stems read the frozen backbone's features from files next to the scenes.

        Does nothing for a model whose stems have no such backbone.
        """
        stems = pretrained_stems(model)
        if stems:
            self._seen = Seen(self, stems[0].backbone)
            for stem in stems:
                stem.backbone = self._seen


class Seen(nn.Module):
    """Replaces a backbone: returns its cached features of the last shown pictures."""

    def __init__(self, frames: Frames, backbone: nn.Module) -> None:
        super().__init__()
        self.backbone = backbone
        self.last: list[Tensor] = []

        def look(first: int, rows: npt.NDArray[np.int64]) -> list[Tensor]:
            pixels = frames.sam(rows + first).contiguous(memory_format=torch.channels_last)
            with torch.autocast(pixels.device.type, torch.bfloat16):
                return [scale.permute(0, 2, 3, 1) for scale in backbone(pixels)]

        first, files, side = 0, [], frames.resized[0]
        for folder, count in frames.scenes.folders:
            paths = [folder / f"backbone_{side}_{stride}.npy" for stride, _ in SCALES]
            key = key_of(backbone, [(folder, count)])
            files.append(kept(paths, key, count, BATCH, partial(look, first)))
            first += count
        self._scales = [Stacked(parts) for parts in zip(*files, strict=True)]

    def of(self, rows: npt.NDArray[np.int64]) -> list[Tensor]:
        """The features of the scenes `rows` at each of SCALES, float16 [B, h, w, C]."""
        return [torch.from_numpy(scale[rows]) for scale in self._scales]

    def forward(self, _: Tensor) -> list[Tensor]:
        """The features of `last` at each of SCALES, float32 [B, C, h, w]."""
        return [scale.float().permute(0, 3, 1, 2) for scale in self.last]
