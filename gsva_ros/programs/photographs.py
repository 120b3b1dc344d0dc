"""`gsva photographs`: photographs with COCO's masks, as scenes for `gsva train`."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from gsva_ros.arguments import count


def register(subparsers: Any) -> None:
    """Add the `photographs` command to argparse's subparsers."""
    parser = subparsers.add_parser(
        "photographs",
        help="make training scenes of photographs with COCO's masks",
        description="Crops photographs around what a YAML file of names calls by a noun, and "
        "writes what can be asked about each crop. See docs/training.md.",
    )
    parser.add_argument("--annotations", type=Path, required=True, help="COCO's instances, JSON")
    parser.add_argument("--images", type=Path, required=True, help="the folder of its pictures")
    parser.add_argument(
        "--names", type=Path, required=True, help="what its categories are here, YAML"
    )
    parser.add_argument("--out", type=Path, required=True, help="the folder to write")
    parser.add_argument("--crops", type=count, default=4, help="of each photograph")
    parser.add_argument("--split", choices=("train", "val", "test"), default="train")
    parser.add_argument("--width", type=count, default=480, help="pixels")
    parser.add_argument("--height", type=count, default=360, help="pixels")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Write the crops, and say how many there are."""
    from gsva_ros.datasets.photographs import Photographs, read_names, write_photographs
    from gsva_ros.sim.household.colours import COLOURS
    from gsva_ros.sim.household.shapes import KINDS

    photographs = Photographs(args.annotations, args.images, read_names(args.names))
    size = (args.width, args.height)
    made = write_photographs(args.out, photographs, (KINDS, COLOURS), size, args.crops, args.split)
    print(f"written: {made} crops into {args.out}")
    return 0
