"""The paper's protocol: what published numbers mean.

All expressions of a picture stand in one prompt, and the answer is fed with the true slots, so that a
later slot sees the truth of earlier ones. A slot is decided rightly where the true one of [SEG] and [REJ]
is the likeliest of all tokens, wrongly otherwise. Masks come from a second pass in which every slot is
[SEG], also those of slots that were rejected. A family that asks one expression in a conversation, as LISA,
is asked so here too.

Source: `validate` and `eval_gres` of the official GSVA (solver.py at its commit 618dc79).
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from ..answer import Rejection
from ..engine import Engine
from ..model.clip import ClipPreprocessor
from ..model.config import GSVAConfig
from ..model.official import OfficialOutput, official_pass
from ..model.prompt import Turn
from ..model.sam import SamPreprocessor
from ..truth import Referring


@dataclass(frozen=True)
class MaskedSlot:
    """A decided slot, with its mask, bool [H, W], also where it was rejected."""

    p_seg: float
    rejection: Rejection | None
    predicted_iou: float
    mask: NDArray[np.bool_]


@torch.inference_mode()
def paper_slots(
    engine: Engine, rgb: NDArray[np.uint8], queries: Sequence[Referring]
) -> tuple[list[MaskedSlot], dict[str, float]]:
    """Slots of one picture, and the seconds it took ("total")."""
    start = time.perf_counter()
    model, prompt, config = engine.model, engine.prompt, engine.config
    sam = SamPreprocessor(config.sam["image_size"])
    pixel_values = ClipPreprocessor(config.preprocessor)(rgb)[None].to(model.device, model.dtype)
    sam_pixel_values = sam(rgb)[None].to(model.device, model.dtype)
    height, width = rgb.shape[:2]
    image_tokens = model.project(model.encode_clip(pixel_values))
    image_embeddings = model.encode_sam(sam_pixel_values)
    together = [list(queries)] if prompt.family.joint else [[query] for query in queries]
    slots: list[MaskedSlot] = []
    for asked in together:
        turn = prompt.segment_turn(
            [q.expression for q in asked], [q.mask is None or not q.mask.any() for q in asked]
        )
        output = official_pass(
            model,
            image_tokens,
            image_embeddings,
            torch.tensor(prompt.full(turn), device=model.device),
            sam.resized(height, width),
            (height, width),
            reeval=True,
        )
        slots += _slots(output, turn, config)
    return slots, {"total": time.perf_counter() - start}


def _slots(output: OfficialOutput, turn: Turn, config: GSVAConfig) -> list[MaskedSlot]:
    before = len(output.output_ids) - len(turn.ids)
    seg, rej = config.seg_token_id, config.rej_token_id
    slots = []
    for number, place in enumerate(turn.slots):
        mask = (output.pred_masks[number] >= 0).cpu().numpy()
        if rej is None:
            p_seg, rejection = 1.0, None if mask.any() else Rejection.EMPTY_MASK
        else:
            p_seg = float(output.slot_logits[number][[seg, rej]].float().softmax(-1)[0])
            kept = int(output.output_ids[before + place + 1]) == seg
            rejection = None if kept else Rejection.MODEL
        slots.append(MaskedSlot(p_seg, rejection, float(output.predicted_iou[number]), mask))
    return slots
