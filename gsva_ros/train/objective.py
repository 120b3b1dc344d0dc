"""What is minimised: GSVA's losses over a batch, from pictures and token ids to one number.

Source: the training branch of the official GSVA's `model_forward` (618dc79), and the paper's section 3.3.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ..model.gsva import GSVA
from ..model.losses import IGNORE, GSVALoss, gsva_loss, place_masks
from ..model.official import expand_image, image_index, multimodal_embeds
from ..model.sam import postprocess_masks
from .batches import Batch


class GSVAObjective(nn.Module):
    """1.0 cross-entropy of the answers + 2.0 BCE + 0.5 dice of the masks.

    The vision encoders run without gradients unless something in them is trained.
    """

    def __init__(self, model: GSVA) -> None:
        super().__init__()
        self.model = model

    def forward(self, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss, and its terms and the slots' accuracy for people to follow."""
        model, config = self.model, self.model.config
        visual = model.model.visual_model
        with torch.set_grad_enabled(_trained(model.model.vision_tower)):
            clip_tokens = model.encode_clip(batch.pixel_values)
        image_tokens = model.project(clip_tokens)[batch.image_of]
        at, count = image_index(batch.input_ids), image_tokens.shape[1]
        hidden = model.language(
            multimodal_embeds(model, batch.input_ids, image_tokens),
            attention_mask=expand_image(batch.attention_mask, at, count, True),
        ).hidden_last
        logits = model.lm_head(hidden)
        labels = expand_image(batch.labels, at, count, IGNORE)
        ids = expand_image(batch.input_ids, at, count, 0)
        is_slot = (ids == config.seg_token_id) | (ids == config.rej_token_id)
        pred_masks = []
        for image, truth in enumerate(batch.masks):
            rows = batch.image_of == image
            slots_seg = ids[rows][is_slot[rows]] == config.seg_token_id
            if not slots_seg.any():
                pred_masks.append(torch.zeros_like(truth))
                continue
            with torch.set_grad_enabled(_trained(visual.image_encoder)):
                embeddings = model.encode_sam(batch.sam_pixel_values[image : image + 1])
            before = is_slot[rows].roll(-1, 1)  # a slot is decided at the position before it
            prompts = model.mask_prompts(hidden[rows][before][slots_seg])
            low_res, _ = model.decode_masks(embeddings, prompts)
            size = (truth.shape[1], truth.shape[2])
            masks = postprocess_masks(
                low_res, config.sam["image_size"], batch.resized[image], size
            )
            pred_masks.append(place_masks(masks, slots_seg))
        loss = gsva_loss(logits, labels, pred_masks, batch.masks)
        return loss.total, _figures(loss, logits, ids, is_slot, config.seg_token_id)


def _trained(module: nn.Module) -> bool:
    return torch.is_grad_enabled() and any(p.requires_grad for p in module.parameters())


@torch.no_grad()
def _figures(
    loss: GSVALoss, logits: Tensor, ids: Tensor, is_slot: Tensor, seg: int
) -> dict[str, Tensor]:
    """The loss's terms; N_acc and T_acc of the batch's slots, by the likeliest token."""
    terms = {
        "loss": loss.total,
        "ce_loss": loss.ce,
        "mask_bce_loss": loss.mask_bce,
        "mask_dice_loss": loss.mask_dice,
        "mask_loss": loss.mask,
    }
    truth = ids[is_slot]
    right = (logits[is_slot.roll(-1, 1)].argmax(-1) == truth).float()
    return {name: term.detach() for name, term in terms.items()} | {
        "N_acc": right[truth != seg].mean(),
        "T_acc": right[truth == seg].mean(),
    }
