"""Rendered scenes on disk, as written by the simulator and read by training and evaluation."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from copy import copy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from .errors import InputError, one_line
from .files import only_writer, parse_json, read_json

MAX_OBJECTS = 12
#: The files of a scene folder: metadata; images; the object at each pixel; one line per scene.
META, RGB, INSTANCES, LINES = "meta.json", "rgb.npy", "instances.npy", "scenes.jsonl"
_FRAMES = ("rgb", "instances")


@dataclass(frozen=True)
class Expression:
    """One referring expression of a scene; no targets means that nothing in the scene matches it."""

    text: str
    category: str
    targets: tuple[int, ...]


class Stacked:
    """Arrays [N_i, ...] concatenated along the first axis without a copy, read by row."""

    def __init__(self, parts: Sequence[npt.NDArray[Any]]) -> None:
        """Args: parts: of equal shape except for the first axis."""
        self.parts = list(parts)
        self._starts = np.cumsum([0, *map(len, parts)])
        self.shape = (int(self._starts[-1]), *parts[0].shape[1:])

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: int | npt.NDArray[np.int64]) -> npt.NDArray[Any]:
        """The row, or the rows [K, ...]."""
        of = np.searchsorted(self._starts, rows, "right") - 1
        if not isinstance(rows, np.ndarray):
            return self.parts[of][rows - self._starts[of]]
        found = np.empty((len(of), *self.shape[1:]), self.parts[0].dtype)
        for number, part in enumerate(self.parts):
            found[of == number] = part[rows[of == number] - self._starts[number]]
        return found


class SceneSet:
    """Scenes of one split.

    Attributes:
        folders: their folders, and the number of scenes in each: one folder, unless `joined`.
        rgb: uint8 [N, H, W, 3], memory-mapped.
        instances: uint8 [N, H, W], 0 for background and k for the scene's object k (1-based).
        kind, colour, size: int64 [N, MAX_OBJECTS + 1], class indices; index 0, unused places and
            empty names hold -1.
        position: float32 [N, MAX_OBJECTS + 1, 3], centroid x and y as a fraction of the width and the
            height, and distance from the camera in metres.
        outlined: bool [N], whether `instances` are outlines; boxes around the objects otherwise.
        photograph: bool [N], whether it is a photograph, which also shows objects without a label.
        expressions: N lists of `Expression`.
    """

    def __init__(self, path: Path, split: str, limit: int | None = None) -> None:
        """Open the scenes under `path`.

        Raises:
            InputError: the directory contains another split (training opens only "train"), files that are
                not such scenes, or fewer of them than were to be rendered, up to `limit`.
        """
        try:
            self._read(path, split, limit)
        except InputError:
            raise
        except (OSError, ValueError, LookupError, TypeError, AttributeError, EOFError) as error:
            raise InputError(
                f"{path}: not scenes of `gsva sim render`: {type(error).__name__}: {one_line(error)}"
            ) from error

    def _read(self, path: Path, split: str, limit: int | None) -> None:
        meta = _meta(path, split)
        lines = (path / LINES).read_text(encoding="utf-8").splitlines()[:limit]
        if not lines or len(lines) < min(meta["count"], limit or meta["count"]):
            raise InputError(
                f"{path}: {len(lines)} of {meta['count']} scenes: run the command that renders it again"
            )
        self.folders = [(path, len(lines))]
        self.kinds: list[str] = list(meta["kinds"])
        self.colours: list[str] = list(meta["colours"])
        self.sizes: list[str] = ["small", "large"]
        self.rgb, self.instances = _pictures(path, len(lines))
        table = (len(lines), MAX_OBJECTS + 1)
        self.kind, self.colour, self.size = (np.full(table, -1, np.int64) for _ in range(3))
        self.position = np.zeros((*table, 3), np.float32)
        self.outlined, self.photograph = np.ones(len(lines), bool), np.zeros(len(lines), bool)
        self.expressions: list[list[Expression]] = []
        for row, line in enumerate(lines):
            self._add(row, parse_json(line))

    def _add(self, row: int, scene: dict[str, Any]) -> None:
        """Take over a scene's line."""
        height, width = self.instances.shape[1:]
        self.outlined[row] = scene.get("outlined", True)
        self.photograph[row] = "photograph" in scene
        for thing in scene["objects"]:
            k = thing["id"]
            if not 1 <= k <= MAX_OBJECTS:
                raise ValueError(f"object {k}: they are numbered from 1 to {MAX_OBJECTS}")
            self.kind[row, k] = _index(self.kinds, thing["kind"])
            self.colour[row, k] = _index(self.colours, thing["colour"])
            self.size[row, k] = _index(self.sizes, thing["size"])
            x, y = thing["centroid"]
            self.position[row, k] = x / width, y / height, thing["distance"]
        self.expressions.append([_expression(e, scene["objects"]) for e in scene["expressions"]])

    def __len__(self) -> int:
        return len(self.expressions)

    def asked(self) -> npt.NDArray[np.int64]:
        """The rows of the scenes that have expressions [K], at least one; InputError if there is none."""
        rows = np.flatnonzero([bool(expressions) for expressions in self.expressions])
        if not len(rows):
            places = ", ".join(str(folder) for folder, _ in self.folders)
            raise InputError(f"{places}: no scene has an expression: render other scenes")
        return rows

    def target_masks(
        self, rows: npt.NDArray[np.int64], targets: Sequence[tuple[int, ...]]
    ) -> npt.NDArray[np.bool_]:
        """Union masks of the targets, bool [K, H, W]; `rows` [K] is the scene of each."""
        table = np.zeros((len(rows), 256), bool)
        for k, ids in enumerate(targets):
            table[k, list(ids)] = True
        frames = self.instances[rows]
        flat = frames.reshape(len(rows), math.prod(frames.shape[1:]))
        return np.take_along_axis(table, flat, 1).reshape(frames.shape)


