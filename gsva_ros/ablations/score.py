"""Scoring: every row answers the same prompts, with thresholds chosen on val for the best gIoU.

Each row has one threshold per prompt size: if one mask answers for a whole prompt, the best threshold for
five expressions would reject every single one.

The threshold applies to the probability of [SEG] for rows that can reject, else to the mask's fraction of
the frame. Expressions are asked alone, and in joint prompts of three and five. If a row has one slot per
prompt, its mask counts for each expression of the prompt.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from ..eval.metrics import Scoring, metric, overlap, terms
from ..model.checkpoint import Checkpoint
from ..scenes import Expression
from ..train.mask_losses import mask_logits
from ..train.packing import pack
from .learn import read
from .rows import Row, branches
from .shared import EncodedScenes

#: Number of prompts per scene, by the number of expressions in a prompt.
ASKED = {1: 6, 3: 1, 5: 1}
BATCH = 25


#: By the number of expressions in a prompt.
Thresholds = dict[int, float]


@dataclass(frozen=True)
class Answers:
    """Columns [N] with one row per expression.

    scene; asked: number of expressions in its prompt; category; present; sureness: the value that the
    threshold applies to; intersection, union: of its mask and the truth, pixels; truth_area: pixels.
    """

    scene: npt.NDArray[np.int64]
    asked: npt.NDArray[np.int64]
    category: npt.NDArray[np.str_]
    present: npt.NDArray[np.bool_]
    sureness: npt.NDArray[np.float64]
    intersection: npt.NDArray[np.int64]
    union: npt.NDArray[np.int64]
    truth_area: npt.NDArray[np.int64]

    def terms(self, thresholds: Thresholds) -> npt.NDArray[np.float64]:
        """`metrics.terms` [N, 12]; rejected expressions have no mask."""
        rejected = self.sureness < np.array([thresholds[int(count)] for count in self.asked])
        return terms(
            self.intersection, self.union, self.truth_area, self.present, rejected, Scoring()
        )

    def thresholds(self) -> Thresholds:
        """The thresholds with the best gIoU."""
        return {int(count): self._best(int(count)) for count in np.unique(self.asked)}

    def _best(self, count: int) -> float:
        here = self.asked == count
        tried = np.unique(np.quantile(self.sureness[here], np.linspace(0, 1, 201)))
        every = dict.fromkeys(map(int, np.unique(self.asked)), 0.0)
        tables = (self.terms(every | {count: t})[here] for t in tried)
        values = [float(metric()(table.sum(0))["gIoU"]) for table in tables]
        return float(tried[int(np.argmax(values))])

    def to_lists(self) -> dict[str, list[Any]]:
        """The columns as lists, for JSON."""
        return {name: column.tolist() for name, column in asdict(self).items()}

    @classmethod
    def of_lists(cls, lists: dict[str, list[Any]]) -> Answers:
        """The inverse of `to_lists`."""
        return cls(**{name: np.array(column) for name, column in lists.items()})


@torch.inference_mode()
def answers(checkpoint: Checkpoint, row: Row, data: EncodedScenes) -> Answers:
    """The answers of a row's model to a split's prompts."""
    lines: list[tuple[Any, ...]] = []
    for start in range(0, len(data.scenes), BATCH):
        rows = np.arange(start, min(start + BATCH, len(data.scenes)))
        lines += _batch(checkpoint, row, data, rows)
    return Answers(*(np.array(column) for column in zip(*lines, strict=True)))


def prompts(expressions: list[Expression], scene: int) -> list[list[Expression]]:
    """The prompts for a scene; expressions are drawn without replacement within a prompt."""
    rng = np.random.default_rng([11, scene])
    return [
        [expressions[k] for k in rng.permutation(len(expressions))[:count]]
        for count, times in ASKED.items()
        for _ in range(times)
    ]


def _batch(
    checkpoint: Checkpoint, row: Row, data: EncodedScenes, rows: npt.NDArray[np.int64]
) -> Iterator[tuple[Any, ...]]:
    asked = [prompts(data.scenes.expressions[int(r)], int(r)) for r in rows]
    hidden, p_seg = _decided(checkpoint, row, data.clip(rows), asked)
    at = 0
    for scene, of_scene in zip(rows, asked, strict=True):
        slots = sum(len(p) if row.own_slots else 1 for p in of_scene)
        here = slice(at, at + slots)
        at += slots
        low_res, _ = checkpoint.model.decode_masks(
            data.sam(np.array([scene])), checkpoint.model.mask_prompts(hidden[here])
        )
        frame = data.scenes.instances.shape[1:]
        masks = (mask_logits(low_res, checkpoint.model.config.sam, frame) > 0).numpy()
        sure = p_seg[here].numpy() if row.rejects else masks.mean((1, 2))
        yield from _lines(row, data, int(scene), of_scene, masks, sure)


def _lines(
    row: Row,
    data: EncodedScenes,
    scene: int,
    asked: list[list[Expression]],
    masks: npt.NDArray[np.bool_],
    sure: npt.NDArray[Any],
) -> Iterator[tuple[Any, ...]]:
    slot = 0
    for prompt in asked:
        targets = [e.targets for e in prompt]
        truths = data.scenes.target_masks(np.full(len(prompt), scene), targets)
        for k, (expression, truth) in enumerate(zip(prompt, truths, strict=True)):
            own = slot + (k if row.own_slots else 0)
            mask = masks[own]
            yield (
                scene,
                len(prompt),
                expression.category,
                bool(expression.targets),
                float(sure[own]),
                *overlap(mask, truth),
                int(truth.sum()),
            )
        slot += len(prompt) if row.own_slots else 1


def _decided(
    checkpoint: Checkpoint, row: Row, clip_tokens: Tensor, asked: list[list[list[Expression]]]
) -> tuple[Tensor, Tensor]:
    """Hidden states [K, D] and p([SEG]) [K] of all slots; each slot sees the model's earlier decisions."""
    kept = [[[True] * len(prompt) for prompt in of_scene] for of_scene in asked]
    own = row.rejects and row.own_slots
    for turn in range(max(ASKED) if own else 1):
        hidden, p_seg = _pass(checkpoint, row, clip_tokens, asked, kept)
        at = 0
        for of_scene in kept:
            for prompt in of_scene:
                if own and turn < len(prompt):
                    prompt[turn] = bool(p_seg[at + turn] >= 0.5)
                at += len(prompt)
    return hidden, p_seg


def _pass(
    checkpoint: Checkpoint,
    row: Row,
    clip_tokens: Tensor,
    asked: list[list[list[Expression]]],
    kept: list[list[list[bool]]],
) -> tuple[Tensor, Tensor]:
    model, prompt = checkpoint.model, checkpoint.prompt
    images = [
        [b for p, k in zip(of_scene, answered, strict=True) for b in branches(prompt, row, p, k)]
        for of_scene, answered in zip(asked, kept, strict=True)
    ]
    packed = pack(prompt.prefix_length(clip_tokens.shape[1]), images)
    _, states = read(model, prompt, clip_tokens, packed)
    image, place = packed.slot_at.unbind(1)
    hidden = states[image, place]
    two = model.lm_head(hidden)[:, prompt.tokenizer.slot_ids]
    return hidden, two.softmax(-1)[:, 0]
