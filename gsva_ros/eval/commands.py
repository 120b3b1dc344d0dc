"""`gsva eval …`, `gsva record-truth` and `gsva calibrate`: measure a model, choose its threshold."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..answer import no_rejection
from ..arguments import add_model_arguments, rate
from ..errors import InputError, check_writable, write_result
from .metrics import NAMES
from .sources import bag, dataset, scenes

if TYPE_CHECKING:
    from ..answer import Segmenter
    from .cases import Gathered
    from .run import CaseRecord, Records
    from .summary import Slots

LONGEST_CARRY = 10_000.0  # milliseconds
Gather = Callable[[argparse.Namespace], AbstractContextManager["Gathered"]]


def register(subparsers: Any) -> None:
    """Add `eval`, `record-truth` and `calibrate` to argparse's subparsers."""
    commands = subparsers.add_parser("eval", help="evaluate a model").add_subparsers(required=True)
    for add in (_add_scenes, _add_bag, _add_dataset, _add_tracking, _add_compare):
        add(commands)
    _add_record_truth(subparsers)
    _add_calibrate(subparsers)


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
    parser.add_argument("--protocol", choices=("paper", "deployed"), default="paper")
    _measured(parser, dataset.gather)


def _add_tracking(commands: Any) -> None:
    parser = commands.add_parser(
        "tracking",
        help="evaluate masks at the camera's rate: a slow model's answers as they are, and carried by flow",
        description="Play a bag with ground truth in simulated time against a model that takes one second "
        "divided by --model-rate per answer, with the node's parameter `track` set to off and to flow.",
    )
    parser.add_argument("bag", type=Path, help="a bag as written by `gsva sim video`")
    parser.add_argument(
        "--truth", type=Path, help="COCO-style JSON (default: the ground truth in the bag)"
    )
    parser.add_argument("--model-rate", type=rate, default=2.0, help="answers per second")
    parser.add_argument(
        "--carry-ms",
        type=float,
        default=27.0,
        help="simulated milliseconds to carry masks onto a frame",
    )
    parser.add_argument(
        "--perfect",
        action="store_true",
        help="use the ground truth as the model: shows what carrying alone costs",
    )
    add_model_arguments(parser)
    parser.add_argument("--out", type=Path, help="write the numbers to this JSON file")
    parser.set_defaults(run=_tracking)


def _add_compare(commands: Any) -> None:
    compare = commands.add_parser(
        "compare", help="compare two runs on the same cases, with paired differences"
    )
    compare.add_argument("a", type=Path, help="JSON file written by `gsva eval … --out`")
    compare.add_argument("b", type=Path, help="JSON file of the other run")
    compare.set_defaults(run=_compare)


def _add_record_truth(subparsers: Any) -> None:
    record = subparsers.add_parser(
        "record-truth",
        help="write a copy of a bag with instructions and ground truth",
        description="The copy is an mcap bag with /ground_truth, and with an /instruction before each "
        "frame: `gsva eval bag` scores it without further files, and it sends the node its instructions "
        "when played.",
    )
    record.add_argument("bag", type=Path, help="rosbag2 folder or mcap file")
    record.add_argument("truth", type=Path, help="COCO-style JSON about its frames")
    record.add_argument("out", type=Path, help="output bag; must not exist")
    record.set_defaults(run=_record_truth)


def _add_calibrate(subparsers: Any) -> None:
    calibrate = subparsers.add_parser(
        "calibrate",
        help="calibrate a model's probabilities and choose its threshold, on scenes with ground truth",
        description="Write the temperature and bias of p([SEG]) and the rejection threshold to the model's "
        "config.json, where the engine reads them, and how they were determined to calibration.json.",
    )
    scenes.add_arguments(calibrate, "val")
    _run_arguments(calibrate, changed=True)
    goal = calibrate.add_mutually_exclusive_group()
    goal.add_argument(
        "--t-acc",
        type=float,
        help="keep this share of the present objects, more than 0 and at most 1 (default: the best gIoU)",
    )
    goal.add_argument(
        "--equal-t-acc", action="store_true", help="the best N-acc at the current T-acc"
    )
    calibrate.set_defaults(run=_calibrate)


