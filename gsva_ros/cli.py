"""The `gsva` command. Each layer brings its own subcommands in a module `commands`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

#: Modules with a function `register(subparsers)`; one that is not installed is left out.
COMMANDS = ("gsva_ros.sim.commands", "gsva_ros.train.commands", "gsva_ros.eval.commands")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit status."""
    parser = argparse.ArgumentParser(
        prog="gsva", description="Segmentation by words, with rejections (GSVA)."
    )
    subparsers = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    register(subparsers)
    for name in COMMANDS:
        if _exists(name):
            import_module(name).register(subparsers)
    args = parser.parse_args(argv)
    return int(args.run(args) or 0)


def register(subparsers: Any) -> None:
    """Add `segment` and `convert` to argparse's subparsers."""
    parser = subparsers.add_parser("segment", help="segment one picture by words")
    parser.add_argument("image", type=Path, help="a picture file")
    parser.add_argument("expressions", nargs="*", help='what to look for: "the red mug" ...')
    parser.add_argument("--text", help="a free request instead of expressions")
    parser.add_argument("--model", default="gsva-mini", help="bundled name or checkpoint directory")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:N")
    parser.add_argument("--dtype", default="auto", help="auto, float32, bfloat16, float16")
    parser.add_argument("--output", type=Path, help="the overlay (default: IMAGE.overlay.png)")
    parser.set_defaults(run=segment)

    parser = subparsers.add_parser(
        "convert",
        help="turn official GSVA weights into a directory that the engine and the node load",
    )
    parser.add_argument("--llava", type=Path, required=True, help="LLaVA directory trained from")
    parser.add_argument("--weights", type=Path, required=True, help="GSVA's state dict (LoRA too)")
    parser.add_argument("--vision-tower", type=Path, required=True, help="CLIP directory")
    parser.add_argument("--conversation", default="llava_v1", choices=("llava_v1", "llava_llama_2"))
    parser.add_argument("--lora-alpha", type=float, default=16.0, help="LoRA's alpha")
    parser.add_argument("out", type=Path, help="the directory to write")
    parser.set_defaults(run=convert)


def segment(args: argparse.Namespace) -> int:
    """Print one line a slot and write the overlay."""
    import cv2

    import gsva_ros
    from gsva_ros.overlay import Target, poster

    if bool(args.text) == bool(args.expressions):
        print("gsva segment: give expressions, or --text, not both", file=sys.stderr)
        return 2
    bgr = cv2.imread(str(args.image), cv2.IMREAD_COLOR)
    if bgr is None:
        print(f"gsva segment: cannot read {args.image} as a picture", file=sys.stderr)
        return 2
    rgb = cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB)
    engine = gsva_ros.load(args.model, device=args.device, dtype=args.dtype)
    frame = engine.encode(rgb)
    try:
        answer = (
            engine.ask(frame, args.text) if args.text else engine.segment(frame, args.expressions)
        )
    except ValueError as error:
        print(f"gsva segment: {error}", file=sys.stderr)
        return 2
    if args.text:
        print(answer.text)
    targets = []
    for number, slot in enumerate(answer.slots):
        mask = slot.mask
        if slot.fault:
            print(f"{slot.expression}: FAILED: {slot.fault}")
            continue
        if slot.rejected:
            print(f"{slot.expression}: REJECTED (probability {1.0 - slot.p_seg:.3f})")
        else:
            area = int(mask.sum())
            print(
                f"{slot.expression}: {area} pixels, box {tuple(slot.box or ())}, "
                f"probability {slot.p_seg:.3f}, predicted IoU {slot.predicted_iou:.2f}"
            )
        targets.append(Target(number, slot.expression, None if slot.rejected else mask, slot.p_seg))
    output = args.output or args.image.with_suffix(".overlay.png")
    output.parent.mkdir(parents=True, exist_ok=True)
    if not cv2.imwrite(str(output), cv2.cvtColor(poster(rgb, targets), cv2.COLOR_RGB2BGR)):
        print(f"gsva segment: cannot write {output}", file=sys.stderr)
        return 1
    print(f"overlay: {output}")
    return 0


def convert(args: argparse.Namespace) -> int:
    """Write the converted directory and name it."""
    from gsva_ros.model import checkpoint

    try:
        checkpoint.convert(
            args.out,
            args.llava,
            weights=args.weights,
            vision_tower=args.vision_tower,
            conversation=args.conversation,
            lora_alpha=args.lora_alpha,
        )
    except (OSError, ValueError) as error:
        print(f"gsva convert: {error}", file=sys.stderr)
        return 1
    print(f"converted: {args.out}  (gsva_ros.load({str(args.out)!r}), or the node's `model`)")
    return 0


def _exists(name: str) -> bool:
    try:
        return find_spec(name) is not None
    except ModuleNotFoundError:
        return False
