"""`gsva sim …`: render scenes."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from ..arguments import count, positive, rate, seed
from ..errors import InputError
from ..files import check_writable
from .splits import SPLITS
from .worlds import WORLDS


def register(subparsers: Any) -> None:
    """Add the `sim` command to argparse's subparsers."""
    sim = subparsers.add_parser(
        "sim",
        help="render tabletop scenes",
        description="Render scenes with MuJoCo, off-screen through EGL: a folder to train and evaluate "
        "on, or a rosbag of a camera circling them or of moving objects, each with ground truth.",
    ).add_subparsers(required=True, metavar="COMMAND")
    for add in (_add_render, _add_bag, _add_video):
        add(sim)


def _add_render(sim: Any) -> None:
    render = sim.add_parser(
        "render", help="render scenes with expressions and ground truth into a folder"
    )
    render.add_argument(
        "--split",
        choices=sorted(SPLITS),
        required=True,
        help="which seeds to use; no two splits share any",
    )
    render.add_argument("--count", type=count, required=True, help="number of scenes")
    render.add_argument("--out", type=Path, required=True, help="output folder")
    render.add_argument("--width", type=count, default=192, help="pixels")
    render.add_argument("--height", type=count, default=144, help="pixels")
    render.add_argument(
        "--world",
        choices=sorted(WORLDS),
        default="v1",
        help="v1: eight plain categories on plain tables; household: 22 categories, many rooms, lights and "
        "cameras; goods: the same, mostly printed; shifted: what household never draws, for testing",
    )
    render.add_argument(
        "--meshes",
        type=Path,
        help="additional objects for the household worlds: KIND/NAME.obj, .stl, .ply or .glb",
    )
    render.add_argument(
        "--panoramas",
        type=Path,
        help="photographed rooms for the household worlds: equirectangular *.hdr, *.jpg or *.png",
    )
    render.add_argument("--workers", type=count, default=2, help="worker processes")
    render.set_defaults(run=_render)


def _add_bag(sim: Any) -> None:
    bag = sim.add_parser("bag", help="write a rosbag2 of a camera circling some scenes")
    bag.add_argument("--seeds", type=seed, nargs="+", required=True, help="one scene each")
    bag.add_argument("--out", type=Path, required=True, help="output bag")
    bag.add_argument("--frames", type=count, default=16, help="frames per scene")
    bag.add_argument("--rate", type=rate, default=4.0, help="frames per second")
    bag.add_argument("--width", type=count, default=640, help="pixels")
    bag.add_argument("--height", type=count, default=480, help="pixels")
    bag.add_argument(
        "--look",
        choices=("studio", "workshop"),
        default="studio",
        help="workshop: dim warm light, and other proportions than the bundled model was trained on",
    )
    bag.add_argument(
        "--truth", type=Path, help="write expressions and masks to this file (COCO-style JSON)"
    )
    bag.set_defaults(run=_bag)


def _add_video(sim: Any) -> None:
    video = sim.add_parser(
        "video", help="write a rosbag2 of moving scenes, seen by a moving camera"
    )
    video.add_argument("--seeds", type=seed, nargs="+", required=True, help="one scene each")
    video.add_argument("--out", type=Path, required=True, help="output bag")
    video.add_argument("--seconds", type=positive, default=8.0, help="duration of each scene")
    video.add_argument("--rate", type=rate, default=30.0, help="frames per second")
    video.add_argument("--width", type=count, default=640, help="pixels")
    video.add_argument("--height", type=count, default=480, help="pixels")
    video.add_argument(
        "--truth", type=Path, help="write expressions and masks to this file (COCO-style JSON)"
    )
    video.set_defaults(run=_video)


def _render(args: argparse.Namespace) -> int:
    from .dataset import write_dataset
    from .worlds import Assets

    size, assets = (args.width, args.height), Assets(args.meshes, args.panoramas)
    write_dataset(
        args.out, args.split, args.count, *size, args.workers, world=args.world, assets=assets
    )
    return 0


def _check_truth(args: argparse.Namespace) -> None:
    """Check that the truth can be written, outside the bag, whose folder is created later in one step."""
    if args.truth:
        truth, out = args.truth.resolve(), args.out.resolve()
        if out in (truth, *truth.parents):
            raise InputError(
                f"{args.truth}: is inside the bag {args.out}: write the truth next to it"
            )
    check_writable(args.truth)


def _bag(args: argparse.Namespace) -> int:
    from .bag import write_bag

    _check_truth(args)
    size = (args.width, args.height)
    write_bag(args.out, args.seeds, args.frames, args.rate, *size, args.truth, args.look)
    return 0


def _video(args: argparse.Namespace) -> int:
    from .bag import write_video

    _check_truth(args)
    size = (args.width, args.height)
    write_video(args.out, args.seeds, args.seconds, args.rate, *size, args.truth)
    return 0