def _measured(parser: argparse.ArgumentParser, gather: Gather) -> None:
    _run_arguments(parser)
    parser.add_argument("--out", type=Path, help="write numbers and records to this JSON file")
    parser.add_argument("--report", type=Path, help="write the report to this HTML file")
    parser.add_argument(
        "--no-blind",
        action="store_true",
        help="omit the baseline that is shown a grey image, which takes as long as the model",
    )
    parser.set_defaults(run=lambda args: _measure(args, gather))


def _run_arguments(parser: argparse.ArgumentParser, changed: bool = False) -> None:
    add_model_arguments(parser, changed)
    parser.add_argument(
        "--records",
        type=Path,
        help="keep records in this file while running; a run that was killed resumes from it",
    )


def _record_truth(args: argparse.Namespace) -> int:
    from ..bags.bag import Bag
    from ..truth import read_truth
    from .record import record_truth

    truth = read_truth(args.truth)
    with Bag(args.bag) as bag:
        count = record_truth(bag, truth, args.out)
        _print_left_out(bag.problems)
    print(f"written: {args.out}, {count} frames with truth")
    return 0


def _measure(args: argparse.Namespace, gather: Gather) -> int:
    """Run the model and the blind baseline on the cases; print, and write the requested files."""
    check_writable(args.out, args.report, args.records)
    files = [path.resolve() for path in (args.out, args.report, args.records) if path]
    if len(set(files)) < len(files):
        raise InputError("--out, --report and --records name one file twice: give each its own")
    protocol = getattr(args, "protocol", "deployed")
    with gather(args) as gathered:
        return _run(args, gathered, protocol)


def _run(args: argparse.Namespace, gathered: Gathered, protocol: str) -> int:
    from ..engine import model_directory
    from ..processes import processes
    from .calibrate import read_calibration
    from .report import choose, gallery, render
    from .run import answering, evaluate
    from .summary import Scoring, summary

    cases, data, rules = gathered.cases, gathered.data, gathered.rules
    engine = _engine(args)
    calibrated = read_calibration(model_directory(args.model))
    kept = _records(args, engine, gathered, protocol)
    left_out = gathered.problems if gathered.skip else None
    records = evaluate(engine, cases, kept, protocol, False, "model", rules, left_out)
    _print_left_out(gathered.problems)
    if not records:
        raise InputError(f"{data}: none of its cases can be read")
    run = {
        "model": args.model,
        "weights_hash": engine.weights_hash,
        "device": str(engine.device),
        "dtype": engine.precision,
        "data": data,
        "fingerprint": gathered.fingerprint,
        "left_out": len(gathered.problems),
        "calibrated": calibrated,
    }
    unknown = all(slot.referents is None for record in records for slot in record.slots)
    blind = []
    if not unknown and not args.no_blind:
        unseen = _records(args, engine, gathered, protocol, blind=True)
        blind = evaluate(
            engine,
            cases,
            unseen,
            protocol,
            True,
            "blind baseline",
            rules,
            [] if gathered.skip else None,
        )
    if not processes().is_main_process:
        return 0
    if unknown:
        return _answers(args, run | {"protocol": protocol, "rules": rules}, records)
    numbers = summary(records, blind, engine.rejection_threshold, Scoring(protocol, rules)) | run
    # Numbers first: nothing that fails later can lose them.
    _write(args, numbers, records)
    _print_numbers(numbers)
    if args.report:
        picks = choose(records, engine.rejection_threshold)
        page = render(numbers, gallery(answering(engine, protocol, rules), cases, records, picks))
        print(f"written: {write_result(args.report, page)}")
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


def _print_left_out(problems: Sequence[str]) -> None:
    for problem in problems:
        print(f"left out: {problem}", file=sys.stderr)


def _answers(args: argparse.Namespace, numbers: dict[str, Any], records: list[CaseRecord]) -> int:
    """Print and write answers without ground truth."""
    print(f"{numbers['data']}: no ground truth, so only answers and no scores")
    for record in records:
        for slot in record.slots:
            what = f"{slot.area} pixels" if slot.kept else "REJECTED"
            print(f"{record.id}  {slot.expression:32}  {what}, p([SEG]) {slot.p_seg:.3f}")
    if args.report:
        print("no report: it compares with ground truth", file=sys.stderr)
    _write(args, numbers | {"cases": len(records)}, records)
    return 0


