"""Which model a command runs, and how: arguments that all commands take alike."""

from __future__ import annotations

import argparse


def add_model_arguments(parser: argparse.ArgumentParser, changed: bool = False) -> None:
    """Add --model, --device and --dtype, as `gsva_ros.load` takes them.

    Args:
        changed: the command writes into the model, so that its directory must be given.
    """
    if changed:
        parser.add_argument(
            "--model", required=True, help="checkpoint directory, which is changed; no bundled name"
        )
    else:
        parser.add_argument(
            "--model", default="gsva-mini", help="bundled name or checkpoint directory"
        )
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N")
    parser.add_argument(
        "--dtype",
        default="auto",
        help="auto (bfloat16 on CUDA, float32 elsewhere), float32, bfloat16, float16, int8 or int4; "
        "published scores are float32's",
    )
