"""What all commands have alike: help that says defaults, and which model is run, and how."""

from __future__ import annotations

import argparse
from typing import Any


class Help(argparse.HelpFormatter):
    """Says an option's default behind what it is, where it has one that the text does not tell."""

    def _get_help_string(self, action: argparse.Action) -> str:
        text, default = action.help or "", action.default
        unsaid = default is None or isinstance(default, bool) or default in ("", argparse.SUPPRESS)
        if unsaid or not action.option_strings or "default" in text:
            return text
        return f"{text} (default: %(default)s)"


class Parser(argparse.ArgumentParser):
    """With such help, as have the parsers of its subcommands."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **{"formatter_class": Help} | kwargs)


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
