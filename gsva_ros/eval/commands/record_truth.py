"""`gsva record-truth`: a copy of a bag with instructions and ground truth."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from ...errors import tell_left_out


def add(subparsers: Any) -> None:
    record = subparsers.add_parser(
        "record-truth",
        help="write a copy of a bag with instructions and ground truth",
        description="The copy is an mcap bag with /ground_truth, and with an /instruction before each "
        "frame, in place of the bag's own instructions: `gsva eval bag` scores it without further files, "
        "and it sends the node its instructions when played.",
    )
    record.add_argument("bag", type=Path, help="rosbag2 folder or mcap file")
    record.add_argument("truth", type=Path, help="COCO-style JSON about its frames")
    record.add_argument("out", type=Path, help="output bag; must not exist")
    record.set_defaults(run=_record_truth)


def _record_truth(args: argparse.Namespace) -> int:
    from ...bags.bag import Bag
    from ...truth import read_truth
    from ..record import record_truth

    truth = read_truth(args.truth)
    with Bag(args.bag) as bag:
        count = record_truth(bag, truth, args.out)
        tell_left_out(bag.problems)
    print(f"written: {args.out}, {count} frames with truth")
    return 0
