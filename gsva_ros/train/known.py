"""What is true of a batch's pictures and slots, made on the host for the losses on the device."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from ..phrasing.unknown import NAMED
from ..phrasing.words import Vocabulary
from ..scenes import SceneSet, grid_samples
from .movable import Movable
from .packing import Packed

# A relation and its anchor, whose last word ends the expression; "on the far left" is none.
ANCHOR = re.compile(
    r"\b(?:left of|right of|(?:left|right) side of|in front of|behind|next to|beside|by|near|on|on top of"
    r"|in|inside|inside of|under|below|underneath) the (?!(?:far )?(?:left|right)\b)(?:(\w+) )?(\w+)$"
)


@dataclass
class Known(Movable):
    """Of B pictures of O objects (number 0 is none) and the K slots of the branches about them.

    Attributes:
        covered: float32 [B, O, N], how much of each patch an object covers.
        kind, colour: int64 [B, O], classes; -1 where there is no object, or no name for it.
        position: float32 [B, O, 3], as `SceneSet.position`.
        targets: bool [K, O], the objects that a slot means.
        relations: bool [K], whether a slot's expression ends in a relation and its anchor.
        related: int64 [R], the slots whose anchor is known, and anchors: bool [R, O], the objects it fits.
    """

    covered: Tensor
    kind: Tensor
    colour: Tensor
    position: Tensor
    targets: Tensor
    relations: Tensor
    related: Tensor
    anchors: Tensor

    def coverage(self, image: Tensor, objects: Tensor) -> Tensor:
        """How much of each patch some objects cover together.

        Args:
            image: int64 [K], which picture. objects: bool [K, O].

        Returns:
            float32 [K, N].
        """
        return torch.einsum("ko,kon->kn", objects.float(), self.covered[image]).float()


def known(scenes: SceneSet, grid: int, rows: np.ndarray, packed: Packed) -> Known:
    """What is true of the scenes `rows` [B] on a grid of patches, and of what is asked about them."""
    images = packed.slot_at[:, 0].numpy()
    samples = grid_samples(scenes.instances[rows], grid, grid).reshape(len(rows), grid**2, -1)
    objects = scenes.kind.shape[1]
    covered = np.stack([(samples == k).mean(-1, dtype=np.float32) for k in range(objects)], 1)
    covered[:, 0] = 0.0
    anchors = [
        anchor_objects(scenes, int(rows[i]), text)
        for i, text in zip(images, packed.slot_texts, strict=True)
    ]
    related = [k for k, ids in enumerate(anchors) if ids is not None]
    return Known(
        torch.from_numpy(covered),
        torch.from_numpy(scenes.kind[rows]),
        torch.from_numpy(scenes.colour[rows]),
        torch.from_numpy(scenes.position[rows]),
        _table(packed.slot_targets, objects),
        torch.tensor([bool(ANCHOR.search(text)) for text in packed.slot_texts]),
        torch.tensor(related, dtype=torch.long),
        _table([anchors[k] or () for k in related], objects),
    )


def _table(sets: Sequence[tuple[int, ...]], objects: int) -> Tensor:
    """Sets of objects as bool [K, O]."""
    table = torch.zeros(len(sets), objects, dtype=torch.bool)
    for row, ids in enumerate(sets):
        table[row, list(ids)] = True
    return table


def anchor_objects(scenes: SceneSet, row: int, text: str) -> tuple[int, ...] | None:
    """The objects that a relation's anchor phrase fits; None where the text holds none that is known."""
    found = ANCHOR.search(text)
    if not found:
        return None
    colour, noun = found.groups()
    kinds = _kinds(tuple(scenes.kinds))
    kind = kinds.get(f"{colour} {noun}") or kinds.get(noun)
    if kind is None:
        return () if noun in NAMED else None
    fits = scenes.kind[row] == scenes.kinds.index(kind)
    if colour in scenes.colours:
        fits = fits & (scenes.colour[row] == scenes.colours.index(colour))
    return tuple(int(k) for k in np.flatnonzero(fits))


@lru_cache
def _kinds(names: tuple[str, ...]) -> dict[str, str]:
    """Every name of a kind, and the kind."""
    words = Vocabulary(names, ())
    others = {other: kind for kind in names for other in words.other_names(kind)}
    return others | {kind: kind for kind in names}
