"""Scenes as `gsva sim render` writes them."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ...scenes import SceneSet
from ...truth import Referring
from ..cases import Case, Gathered
from ..fingerprint import fingerprint


def add_arguments(parser: argparse.ArgumentParser, split: str) -> None:
    """The folder and its split; `split`: the default."""
    parser.add_argument(
        "--data", type=Path, required=True, help="folder written by `gsva sim render`"
    )
    parser.add_argument("--split", default=split, help="the split that the folder must hold")
    parser.add_argument("--limit", type=int, help="the first LIMIT scenes only")


@contextmanager
def gather(args: argparse.Namespace) -> Iterator[Gathered]:
    """The scenes' cases; InputError where the folder does not hold them."""
    cases = scene_cases(SceneSet(args.data, args.split, args.limit))
    files = sorted(path for path in args.data.iterdir() if path.is_file())
    data = f"{len(cases)} scenes of split {args.split}"
    yield Gathered(cases, data, fingerprint=fingerprint(files))


def scene_cases(scenes: SceneSet) -> list[Case]:
    """One case for each rendered scene."""

    def reader(row: int) -> Callable[[], tuple[NDArray[np.uint8], list[Referring]]]:
        def read() -> tuple[NDArray[np.uint8], list[Referring]]:
            asked = scenes.expressions[row]
            masks = scenes.target_masks(np.full(len(asked), row), [e.targets for e in asked])
            queries = [
                Referring(e.text, e.category, len(e.targets), m)
                for e, m in zip(asked, masks, strict=True)
            ]
            return np.ascontiguousarray(scenes.rgb[row]), queries

        return read

    return [Case(f"scene {row}", reader(row)) for row in range(len(scenes))]
