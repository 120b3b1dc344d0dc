"""What several of the commands need: options of a run, its engine and its records."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...answer import no_rejection
from ...arguments import add_model_arguments
from ..fingerprint import fingerprint

if TYPE_CHECKING:
    from ...answer import Segmenter
    from ..cases import Gathered
    from ..metrics import Scoring
    from ..run import CaseRecord, Records

PACKAGE = Path(__file__).resolve().parents[2]
#: What reads, decides and scores; records know it: none go on under another rule.
CODE = ("*.py", "bags/*.py", "datasets/*.py", "eval/**/*.py", "model/*.py", "phrasing/*.py")


def add_run_arguments(parser: argparse.ArgumentParser, changed: bool = False) -> None:
    add_model_arguments(parser, changed)
    parser.add_argument(
        "--records",
        type=Path,
        help="keep records in this file while running; a run that was killed resumes from it",
    )


def load_engine(args: argparse.Namespace) -> Segmenter[Any]:
    """Load the model; if several processes run on one machine, each on its own GPU."""
    from ... import load
    from ...processes import processes

    here = processes()
    own = args.device == "auto" and here.num_processes > 1
    device = str(here.device) if own else args.device
    engine = load(args.model, device=device, dtype=args.dtype)
    notice = no_rejection(engine)
    if notice and here.is_main_process:
        print(notice, file=sys.stderr)
    return engine


def evaluated(
    args: argparse.Namespace,
    engine: Segmenter[Any],
    gathered: Gathered,
    how: Scoring,
    blind: bool = False,
) -> list[CaseRecord]:
    """`run.evaluate` on a source's cases, with the records that `--records` keeps.

    What is left out goes to the source's problems; not that of the blind baseline, which is the same.
    """
    from ..run import evaluate

    return evaluate(
        engine,
        gathered.cases,
        how,
        records=_records_file(args, engine, gathered, how, blind),
        blind=blind,
        label="blind baseline" if blind else "model",
        problems=[] if blind and gathered.skip else gathered.left_out,
    )


def _records_file(
    args: argparse.Namespace,
    engine: Segmenter[Any],
    gathered: Gathered,
    how: Scoring,
    blind: bool,
) -> Records | None:
    from ...model.bundled import model_directory
    from ...model.checkpoint import base_of
    from ...model.weights import adapter
    from ...processes import processes
    from ..run import Records

    if args.records is None:
        return None
    model = model_directory(args.model)
    settings: list[Path] = []
    for folder in dict.fromkeys((model, base_of(model, adapter(model)))):
        # Not every JSON file there: numbers and records may be written beside the model.
        settings += sorted([*folder.glob("*config.json"), *folder.glob("tokenizer.*")])
    run = {
        "code": fingerprint(sorted(path for some in CODE for path in PACKAGE.glob(some))),
        "weights_hash": engine.weights_hash,
        "settings": fingerprint(settings),
        "dtype": engine.precision,
        "data": gathered.data,
        "fingerprint": gathered.fingerprint,
        "protocol": how.protocol,
        "rejection_threshold": engine.rejection_threshold,
        **engine.rule,
    }
    path = args.records
    if blind:
        path, run = path.with_name(f"{path.name}.blind"), run | {"baseline": "blind"}
    return Records(path, run, processes().process_index)
