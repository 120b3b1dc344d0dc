"""What all commands share: help that shows defaults, numbers with ranges, and model options."""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable
from typing import Any

SLOWEST, FASTEST = 0.01, 1000.0
#: The names in `engine.PRECISIONS`, where torch is not imported.
PRECISIONS = ("float32", "bfloat16", "float16", "int8", "int4")
#: What a model's dtype may be, in words.
PRECISION_TEXT = f"auto, {', '.join(PRECISIONS[:-1])} or {PRECISIONS[-1]}"


class Help(argparse.HelpFormatter):
    """Appends an option's default to its help text, unless the text mentions it."""

    def _get_help_string(self, action: argparse.Action) -> str:
        text, default = action.help or "", action.default
        unsaid = default is None or isinstance(default, bool) or default in ("", argparse.SUPPRESS)
        if unsaid or not action.option_strings or "default" in text:
            return text
        return f"{text} (default: %(default)s)"


class Parser(argparse.ArgumentParser):
    """A parser that uses `Help`, as do the parsers of its subcommands."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **{"formatter_class": Help} | kwargs)


def count(text: str) -> int:
    """For argparse: a count of at least 1."""
    return _whole(text, 1)


def seed(text: str) -> int:
    """For argparse: a random seed, at least 0."""
    return _whole(text, 0)


def port(text: str) -> int:
    """For argparse: a server's port, 1 to 65535."""
    return _whole(text, 1, 65535)


def positive(text: str) -> float:
    """For argparse: a number greater than 0."""
    return _real(text, lambda value: 0 < value < math.inf, "more than 0")


def patience(text: str) -> float:
    """For argparse: how long to wait, seconds, at least 0."""
    return _real(text, lambda value: 0 <= value < math.inf, "at least 0")


def probability(text: str) -> float:
    """For argparse: a probability, 0 to 1."""
    return _real(text, lambda value: 0 <= value <= 1, "0 to 1")


def rate(text: str) -> float:
    """For argparse: a rate per second or a speed factor, from SLOWEST to FASTEST."""
    allowed = f"between {SLOWEST} and {FASTEST:.0f}"
    return _real(text, lambda value: SLOWEST <= value <= FASTEST, allowed)


def _real(text: str, holds: Callable[[float], bool], allowed: str) -> float:
    value = float(text)
    if not holds(value):
        raise argparse.ArgumentTypeError(f"{allowed}, not {text}")
    return value


def _whole(text: str, least: int, most: int | None = None) -> int:
    value = int(text)
    if value < least or (most is not None and value > most):
        allowed = f"at least {least}" if most is None else f"{least} to {most}"
        raise argparse.ArgumentTypeError(f"{allowed}, not {value}")
    return value


def add_model_arguments(parser: argparse.ArgumentParser, changed: bool = False) -> None:
    """Add --model, --device and --dtype, the arguments of `gsva_ros.load`.

    Args:
        changed: as for `add_model`.
    """
    add_model(parser, changed)
    add_device(parser)
    add_dtype(parser)


def add_model(parser: argparse.ArgumentParser, changed: bool = False) -> None:
    """Add --model.

    Args:
        changed: the command modifies the model, so that its directory must be given.
    """
    if changed:
        parser.add_argument(
            "--model",
            required=True,
            help="checkpoint directory, which the command modifies; not a bundled name",
        )
    else:
        parser.add_argument(
            "--model", default="gsva-mini", help="bundled name or checkpoint directory"
        )


def add_device(parser: argparse.ArgumentParser, default: str = "auto") -> None:
    """Add --device."""
    parser.add_argument("--device", default=default, help="auto, cpu, cuda or cuda:N")


def add_dtype(parser: argparse.ArgumentParser) -> None:
    """Add --dtype."""
    parser.add_argument(
        "--dtype",
        default="auto",
        choices=("auto", *PRECISIONS),
        help="auto: bfloat16 on CUDA, float32 elsewhere; int8, int4: large weights quantised, the rest "
        "bfloat16; published scores are for float32",
    )
