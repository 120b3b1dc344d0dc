"""The paper's protocol, which published numbers refer to.

All expressions of an image are in one prompt, and the answer is fed with the true slots (teacher forcing),
so that a later slot sees the truth of earlier ones. A decision is right if the true one of [SEG] and [REJ]
is the likeliest of all tokens, and wrong otherwise. Masks, also those of rejected slots, come from a second
pass in which every slot is [SEG]. Families with one expression per conversation, such as LISA, are asked
that way here, too, for each expression as for a phrase, even if it ends in "?"; every region (ReasonSeg) is
asked for in a conversation of its own.

Sources: `validate` and `eval_gres` of the official GSVA (solver.py at its commit 618dc79), and LISA's
`ValDataset` (utils/dataset.py at its commit 3cb2d43).
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..answer import Drawn, Rejection, Slot
from ..engine import Engine
from ..masks import trimmed
from ..model.clip import ClipPreprocessor
from ..model.memory import memory_errors
from ..model.official import official_pass
from ..model.prompt import Turn
from ..model.sam import SamPreprocessor
from ..scoring import Rules
from ..truth import Referring


@memory_errors()
@torch.inference_mode()
def paper_slots(
    engine: Engine,
    rgb: NDArray[np.uint8],
    queries: Sequence[Referring],
    rules: Rules = "grefcoco",
) -> tuple[list[Slot], dict[str, float]]:
    """Slots of one image, and the seconds taken ("total").

    Args:
        rules: a pixel belongs to the mask if its logit is at least 0; by the rules of "refcoco", only if it
            is above 0.
    """
    start = time.perf_counter()
    passes = _Passes(engine, rgb)
    above = rules == "refcoco"
    together = [list(queries)]
    if not engine.prompt.family.joint or any(query.region for query in queries):
        together = [[query] for query in queries]
    slots: list[Slot] = []
    for asked in together:
        if asked[0].region or not engine.prompt.family.joint:
            turn = engine.prompt.region_turn(asked[0].expression, asked[0].region == "sentence")
        else:
            absent = [q.mask is None or not q.mask.any() for q in asked]
            turn = engine.prompt.official_turn([q.expression for q in asked], absent)
        found = passes.slots(turn, above)
        slots += [_by_the_paper(q.expression, s) for q, s in zip(asked, found, strict=True)]
    return slots, {"total": time.perf_counter() - start}


@memory_errors()
@torch.inference_mode()
def region_slots(
    engine: Engine, rgb: NDArray[np.uint8], queries: Sequence[Referring]
) -> tuple[list[Slot], dict[str, float]]:
    """Regions (ReasonSeg) under the deployed protocol: same prompt, decided by the engine's rule."""
    start = time.perf_counter()
    passes = _Passes(engine, rgb)
    slots = []
    for query in queries:
        turn = engine.prompt.region_turn(query.expression, query.region == "sentence")
        (slot,) = passes.slots(turn, above=True)
        p_seg, rejected = engine.decide(slot.logits, engine.rejection_threshold)
        drawn = Drawn(trimmed(slot.mask), slot.predicted_iou)
        slots.append(Slot.decided(query.expression, p_seg, rejected, slot.mask.shape, drawn))
    return slots, {"total": time.perf_counter() - start}


@dataclass(frozen=True)
class _Slot:
    """A slot from the official pass.

    logits: of [SEG] and, if the family has it, [REJ], float32 [1 or 2]. likeliest: whether [SEG] is the
    likeliest of all tokens. mask: bool [H, W].
    """

    logits: Tensor
    likeliest: bool
    predicted_iou: float
    mask: NDArray[np.bool_]


class _Passes:
    """One image, encoded once, for any number of official passes."""

    def __init__(self, engine: Engine, rgb: NDArray[np.uint8]) -> None:
        model, config = engine.model, engine.config
        sam = SamPreprocessor.of(config.sam)

        def on_device(pixels: Tensor) -> Tensor:
            return pixels[None].to(model.device, model.dtype)

        pixel_values = on_device(ClipPreprocessor(config.preprocessor)(rgb))
        self._engine, self._size = engine, rgb.shape[:2]
        self._resized = sam.resized(*self._size)
        self._image_tokens = model.project(model.encode_clip(pixel_values))
        self._image_embeddings = model.encode_sam(on_device(sam(rgb)))

    def slots(self, turn: Turn, above: bool) -> list[_Slot]:
        """The slots of a turn; above: see `paper_slots`."""
        model, prompt = self._engine.model, self._engine.prompt
        output = official_pass(
            model,
            self._image_tokens,
            self._image_embeddings,
            torch.tensor(prompt.full(turn), device=model.device),
            self._resized,
            self._size,
            reeval=True,
        )
        before = len(output.output_ids) - len(turn.ids)
        slot_ids = prompt.tokenizer.slot_ids
        slots = []
        for number, place in enumerate(turn.slots):
            logits = output.pred_masks[number]
            mask = (logits > 0 if above else logits >= 0).cpu().numpy()
            likeliest = int(output.output_ids[before + place + 1]) == slot_ids[0]
            scores = output.slot_logits[number][slot_ids].float()
            slots.append(_Slot(scores, likeliest, float(output.predicted_iou[number]), mask))
        return slots


def _by_the_paper(expression: str, slot: _Slot) -> Slot:
    """Decide by the likeliest token; a family without [REJ] rejects if its mask is empty."""
    if len(slot.logits) == 1:
        rejection = None if slot.mask.any() else Rejection.EMPTY_MASK
    else:
        rejection = None if slot.likeliest else Rejection.MODEL
    p_seg = float(slot.logits.softmax(-1)[0])
    drawn = trimmed(slot.mask)
    return Slot(expression, p_seg, rejection, slot.mask.shape, drawn, slot.predicted_iou)
