"""`gsva train …`: the four stages of gsva-mini, each resumable, from one folder of rendered scenes."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any


def register(subparsers: Any) -> None:
    """Add the `train` command to argparse's subparsers."""
    parser = subparsers.add_parser(
        "train",
        help="train gsva-mini on rendered scenes",
        description="Runs the stages clip, sam, language and joint in turn. Each writes a checkpoint "
        "into --out and goes on from it after a kill; a finished stage is not run again.",
    )
    parser.add_argument("--data", type=Path, required=True, help="scenes of the train split")
    parser.add_argument(
        "--out", type=Path, required=True, help="checkpoints and the finished model"
    )
    parser.add_argument(
        "--stage", choices=["clip", "sam", "language", "joint", "all"], default="all"
    )
    parser.add_argument(
        "--steps", type=int, help="optimiser steps of the stage, instead of the recipe's"
    )
    parser.add_argument("--device", default="auto", help="auto, cpu or cuda")
    parser.add_argument("--threads", type=int, help="CPU threads")
    parser.add_argument("--limit", type=int, help="use the first LIMIT scenes only")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Run the chosen stages."""
    import torch

    from .mini import MiniTraining

    if args.threads:
        torch.set_num_threads(args.threads)
    training = MiniTraining(args.data, args.out, args.device, args.limit)
    stages = ["clip", "sam", "language", "joint"] if args.stage == "all" else [args.stage]
    for stage in stages:
        training.run(stage, args.steps)
    return 0
