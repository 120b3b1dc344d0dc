"""The CLIP vision tower and its preprocessing."""

from __future__ import annotations

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from transformers import CLIPVisionConfig, CLIPVisionModel

from ..errors import InputError
from .images import Rgb, check_rgb, normalise, resize
from .schema import Clip, Preprocessor
from .stems import STEMS


class ClipPreprocessor:
    """The steps of CLIPImageProcessor (transformers 4, the PIL version), configured by its JSON fields.

    Source: transformers 4.44 `CLIPImageProcessor.preprocess`. A `size` of {"height", "width"}
    squashes the frame to that size; {"shortest_edge"} keeps its aspect ratio for the centre crop.
    """

    def __init__(self, fields: Preprocessor) -> None:
        self.fields = fields
        self.mean = np.asarray(fields.image_mean, np.float32)
        self.std = np.asarray(fields.image_std, np.float32)

    def __call__(self, rgb: Rgb | Tensor) -> Tensor:
        """Uint8 frame (H, W, 3) to pixel_values, float32 [3, S, S], on the frame's device."""
        if not isinstance(rgb, Tensor):
            rgb = check_rgb(rgb)
        if self.fields.do_resize:
            method = Image.Resampling(self.fields.resample)
            rgb = resize(rgb, *self.fields.resized(*rgb.shape[:2]), method)
        if self.fields.do_center_crop:
            rgb = self._crop(rgb)
        pixels = (rgb if isinstance(rgb, Tensor) else torch.from_numpy(rgb.copy())).double()
        if self.fields.do_rescale:
            pixels *= self.fields.rescale_factor
        pixels = pixels.float()
        if self.fields.do_normalize:
            normalise(pixels, self.mean, self.std)
        return pixels.permute(2, 0, 1)

    def _crop(self, rgb: Rgb | Tensor) -> Rgb | Tensor:
        height, width = self.fields.crop
        top, left = (rgb.shape[0] - height) // 2, (rgb.shape[1] - width) // 2
        if top < 0 or left < 0:
            size = {"height": height, "width": width}
            raise InputError(
                f"a crop of {size} does not fit the resized frame {tuple(rgb.shape[:2])}"
            )
        return rgb[top : top + height, left : left + width]


class VisionModel(nn.Module):
    """Keeps the official weight names, `vision_model.*`, across transformers versions."""

    def __init__(self, sizes: Clip) -> None:
        super().__init__()
        model = CLIPVisionModel(CLIPVisionConfig(**sizes.model_dump(exclude={"stem"})))
        self.vision_model = getattr(model, "vision_model", model)
        if sizes.stem != "patch":
            self.vision_model.embeddings.patch_embedding = STEMS[sizes.stem](
                sizes.hidden_size, sizes.patch_size
            )


class ClipVisionTower(nn.Module):
    """CLIP's patch features of one hidden layer (LLaVA's `CLIPVisionTower`)."""

    def __init__(self, sizes: Clip, select_layer: int) -> None:
        super().__init__()
        self.vision_tower = VisionModel(sizes)
        self.select_layer = select_layer

    def forward(self, pixel_values: Tensor) -> Tensor:
        """pixel_values [B, 3, S, S] to clip_tokens [B, N, C]: patch tokens, without CLS."""
        model = self.vision_tower.vision_model
        hidden_states = model(pixel_values, output_hidden_states=True).hidden_states
        return hidden_states[self.select_layer][:, 1:]
