"""Draws the masks of decided slots: decoded together, then each at the frame's resolution."""

from __future__ import annotations

from collections.abc import Iterator

from torch import Tensor

from .answer import Drawn
from .masks import Region
from .model.gsva import GSVA
from .model.images import Rgb
from .model.mask_parts import sure_parts
from .model.mask_pixels import enlarger
from .model.refiner import filled
from .model.static import Static


class Masker:
    """Draws masks with a model's decoder and, if the model has one, its refiner."""

    def __init__(self, model: GSVA, decoder: GSVA | Static) -> None:
        """decoder: the model, or what runs its `decode_masks` with fixed shapes."""
        self._model, self._decoder = model, decoder

    def draw(
        self,
        hidden: Tensor,
        image_embeddings: Tensor,
        resized: tuple[int, int],
        size: tuple[int, int],
        rgb: Rgb | None,
    ) -> Iterator[Drawn | None]:
        """Masks decoded in one batch, resized to the frame one by one; None: not of finite numbers.

        Args:
            hidden: [K, D], the states that decided the slots.
            image_embeddings: [1, C, h, w].
            resized: the frame's (height, width) inside SAM's padded input.
            size: the frame's (height, width) in pixels.
            rgb: the frame, uint8 [H, W, 3], for the refiner; None without one.
        """
        prompts = self._model.mask_prompts(hidden)
        low_res_masks, iou = self._decoder.decode_masks(image_embeddings, prompts)
        finite = low_res_masks.isfinite().flatten(1).all(1) & iou.isfinite()
        fine = self._pixels(low_res_masks[finite], resized, size, rgb)
        for row in range(len(finite)):
            yield Drawn(next(fine), float(iou[row])) if finite[row] else None

    def _pixels(
        self,
        low_res_masks: Tensor,
        resized: tuple[int, int],
        size: tuple[int, int],
        rgb: Rgb | None,
    ) -> Iterator[Region | None]:
        """Masks [K, h, w] at the frame's resolution."""
        height, width = low_res_masks.shape[1:]
        config = self._model.config
        side, sure = config.sam.image_size, config.part_confidence
        masks = [sure_parts(mask, sure) for mask in low_res_masks]
        refined: list[Region | None] = [None] * len(masks)
        if self._model.refiner and rgb is not None:
            inside = filled(low_res_masks, side, resized)
            refined = self._model.refiner.refine(rgb, masks, inside)
        enlarge = enlarger((height, width), side, resized, size, low_res_masks.device)
        # If the refiner leaves a mask empty, the decoder's stays: refining moves edges, it does not reject.
        for mask, fine in zip(masks, refined, strict=True):
            yield fine or enlarge(mask)
