"""`gsva bench`: measures a model's stages on this machine, or counts a size's cost on any machine."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..arguments import add_device, add_dtype, count

if TYPE_CHECKING:
    from ..engine import Engine
    from .timing import Measured


def register(subparsers: Any) -> None:
    """Add `bench` to argparse's subparsers."""
    parser = subparsers.add_parser(
        "bench",
        help="measure where a frame's time goes on this machine",
        description="Time every stage, or with --count count arithmetic, operators and bytes without "
        "running the model, so that 7b and 13b fit on any machine.",
    )
    for add in (_add_model, _add_measured, _add_output):
        add(parser)
    parser.set_defaults(run=run)


def _add_model(parser: argparse.ArgumentParser) -> None:
    what = parser.add_mutually_exclusive_group()
    what.add_argument(
        "--size",
        default="mini",
        choices=("mini", "7b-small", "mid", "7b", "13b"),
        help="gsva-mini, or random weights of this size; 7b-small: the 7B's proportions at a size for CPUs",
    )
    what.add_argument("--model", help="bundled name or checkpoint directory instead of a size")
    add_device(parser, "cpu")
    add_dtype(parser)


def _add_measured(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--count", action="store_true", help="count only, without timing")
    parser.add_argument(
        "--node", action="store_true", help="time the node's own share instead; needs ROS"
    )
    parser.add_argument(
        "--compile", action="store_true", help="compile SAM's encoder with torch.compile"
    )
    parser.add_argument(
        "--static",
        action="store_true",
        help="run our path in fixed shapes; on a GPU, as CUDA graphs",
    )
    parser.add_argument(
        "--expressions",
        type=count,
        nargs="+",
        default=[1, 2, 4, 8, 16],
        metavar="K",
        help="numbers of expressions per request, measured one by one; --count uses the largest",
    )
    parser.add_argument(
        "--against", choices=("plain",), help="also time the plain path, and print ratios"
    )
    parser.add_argument(
        "--frame",
        type=_frame,
        default=(720, 1280),
        metavar="WxH",
        help="size of the image; default 1280x720",
    )
    parser.add_argument("--runs", type=count, default=10, help="runs after one warm-up run")
    parser.add_argument("--threads", type=count, help="CPU threads")


def _add_output(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--out", type=Path, help="write all numbers to this JSON file")
    parser.add_argument(
        "--picture", type=Path, help="write a bar chart of the stages to this SVG file"
    )
    parser.add_argument(
        "--page", type=Path, help="write the tables between the markers of this page"
    )


def run(args: argparse.Namespace) -> int:
    """Measure, print, and write the requested files."""
    import torch

    from ..errors import InputError
    from ..files import check_writable
    from . import counting, report, sizes, timing

    if (args.count or args.node) and (args.picture or args.against):
        raise InputError("--picture and --against need timed stages: leave out --count and --node")
    name = args.model or args.size
    section = "node" if args.node else f"{name} counted" if args.count else name
    check_writable(args.out, args.picture)
    if args.page:
        report.around(args.page, section)
        check_writable(args.page)
    if args.threads:
        torch.set_num_threads(args.threads)
    if args.node:
        return _node(args)
    if args.count and not args.model:
        config = sizes.config_of(args.size)
        prompt = sizes.prompt_of(config)
    else:
        engine = _engine(args)
        config, prompt = engine.config, engine.prompt
    if args.against and max(args.expressions) > 1 and not prompt.family.joint:
        raise InputError(
            f"{name} takes one expression at a time, but the plain path asks for all at once: "
            "--against needs --expressions 1"
        )
    asked = timing.expressions(max(args.expressions))
    costs, weights = counting.count(config, prompt, asked), counting.weight_bytes(config)
    found = {"name": name, "expressions": len(asked), "costs": costs, "weight_bytes": weights}
    texts = [
        f"{name}, {len(asked)} expressions, counted:\n\n{report.costs_table(costs)}",
        report.weights_line(weights),
    ]
    if args.count:
        return _report(args, section, "\n\n".join(texts), found)
    measured = _measure(args, engine)
    texts += report.texts(name, costs, measured)
    chart = report.chart(name, costs, measured) if args.picture else ""
    return _report(args, section, "\n\n".join(texts), found | measured.record(), chart)


def _report(
    args: argparse.Namespace, section: str, text: str, found: dict[str, Any], chart: str = ""
) -> int:
    """Print a text, put it into the page's section, and write the measurements and their chart."""
    from ..files import results
    from . import report

    print(text)
    with results() as write:
        if args.out:
            write(args.out, report.json_text(found))
        if args.page:
            write(args.page, report.updated(args.page, section, text))
        if args.picture:
            write(args.picture, chart)
    return 0


def _measure(args: argparse.Namespace, engine: Engine) -> Measured:
    """Time the stages, and with --against the plain path, too."""
    import numpy as np

    from ..loading import hardware
    from . import timing

    rgb = np.random.default_rng(0).integers(0, 256, (*args.frame, 3), np.uint8)
    ceilings = timing.ceilings(engine.device, engine.dtype)
    times = timing.stages(engine, rgb, args.expressions, args.runs)
    against, sam = {}, {}
    if args.against:
        against = timing.against_plain(engine, rgb, args.expressions, args.runs)
        sam = timing.sam_against_stock(engine, args.runs)
    how = (
        f"a picture of {args.frame[1]}x{args.frame[0]}, {hardware(engine.device)}, "
        f"{engine.precision}, {args.runs} runs"
    )
    dtype = str(engine.dtype).removeprefix("torch.")
    return timing.Measured(
        how, dtype, ceilings, times, against, sam, timing.peak_mib(engine.device)
    )


def _node(args: argparse.Namespace) -> int:
    """Time the node's own work, without the engine."""
    import numpy as np

    from ..errors import InputError
    from . import report, timing

    try:
        from ..ros import overhead
    except ImportError as error:
        raise InputError(
            f"--node needs ROS and this package's messages (source install/setup.bash): {error}"
        ) from error
    rgb = np.random.default_rng(0).integers(0, 256, (*args.frame, 3), np.uint8)
    times = timing.alternating(args.runs, **overhead.steps(rgb))
    text = f"The node, a picture of {args.frame[1]}x{args.frame[0]}:\n\n{report.steps_table(times)}"
    return _report(args, "node", text, {"name": "node", "times": times})


def _engine(args: argparse.Namespace) -> Engine:
    import os

    import torch

    import gsva_ros

    from ..engine import Engine
    from ..errors import InputError
    from ..loading import device_of, precision_of
    from ..model.host_memory import keep_freed
    from .sizes import engine_of

    how = {"static": args.static, "compiled": args.compile}
    device = device_of(args.device)
    precision = precision_of(args.dtype, device)
    if not args.model:
        if device.type == "cpu":
            keep_freed()  # as `load` does
        free = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
        if device.type == "cuda":
            free, _ = torch.cuda.mem_get_info(device)
        return engine_of(args.size, device, precision, free, **how)
    engine = gsva_ros.load(args.model, device=args.device, dtype=precision, **how)
    if not isinstance(engine, Engine):
        raise InputError(
            f"{args.model}: runs in a package of its own; gsva bench measures only GSVA and LISA"
        )
    return engine


def _frame(text: str) -> tuple[int, int]:
    width, _, height = text.partition("x")
    try:
        return count(height), count(width)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"WxH, such as 640x480, not {text!r}") from error
