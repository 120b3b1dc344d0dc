"""What frozen modules give for every scene, computed once and kept on disk."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from tqdm import tqdm


def kept(
    paths: Sequence[Path],
    count: int,
    batch: int,
    compute: Callable[[npt.NDArray[np.int64]], Sequence[Tensor]],
) -> list[npt.NDArray[np.float16]]:
    """Features of `count` scenes, float16 [count, ...] and memory-mapped, one file each.

    Args:
        compute: of the scenes' rows [B], `batch` of them at a time, each file's features [B, ...]; called
            only where a file is missing, or is of another number of scenes.
    """
    if not all(path.exists() and len(np.load(path, mmap_mode="r")) == count for path in paths):
        paths[0].parent.mkdir(parents=True, exist_ok=True)
        partial = [path.with_suffix(".partial") for path in paths]
        files: list[np.memmap] = []
        for start in tqdm(range(0, count, batch), desc=paths[0].stem, mininterval=5.0):
            rows = np.arange(start, min(start + batch, count))
            with torch.no_grad():
                found = [features.half().cpu().numpy() for features in compute(rows)]
            if not files:
                files = [
                    np.lib.format.open_memmap(path, "w+", np.float16, (count, *features.shape[1:]))
                    for path, features in zip(partial, found, strict=True)
                ]
            for file, features in zip(files, found, strict=True):
                file[rows] = features
        for path, whole in zip(partial, paths, strict=True):
            path.rename(whole)
    return [np.load(path, mmap_mode="r") for path in paths]
