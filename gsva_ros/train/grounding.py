"""Auxiliary losses that show a small language model where to look, read half-way up its layers.

A relation ("the mug left of the box") is decided in steps: find the anchor, know its place, look beside
it. Cross-entropy on the decision alone leaves gsva-mini at chance there, so each step is taught where the
layers can take it. Nothing of this is part of the exported model.
"""

from __future__ import annotations

import re

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..model.gsva import LanguageOutput
from ..scenes import SceneSet, grid_samples
from .packing import Packed

# Outputs of that many layers.
ANCHOR_LAYER, PLACE_LAYER, TARGET_LAYER = 1, 3, 4
ANCHOR = re.compile(r"\b(?:left of|right of|in front of|behind) the (?:(\w+) )?(\w+)$")


class Matcher(nn.Module):
    """Which image patches a position speaks of."""

    def __init__(self, width: int, channels: int = 64) -> None:
        super().__init__()
        self.query = nn.Linear(width, channels)
        self.key = nn.Linear(width, channels)
        self.bias = nn.Parameter(torch.tensor(-2.0))

    def forward(self, positions: Tensor, patches: Tensor) -> Tensor:
        """Args: positions [K, D]; patches [K, N, D]. Returns logits [K, N]."""
        query, keys = self.query(positions), self.key(patches)
        return torch.einsum("kc,knc->kn", query, keys) / query.shape[-1] ** 0.5 + self.bias


class Grounding(nn.Module):
    """The read-outs: a slot's targets, a relation's anchor, and the anchor's place."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.target = Matcher(width)
        self.anchor = Matcher(width)
        self.place = nn.Linear(width, 3)

    def forward(
        self,
        output: LanguageOutput,
        packed: Packed,
        scenes: SceneSet,
        rows: np.ndarray,
        patches: slice,
        start: int,
        grid: int,
    ) -> tuple[Tensor, dict[str, float]]:
        """The summed losses and figures.

        Args:
            output: with hidden_layers. rows: the images' scenes [B].
            patches: positions of the image tokens. start: the first position of the branches.
            grid: patches along one side.
        """
        layers = output.hidden_layers
        assert layers is not None
        image, place = packed.slot_at.unbind(1)
        images = image.cpu().numpy()
        match = self.target(
            layers[TARGET_LAYER][image, start + place], layers[TARGET_LAYER][image, patches]
        )
        covered = coverage(scenes, rows, images, packed.slot_targets, grid).to(match.device)
        target_loss = F.binary_cross_entropy_with_logits(match.float(), covered)
        figures = {"target": target_loss.item()}
        anchors = [
            anchor_objects(scenes, int(rows[i]), text)
            for i, text in zip(images, packed.slot_texts, strict=True)
        ]
        related = [k for k, ids in enumerate(anchors) if ids is not None]
        if not related:
            return 4.0 * target_loss, figures
        chosen = torch.tensor(related, device=match.device)
        at, before = image[chosen], start + place[chosen] - 1  # the anchor's last word
        match = self.anchor(layers[ANCHOR_LAYER][at, before], layers[ANCHOR_LAYER][at, patches])
        wanted = [anchors[k] or () for k in related]
        covered = coverage(scenes, rows, images[related], wanted, grid).to(match.device)
        anchor_loss = F.binary_cross_entropy_with_logits(match.float(), covered)
        single = [n for n, ids in enumerate(wanted) if len(ids) == 1]
        where = scenes.position[rows[images[related]][single], [wanted[n][0] for n in single]]
        said = self.place(layers[PLACE_LAYER][image, start + place][chosen][single]).float()
        place_loss = F.l1_loss(said, torch.from_numpy(where).to(said.device))
        figures |= {"anchor": anchor_loss.item(), "place": place_loss.item()}
        return 4.0 * target_loss + 4.0 * anchor_loss + 2.0 * place_loss, figures


def anchor_objects(scenes: SceneSet, row: int, text: str) -> tuple[int, ...] | None:
    """The objects that a relation's anchor phrase fits; None where the text holds no relation."""
    found = ANCHOR.search(text)
    if not found:
        return None
    colour, kind = found.groups()
    fits = scenes.kind[row] >= 0
    if kind in scenes.kinds:
        fits = fits & (scenes.kind[row] == scenes.kinds.index(kind))
    if colour in scenes.colours:
        fits = fits & (scenes.colour[row] == scenes.colours.index(colour))
    return tuple(int(k) for k in np.flatnonzero(fits))


def coverage(
    scenes: SceneSet,
    rows: np.ndarray,
    images: np.ndarray,
    targets: list[tuple[int, ...]],
    grid: int,
) -> Tensor:
    """How much of each image patch the targets cover, float32 [K, grid * grid].

    Args:
        rows: the scenes of the batch [B]. images: which of them each of the K targets is in.
    """
    samples = grid_samples(scenes.instances[rows], grid, grid)
    table = np.zeros((len(images), 256), np.float32)
    for k, ids in enumerate(targets):
        table[k, list(ids)] = 1.0
    flat = samples[images].reshape(len(images), -1)
    covered = np.take_along_axis(table, flat, 1).reshape(len(images), grid * grid, -1)
    return torch.from_numpy(covered.mean(-1))
