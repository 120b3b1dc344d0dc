"""`gsva eval …`, `gsva record-truth` and `gsva calibrate`: measure a model, choose its threshold.

One module per command; `measure` has the three that score a model on scenes, a bag or a data set.
"""

from __future__ import annotations

from typing import Any

from . import calibrate, compare, measure, record_truth, tracking


def register(subparsers: Any) -> None:
    """Add `eval`, `record-truth` and `calibrate` to argparse's subparsers."""
    commands = subparsers.add_parser("eval", help="evaluate a model").add_subparsers(required=True)
    for module in (measure, tracking, compare):
        module.add(commands)
    for other in (record_truth, calibrate):
        other.add(subparsers)