def _write(args: argparse.Namespace, numbers: dict[str, Any], records: list[CaseRecord]) -> None:
    if args.out:
        whole = numbers | {"records": [asdict(record) for record in records]}
        print(f"written: {write_result(args.out, json.dumps(whole, allow_nan=False) + chr(10))}")


def _engine(args: argparse.Namespace) -> Segmenter[Any]:
    """Load the model; if several processes run on one machine, each on its own GPU."""
    from .. import load
    from ..processes import processes

    here = processes()
    own = args.device == "auto" and here.num_processes > 1
    device = str(here.device) if own else args.device
    engine = load(args.model, device=device, dtype=args.dtype)
    notice = no_rejection(engine)
    if notice and here.is_main_process:
        print(notice, file=sys.stderr)
    return engine


def _records(
    args: argparse.Namespace,
    engine: Segmenter[Any],
    gathered: Gathered,
    protocol: str,
    blind: bool = False,
) -> Records | None:
    from ..processes import processes
    from .run import Records

    if args.records is None:
        return None
    run = {
        "weights_hash": engine.weights_hash,
        "dtype": engine.precision,
        "data": gathered.data,
        "fingerprint": gathered.fingerprint,
        "protocol": protocol,
        "rejection_threshold": engine.rejection_threshold,
        "slot_temperature": engine.slot_temperature,
        "slot_bias": engine.slot_bias,
    }
    path = args.records
    if blind:
        path, run = path.with_name(f"{path.name}.blind"), run | {"baseline": "blind"}
    return Records(path, run, processes().process_index)


def _table(rows: Sequence[tuple[str, Any]]) -> None:
    print(f"{'':20}" + "".join(f"{name:>24}" for name in NAMES) + f"{'n':>8}")
    for name, row in rows:
        cells = (
            "-"
            if row[m] is None
            else f"{row[m]:.3f} [{row['interval'][m][0]:.3f}, {row['interval'][m][1]:.3f}]"
            for m in NAMES
        )
        print(f"{name:20}" + "".join(f"{cell:>24}" for cell in cells) + f"{row['n']:8d}")


def _tracking(args: argparse.Namespace) -> int:
    from ..bags.bag import Bag, BagError
    from ..truth import read_truth
    from .tracking import Pace, evaluate_tracking, perfect, segmented

    check_writable(args.out)
    if not 0 <= args.carry_ms <= LONGEST_CARRY:
        raise InputError(f"--carry-ms is between 0 and {LONGEST_CARRY:.0f}, not {args.carry_ms:g}")
    with Bag(args.bag) as bag:
        truth = read_truth(args.truth) if args.truth else bag.truth()
        if not truth:
            raise BagError(f"{args.bag}: contains no ground truth: give --truth")
        model = perfect if args.perfect else segmented(_engine(args))
        pace = Pace(1 / args.model_rate, args.carry_ms / 1e3)
        numbers = evaluate_tracking(bag, truth, model, pace)
        _print_left_out(bag.problems)
    numbers |= {"model": "truth" if args.perfect else args.model, "data": str(args.bag)}
    print(f"{args.bag}: {numbers['frames']} frames, {numbers['masks']} masks of {numbers['model']}")
    heads = ("mean IoU", "of own", "age [frames]", "largest", "id switches", "lost")
    print(f"{'':14}" + "".join(f"{head:>14}" for head in heads))
    print(f"{'own':14}{numbers['own']['iou']:14.3f}")
    for name in ("off", "flow"):
        print(f"{'track ' + name:14}" + "".join(f"{v:14.3f}" for v in numbers[name].values()))
    cost = numbers["carry_ms_measured"]
    print(
        f"carrying onto a frame took {cost['median']:.1f} ms here (95 % within {cost['p95']:.1f})"
    )
    if args.out:
        print(f"written: {write_result(args.out, json.dumps(numbers) + chr(10))}")
    return 0


