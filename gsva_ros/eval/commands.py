"""`gsva eval …`, `gsva record-truth` and `gsva calibrate`: measure a model, choose its threshold."""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ..engine import Engine
    from ..truth import FrameTruth
    from .bags import Bag
    from .cases import Case
    from .run import CaseRecord, Records

METRICS = ("gIoU", "cIoU", "N_acc", "T_acc")
DATASETS = ("grefcoco", "refcoco", "refcoco+", "refcocog", "refzom", "reasonseg")


def register(subparsers: Any) -> None:
    """Add `eval`, `record-truth` and `calibrate` to argparse's subparsers."""
    commands = subparsers.add_parser("eval", help="measure a model").add_subparsers(required=True)
    scenes = commands.add_parser(
        "scenes",
        help="held-out rendered scenes, beside two baselines",
        description="Every slot is decided by the model alone, each expression by itself. Beside the "
        "model: one that always answers [REJ], and the same model shown a grey frame.",
    )
    _scene_arguments(scenes, "test")
    _output_arguments(scenes)
    scenes.set_defaults(run=_scenes)

    bag = commands.add_parser(
        "bag",
        help="what was asked of a rosbag2's frames, scored where the truth is known",
        description="Reads rosbag2 (mcap or sqlite3, raw or compressed images) straight from disk. "
        "Asked is what the instruction file says; without one, what was asked while recording "
        "(gsva_ros/Instruction, strings on instruction_text); without that, the expressions of the truth.",
    )
    bag.add_argument("bag", type=Path, help="a rosbag2 folder, or an mcap file")
    bag.add_argument("--instructions", type=Path, help="YAML in the form of config/demo.yaml")
    bag.add_argument(
        "--truth",
        type=Path,
        help="COCO-style JSON, as `gsva sim bag --truth` writes; without it: the bag's own",
    )
    bag.add_argument(
        "--topic", help="the image topic, where it is not the truth's, or the bag has several"
    )
    _run_arguments(bag)
    _output_arguments(bag)
    bag.set_defaults(run=_bag)

    dataset = commands.add_parser(
        "dataset",
        help="gRefCOCO, RefCOCO, RefCOCO+, RefCOCOg, Ref-ZOM or ReasonSeg in the official folders",
        description="Protocol paper is what published numbers mean: one prompt with all expressions, the "
        "true earlier answers, masks from a second pass. Protocol deployed is what a robot gets: "
        "every expression decided by itself.",
    )
    dataset.add_argument("name", choices=DATASETS)
    dataset.add_argument("split", help="as the dataset names it: val, testA, testB, test, ...")
    dataset.add_argument("--root", type=Path, required=True, help="folder with refer_seg/ in it")
    dataset.add_argument("--protocol", choices=("paper", "deployed"), default="paper")
    dataset.add_argument("--limit", type=int, help="the first LIMIT pictures only")
    _run_arguments(dataset)
    _output_arguments(dataset)
    dataset.set_defaults(run=_dataset)

    compare = commands.add_parser(
        "compare", help="two runs on the same cases, with paired differences"
    )
    compare.add_argument("a", type=Path, help="JSON of `gsva eval … --out`")
    compare.add_argument("b", type=Path, help="another one")
    compare.set_defaults(run=_compare)

    record = subparsers.add_parser(
        "record-truth",
        help="put instructions and ground truth into a copy of a bag",
        description="The copy is an mcap bag that `gsva eval bag` scores by itself, and that asks the node "
        "when it is played: /instruction before each frame, and /ground_truth.",
    )
    record.add_argument("bag", type=Path, help="a rosbag2 folder, or an mcap file")
    record.add_argument("truth", type=Path, help="COCO-style JSON of its frames")
    record.add_argument("out", type=Path, help="the bag to write; must not exist")
    record.set_defaults(run=_record_truth)

    calibrate = subparsers.add_parser(
        "calibrate",
        help="choose a model's rejection threshold on scenes with known truth",
        description="Writes the threshold into the model's config.json, where the engine finds it, "
        "and how it was found into calibration.json beside it.",
    )
    _scene_arguments(calibrate, "val")
    goal = calibrate.add_mutually_exclusive_group()
    goal.add_argument(
        "--t-acc", type=float, help="keep this share of the present; without it: the best gIoU"
    )
    goal.add_argument(
        "--equal-t-acc", action="store_true", help="the best N-acc at the T-acc as it is"
    )
    calibrate.set_defaults(run=_calibrate)


def _scene_arguments(parser: argparse.ArgumentParser, split: str) -> None:
    parser.add_argument(
        "--data", type=Path, required=True, help="folder written by `gsva sim render`"
    )
    parser.add_argument("--split", default=split, help="the split that the folder must hold")
    parser.add_argument("--limit", type=int, help="the first LIMIT scenes only")
    _run_arguments(parser)


def _output_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--out", type=Path, help="write numbers and records here as JSON")
    parser.add_argument("--report", type=Path, help="write one HTML page here")


