"""Writes scenes and their expressions to disk; the result does not depend on the number of workers."""

from __future__ import annotations

import json
import math
import multiprocessing
from collections.abc import Callable, Iterable
from dataclasses import asdict
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from tqdm import tqdm

from ..errors import InputError, one_line
from ..files import only_writer, parse_json
from ..scenes import INSTANCES, LINES, META, RGB, are_frames, begun, new_arrays
from . import render  # noqa: F401 (what it lacks is told before anything is written, not by a worker)
from .splits import seeds
from .worlds import WORLDS, Assets, Show, Speak

VERSION = 1
CHUNK = 100


Array = npt.NDArray[np.uint8]
#: A scene's image [H, W, 3], instances [H, W], and its line of scenes.jsonl.
Rendered = tuple[Array, Array, dict[str, Any]]

_open: Callable[[], Show] | None = None
_speak: Speak | None = None
_width = 0


def _start(world: str, width: int, height: int, assets: Assets) -> None:
    global _open, _speak, _width
    # Opened lazily by the first scene: if an initialiser raises, the pool keeps starting new processes.
    _open = cache(partial(WORLDS[world].open, width, height, assets))
    _speak = WORLDS[world].expressions
    _width = width


def _one(task: tuple[int, int]) -> Rendered:
    seed, expressions = task
    assert _open is not None
    assert _speak is not None
    rgb, instances, seen = _open()(seed)
    rng = np.random.default_rng([seed, 1_000_003])
    asked = _speak(seen, _width, rng).sample(expressions)
    scene = {
        "seed": seed,
        "objects": [asdict(thing) for thing in seen],
        "expressions": [asdict(expression) for expression in asked],
    }
    return rgb, instances, scene


def _describes(path: Path, meta: dict[str, Any]) -> bool:
    try:
        found = parse_json(path.read_text(encoding="utf-8"))
    except ValueError:
        return False
    return isinstance(found, dict) and {"world": "v1", **found} == meta


def write_dataset(
    out: Path,
    split: str,
    count: int,
    width: int = 192,
    height: int = 144,
    workers: int = 2,
    expressions: int = 20,
    world: str = "v1",
    assets: Assets | None = None,
) -> None:
    """Render `count` scenes of a split into `out`; an interrupted run is resumed.

    world: a name in `worlds.WORLDS`. assets: folders of additional meshes and panoramas.

    Files: meta.json; rgb.npy uint8 [N, H, W, 3]; instances.npy uint8 [N, H, W]; scenes.jsonl, one line per
    complete scene.

    Raises:
        InputError: the split has fewer scenes, `out` holds a different data set or is being written by
            another process, an asset cannot be read, the world takes no assets, or rendering is impossible.
    """
    assets = assets or Assets()
    chosen = seeds(split, count)
    meta = {
        "version": VERSION,
        "world": world,
        "split": split,
        "count": count,
        "first_seed": chosen[0],
        "width": width,
        "height": height,
        "kinds": list(WORLDS[world].kinds),
        "colours": list(WORLDS[world].colours),
        "expressions": expressions,
    }
    files = assets.files()
    if files and not WORLDS[world].takes_assets:
        raise InputError(f"the world {world!r} takes no {' or '.join(files)}")
    assets.load()  # report unreadable files here, not in a worker
    meta |= files
    stopped = (out / META).exists()
    if stopped and not _describes(out / META, meta):
        raise InputError(f"{out / META} describes another data set; choose an empty folder")
    with only_writer(out / LINES) if stopped else begun(out):
        rgb, instances, done = _reopened(out, meta) if stopped else _created(out, meta)
        if done == count:
            return
        left = chosen[done:]
        workers = min(workers, len(left))
        chunk = min(WORLDS[world].block, math.ceil(len(left) / workers))
        begin = (world, width, height, assets)
        with multiprocessing.get_context("spawn").Pool(workers, _start, begin) as pool:
            results = pool.imap(_one, ((seed, expressions) for seed in left), chunksize=chunk)
            bar = tqdm(
                results, total=count, initial=done, desc=f"rendering {split}", mininterval=2.0
            )
            _store(bar, out / LINES, rgb[done:], instances[done:])


def _store(scenes: Iterable[Rendered], lines_path: Path, rgb: Array, instances: Array) -> None:
    """Write scenes as they arrive; a scene's line is written last and marks it as complete."""
    pending: list[str] = []
    with lines_path.open("a", encoding="utf-8") as lines:
        for row, (frame, ids, scene) in enumerate(scenes, start=1):
            rgb[row - 1], instances[row - 1] = frame, ids
            pending.append(json.dumps(scene) + "\n")
            if len(pending) == CHUNK or row == len(rgb):
                lines.writelines(pending)
                lines.flush()
                pending.clear()


def _created(out: Path, meta: dict[str, Any]) -> tuple[Array, Array, int]:
    """Create a data set: its images, its instances, and 0 complete scenes."""
    rgb, instances = new_arrays(out, meta["count"], meta["height"], meta["width"])
    (out / LINES).write_text("")
    (out / META).write_text(json.dumps(meta, indent=2) + "\n")
    return rgb, instances, 0


def _reopened(out: Path, meta: dict[str, Any]) -> tuple[Array, Array, int]:
    """The images and instances of an interrupted run, and its number of complete scenes.

    Raises:
        InputError: they cannot be read, or do not match `meta`.
    """
    count, shape = meta["count"], (meta["count"], meta["height"], meta["width"])
    try:
        rgb, instances = (np.lib.format.open_memmap(out / name, "r+") for name in (RGB, INSTANCES))
        kept = (out / LINES).read_text(encoding="utf-8").splitlines(keepends=True)
        if not are_frames(rgb, instances, shape) or len(kept) > count:
            raise ValueError("images or scenes differ in number or size")
    except (OSError, ValueError) as error:
        raise InputError(
            f"{out}: cannot be resumed ({one_line(error)}); choose an empty folder"
        ) from error
    done = count if len(kept) == count else len(kept) // CHUNK * CHUNK
    if done < len(kept):
        (out / LINES).write_text("".join(kept[:done]))
    return rgb, instances, done
