"""The official evaluation's forward pass: the answer template is part of the input, slots are read off it.

Source: `model_forward(inference=True)` of the official GSVA. The template is built from the ground
truth, so a later slot sees the true answers of earlier ones. It serves only to reproduce the paper's
numbers; the engine decides slots without it.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from .gsva import GSVA
from .sam import postprocess_masks
from .tokenizer import IMAGE_TOKEN_ID


@dataclass
class OfficialOutput:
    """Outputs for one sequence. T includes the image's tokens; S of its K slots are [SEG].

    logits [T, V]; hidden_last [T, D]; slot_logits [K, V], from the first pass, which decides the slots;
    low_res_masks [S, h, w]; predicted_iou [S]; pred_masks [S, H, W] (logits at the frame's size);
    output_ids int64 [T], the sequence with the model's decision at each slot and 0 at image tokens.
    """

    logits: Tensor
    hidden_last: Tensor
    slot_logits: Tensor
    low_res_masks: Tensor
    predicted_iou: Tensor
    pred_masks: Tensor
    output_ids: Tensor


def multimodal_embeds(model: GSVA, input_ids: Tensor, image_tokens: Tensor) -> Tensor:
    """Embeddings [B, T + N - 1, D] of input_ids int64 [B, T], with image_tokens [B, N, D] inserted.

    Every row holds one IMAGE_TOKEN_ID, at the same index.
    """
    at = image_index(input_ids)
    before, after = model.embed(input_ids[:, :at]), model.embed(input_ids[:, at + 1 :])
    return torch.cat([before, image_tokens.to(before.dtype), after], 1)


def expand_image(ids: Tensor, at: int, count: int) -> Tensor:
    """Ids [B, T] as [B, T + count - 1], with `count` zeros in place of the image's at `at`."""
    image = ids.new_zeros(len(ids), count)
    return torch.cat([ids[:, :at], image, ids[:, at + 1 :]], 1)


def image_index(input_ids: Tensor) -> int:
    """The index of IMAGE_TOKEN_ID in every row.

    Raises:
        ValueError: a row has none or several, or rows differ.
    """
    rows, places = (input_ids == IMAGE_TOKEN_ID).nonzero(as_tuple=True)
    if len(rows) != len(input_ids) or places.unique().numel() != 1:
        raise ValueError("every sequence needs exactly one image, at the same index")
    return int(places[0])


@torch.inference_mode()
def official_pass(
    model: GSVA,
    image_tokens: Tensor,
    image_embeddings: Tensor,
    input_ids: Tensor,
    resized: tuple[int, int],
    original: tuple[int, int],
    reeval: bool = False,
) -> OfficialOutput:
    """Run the model on one sequence that includes the ground-truth slots.

    Args:
        image_tokens: [1, N, D]. image_embeddings: [1, C, h, w].
        input_ids: int64 [T], with one IMAGE_TOKEN_ID.
        resized: the frame's size in SAM's padded input. original: its own size.
        reeval: take masks from a second pass in which every slot is [SEG]; slots are still decided by
            the first.
    """
    seg, rej = model.config.seg_token_id, model.config.rej_token_id
    ids = input_ids[None]
    at, count = image_index(ids), image_tokens.shape[1]
    hidden, logits = _forward(model, ids, image_tokens)
    output_ids = expand_image(ids, at, count)[0]
    is_slot = output_ids == seg
    if rej is not None:
        is_slot |= output_ids == rej
    slots = is_slot.nonzero()[:, 0]
    slot_logits = logits[slots - 1]
    predicted = slot_logits.argmax(-1)
    if rej is not None:
        # Any other token than the true slot token counts as the opposite decision.
        truth = output_ids[slots]
        output_ids[slots] = torch.where(predicted == truth, truth, seg + rej - truth)
    if reeval and rej is not None:
        ids = torch.where(ids == rej, seg, ids)
        hidden, logits = _forward(model, ids, image_tokens)
    is_seg = expand_image(ids, at, count)[0] == seg
    prompts = model.mask_prompts(hidden[is_seg.nonzero()[:, 0] - 1])
    low_res_masks, predicted_iou = model.decode_masks(image_embeddings, prompts)
    pred_masks = postprocess_masks(low_res_masks, model.config.sam.image_size, resized, original)
    return OfficialOutput(
        logits, hidden, slot_logits, low_res_masks, predicted_iou, pred_masks, output_ids
    )


def _forward(model: GSVA, ids: Tensor, image_tokens: Tensor) -> tuple[Tensor, Tensor]:
    hidden = model.language(multimodal_embeds(model, ids, image_tokens))[0]
    return hidden, model.lm_head(hidden)
