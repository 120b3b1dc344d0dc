"""`gsva eval …`: measure a model."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any


def register(subparsers: Any) -> None:
    """Add the `eval` command to argparse's subparsers."""
    commands = subparsers.add_parser("eval", help="measure a model").add_subparsers(required=True)
    scenes = commands.add_parser(
        "scenes",
        help="held-out rendered scenes, beside two baselines",
        description="Every slot is decided by the model alone, each expression by itself. Beside the "
        "model: one that always answers [REJ], and the same model shown a grey frame.",
    )
    scenes.add_argument(
        "--data", type=Path, required=True, help="folder written by `gsva sim render`"
    )
    scenes.add_argument("--split", default="test", help="the split that the folder must hold")
    scenes.add_argument("--model", default="gsva-mini")
    scenes.add_argument("--device", default="auto")
    scenes.add_argument("--limit", type=int, help="the first LIMIT scenes only")
    scenes.add_argument("--out", type=Path, help="write the scores here as JSON")
    scenes.set_defaults(run=_scenes)


def _scenes(args: argparse.Namespace) -> int:
    from .. import load
    from ..scenes import SceneSet
    from .scenes import always_reject, by_engine, score

    scenes = SceneSet(args.data, args.split, args.limit)
    engine = load(args.model, device=args.device)
    scores = {
        name: score(scenes, answers, range(len(scenes)))
        for name, answers in (
            (args.model, by_engine(engine)),
            ("always [REJ]", always_reject),
            ("blind", by_engine(engine, blind=True)),
        )
    }
    print(f"{len(scenes)} scenes of split {args.split}")
    print(f"{'':14} {'expressions':18} {'gIoU':>6} {'cIoU':>6} {'N-acc':>6} {'T-acc':>6} {'n':>7}")
    for name, groups in scores.items():
        for group, s in sorted(groups.items()):
            figures = " ".join(f"{s[key]:6.3f}" for key in ("gIoU", "cIoU", "N_acc", "T_acc"))
            print(f"{name:14} {group:18} {figures} {s['n']:7.0f}")
    if args.out:
        args.out.write_text(json.dumps(scores, indent=2) + "\n")
    return 0