def _run_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--model", default="gsva-mini", help="bundled name or directory")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N")
    parser.add_argument(
        "--records", type=Path, help="keep records here while running; a killed run goes on"
    )


def _scenes(args: argparse.Namespace) -> int:
    from ..scenes import SceneSet
    from .cases import scene_cases

    cases = scene_cases(SceneSet(args.data, args.split, args.limit))
    return _measure(args, cases, f"{len(cases)} scenes of split {args.split}")


def _bag(args: argparse.Namespace) -> int:
    from ..truth import TruthError, read_truth
    from .asks import AskError
    from .bags import Bag, BagError

    try:
        with Bag(args.bag) as bag:
            truth = read_truth(args.truth) if args.truth else bag.truth()
            cases = _bag_cases(args, bag, truth)
            for problem in bag.problems:
                print(f"gsva eval bag: left out: {problem}", file=sys.stderr)
            if not cases:
                print(f"gsva eval bag: {args.bag}: nothing to answer", file=sys.stderr)
                return 1
            return _measure(args, cases, f"{len(cases)} cases of {args.bag}")
    except (AskError, BagError, TruthError) as error:
        print(f"gsva eval bag: {error}", file=sys.stderr)
        return 1


def _bag_cases(args: argparse.Namespace, bag: Bag, truth: list[FrameTruth]) -> list[Case]:
    from .asks import Recorded, answered, read_asks
    from .bags import BagError, ask_cases, truth_cases

    topics = [args.topic] if args.topic else bag.image_topics
    if args.instructions:
        first = min(bag.frames(topics[0]), default=0) if topics else 0
        asks = read_asks(args.instructions, topics[0] if topics else "", first)
    else:
        asks = bag.asks(topics[0] if len(topics) == 1 else "")
    if not asks:
        if not truth:
            raise BagError(f"{bag.path}: no instructions in it: give --instructions or --truth")
        return truth_cases(bag, truth, args.topic)
    if any(not ask.topic for ask in asks):
        raise BagError(f"{bag.path}: several image topics, {', '.join(topics)}: give --topic")
    frames = {
        topic: [Recorded(stamp, at) for stamp, (_, at) in bag.frames(topic).items()]
        for topic in {ask.topic for ask in asks}
    }
    pairs, problems = answered(asks, frames)
    bag.problems += [f"{bag.path}: {problem}" for problem in problems]
    return ask_cases(bag, pairs, truth, args.topic)


def _record_truth(args: argparse.Namespace) -> int:
    from rosbags.rosbag2 import WriterError

    from ..truth import TruthError, read_truth
    from .bags import Bag, BagError
    from .record import record_truth

    try:
        truth = read_truth(args.truth)
        with Bag(args.bag) as bag:
            count = record_truth(bag, truth, args.out)
            for problem in bag.problems:
                print(f"gsva record-truth: left out: {problem}", file=sys.stderr)
    except (BagError, TruthError, WriterError) as error:
        print(f"gsva record-truth: {error}", file=sys.stderr)
        return 1
    print(f"written: {args.out}, {count} frames with truth")
    return 0


def _dataset(args: argparse.Namespace) -> int:
    from .datasets import REASON_SEG, RULES, DatasetError, dataset_cases

    if args.name == REASON_SEG and args.protocol == "paper":
        print(
            "gsva eval dataset: ReasonSeg asks whole sentences, which the paper's joint prompt does not "
            "hold: use --protocol deployed",
            file=sys.stderr,
        )
        return 1
    try:
        cases = dataset_cases(args.root, args.name, args.split)[: args.limit]
        data = f"{len(cases)} pictures of {args.name} {args.split}"
        return _measure(args, cases, data, args.protocol, RULES[args.name])
    except DatasetError as error:
        print(f"gsva eval dataset: {error}", file=sys.stderr)
        return 1


def _measure(
    args: argparse.Namespace,
    cases: list[Case],
    data: str,
    protocol: str = "deployed",
    rules: str = "grefcoco",
) -> int:
    """Run the model and the blind baseline over the cases; print, and write what was asked for."""
    from ..engine import model_directory
    from .calibrate import read_calibration
    from .processes import processes
    from .report import choose, gallery, render
    from .run import evaluate
    from .summary import Scoring, summary

    engine = _engine(args)
    kept = _records(args, engine, data, protocol)
    records = evaluate(engine, cases, kept, protocol, label="model")
    run = {
        "model": args.model,
        "weights_hash": engine.weights_hash,
        "device": str(engine.device),
        "data": data,
        "calibrated": read_calibration(model_directory(args.model)),
    }
    unknown = all(slot.referents is None for record in records for slot in record.slots)
    blind = []
    if not unknown:
        blind = evaluate(engine, cases, None, protocol, blind=True, label="blind baseline")
    if not processes().is_main_process:
        return 0
    if unknown:
        return _answers(args, run | {"protocol": protocol, "rules": rules}, records)
    numbers = summary(records, blind, engine.rejection_threshold, Scoring(protocol, rules))
    numbers |= run
    print(f"{data}, protocol {numbers['protocol']}, 95 % CI")
    _table({args.model: numbers["scores"]["all"]} | numbers["baselines"])
    print()
    _table({k: v for k, v in numbers["scores"].items() if k != "all"})
    if numbers["unscored"]:
        print(f"answered without known truth, not scored: {numbers['unscored']}")
    if args.report:
        picks = choose(records, engine.rejection_threshold)
        args.report.write_text(render(numbers, gallery(engine, cases, records, picks)))
        print(f"written: {args.report}")
    _write(args, numbers, records)
    return 0


