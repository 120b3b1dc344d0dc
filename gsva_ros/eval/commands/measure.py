"""`gsva eval scenes`, `bag` and `dataset`: a model and its baselines, scored."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...errors import InputError, tell_left_out, visible
from ...files import check_writable, results
from ..metrics import NAMES, Protocol, Scoring
from ..sources import bag, dataset, scenes
from .shared import add_run_arguments, evaluated, load_engine

if TYPE_CHECKING:
    from ..cases import Gathered
    from ..run import CaseRecord

Gather = Callable[[argparse.Namespace], AbstractContextManager["Gathered"]]


def add(commands: Any) -> None:
    """Add the commands to the subparsers of `gsva eval`."""
    for add_one in (_add_scenes, _add_bag, _add_dataset):
        add_one(commands)


def _add_scenes(commands: Any) -> None:
    parser = commands.add_parser(
        "scenes",
        help="evaluate on held-out rendered scenes, with two baselines",
        description="Every slot is decided by the model alone, each expression by itself. The baselines "
        "are a model that always answers [REJ], and the same model shown a grey frame.",
    )
    scenes.add_arguments(parser, "test")
    _measured(parser, scenes.gather)


def _add_bag(commands: Any) -> None:
    parser = commands.add_parser(
        "bag",
        help="evaluate on the frames of a rosbag2, scored where ground truth is known",
        description="Read a rosbag2 (mcap or sqlite3, raw or compressed images) directly from disk. The "
        "instructions come from the instruction file; without one, from the bag (gsva_ros/Instruction, "
        "strings on instruction_text); without those, the expressions of the ground truth are used.",
    )
    bag.add_arguments(parser)
    _measured(parser, bag.gather)


def _add_dataset(commands: Any) -> None:
    parser = commands.add_parser(
        "dataset",
        help="evaluate on gRefCOCO, RefCOCO, RefCOCO+, RefCOCOg, RefClef, Ref-ZOM or ReasonSeg",
        description="The data is read from the official folders. Protocol paper is that of published "
        "numbers: one prompt with all expressions, the ground-truth answers of earlier turns, masks from "
        "a second pass. Protocol deployed is what a robot gets: every expression decided by itself.",
    )
    dataset.add_arguments(parser)
    parser.add_argument(
        "--protocol", choices=("paper", "deployed"), default="paper", help="(default: paper)"
    )
    _measured(parser, dataset.gather)


def _measured(parser: argparse.ArgumentParser, gather: Gather) -> None:
    add_run_arguments(parser)
    parser.add_argument("--out", type=Path, help="write numbers and records to this JSON file")
    parser.add_argument("--report", type=Path, help="write the report to this HTML file")
    parser.add_argument(
        "--no-blind",
        action="store_true",
        help="omit the baseline that is shown a grey image, which takes as long as the model",
    )
    parser.set_defaults(run=lambda args: _measure(args, gather))


def _measure(args: argparse.Namespace, gather: Gather) -> int:
    """Run the model and the blind baseline on the cases; print, and write the requested files."""
    inputs = [getattr(args, name, None) for name in ("bag", "truth", "instructions")]
    check_writable(args.out, args.report, args.records, inputs=inputs)
    files = [path.resolve() for path in (args.out, args.report, args.records) if path]
    if len(set(files)) < len(files):
        raise InputError("--out, --report and --records name one file twice: give each its own")
    with gather(args) as gathered:
        protocol: Protocol = getattr(args, "protocol", "deployed")
        return _run(args, gathered, Scoring(protocol, gathered.rules))


def _run(args: argparse.Namespace, gathered: Gathered, how: Scoring) -> int:
    from ...model.bundled import model_directory
    from ...processes import processes
    from ..calibrate import read_calibration
    from ..report import choose, gallery, render
    from ..run import answering
    from ..summary import summary

    cases, data = gathered.cases, gathered.data
    engine = load_engine(args)
    calibrated = read_calibration(model_directory(args.model))
    records = evaluated(args, engine, gathered, how)
    tell_left_out(gathered.problems)
    if not records:
        raise InputError(f"{data}: none of its cases can be read")
    run = {
        "model": args.model,
        "weights_hash": engine.weights_hash,
        "device": ", ".join(sorted({record.device or "unknown" for record in records})),
        "dtype": engine.precision,
        "data": data,
        "fingerprint": gathered.fingerprint,
        "left_out": len(gathered.problems),
        "calibrated": calibrated,
    }
    unknown = all(slot.referents is None for record in records for slot in record.slots)
    blind = []
    if not unknown and not args.no_blind:
        blind = evaluated(args, engine, gathered, how, blind=True)
    if not processes().is_main_process:
        return 0
    if unknown:
        return _answers(args, run | asdict(how), records)
    numbers = summary(records, blind, engine.rejection_threshold, how) | run
    with results() as write:
        # Numbers first: nothing that fails later can lose them.
        if args.out:
            write(args.out, _whole(numbers, records))
        _print_numbers(numbers)
        if args.report:
            picks = choose(records, engine.rejection_threshold)
            write(
                args.report, render(numbers, gallery(answering(engine, how), cases, records, picks))
            )
    return 0


def _print_numbers(numbers: dict[str, Any]) -> None:
    print(f"{numbers['data']}, protocol {numbers['protocol']}, 95 % CI")
    # A list, since a model may be called as a baseline is.
    _table([(numbers["model"], numbers["scores"]["all"]), *numbers["baselines"].items()])
    print()
    _table([(k, v) for k, v in numbers["scores"].items() if k != "all"])
    boxes = numbers["scores"]["all"]["box_precision_0.5"]
    if boxes is not None:
        print(f"boxes of present targets with an IoU of at least 0.5 (REC): {boxes:.3f}")
    kinds = ", ".join(f"{kind} {count}" for kind, count in numbers["rejections"].items())
    print(f"rejections: {kinds or 'none'}")
    if numbers["unscored"]:
        print(f"answered without known truth, not scored: {numbers['unscored']}")


def _table(rows: Sequence[tuple[str, Any]]) -> None:
    """Each score and below it its interval, in 80 columns."""
    _line("", NAMES, "n")
    for name, row in rows:
        _line(name, ["-" if row[m] is None else f"{row[m]:.3f}" for m in NAMES], row["n"])
        ends = (row["interval"][m] for m in NAMES)
        _line("", ["-" if low is None else f"{low:.3f}-{high:.3f}" for low, high in ends], "")


def _line(name: str, cells: Sequence[str], count: int | str) -> None:
    if len(name) > 20:  # such as a model's path
        name = f"{name}\n{'':20}"
    print((f"{name:20}" + "".join(f"{cell:>13}" for cell in cells) + f"{count:>8}").rstrip())


def _answers(args: argparse.Namespace, numbers: dict[str, Any], records: list[CaseRecord]) -> int:
    """Write and print answers without ground truth."""
    with results() as write:
        # Written first: what reads the printed lines, such as `head`, may end before the last one.
        if args.out:
            write(args.out, _whole(numbers | {"cases": len(records)}, records))
        print(f"{numbers['data']}: no ground truth, so only answers and no scores")
        for record in records:
            for slot in record.slots:
                what = f"{slot.area} pixels" if slot.kept else "REJECTED"
                line = f"{record.id}  {slot.expression:32}  {what}, p([SEG]) {slot.p_seg:.3f}"
                print(visible(line))
    if args.report:
        print("no report: it compares with ground truth", file=sys.stderr)
    return 0


def _whole(numbers: dict[str, Any], records: list[CaseRecord]) -> str:
    """What --out holds, as JSON."""
    whole = numbers | {"records": [asdict(record) for record in records]}
    return json.dumps(whole, allow_nan=False) + "\n"
