"""Rendered scenes on disk, as the simulator writes them and as training and evaluation read them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from .errors import InputError, one_line

MAX_OBJECTS = 12


@dataclass(frozen=True)
class Expression:
    """One referring expression of a scene; no targets means that nothing in the scene fits it."""

    text: str
    category: str
    targets: tuple[int, ...]


class SceneSet:
    """Scenes of one split.

    Attributes:
        rgb: uint8 [N, H, W, 3], memory-mapped.
        instances: uint8 [N, H, W], 0 for background and k for the scene's object k (1-based).
        kind, colour, size: int64 [N, MAX_OBJECTS + 1], class indices; index 0, unused places and
            what has no name hold -1.
        position: float32 [N, MAX_OBJECTS + 1, 3], centroid x and y as a fraction of the width and the
            height, and distance from the camera in metres.
        expressions: N lists of `Expression`.
    """

    def __init__(self, path: Path, split: str, limit: int | None = None) -> None:
        """Open the scenes under `path`.

        Raises:
            InputError: the directory holds another split (training opens "train" and nothing else), or
                files that are not such scenes.
        """
        try:
            self._read(path, split, limit)
        except InputError:
            raise
        except (OSError, ValueError, KeyError, IndexError, TypeError, EOFError) as error:
            raise InputError(
                f"{path}: not scenes of `gsva sim render`: {type(error).__name__}: {one_line(error)}"
            ) from error

    def _read(self, path: Path, split: str, limit: int | None) -> None:
        meta = json.loads((path / "meta.json").read_text())
        if meta["split"] != split:
            raise InputError(
                f"{path}: holds the {meta['split']!r} split, {split!r} was asked for; "
                f"render it with `gsva sim render --split {split}`"
            )
        lines = (path / "scenes.jsonl").read_text().splitlines()[:limit]
        self.kinds: list[str] = list(meta["kinds"])
        self.colours: list[str] = list(meta["colours"])
        self.sizes: list[str] = ["small", "large"]
        self.rgb = np.load(path / "rgb.npy", mmap_mode="r")[: len(lines)]
        self.instances = np.load(path / "instances.npy", mmap_mode="r")[: len(lines)]
        height, width = self.instances.shape[1:]
        table = (len(lines), MAX_OBJECTS + 1)
        self.kind, self.colour, self.size = (np.full(table, -1, np.int64) for _ in range(3))
        self.position = np.zeros((*table, 3), np.float32)
        self.expressions: list[list[Expression]] = []
        for row, line in enumerate(lines):
            scene: dict[str, Any] = json.loads(line)
            for thing in scene["objects"]:
                k = thing["id"]
                self.kind[row, k] = _index(self.kinds, thing["kind"])
                self.colour[row, k] = _index(self.colours, thing["colour"])
                self.size[row, k] = _index(self.sizes, thing["size"])
                x, y = thing["centroid"]
                self.position[row, k] = x / width, y / height, thing["distance"]
            self.expressions.append(
                [
                    Expression(e["text"], e["category"], tuple(e["targets"]))
                    for e in scene["expressions"]
                ]
            )

    def __len__(self) -> int:
        return len(self.expressions)

    def target_masks(
        self, rows: npt.NDArray[np.int64], targets: Sequence[tuple[int, ...]]
    ) -> npt.NDArray[np.bool_]:
        """Union masks of the targets, bool [K, H, W]; `rows` [K] names each one's scene."""
        table = np.zeros((len(rows), 256), bool)
        for k, ids in enumerate(targets):
            table[k, list(ids)] = True
        frames = self.instances[rows]
        return np.take_along_axis(table, frames.reshape(len(rows), -1), 1).reshape(frames.shape)


def _index(names: list[str], name: str) -> int:
    """The name's place, -1 for the empty one."""
    return names.index(name) if name else -1


def grid_samples(instances: np.ndarray, rows: int, columns: int, per_cell: int = 4) -> np.ndarray:
    """Object ids at a regular per_cell x per_cell lattice inside each cell of a rows x columns grid.

    Args:
        instances: uint8 [B, H, W].

    Returns:
        uint8 [B, rows, columns, per_cell ** 2].
    """
    height, width = instances.shape[1:]
    y = ((np.arange(rows * per_cell) + 0.5) * height / (rows * per_cell)).astype(int)
    x = ((np.arange(columns * per_cell) + 0.5) * width / (columns * per_cell)).astype(int)
    lattice = instances[:, y][:, :, x].reshape(len(instances), rows, per_cell, columns, per_cell)
    return lattice.transpose(0, 1, 3, 2, 4).reshape(len(instances), rows, columns, per_cell**2)


def cell_objects(samples: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The object that covers most of each cell, and how much of the cell any object covers.

    Args:
        samples: uint8 [B, h, w, S] from `grid_samples`.

    Returns:
        ids int64 [B, h, w], 0 where objects cover less than a quarter of the cell; foreground
        float32 [B, h, w] in 0..1.
    """
    counts = np.stack([(samples == k).sum(-1) for k in range(1, MAX_OBJECTS + 1)], -1)
    foreground = counts.sum(-1) / samples.shape[-1]
    ids = np.where(foreground >= 0.25, counts.argmax(-1) + 1, 0)
    return ids.astype(np.int64), foreground.astype(np.float32)
