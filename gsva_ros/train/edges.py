"""The stage `edges`: the refiner is trained on the masks that the rest of the model predicts."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from ..errors import InputError
from ..model.continuation import PlainContinuation
from ..model.gsva import GSVA
from ..model.images import Rgb
from ..model.mask_parts import sure_parts
from ..model.prefix import Branches, Prefix
from ..model.prompt import Prompt
from ..model.reading import Reader
from ..model.refiner import SIDE, filled, stretched, window
from .batches import around, embedded, jittered
from .frames import Frames
from .kept import kept, key_of
from .mask_losses import drawn_losses, iou_of
from .movable import Movable

BATCH = 32


@dataclass
class EdgeBatch(Movable):
    """K windows: rgb [K, 3, S, S], logits [K, S, S] and truth [K, S, S], float32; rgb and truth 0 to 1."""

    rgb: Tensor
    logits: Tensor
    truth: Tensor


class EdgeStage:
    """Trains the refiner alone, with 2.0 BCE + 0.5 dice; the masks to refine are computed once."""

    #: Maximum number of masks per scene.
    PER_SCENE = 6
    #: A mask with a lower IoU is on the wrong thing: it has no edges to learn from.
    LEAST = 0.25
    #: Range of the windows' margin, around the one that inference uses.
    MARGINS = (0.15, 0.5)

    def __init__(
        self, model: GSVA, prompt: Prompt, frames: Frames, cache: Path, jitter: float
    ) -> None:
        """Args: cache: the file for the masks. jitter: of the windows (`batches.jittered`)."""
        self._model, self._prompt, self._frames, self._jitter = model, prompt, frames, jitter
        self._asked = [self._choose(row) for row in range(len(frames))]
        key = key_of(model.model, frames.scenes.folders)
        (self._masks,) = kept([cache], key, len(frames), BATCH, self._draw_coarse)
        self._drawn = np.array(
            [
                (row, number)
                for row, masks in enumerate(self._masks)
                for number in np.flatnonzero(np.any(masks > 0, (1, 2)))
            ]
        )
        if not len(self._drawn):
            raise InputError(
                "the model predicts no mask on any of these scenes: train the other stages before edges"
            )

    def draw(self, step: int, batch: int, rng: np.random.Generator) -> EdgeBatch:
        """The step's windows, augmented by rotation, mirroring, resolution and brightness."""
        chosen = self._drawn[rng.integers(len(self._drawn), size=batch)]
        found = [self._window(int(row), int(number), rng) for row, number in chosen]
        pictures, logits, truth = zip(*found, strict=True)
        rgb = torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2).float() / 255
        return EdgeBatch(rgb, torch.stack(logits), torch.stack(truth))

    def losses(self, batch: EdgeBatch) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss, and metrics."""
        assert self._model.refiner
        before = iou_of(batch.logits, batch.truth)
        near = before >= self.LEAST
        refined = self._model.refiner(batch.rgb, batch.logits)
        loss, iou = drawn_losses(refined[near], batch.truth[near])
        return loss, {"iou": iou.mean(), "before": before[near].mean()}

    def _choose(self, row: int) -> list[int]:
        """Indices of the scene's expressions to use: at most PER_SCENE with targets."""
        if not self._frames.scenes.outlined[row]:
            return []
        expressions = self._frames.scenes.expressions[row]
        present = [number for number, e in enumerate(expressions) if e.targets]
        rng = np.random.default_rng([6, row])
        return [int(number) for number in rng.permutation(present)[: self.PER_SCENE]]

    def _draw_coarse(self, rows: npt.NDArray[np.int64]) -> list[Tensor]:
        """Mask logits [B, PER_SCENE, h, w] of the scenes' chosen expressions, each asked alone."""
        read, config, found = Reader(self._model.model), self._model.config, []
        grid = 4 * config.sam_grid
        for row in rows:
            asked = [self._frames.scenes.expressions[row][n].text for n in self._asked[row]]
            masks: Iterable[Tensor] = self._masks_of(row, asked, read) if asked else ()
            padded = torch.full((self.PER_SCENE, grid, grid), -1.0)
            for number, mask in enumerate(masks):
                padded[number] = sure_parts(mask, config.part_confidence)
            found.append(padded)
        return [torch.stack(found)]

    def _masks_of(self, row: int, asked: list[str], read: Reader) -> Tensor:
        """Logits [K, h, w], as `Engine.segment` decodes them."""
        model, prompt, device = self._model, self._prompt, self._model.device
        one = np.array([row])
        clip_tokens = model.encode_clip(self._frames.clip(one).to(device))
        nothing = torch.empty(1, 0, dtype=torch.long, device=device)
        x = embedded(model, around(prompt, device), clip_tokens, nothing)
        prefix = Prefix.of(read, model.model, x)
        tree = Branches.of([prompt.slot(text) for text in asked])
        hidden = PlainContinuation(read, model.embed, prefix).branches(tree)
        embeddings = model.encode_sam(self._frames.sam(one).to(device))
        masks, _ = model.decode_masks(embeddings, model.mask_prompts(hidden))
        return masks.float().cpu()

    def _window(
        self, row: int, number: int, rng: np.random.Generator
    ) -> tuple[Rgb, Tensor, Tensor]:
        """One augmented window: image, logits and truth."""
        scenes, sam = self._frames.scenes, self._model.config.sam
        mask = torch.from_numpy(self._masks[row, number].astype(np.float32))
        inside = filled(mask, sam.image_size, self._frames.resized)
        margin = rng.uniform(*self.MARGINS)
        seen = window(np.asarray(scenes.rgb[row]), mask, inside, margin)
        assert seen  # of `_drawn`
        targets = scenes.expressions[row][self._asked[row][number]].targets
        x0, y0, x1, y1 = seen.box
        things = np.isin(scenes.instances[row][y0:y1, x0:x1], targets)
        truth = torch.from_numpy(stretched(255 * things.astype(np.uint8))).float() / 255
        picture = jittered(_coarser(seen.rgb, rng), self._jitter, rng)
        return _turned(picture, seen.logits, truth, rng)


def _coarser(picture: Rgb, rng: np.random.Generator) -> Rgb:
    """Lower the resolution of about half of the windows, as from a camera with fewer pixels."""
    side = int(rng.integers(SIDE // 4, 2 * SIDE))
    if side >= SIDE:
        return picture
    coarse = cv2.resize(picture, (side, side), interpolation=cv2.INTER_AREA)
    return stretched(np.asarray(coarse, np.uint8))


def _turned(
    picture: Rgb, logits: Tensor, truth: Tensor, rng: np.random.Generator
) -> tuple[Rgb, Tensor, Tensor]:
    """Rotate all three by the same multiple of 90 degrees, and mirror half of the time."""
    turns = int(rng.integers(4))
    if rng.integers(2):
        picture, logits, truth = picture[:, ::-1], logits.flip(-1), truth.flip(-1)
    return (
        np.ascontiguousarray(np.rot90(picture, turns)),
        torch.rot90(logits, turns),
        torch.rot90(truth, turns),
    )
