"""`gsva calibrate`: a model's probabilities and threshold, from scenes with ground truth."""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...errors import InputError
from ...files import check_writable
from ..sources import scenes
from .shared import add_run_arguments, evaluated, load_engine

if TYPE_CHECKING:
    from ..cases import Gathered
    from ..summary import Slots


def add(subparsers: Any) -> None:
    calibrate = subparsers.add_parser(
        "calibrate",
        help="calibrate a model's probabilities and choose its threshold, on scenes with ground truth",
        description="Write the temperature and bias of p([SEG]) and the rejection threshold to the model's "
        "config.json, where the engine reads them, and how they were determined to calibration.json.",
    )
    scenes.add_arguments(calibrate, "val")
    add_run_arguments(calibrate, changed=True)
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


def _calibrate(args: argparse.Namespace) -> int:
    from ...model.config import CALIBRATION_NAME

    if args.t_acc is not None and not 0.0 < args.t_acc <= 1.0:
        raise InputError(f"--t-acc is a share, more than 0 and at most 1, not {args.t_acc:g}")
    directory = _own_directory(args.model)
    check_writable(directory / CALIBRATION_NAME)
    with scenes.gather(args) as gathered:
        return _run(args, gathered, directory)


def _run(args: argparse.Namespace, gathered: Gathered, directory: Path) -> int:
    from ...engine import Engine
    from ...processes import processes
    from ..calibrate import Rule, calibration_result, check_both_kinds, unrounded, write_rule
    from ..metrics import Scoring
    from ..summary import Slots

    engine = load_engine(args)
    if not engine.can_reject:
        raise InputError(f"{args.model}: writes no [REJ], so there is no threshold to choose")
    if not isinstance(engine, Engine):
        raise InputError(
            f"{args.model}: its engine has a threshold of its own, which is not read from config.json; "
            "give the node another one (rejection_threshold)"
        )
    slots = Slots.of(evaluated(args, engine, gathered, Scoring()))
    if not processes().is_main_process:
        return 0
    check_both_kinds(slots)
    slots = replace(slots, p_seg=unrounded(slots.p_seg))
    threshold, goal = _chosen(args, slots, engine.rejection_threshold)
    before = Rule(
        engine.config.slot_temperature, engine.config.slot_bias, engine.rejection_threshold
    )
    chosen = replace(before, threshold=threshold).calibrated(slots)
    how = calibration_result(slots, chosen, before)
    how |= {"goal": goal, "split": args.split, "scenes": len(gathered.cases)}
    write_rule(directory, chosen, how)
    for name in ("before", "chosen"):
        figures = "  ".join(f"{k} {v:.4f}" for k, v in how[name].items())
        print(f"{name:8}{figures}")
    print(f"written: {directory}")
    return 0


def _chosen(args: argparse.Namespace, slots: Slots, before: float) -> tuple[float, str]:
    """The threshold for what the options ask for, and that in words; before: the model's so far."""
    from .. import calibrate

    if args.equal_t_acc:
        goal = f"best N-acc at equal T-acc (within {calibrate.EQUAL_T_ACC})"
        return calibrate.threshold_for_equal_t_acc(slots, before), goal
    if args.t_acc is None:
        return calibrate.threshold_for_giou(slots), "best gIoU"
    return calibrate.threshold_for_t_acc(slots, args.t_acc), f"T_acc {args.t_acc}"


def _own_directory(model: str) -> Path:
    """The directory of a model that may be modified; InputError: it is a bundled one, or does not exist."""
    from ...model.bundled import CHECKPOINTS, model_directory

    directory = model_directory(model)
    if directory.resolve().parent == CHECKPOINTS.resolve():
        raise InputError(
            f"{directory.name} is bundled with the package and is not modified: copy it "
            f"(cp -r '{directory}' mine) and give --model mine"
        )
    return directory
