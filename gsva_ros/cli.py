"""The `gsva` command. The modules that `COMMANDS` names add its subcommands."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from importlib import import_module
from io import TextIOWrapper
from pathlib import Path
from typing import Any

from .answer import ExpressionError, Slot, no_rejection
from .arguments import Parser, add_model_arguments, positive
from .errors import InputError, lacking, one_line, visible
from .files import check_folder, check_writable

#: Modules with a function `register(subparsers)`: the extra that provides their packages, their commands.
COMMANDS = {
    "gsva_ros.sim.commands": ("sim", ("sim",)),
    "gsva_ros.programs.train": ("train", ("train",)),
    "gsva_ros.programs.photographs": ("train", ("photographs",)),
    "gsva_ros.bench.commands": ("eval", ("bench",)),
    "gsva_ros.ablations.commands": ("train,sim", ("ablate",)),
    "gsva_ros.eval.commands": ("eval", ("eval", "record-truth", "calibrate")),
    "gsva_ros.programs.app_commands": ("app", ("app",)),
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit status, 2 if the input cannot be used or memory is full."""
    parser = Parser(
        prog="gsva", description="Segment images by words, with explicit rejections (GSVA)."
    )
    subparsers = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    register(subparsers)
    argv = sys.argv[1:] if argv is None else argv
    if isinstance(sys.stdout, TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # file names need not be UTF-8
    known = {*subparsers.choices, *(name for _, names in COMMANDS.values() for name in names)}
    for module, (extra, commands) in COMMANDS.items():
        # Importing their packages takes a second: only for their own commands, or to list them all.
        if not argv or argv[0] in commands or argv[0] not in known:
            _add(subparsers, module, extra, commands)
    args, rest = parser.parse_known_args(argv)
    if rest:  # as with options between the arguments of one list
        parser, own = subparsers.choices[args.command], list(argv)
        own.remove(args.command)
        try:
            args = parser.parse_intermixed_args(own, argparse.Namespace(command=args.command))
        except TypeError:  # it has commands of its own
            parser.error(f"unrecognized arguments: {' '.join(rest)}")
    try:
        check_folder()
        return int(args.run(args) or 0)
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] == "gsva_ros":
            raise
        needed = {name: extra for extra, names in COMMANDS.values() for name in names}
        problem = lacking(error, needed.get(args.command, "eval"))
    except (InputError, ExpressionError, OSError, MemoryError) as error:
        problem = one_line(error)
    except KeyboardInterrupt:
        return 130
    print(f"gsva {args.command}: {problem}", file=sys.stderr)
    return 2


def _add(subparsers: Any, module: str, extra: str, commands: Sequence[str]) -> None:
    """Add a module's commands; if its packages are missing, add commands that say so instead."""
    try:
        import_module(module).register(subparsers)
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] == "gsva_ros":
            return  # this layer is not installed
        missing = lacking(error, extra)

        def refuse(_: argparse.Namespace) -> int:
            raise InputError(missing)

        for command in commands:
            # Without a prefix for options, any arguments are accepted.
            parser = subparsers.add_parser(command, help=missing, add_help=False, prefix_chars="\0")
            parser.add_argument("rest", nargs="*")
            parser.set_defaults(run=refuse)


def register(subparsers: Any) -> None:
    """Add `segment` and `convert` to argparse's subparsers."""
    parser = subparsers.add_parser("segment", help="segment one image by words")
    parser.add_argument("image", type=Path, help="image file")
    parser.add_argument("expressions", nargs="*", help='what to look for: "the red mug" ...')
    parser.add_argument("--text", help="a free-form request instead of expressions")
    add_model_arguments(parser)
    parser.add_argument("--output", type=Path, help="the overlay (default: IMAGE.overlay.png)")
    parser.set_defaults(run=segment)

    parser = subparsers.add_parser(
        "convert",
        help="convert official GSVA weights into a directory that the engine and the node load",
    )
    parser.add_argument(
        "--llava", type=Path, required=True, help="LLaVA directory that training started from"
    )
    parser.add_argument(
        "--weights", type=Path, required=True, help="GSVA's weights: a file or a folder of shards"
    )
    parser.add_argument("--vision-tower", type=Path, required=True, help="CLIP directory")
    parser.add_argument(
        "--conversation",
        default="llava_v1",
        choices=("llava_v1", "llava_llama_2"),
        help="conversation template that the weights were trained with",
    )
    parser.add_argument(
        "--sam",
        type=Path,
        help="JSON file of SAM's sizes, if they cannot be inferred from the weights",
    )
    parser.add_argument("--lora-alpha", type=positive, default=16.0, help="LoRA's alpha")
    parser.add_argument("out", type=Path, help="output directory")
    parser.set_defaults(run=convert)


def segment(args: argparse.Namespace) -> int:
    """Print one line per slot and write the overlay."""
    import gsva_ros
    from gsva_ros.image_files import check_format, write_rgb
    from gsva_ros.overlay import Target, poster

    if bool(args.text) == bool(args.expressions):
        raise InputError("give either expressions or --text")
    rgb = _picture(args.image)
    output = args.output or args.image.with_suffix(".overlay.png")
    check_writable(output, inputs=(args.image,))
    check_format(output)
    engine = gsva_ros.load(args.model, device=args.device, dtype=args.dtype)
    if notice := no_rejection(engine):
        print(notice, file=sys.stderr)
    frame = engine.encode(rgb)
    answer = engine.ask(frame, args.text) if args.text else engine.segment(frame, args.expressions)
    if args.text:
        cut = "" if answer.complete else f" ... (cut after {answer.tokens} tokens)"
        print(visible(answer.text + cut))
    targets = []
    for number, slot in enumerate(answer.slots):
        print(visible(_line(slot)))
        if not slot.fault:
            targets.append(Target.of(number, slot))
    write_rgb(output, poster(rgb, targets), "overlay")
    print(f"overlay: {output}")
    return 0


def _line(slot: Slot) -> str:
    if slot.fault:
        return f"{slot.expression}: FAILED: {slot.fault}"
    if slot.rejected:
        return f"{slot.expression}: REJECTED: {slot.reason}"
    assert slot.crop is not None
    return (
        f"{slot.expression}: {int(slot.crop.sum())} pixels, box {slot.box}, "
        f"probability {slot.p_seg:.3f}, predicted IoU {slot.predicted_iou:.2f}"
    )


def _picture(path: Path) -> Any:
    """uint8 [H, W, 3] RGB of an image file, checked like camera images."""
    from gsva_ros.conversions import MessageError, file_rgb

    try:
        return file_rgb(path.read_bytes(), path.suffix)
    except (MessageError, OSError) as error:
        why = error.problem if isinstance(error, MessageError) else error.strerror
        raise InputError(
            f"{path}: not an image that can be segmented: {why}; give a .png or .jpg file "
            "(`gsva eval bag` and `gsva app` read bags)"
        ) from error


def convert(args: argparse.Namespace) -> int:
    """Write the converted directory and print its path."""
    from gsva_ros.model import checkpoint
    from gsva_ros.model.config import read_object

    checkpoint.convert(
        args.out,
        args.llava,
        weights=args.weights,
        vision_tower=args.vision_tower,
        sam=read_object(args.sam) if args.sam else None,
        conversation=args.conversation,
        lora_alpha=args.lora_alpha,
    )
    print(f"converted: {args.out}  (gsva_ros.load({str(args.out)!r}), or the node's `model`)")
    return 0