def _meta(path: Path, split: str) -> dict[str, Any]:
    """A folder's meta.json; InputError if it is not of this split."""
    if not path.is_dir():
        raise InputError(f"{path}: no such folder of scenes")
    if not (path / META).exists():
        raise InputError(
            f"{path}: not scenes of `gsva sim render`, or `gsva photographs` was interrupted while it "
            f"made them: there is no {META}; run the command again"
        )
    meta: dict[str, Any] = read_json(path / META)
    if meta["split"] != split:
        raise InputError(
            f"{path}: contains the {meta['split']!r} split, but {split!r} was requested; "
            f"render it with `gsva sim render --split {split}`"
        )
    return meta


def _pictures(path: Path, count: int) -> tuple[Stacked, Stacked]:
    """The images and instances of a folder's first `count` scenes, memory-mapped."""
    rgb, instances = (np.load(path / name, mmap_mode="r") for name in (RGB, INSTANCES))
    if instances.ndim != 3 or not are_frames(rgb, instances, instances.shape):
        found = [(str(frames.dtype), frames.shape) for frames in (rgb, instances)]
        raise ValueError(f"pictures are {found[0]}, instances {found[1]}")
    if len(rgb) < count:
        raise ValueError(f"{count} scenes and {len(rgb)} pictures")
    return Stacked([rgb[:count]]), Stacked([instances[:count]])


def joined(sets: Sequence[SceneSet]) -> SceneSet:
    """Scenes of several folders as one set, in this order.

    Raises:
        InputError: their image sizes differ, or one has kinds or colours that the first does not.
    """
    whole = copy(sets[0])
    for other in sets[1:]:
        place = other.folders[0][0]
        if other.rgb.shape[1:] != whole.rgb.shape[1:]:
            sizes = (f"{w}x{h}" for _, h, w, _ in (other.rgb.shape, whole.rgb.shape))
            raise InputError(
                f"{place}: scenes of {' beside '.join(sizes)}: render them at one size"
            )
        unknown = {*other.kinds, *other.colours} - {*whole.kinds, *whole.colours}
        if unknown:
            raise InputError(
                f"{place}: {', '.join(sorted(unknown))}: not known to {whole.folders[0][0]}; "
                "name the folder that knows all kinds and colours first"
            )
    whole.folders = [folder for each in sets for folder in each.folders]
    whole.rgb, whole.instances = (
        Stacked([part for each in sets for part in getattr(each, name).parts]) for name in _FRAMES
    )
    for name, names in (("kind", whole.kinds), ("colour", whole.colours), ("size", whole.sizes)):
        setattr(whole, name, np.concatenate([_renumbered(each, name, names) for each in sets]))
    whole.position = np.concatenate([each.position for each in sets])
    whole.outlined = np.concatenate([each.outlined for each in sets])
    whole.photograph = np.concatenate([each.photograph for each in sets])
    whole.expressions = [expressions for each in sets for expressions in each.expressions]
    return whole


