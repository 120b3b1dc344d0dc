"""`gsva eval tracking`: masks at the camera's rate, as they are and carried by flow."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from ...arguments import add_model_arguments, rate
from ...errors import InputError, tell_left_out
from ...files import check_writable, write_result
from .shared import load_engine

LONGEST_CARRY = 10_000.0  # milliseconds


def add(commands: Any) -> None:
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


def _tracking(args: argparse.Namespace) -> int:
    from ...bags.bag import Bag, BagError
    from ...truth import read_truth
    from ..tracking import Pace, evaluate_tracking, perfect, segmented

    check_writable(args.out, inputs=(args.bag, args.truth))
    if not 0 <= args.carry_ms <= LONGEST_CARRY:
        raise InputError(f"--carry-ms is between 0 and {LONGEST_CARRY:.0f}, not {args.carry_ms:g}")
    with Bag(args.bag) as bag:
        truth = read_truth(args.truth) if args.truth else bag.truth()
        if not truth:
            raise BagError(f"{args.bag}: contains no ground truth: give --truth")
        model = perfect if args.perfect else segmented(load_engine(args))
        pace = Pace(1 / args.model_rate, args.carry_ms / 1e3)
        numbers = evaluate_tracking(bag, truth, model, pace)
        tell_left_out(bag.problems)
    numbers |= {"model": "truth" if args.perfect else args.model, "data": str(args.bag)}
    print(f"{args.bag}: {numbers['frames']} frames, {numbers['masks']} masks of {numbers['model']}")
    heads = ("    mean IoU", "  of own", "  age [frames]", "  largest", "  id switches", "    lost")
    print(" " * 10 + "".join(heads))
    print(f"{'own':10}{numbers['own']['iou']:{len(heads[0])}.3f}")
    for name in ("off", "flow"):
        row = zip(heads, numbers[name].values(), strict=True)
        print(f"{'track ' + name:10}" + "".join(f"{value:{len(head)}.3f}" for head, value in row))
    cost = numbers["carry_ms_measured"]
    print(
        f"carrying onto a frame took {cost['median']:.1f} ms here (95 % within {cost['p95']:.1f})"
    )
    if args.out:
        print(f"written: {write_result(args.out, json.dumps(numbers) + chr(10))}")
    return 0
