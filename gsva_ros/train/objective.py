"""The training objective: GSVA's losses over a batch, from images and token ids to a scalar.

Source: the training branch of the official GSVA's `model_forward` (618dc79), and the paper's section 3.3.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ..model.config import GSVAConfig
from ..model.gsva import GSVA
from ..model.losses import GSVALoss, gsva_loss, place_masks
from ..model.sam import postprocess_masks
from .batches import Batch, embedded


class GSVAObjective(nn.Module):
    """1.0 cross-entropy of the answers + 2.0 BCE + 0.5 dice of the masks.

    The vision encoders run without gradients unless something in them is trained.
    """

    def __init__(self, model: GSVA) -> None:
        super().__init__()
        self.model = model

    def forward(self, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss, and for logging its terms and the slots' accuracies."""
        config = self.model.config
        assert config.rej_token_id is not None, "`teach.task` refuses families without it"
        hidden = read(self.model, batch)
        logits = self.model.lm_head(hidden)
        ids = batch.laid.ids
        is_seg, is_rej = ids.eq(config.seg_token_id), ids.eq(config.rej_token_id)
        pred_masks = [
            self._masks(batch, image, hidden[image], is_seg[image], is_rej[image])
            for image in range(len(batch.masks))
        ]
        loss = gsva_loss(logits, batch.laid.labels, pred_masks, batch.masks)
        return self._differentiable(loss.total), _figures(loss, logits, is_seg, is_rej, config)

    def _differentiable(self, loss: Tensor) -> Tensor:
        """The loss; if nothing that is trained contributes to it, with gradients of zero.

        So it is if only what makes masks is trained, and a batch has none.
        """
        if loss.requires_grad or not torch.is_grad_enabled():
            return loss
        trained = (p for p in self.model.parameters() if p.requires_grad)
        return loss + 0.0 * torch.stack([p.sum() for p in trained]).sum()

    def _masks(
        self, batch: Batch, image: int, hidden: Tensor, is_seg: Tensor, is_rej: Tensor
    ) -> Tensor:
        """Mask logits of one image's slots [K, H, W], zero at [REJ] slots."""
        model, truth = self.model, batch.masks[image]
        slots_seg = is_seg[is_seg | is_rej]
        if not slots_seg.any():
            return torch.zeros_like(truth)
        with torch.set_grad_enabled(_trained(model.model.visual_model.image_encoder)):
            embeddings = model.encode_sam(batch.sam_pixel_values[image : image + 1])
        prompts = model.mask_prompts(hidden[deciding(is_seg)])
        # A trained encoder is in float32, a frozen decoder may not be (as in `batches.embedded`).
        embeddings = embeddings.to(model.model.visual_model.mask_decoder.iou_token.weight.dtype)
        low_res, _ = model.decode_masks(embeddings, prompts)
        size = (truth.shape[1], truth.shape[2])
        side = model.config.sam.image_size
        return place_masks(postprocess_masks(low_res, side, batch.resized[image], size), slots_seg)


def read(model: GSVA, batch: Batch) -> Tensor:
    """The last hidden states of the rows' ids [B, L, D], each row after its image."""
    with torch.set_grad_enabled(_trained(model.model.vision_tower)):
        clip_tokens = model.encode_clip(batch.pixel_values)
    laid = batch.laid
    x = embedded(model, (batch.before, batch.after), clip_tokens, laid.ids)
    hidden = model.language(x, attention_mask=laid.bias(x.dtype), position_ids=laid.position_ids)
    return hidden[:, -laid.ids.shape[1] :]


def deciding(slots: Tensor) -> Tensor:
    """The positions that decide slots [..., L] and prompt their masks: one before each slot token."""
    return slots.roll(-1, -1)


def _trained(module: nn.Module) -> bool:
    return torch.is_grad_enabled() and any(p.requires_grad for p in module.parameters())


@torch.no_grad()
def _figures(
    loss: GSVALoss, logits: Tensor, is_seg: Tensor, is_rej: Tensor, config: GSVAConfig
) -> dict[str, Tensor]:
    """The loss terms, and N_acc and T_acc of the batch's slots by argmax."""
    assert config.rej_token_id is not None
    terms = {
        "loss": loss.total,
        "ce_loss": loss.ce,
        "mask_bce_loss": loss.mask_bce,
        "mask_dice_loss": loss.mask_dice,
        "mask_loss": loss.mask,
    }
    accuracies = {
        name: logits[deciding(slots)].argmax(-1).eq(token).float().mean()
        for name, slots, token in (
            ("N_acc", is_rej, config.rej_token_id),
            ("T_acc", is_seg, config.seg_token_id),
        )
    }
    return {name: term.detach() for name, term in terms.items()} | accuracies
