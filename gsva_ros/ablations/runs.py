"""Runs every row and seed; results of earlier calls are read instead of computed again."""

from __future__ import annotations

import json
import time
from pathlib import Path

from ..errors import InputError, one_line
from ..files import parse_json, write_whole
from ..model.checkpoint import load_converted
from . import learn
from .report import Runs
from .rows import ROWS
from .score import Answers, Thresholds, answers
from .shared import EncodedScenes, encoded_scenes


def run_all(out: Path, seeds: int) -> Runs:
    """The test answers and thresholds of every row and seed, seed by seed."""
    data = {split: encoded_scenes(out / "scenes", split) for split in ("train", "val", "test")}
    base = learn.teach(out / "base", data["train"], "", 0, None, learn.BASE_STEPS)
    runs: dict[str, list[tuple[Answers, Thresholds]]] = {name: [] for name in ROWS}
    for seed in range(1, seeds + 1):
        for name in ROWS:
            runs[name].append(_run(out / f"{name}-{seed}", data, name, seed, base))
    return runs


def _run(
    out: Path, data: dict[str, EncodedScenes], name: str, seed: int, base: Path
) -> tuple[Answers, Thresholds]:
    path = out / "answers.json"
    if not path.exists():
        began = time.monotonic()
        model = learn.teach(out, data["train"], name, seed, base, learn.ROW_STEPS)
        checkpoint, row = load_converted(model), ROWS[name]
        found = {
            "thresholds": answers(checkpoint, row, data["val"]).thresholds(),
            "answers": answers(checkpoint, row, data["test"]).to_lists(),
        }
        write_whole(path, (json.dumps(found) + "\n").encode())
        print(f"row {name}, seed {seed}: {(time.monotonic() - began) / 60:.1f} minutes", flush=True)
    try:
        found = parse_json(path.read_text(encoding="utf-8"))
        thresholds = {int(count): value for count, value in found["thresholds"].items()}
        return Answers.of_lists(found["answers"]), thresholds
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        raise InputError(
            f"{path}: not answers of `gsva ablate`: {one_line(error)}; delete it to have them again"
        ) from error
