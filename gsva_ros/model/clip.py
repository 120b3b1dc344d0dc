"""The CLIP vision tower and its preprocessing."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from transformers import CLIPVisionConfig, CLIPVisionModel

from ..errors import InputError
from .images import Rgb, check_rgb, normalise, resize
from .stems import STEMS


class ClipPreprocessor:
    """The steps of CLIPImageProcessor (transformers 4, the PIL version), configured by its JSON fields.

    Source: transformers 4.44 `CLIPImageProcessor.preprocess`. A `size` of {"height", "width"}
    squashes the frame to that size; {"shortest_edge"} keeps its aspect ratio for the centre crop.
    """

    def __init__(self, fields: dict[str, Any]) -> None:
        """Args: fields: all of them, as `GSVAConfig.preprocessor` completes them."""
        self.fields = fields
        self.mean = np.asarray(fields["image_mean"], np.float32)
        self.std = np.asarray(fields["image_std"], np.float32)

    def __call__(self, rgb: Rgb | Tensor) -> Tensor:
        """Uint8 frame (H, W, 3) to pixel_values, float32 [3, S, S], on the frame's device."""
        if not isinstance(rgb, Tensor):
            rgb = check_rgb(rgb)
        if self.fields["do_resize"]:
            method = Image.Resampling(self.fields["resample"])
            rgb = resize(rgb, *self._resized(*rgb.shape[:2]), method)
        if self.fields["do_center_crop"]:
            rgb = self._crop(rgb)
        pixels = (rgb if isinstance(rgb, Tensor) else torch.from_numpy(rgb.copy())).double()
        if self.fields["do_rescale"]:
            pixels *= self.fields["rescale_factor"]
        pixels = pixels.float()
        if self.fields["do_normalize"]:
            normalise(pixels, self.mean, self.std)
        return pixels.permute(2, 0, 1)

    def _resized(self, height: int, width: int) -> tuple[int, int]:
        size = self.fields["size"]
        if isinstance(size, int):
            size = {"shortest_edge": size}
        if "shortest_edge" not in size:
            return size["height"], size["width"]
        edge = size["shortest_edge"]
        if height <= width:
            return edge, int(edge * width / height)
        return int(edge * height / width), edge

    def _crop(self, rgb: Rgb | Tensor) -> Rgb | Tensor:
        size = self.fields["crop_size"]
        if isinstance(size, int):
            size = {"height": size, "width": size}
        top, left = (rgb.shape[0] - size["height"]) // 2, (rgb.shape[1] - size["width"]) // 2
        if top < 0 or left < 0:
            raise InputError(
                f"a crop of {size} does not fit the resized frame {tuple(rgb.shape[:2])}"
            )
        return rgb[top : top + size["height"], left : left + size["width"]]


class VisionModel(nn.Module):
    """Keeps the official weight names, `vision_model.*`, across transformers versions."""

    def __init__(self, fields: dict[str, Any]) -> None:
        super().__init__()
        fields = dict(fields)
        stem = fields.pop("stem", "patch")
        config = CLIPVisionConfig(**fields)
        model = CLIPVisionModel(config)
        self.vision_model = getattr(model, "vision_model", model)
        if stem != "patch":
            self.vision_model.embeddings.patch_embedding = STEMS[stem](
                fields["hidden_size"], fields["patch_size"]
            )


class ClipVisionTower(nn.Module):
    """CLIP's patch features of one hidden layer (LLaVA's `CLIPVisionTower`)."""

    def __init__(self, fields: dict[str, Any], select_layer: int) -> None:
        super().__init__()
        self.vision_tower = VisionModel(fields)
        self.select_layer = select_layer

    def forward(self, pixel_values: Tensor) -> Tensor:
        """pixel_values [B, 3, S, S] to clip_tokens [B, N, C]: patch tokens, without CLS."""
        model = self.vision_tower.vision_model
        hidden_states = model(pixel_values, output_hidden_states=True).hidden_states
        selected: torch.Tensor = hidden_states[self.select_layer]
        return selected[:, 1:]
