"""Ground truth of a batch's images and slots, prepared on the host for the losses on the device."""

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
from ..scenes import SceneSet
from .dense import grid_samples
from .movable import Movable
from .packing import Packed

# A relation and its anchor, whose last word ends the expression; excludes "on the far left".
ANCHOR = re.compile(
    r"\b(?:left of|right of|(?:left|right) side of|in front of|behind|next to|beside|by|near|on|on top of"
    r"|in|inside|inside of|under|below|underneath) the (?!(?:far )?(?:left|right)\b)(?:(\w+) )?(\w+)$"
)


@dataclass
class Known(Movable):
    """Ground truth of B images with O objects (index 0: none) and of the K slots of their branches.

    Attributes:
        covered: float32 [B, O, N], fraction of each patch that an object covers.
        kind, colour: int64 [B, O], classes; -1 if there is no object, or no name for its class.
        position: float32 [B, O, 3], as `SceneSet.position`.
        targets: bool [K, O], a slot's target objects.
        relations: bool [K], whether a slot's expression ends in a relation and its anchor.
        related: int64 [R], the slots whose anchor is known. anchors: bool [R, O], the objects it fits.
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
        """Fraction of each patch that a set of objects covers.

        Args:
            image: int64 [K], index of the image. objects: bool [K, O].

        Returns:
            float32 [K, N].
        """
        return torch.einsum("ko,kon->kn", objects.float(), self.covered[image]).float()


def known(scenes: SceneSet, grid: int, rows: np.ndarray, packed: Packed) -> Known:
    """Ground truth of the scenes `rows` [B] on a grid x grid of patches, and of the branches about them."""
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
    """Sets of object indices as bool [K, O]."""
    table = torch.zeros(len(sets), objects, dtype=torch.bool)
    for row, ids in enumerate(sets):
        table[row, list(ids)] = True
    return table


def anchor_objects(scenes: SceneSet, row: int, text: str) -> tuple[int, ...] | None:
    """The objects that a relation's anchor phrase fits; None if the text has no known anchor."""
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
    """Every name of a kind, mapped to the kind."""
    words = Vocabulary(names, ())
    others = {other: kind for kind in names for other in words.other_names(kind)}
    return others | {kind: kind for kind in names}
