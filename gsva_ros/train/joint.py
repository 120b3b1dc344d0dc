"""The joint stage: the whole model is trained with masks, the encoders at small learning rates."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from .frames import Frames, Pictures
from .language import Asked, LanguageLoss, Questions
from .mask_losses import mask_losses
from .movable import Movable
from .prompts import SymbolicPrompt, attributes_of


@dataclass
class Masks(Movable):
    """The M present slots with a mask loss.

    chosen: int64 [M], their indices. attributes: int64 [M, 3], and centroids: float32 [M, 2], of their
    targets, as `SymbolicPrompt` takes them. truth: bool [M, H, W].
    """

    chosen: Tensor
    attributes: Tensor
    centroids: Tensor
    truth: Tensor


@dataclass
class JointBatch(Movable):
    """Pictures, the questions about them, and the target masks."""

    pictures: Pictures
    asked: Asked
    masks: Masks


class JointStage:
    """Trains the whole model with the language model's losses and 2.0 BCE + 0.5 dice of the masks.

    Two more terms help a small model: the distance of a slot's mask prompt from the symbolic prompt of its
    targets, which the mask decoder already understands, and the error of the predicted IoU.
    """

    def __init__(
        self,
        loss: LanguageLoss,
        questions: Questions,
        symbolic: SymbolicPrompt,
        frames: Frames,
        masks: int,
    ) -> None:
        """Args: masks: most per image, averaged over the batch; those of all slots would cost too much."""
        self._loss, self._questions = loss, questions
        self._symbolic, self._frames, self._per_image = symbolic, frames, masks

    def draw(self, step: int, batch: int, rng: np.random.Generator) -> JointBatch:
        """The step's scenes, questions and masks."""
        rows = self._questions.rows(rng, batch)
        asked = self._questions.about(rows, rng)
        masks = self._masks(rows, asked, rng, self._per_image * batch)
        return JointBatch(self._frames.draw(rows, rng), asked, masks)

    def _masks(self, rows: np.ndarray, asked: Asked, rng: np.random.Generator, most: int) -> Masks:
        scenes, packed = self._frames.scenes, asked.packed
        row_of = rows[packed.slot_at[:, 0].numpy()]
        outlined = scenes.outlined[row_of]
        present = [k for k, targets in enumerate(packed.slot_targets) if targets and outlined[k]]
        chosen = rng.permutation(present)[:most].astype(np.int64)
        of = row_of[chosen]
        targets = [packed.slot_targets[k] for k in chosen]
        symbols = [attributes_of(scenes, int(r), t) for r, t in zip(of, targets, strict=True)]
        return Masks(
            torch.from_numpy(chosen),
            torch.tensor([s[0] for s in symbols]),
            torch.tensor([s[1] for s in symbols]),
            torch.from_numpy(scenes.target_masks(of, targets)),
        )

    def losses(self, batch: JointBatch) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss, and metrics."""
        model = self._loss.model
        pixels = self._frames.show(batch.pictures)
        with torch.autocast(pixels.device.type, torch.bfloat16):
            clip_tokens = model.encode_clip(pixels)
            embeddings = model.encode_sam(pixels)
        result = self._loss(batch.asked, clip_tokens.float())
        if not len(batch.masks.chosen):  # neither annotated boxes nor absent things have outlines
            return result.loss, result.figures
        masks, figures = self._mask_losses(batch, result.slots, embeddings.float())
        return result.loss + masks, result.figures | figures

    def _mask_losses(
        self, batch: JointBatch, slots: Tensor, embeddings: Tensor
    ) -> tuple[Tensor, dict[str, Tensor]]:
        model, masks = self._loss.model, batch.masks
        image = batch.asked.packed.slot_at[masks.chosen, 0]
        with torch.autocast(slots.device.type, torch.bfloat16):
            prompts = model.mask_prompts(slots[masks.chosen])
            low_res, predicted_iou = model.decode_masks(embeddings[image], prompts)
        with torch.no_grad():
            wanted = self._symbolic(masks.attributes, masks.centroids)
        distance = F.mse_loss(prompts.float(), wanted) / wanted.var()
        loss, iou = mask_losses(low_res, masks.truth, model.config.sam)
        total = loss + 0.1 * F.mse_loss(predicted_iou.float(), iou) + 0.5 * distance
        return total, {"mask": loss, "iou": iou.mean(), "distance": distance}
