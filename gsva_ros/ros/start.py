"""Starts rclpy, and says what keeps it from starting."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Any

import rclpy
from rclpy.utilities import remove_ros_args

from gsva_ros.errors import InputError, one_line


def init(**options: Any) -> None:
    """Call `rclpy.init(**options)`.

    Raises:
        InputError: the command line or the environment cannot be used, such as ROS_DOMAIN_ID or HOME.
    """
    try:
        rclpy.init(**options)
    except (RuntimeError, ValueError) as error:  # rcl's errors, and text that is not UTF-8
        rclpy.try_shutdown(context=options.get("context"))  # it may have failed half-way
        reason = _reason(error)
        if "logging" in reason:
            reason += "; set ROS_LOG_DIR to a folder that can be written"
        raise InputError(f"ROS 2 cannot start: {reason}") from error


def own_arguments(parser: argparse.ArgumentParser, argv: Sequence[str]) -> argparse.Namespace:
    """Parse a command line without its ROS arguments; a wrong one of these ends the program, too."""
    try:
        own = remove_ros_args(argv)[1:]
    except (RuntimeError, ValueError) as error:
        parser.error(_reason(error))
    return parser.parse_args(own)


def _reason(error: Exception) -> str:
    """An rcl error without the place in rcl's source."""
    return f"{type(error).__name__}: {one_line(error).partition(', at /')[0]}"
