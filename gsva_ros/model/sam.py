"""segment-anything's image encoder, prompt encoder and mask decoder, and SAM's preprocessing."""

from __future__ import annotations

from functools import partial

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn

from ..errors import InputError
from . import mask_decoder
from .backbone import DEVIATION, MEAN
from .images import Rgb, blank, check_rgb, resize_normalised
from .sam_encoder import ImageEncoder
from .schema import Sam
from .segment_anything import modeling
from .stems import STEMS

PIXEL_MEAN, PIXEL_STD = np.array(MEAN, np.float32), np.array(DEVIATION, np.float32)


class SamPreprocessor:
    """Resizes a frame's longer side to `image_size`, normalises, and pads at the bottom and right.

    With `squash` (a departure) the frame is stretched to the whole square, without padding.
    Source: segment-anything's `ResizeLongestSide.apply_image` and `Sam.preprocess`.
    """

    def __init__(self, image_size: int, squash: bool = False) -> None:
        self.image_size, self.squash = image_size, squash

    @classmethod
    def of(cls, sizes: Sam) -> SamPreprocessor:
        """The preprocessor for a model of these sizes."""
        return cls(sizes.image_size, sizes.squash)

    def resized(self, height: int, width: int) -> tuple[int, int]:
        """(height, width) of a frame inside the padded square."""
        if self.squash:
            return self.image_size, self.image_size
        scale = self.image_size / max(height, width)
        return int(height * scale + 0.5), int(width * scale + 0.5)

    def __call__(self, rgb: Rgb | Tensor) -> Tensor:
        """Uint8 frame (H, W, 3) to sam_pixel_values, float32 [3, image_size, image_size].

        On the frame's device, and channels-last in memory: no pixel is moved after resizing.
        """
        if not isinstance(rgb, Tensor):
            rgb = check_rgb(rgb)
        height, width = self.resized(*rgb.shape[:2])
        if not (height and width):
            raise InputError(
                f"a frame of shape {tuple(rgb.shape)} is too thin to be resized for SAM"
            )
        padded = blank((self.image_size, self.image_size, 3), rgb)
        resize_normalised(
            rgb, padded[:height, :width], Image.Resampling.BILINEAR, PIXEL_MEAN, PIXEL_STD
        )
        return padded.permute(2, 0, 1)


def postprocess_masks(
    low_res_masks: Tensor, image_size: int, resized: tuple[int, int], original: tuple[int, int]
) -> Tensor:
    """Mask logits at the frame's own size.

    Args:
        low_res_masks: [K, h, w].
        image_size: side of SAM's padded square input.
        resized: (height, width) of the frame inside that square.
        original: (height, width) of the frame.

    Returns:
        float32 [K, height, width]. Source: `Sam.postprocess_masks` of the official GSVA.
    """
    masks = F.interpolate(low_res_masks[:, None].float(), (image_size, image_size), mode="bilinear")
    masks = masks[..., : resized[0], : resized[1]]
    return F.interpolate(masks, original, mode="bilinear")[:, 0]


class VisualModel(nn.Module):
    """SAM without its predictor: image encoder, prompt encoder and mask decoder."""

    def __init__(self, sizes: Sam) -> None:
        super().__init__()
        side = sizes.image_size // sizes.patch_size
        channels = sizes.prompt_embed_dim
        self.image_encoder = ImageEncoder(
            img_size=sizes.image_size,
            patch_size=sizes.patch_size,
            embed_dim=sizes.embed_dim,
            depth=sizes.depth,
            num_heads=sizes.num_heads,
            mlp_ratio=sizes.mlp_ratio,
            out_chans=channels,
            qkv_bias=True,
            norm_layer=partial(nn.LayerNorm, eps=1e-6),
            use_rel_pos=True,
            window_size=sizes.window_size,
            global_attn_indexes=tuple(sizes.global_attn_indexes),
        )
        if sizes.stem != "patch":
            self.image_encoder.patch_embed = STEMS[sizes.stem](
                sizes.embed_dim, sizes.patch_size, channels_last=True
            )
        self.prompt_encoder = modeling.PromptEncoder(
            embed_dim=channels,
            image_embedding_size=(side, side),
            input_image_size=(sizes.image_size, sizes.image_size),
            mask_in_chans=sizes.mask_in_chans,
        )
        self.mask_decoder = modeling.MaskDecoder(
            transformer_dim=channels,
            transformer=modeling.TwoWayTransformer(
                depth=2,
                embedding_dim=channels,
                mlp_dim=sizes.decoder_mlp_dim,
                num_heads=sizes.decoder_heads,
            ),
            num_multimask_outputs=3,
            iou_head_depth=3,
            iou_head_hidden_dim=sizes.iou_head_hidden_dim or channels,
        )

    def decode(self, image_embeddings: Tensor, mask_prompts: Tensor) -> tuple[Tensor, Tensor]:
        """One mask for each prompt (`multimask_output=False`), batched over prompts and images.

        Args:
            image_embeddings: [1, C, h, w] for one image, or [K, C, h, w], one for each prompt.
            mask_prompts: [K, C].

        Returns:
            low_res_masks [K, 4h, 4w] (logits) and predicted_iou [K].

        Like `MaskDecoder.predict_masks`, which takes a single image, but for K of them.
        """
        decoder, count = self.mask_decoder, len(mask_prompts)
        learned = torch.cat([decoder.iou_token.weight, decoder.mask_tokens.weight])
        learned = learned.expand(count, -1, -1).to(mask_prompts.dtype)
        tokens = torch.cat([learned, mask_prompts[:, None]], 1)
        image = image_embeddings + self.prompt_encoder.no_mask_embed.weight.view(1, -1, 1, 1)
        positions = self._dense_positions(*image.shape[2:]).to(image.dtype)
        return mask_decoder.decode(decoder, image, positions, tokens)

    def _dense_positions(self, height: int, width: int) -> Tensor:
        """Positional encoding [1, C, height, width], computed in float32 and without autocast."""
        layer = self.prompt_encoder.pe_layer
        matrix = layer.positional_encoding_gaussian_matrix
        with torch.autocast(matrix.device.type, enabled=False):
            rows, columns = (
                (torch.arange(size, dtype=torch.float32, device=matrix.device) + 0.5) / size
                for size in (height, width)
            )
            y, x = torch.meshgrid(rows, columns, indexing="ij")
            angles = (2 * torch.stack([x, y], -1) - 1) @ matrix.float() * (2 * np.pi)
            return torch.cat([angles.sin(), angles.cos()], -1).permute(2, 0, 1)[None]
