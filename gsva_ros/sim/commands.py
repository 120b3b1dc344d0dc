"""`gsva sim …`: render scenes."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from .splits import SPLITS


def register(subparsers: Any) -> None:
    """Add the `sim` command to argparse's subparsers."""
    sim = subparsers.add_parser("sim", help="render tabletop scenes").add_subparsers(required=True)
    render = sim.add_parser("render", help="scenes with expressions and ground truth, into a folder")
    render.add_argument("--split", choices=sorted(SPLITS), required=True)
    render.add_argument("--count", type=int, required=True)
    render.add_argument("--out", type=Path, required=True)
    render.add_argument("--width", type=int, default=192, help="pixels")
    render.add_argument("--height", type=int, default=144, help="pixels")
    render.add_argument("--workers", type=int, default=2, help="processes")
    render.set_defaults(run=_render)


def _render(args: argparse.Namespace) -> int:
    from .dataset import write_dataset

    write_dataset(args.out, args.split, args.count, args.width, args.height, args.workers)
    return 0