def _compare(args: argparse.Namespace) -> int:
    from .compare import common_cases, paired_differences, read_run
    from .summary import Scoring, Slots

    runs = [read_run(path) for path in (args.a, args.b)]
    rules = [Scoring(run.protocol, run.rules) for run in runs]
    if rules[0] != rules[1]:
        raise InputError(f"{args.a} is {rules[0]}, {args.b} {rules[1]}: compare runs of one kind")
    try:
        a, b, differing = common_cases(runs[0].records, runs[1].records)
        table = paired_differences(Slots.of(a), Slots.of(b), rules[0])
    except (ValueError, OverflowError) as error:
        raise InputError(f"{args.a}, {args.b}: {error}") from error
    counts = [len(run.records) for run in runs]
    print(f"{len(a) + len(differing)} cases in both; a has {counts[0]}, b has {counts[1]}")
    if differing:
        print(
            f"{len(differing)} left out, of which other expressions were asked: {differing[0]} ...",
            file=sys.stderr,
        )
    print(f"{'':8}{'a':>8}{'b':>8}{'b - a':>9}  95 % CI of the difference")
    for name, row in table.items():
        low, high = row["interval"]
        print(
            f"{name:8}{row['a']:8.3f}{row['b']:8.3f}{row['difference']:+9.3f}"
            f"  [{low:+.3f}, {high:+.3f}]"
        )
    return 0


def _calibrate(args: argparse.Namespace) -> int:
    from ..engine import Engine
    from ..processes import processes
    from .calibrate import (
        CALIBRATION_NAME,
        Rule,
        calibration_result,
        check_both_kinds,
        unrounded,
        write_rule,
    )
    from .run import evaluate
    from .summary import Slots

    if args.t_acc is not None and not 0.0 < args.t_acc <= 1.0:
        raise InputError(f"--t-acc is a share, more than 0 and at most 1, not {args.t_acc:g}")
    directory = _own_directory(args.model)
    check_writable(directory / CALIBRATION_NAME)
    with scenes.gather(args) as gathered:
        cases = gathered.cases
    engine = _engine(args)
    if not engine.can_reject:
        raise InputError(f"{args.model}: writes no [REJ], so there is no threshold to choose")
    if not isinstance(engine, Engine):
        raise InputError(
            f"{args.model}: its engine has a threshold of its own, which is not read from config.json; "
            "give the node another one (rejection_threshold)"
        )
    kept = _records(args, engine, gathered, "deployed")
    slots = Slots.of(evaluate(engine, cases, kept, label="model"))
    if not processes().is_main_process:
        return 0
    check_both_kinds(slots)
    slots = replace(slots, p_seg=unrounded(slots.p_seg))
    threshold, goal = _chosen(args, slots, engine.rejection_threshold)
    before = Rule(engine.slot_temperature, engine.slot_bias, engine.rejection_threshold)
    chosen = replace(before, threshold=threshold).calibrated(slots)
    how = calibration_result(slots, chosen, before)
    how |= {"goal": goal, "split": args.split, "scenes": len(cases)}
    write_rule(directory, chosen, how)
    for name in ("before", "chosen"):
        figures = "  ".join(f"{k} {v:.4f}" for k, v in how[name].items())
        print(f"{name:8}{figures}")
    print(f"written: {directory}")
    return 0


def _chosen(args: argparse.Namespace, slots: Slots, before: float) -> tuple[float, str]:
    """The threshold for what the options ask for, and that in words; before: the model's so far."""
    from . import calibrate

    if args.equal_t_acc:
        goal = f"best N-acc at equal T-acc (within {calibrate.EQUAL_T_ACC})"
        return calibrate.threshold_for_equal_t_acc(slots, before), goal
    if args.t_acc is None:
        return calibrate.threshold_for_giou(slots), "best gIoU"
    return calibrate.threshold_for_t_acc(slots, args.t_acc), f"T_acc {args.t_acc}"


def _own_directory(model: str) -> Path:
    """The directory of a model that may be modified; InputError: it is a bundled one, or does not exist."""
    from ..model.bundled import CHECKPOINTS, model_directory

    directory = model_directory(model)
    if directory.resolve().parent == CHECKPOINTS.resolve():
        raise InputError(
            f"{directory.name} is bundled with the package and is not modified: copy it "
            f"(cp -r '{directory}' mine) and give --model mine"
        )
    return directory