def new_arrays(
    folder: Path, count: int, height: int, width: int
) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint8]]:
    """Create the `rgb` and `instances` files of `count` scenes, replacing existing ones.

    Raises:
        InputError: they do not fit on the disk.
    """
    rgb, instances = (
        new_array(folder / name, np.uint8, (count, height, width, *channels))
        for name, channels in ((RGB, (3,)), (INSTANCES, ()))
    )
    return rgb, instances


def new_array(path: Path, kind: npt.DTypeLike, shape: tuple[int, ...]) -> npt.NDArray[Any]:
    """Create a memory-mapped .npy file, replacing an existing one.

    Its space is reserved: otherwise the process would be killed (SIGBUS) when a write finds the disk full.

    Raises:
        InputError: it does not fit on the disk.
    """
    size = math.prod(shape) * np.dtype(kind).itemsize
    try:
        array = np.lib.format.open_memmap(path, "w+", kind, shape)
        if hasattr(os, "posix_fallocate"):
            with path.open("r+b") as file:
                os.posix_fallocate(file.fileno(), 0, path.stat().st_size)
    except OSError as error:
        with suppress(OSError):
            path.unlink(missing_ok=True)
        raise InputError(
            f"{path}: cannot be created with {size / 1e6:.1f} MB: {one_line(error)}"
        ) from error
    return array


def are_frames(rgb: npt.NDArray[Any], instances: npt.NDArray[Any], shape: tuple[int, ...]) -> bool:
    """Whether two arrays are the images and instances of scenes of shape (N, H, W)."""
    found = [(str(frames.dtype), frames.shape) for frames in (rgb, instances)]
    return found == [("uint8", (*shape, 3)), ("uint8", shape)]


@contextmanager
def begun(folder: Path) -> Iterator[None]:
    """Wraps the writing of new scenes: if it fails before one is complete, the folder is removed.

    Raises:
        InputError: another process is writing there.
    """
    made = [path for path in (folder, *folder.parents) if not path.exists()]
    with only_writer(folder / LINES):
        try:
            yield
        except Exception:
            if (folder / LINES).exists() and (folder / LINES).stat().st_size:
                raise
            for name in (META, LINES, RGB, INSTANCES):
                (folder / name).unlink(missing_ok=True)
            for path in made:
                with suppress(OSError):  # another process has put something there
                    path.rmdir()
            raise


def _renumbered(scenes: SceneSet, attribute: str, names: list[str]) -> npt.NDArray[np.int64]:
    """A table of class indices, converted to indices into `names`."""
    own = getattr(scenes, f"{attribute}s")
    places = np.array([*(names.index(name) for name in own), -1])
    return places[getattr(scenes, attribute)]


def _expression(told: dict[str, Any], things: Sequence[dict[str, Any]]) -> Expression:
    """Parse an expression in a scene's line; ValueError if it or one of its targets is invalid."""
    text, category, targets = told["text"], told["category"], tuple(told["targets"])
    if not isinstance(text, str) or not isinstance(category, str):
        raise ValueError(f"an expression is text, not {text!r} of category {category!r}")
    text.encode()  # JSON can contain lone surrogates, which no tokenizer takes
    if not text.strip():
        raise ValueError("an expression is empty")
    ids = {thing["id"] for thing in things}
    if len({*targets}) < len(targets) or any(type(t) is not int or t not in ids for t in targets):
        raise ValueError(f"{text!r} refers to {list(targets)}, which are not objects of the scene")
    return Expression(text, category, targets)


def _index(names: list[str], name: str) -> int:
    """The name's index, -1 for an empty name."""
    return names.index(name) if name else -1
