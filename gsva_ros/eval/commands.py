"""`gsva eval …` and `gsva calibrate`: measure a model, and choose its rejection threshold."""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ..engine import Engine
    from .cases import Case
    from .run import Records

METRICS = ("gIoU", "cIoU", "N_acc", "T_acc")
DATASETS = ("grefcoco", "refcoco", "refcoco+", "refcocog", "refzom", "reasonseg")


def register(subparsers: Any) -> None:
    """Add `eval` and `calibrate` to argparse's subparsers."""
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
        help="frames of a rosbag2 with ground truth, beside two baselines",
        description="Reads rosbag2 (mcap or sqlite3, raw or compressed images) straight from disk.",
    )
    bag.add_argument("bag", type=Path, help="a rosbag2 folder, or an mcap file")
    bag.add_argument(
        "--truth",
        type=Path,
        required=True,
        help="COCO-style JSON, as `gsva sim bag --truth` writes",
    )
    bag.add_argument("--topic", help="the image topic, where it is not the one in the truth")
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

    calibrate = subparsers.add_parser(
        "calibrate",
        help="choose a model's rejection threshold on scenes with known truth",
        description="Writes the threshold into the model's config.json, where the engine finds it, "
        "and how it was found into calibration.json beside it.",
    )
    _scene_arguments(calibrate, "val")
    calibrate.add_argument(
        "--t-acc", type=float, help="keep this share of the present; without it: the best gIoU"
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
    from .bags import BagError, ImageBag, bag_cases

    try:
        truth = read_truth(args.truth)
        bag = ImageBag(args.bag)
        cases, problems = bag_cases(bag, truth, args.topic)
    except (BagError, TruthError) as error:
        print(f"gsva eval bag: {error}", file=sys.stderr)
        return 1
    for problem in problems:
        print(f"gsva eval bag: left out: {problem}", file=sys.stderr)
    if not cases:
        print(f"gsva eval bag: {args.bag} has no frame of {args.truth}", file=sys.stderr)
        return 1
    return _measure(args, cases, f"{len(cases)} frames of {args.bag}")


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
    from .. import load
    from .report import choose, gallery, render
    from .run import evaluate
    from .summary import Scoring, summary

    engine = load(args.model, device=args.device)
    kept = _records(args, engine, data, protocol)
    records = evaluate(engine, cases, kept, protocol, label="model")
    blind = evaluate(engine, cases, None, protocol, blind=True, label="blind baseline")
    numbers = summary(records, blind, engine.rejection_threshold, Scoring(protocol, rules))
    numbers |= {
        "model": args.model,
        "weights_hash": engine.weights_hash,
        "device": str(engine.device),
        "data": data,
    }
    print(f"{data}, protocol {numbers['protocol']}, 95 % CI")
    _table({args.model: numbers["scores"]["all"]} | numbers["baselines"])
    print()
    _table({k: v for k, v in numbers["scores"].items() if k != "all"})
    if args.report:
        picks = choose(records, engine.rejection_threshold)
        args.report.write_text(render(numbers, gallery(engine, cases, records, picks)))
        print(f"written: {args.report}")
    if args.out:
        numbers["records"] = [asdict(record) for record in records]
        args.out.write_text(json.dumps(numbers, allow_nan=False) + "\n")
        print(f"written: {args.out}")
    return 0


def _records(args: argparse.Namespace, engine: Engine, data: str, protocol: str) -> Records | None:
    from .run import Records

    if args.records is None:
        return None
    run = {"weights_hash": engine.weights_hash, "data": data, "protocol": protocol}
    return Records(args.records, run | {"rejection_threshold": engine.rejection_threshold})


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
    from .compare import paired
    from .run import CaseRecord, SlotRecord
    from .summary import Scoring, Slots

    runs = []
    for path in (args.a, args.b):
        data = json.loads(path.read_text())
        records = [
            CaseRecord(r["id"], r["seconds"], [SlotRecord(**s) for s in r["slots"]])
            for r in data["records"]
        ]
        runs.append((Slots.of(records), Scoring(data["protocol"], data["rules"])))
    (a, how), (b, other) = runs
    if how != other:
        print(f"gsva eval compare: {args.a} is {how}, {args.b} {other}", file=sys.stderr)
        return 1
    try:
        table = paired(a, b, how)
    except ValueError as error:
        print(f"gsva eval compare: {args.a}, {args.b}: {error}", file=sys.stderr)
        return 1
    print(f"{'':8}{'a':>8}{'b':>8}{'b - a':>9}  95 % CI of the difference")
    for name, row in table.items():
        low, high = row["interval"]
        print(
            f"{name:8}{row['a']:8.3f}{row['b']:8.3f}{row['difference']:+9.3f}"
            f"  [{low:+.3f}, {high:+.3f}]"
        )
    return 0


def _calibrate(args: argparse.Namespace) -> int:
    from .. import load
    from ..engine import model_directory
    from ..scenes import SceneSet
    from .calibrate import calibrated, threshold_for_giou, threshold_for_t_acc, write_threshold
    from .cases import scene_cases
    from .run import evaluate
    from .summary import Slots

    cases = scene_cases(SceneSet(args.data, args.split, args.limit))
    engine = load(args.model, device=args.device)
    kept = _records(args, engine, f"{len(cases)} scenes of split {args.split}", "deployed")
    slots = Slots.of(evaluate(engine, cases, kept, label="model"))
    if args.t_acc is None:
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
