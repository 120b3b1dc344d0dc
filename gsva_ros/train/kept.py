"""Outputs of frozen modules for every scene, computed once and cached on disk."""

from __future__ import annotations

import fcntl
import hashlib
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from tqdm import tqdm

from ..scenes import LINES, RGB, new_array

Compute = Callable[[npt.NDArray[np.int64]], Sequence[Tensor]]


def key_of(module: nn.Module, folders: Iterable[tuple[Path, int]]) -> str:
    """A hash of the module's weights and of the scenes in `SceneSet.folders`."""
    digest = hashlib.sha256()
    for name, value in [*module.named_parameters(), *module.named_buffers()]:
        digest.update(name.encode())
        digest.update(value.detach().float().cpu().numpy().tobytes())
    for folder, count in folders:
        # Size and modification time stand in for gigabytes of images.
        rgb = (folder / RGB).stat()
        digest.update(f"{count} {rgb.st_size} {rgb.st_mtime_ns}".encode())
        digest.update((folder / LINES).read_bytes())
    return digest.hexdigest()


def kept(
    paths: Sequence[Path], key: str, count: int, batch: int, compute: Compute
) -> list[npt.NDArray[np.float16]]:
    """Features of `count` scenes, one memory-mapped array float16 [count, ...] per file.

    Args:
        key: hash of the module and the scenes (`key_of`); it is saved next to the files.
        compute: takes scene rows [B], `batch` at a time, and returns features [B, ...] for each file;
            called only if a file is missing or was computed under another key.
    """
    if found := _found(paths, key):
        return found
    paths[0].parent.mkdir(parents=True, exist_ok=True)
    # The processes of a run share these files, and so do runs on the same scenes: one of them computes.
    with paths[0].with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if found := _found(paths, key):
            return found
        partial = _computed(paths, count, batch, compute)
        # An interruption between the files leaves no key that would declare them complete.
        _key_file(paths).unlink(missing_ok=True)
        for path, whole in zip(partial, paths, strict=True):
            path.rename(whole)
        _key_file(paths).write_text(key)
        return [np.load(path, mmap_mode="r") for path in paths]


def _key_file(paths: Sequence[Path]) -> Path:
    return paths[0].with_suffix(".key")


def _found(paths: Sequence[Path], key: str) -> list[npt.NDArray[np.float16]] | None:
    """The features in the files, if all are there and were computed under this key."""
    try:
        files = [np.load(path, mmap_mode="r") for path in paths]
        # After the files: until they have been replaced, the key is not there.
        return files if _key_file(paths).read_text() == key else None
    except (OSError, ValueError):  # missing or damaged
        return None


def _computed(paths: Sequence[Path], count: int, batch: int, compute: Compute) -> list[Path]:
    """Compute the features into temporary files."""
    partial = [path.with_suffix(".partial") for path in paths]
    files: list[npt.NDArray[np.float16]] = []
    for start in tqdm(range(0, count, batch), desc=paths[0].stem, mininterval=5.0):
        rows = np.arange(start, min(start + batch, count))
        with torch.no_grad():
            found = [features.half().cpu().numpy() for features in compute(rows)]
        if not files:
            files = [
                new_array(path, np.float16, (count, *features.shape[1:]))
                for path, features in zip(partial, found, strict=True)
            ]
        for file, features in zip(files, found, strict=True):
            file[rows] = features
    return partial