def _answers(args: argparse.Namespace, numbers: dict[str, Any], records: list[CaseRecord]) -> int:
    """Print and write answers whose truth nobody knows."""
    print(f"{numbers['data']}: no ground truth, so answers and no scores")
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
        numbers["records"] = [asdict(record) for record in records]
        args.out.write_text(json.dumps(numbers, allow_nan=False) + "\n")
        print(f"written: {args.out}")


def _engine(args: argparse.Namespace) -> Engine:
    """Load the model; of several processes on one machine, each on its own GPU."""
    from .. import load
    from .processes import processes

    here = processes()
    own = args.device == "auto" and here.num_processes > 1
    return load(args.model, device=str(here.device) if own else args.device)


def _records(args: argparse.Namespace, engine: Engine, data: str, protocol: str) -> Records | None:
    from .processes import processes
    from .run import Records

    if args.records is None:
        return None
    run = {"weights_hash": engine.weights_hash, "data": data, "protocol": protocol}
    run |= {"rejection_threshold": engine.rejection_threshold}
    return Records(args.records, run, processes().process_index)


def _table(rows: dict[str, Any]) -> None:
    print(f"{'':20}" + "".join(f"{name:>24}" for name in METRICS) + f"{'n':>8}")
    for name, row in rows.items():
        cells = (
            "-"
            if row[m] is None
            else f"{row[m]:.3f} [{row['interval'][m][0]:.3f}, {row['interval'][m][1]:.3f}]"
            for m in METRICS
        )
        print(f"{name:20}" + "".join(f"{cell:>24}" for cell in cells) + f"{row['n']:8d}")


def _compare(args: argparse.Namespace) -> int:
    from .compare import common, paired
    from .run import CaseRecord
    from .summary import Scoring, Slots

    runs, rules = [], []
    for path in (args.a, args.b):
        data = json.loads(path.read_text())
        runs.append([CaseRecord.of(record) for record in data["records"]])
        rules.append(Scoring(data["protocol"], data["rules"]))
    if rules[0] != rules[1]:
        print(
            f"gsva eval compare: {args.a} is {rules[0]}, {args.b} {rules[1]}",
            file=sys.stderr,
        )
        return 1
    a, b = common(*runs)
    try:
        table = paired(Slots.of(a), Slots.of(b), rules[0])
    except ValueError as error:
        print(f"gsva eval compare: {args.a}, {args.b}: {error}", file=sys.stderr)
        return 1
    print(f"{len(a)} cases in both; a has {len(runs[0])}, b has {len(runs[1])}")
    print(f"{'':8}{'a':>8}{'b':>8}{'b - a':>9}  95 % CI of the difference")
    for name, row in table.items():
        low, high = row["interval"]
        print(
            f"{name:8}{row['a']:8.3f}{row['b']:8.3f}{row['difference']:+9.3f}"
            f"  [{low:+.3f}, {high:+.3f}]"
        )
    return 0


def _calibrate(args: argparse.Namespace) -> int:
    from ..engine import model_directory
    from ..scenes import SceneSet
    from .calibrate import (
        EQUAL_T_ACC,
        calibrated,
        threshold_for_equal_t_acc,
        threshold_for_giou,
        threshold_for_t_acc,
        write_threshold,
    )
    from .cases import scene_cases
    from .processes import processes
    from .run import evaluate
    from .summary import Slots

    cases = scene_cases(SceneSet(args.data, args.split, args.limit))
    engine = _engine(args)
    kept = _records(args, engine, f"{len(cases)} scenes of split {args.split}", "deployed")
    slots = Slots.of(evaluate(engine, cases, kept, label="model"))
    if not processes().is_main_process:
        return 0
    if args.equal_t_acc:
        threshold = threshold_for_equal_t_acc(slots, engine.rejection_threshold)
        goal = f"best N-acc at equal T-acc (within {EQUAL_T_ACC})"
    elif args.t_acc is None:
        threshold, goal = threshold_for_giou(slots), "best gIoU"
    else:
        threshold, goal = threshold_for_t_acc(slots, args.t_acc), f"T_acc {args.t_acc}"
    how = calibrated(slots, threshold, engine.rejection_threshold)
    how |= {"goal": goal, "split": args.split, "scenes": len(cases)}
    write_threshold(model_directory(args.model), threshold, how)
    for name in ("before", "chosen"):
        figures = "  ".join(f"{k} {v:.4f}" for k, v in how[name].items())
        print(f"{name:8}{figures}")
    print(f"written: {model_directory(args.model)}")
    return 0
