"""Serves a page about a running node: what its cameras see, what it answers, and its diagnostics."""

from __future__ import annotations

import argparse
import sys
import threading
from collections.abc import Sequence
from contextlib import closing

from rclpy.exceptions import NameValidationException
from rclpy.validate_namespace import validate_namespace
from rclpy.validate_node_name import validate_node_name

from gsva_ros.arguments import Parser, port
from gsva_ros.errors import InputError, one_line
from gsva_ros.programs.signals import end_alike
from gsva_ros.programs.watcher import Watcher
from gsva_ros.ros.start import own_arguments


def _node(text: str) -> str:
    """For argparse: a node's name, with its namespace."""
    namespace, _, name = text.rpartition("/")
    try:
        validate_node_name(name)
        validate_namespace(f"/{namespace.strip('/')}")
    except NameValidationException as error:
        raise argparse.ArgumentTypeError(one_line(error)) from error
    return text


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point of `ros2 run gsva_ros gsva_view`."""
    argv = list(sys.argv if argv is None else argv)
    parser = Parser(prog="gsva_view", description=__doc__)
    parser.add_argument(
        "--node", type=_node, default="/gsva", help="node to watch, with its namespace"
    )
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on")
    parser.add_argument("--port", type=port, help="port (default: the first free one from 7860)")
    args = own_arguments(parser, argv)
    try:
        from gsva_ros.programs.page import own_folder, serve
        from gsva_ros.programs.view_page import ViewPage
    except ModuleNotFoundError as error:
        how = "pip install 'gradio>=6,<7' 'numpy<2'"  # a newer NumPy breaks ROS 2's OpenCV
        print(f"gsva_view: needs the package {error.name}: {how}", file=sys.stderr)
        return 1
    try:
        with closing(Watcher(args.node, argv)) as watcher:
            end_alike()
            with own_folder():
                address = serve(ViewPage(watcher).blocks, args.host, args.port)
                print(f"gsva_view: {address}  (Ctrl-C ends it)", flush=True)
                threading.Event().wait()
    except InputError as error:
        print(f"gsva_view: {one_line(error)}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    return 0
