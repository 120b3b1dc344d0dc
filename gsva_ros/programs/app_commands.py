"""`gsva app`: a local web page to try the model on images and bags."""

from __future__ import annotations

import argparse
import threading
from pathlib import Path
from typing import Any

from gsva_ros.answer import no_rejection
from gsva_ros.arguments import add_model_arguments, port
from gsva_ros.errors import InputError


def register(subparsers: Any) -> None:
    """Add the `app` command to argparse's subparsers.

    Raises:
        ModuleNotFoundError: Gradio is not installed.
    """
    from gsva_ros.programs import page  # noqa: F401  # reports what is missing at once

    parser = subparsers.add_parser(
        "app",
        help="serve a page to try the model on images and bags",
        description="Serve a page, to this machine only unless --host says otherwise: anyone who can "
        "reach it can use the model and read the bags given here. It needs no network and sends no usage "
        "reports.",
    )
    parser.add_argument("bags", nargs="*", type=Path, help="bags and images to choose from")
    add_model_arguments(parser)
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on")
    parser.add_argument("--port", type=port, help="port (default: the first free one from 7860)")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Serve the page until Ctrl-C."""
    import gsva_ros
    from gsva_ros.programs.app_page import Page
    from gsva_ros.programs.page import own_folder, serve
    from gsva_ros.programs.signals import end_alike

    for bag in args.bags:
        if not bag.exists():
            raise InputError(f"{bag}: no such bag or image")
    print(f"loading {args.model} ...", flush=True)
    engine = gsva_ros.load(args.model, device=args.device, dtype=args.dtype)
    if notice := no_rejection(engine):
        print(notice, flush=True)
    end_alike()
    with own_folder() as folder:
        page = Page(engine, args.bags, folder)
        address = serve(page.blocks, args.host, args.port)
        print(f"gsva app: {address}  (Ctrl-C ends it)", flush=True)
        threading.Event().wait()
    return 0
