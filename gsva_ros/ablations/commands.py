"""`gsva ablate`: the comparison from an empty folder to its page."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from ..arguments import count


def register(subparsers: Any) -> None:
    """Add `ablate` to argparse's subparsers."""
    parser = subparsers.add_parser(
        "ablate",
        help="measure the gain from [REJ] and several [SEG]: LISA to GSVA, row by row",
        description="Render scenes, train every row and seed, score them and write a page. A run that was "
        "stopped resumes where it was.",
    )
    parser.add_argument("--out", type=Path, default=Path("runs/ablations"), help="working folder")
    parser.add_argument("--seeds", type=count, default=3, help="runs of each row")
    parser.add_argument("--threads", type=count, help="CPU threads")
    parser.add_argument(
        "--report", type=Path, help="output page (default: ablations.md in the working folder)"
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Run whatever is not finished yet, and write the page."""
    import torch

    from ..files import check_writable, write_result
    from .report import page
    from .runs import run_all

    report = args.report or args.out / "ablations.md"
    check_writable(report)
    if args.threads:
        torch.set_num_threads(args.threads)
    print(f"written: {write_result(report, page(run_all(args.out, args.seeds)))}")
    return 0
