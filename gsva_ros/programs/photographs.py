"""`gsva photographs`: photographs with COCO masks or boxes, as scenes for `gsva train`."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from gsva_ros.arguments import count


def register(subparsers: Any) -> None:
    """Add the `photographs` command to argparse's subparsers."""
    parser = subparsers.add_parser(
        "photographs",
        help="make training scenes from photographs with COCO masks or boxes",
        description="Crop photographs around the objects that a YAML file of names gives a noun, and "
        "write the expressions for each crop. See docs/training.md.",
    )
    parser.add_argument("--annotations", type=Path, required=True, help="COCO instances, JSON file")
    parser.add_argument("--images", type=Path, required=True, help="folder of its images")
    parser.add_argument(
        "--names", type=Path, required=True, help="YAML file of what its categories are called here"
    )
    parser.add_argument("--out", type=Path, required=True, help="output folder")
    parser.add_argument("--crops", type=count, default=4, help="crops per photograph")
    parser.add_argument(
        "--split", choices=("train", "val", "test"), default="train", help="(default: train)"
    )
    parser.add_argument("--width", type=count, default=480, help="pixels")
    parser.add_argument("--height", type=count, default=360, help="pixels")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Write the crops and print their number."""
    from gsva_ros.conversions import check_size
    from gsva_ros.datasets.photographs import Photographs, read_names, write_photographs
    from gsva_ros.sim.household.colours import COLOURS
    from gsva_ros.sim.household.shapes import KINDS

    photographs = Photographs(args.annotations, args.images, read_names(args.names))
    size = (args.width, args.height)
    check_size(*size, "--width, --height")
    made, unused, doubts = write_photographs(
        args.out, photographs, (KINDS, COLOURS), size, args.crops, args.split
    )
    if unused:
        print(
            f"{args.names}: {args.annotations} has no category {', '.join(unused)}: what they are called "
            "was taken to be in no picture; check the spelling",
            file=sys.stderr,
        )
    for doubt in doubts:
        print(f"{args.annotations}: {doubt}", file=sys.stderr)
    print(f"written: {made} crops into {args.out}")
    return 0
