"""The launch file's arguments: names, descriptions, and the parameters they set. Does not import launch.

An argument overrides the parameter file, which overrides the node's default. An argument that sets a
parameter therefore has no default of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from gsva_ros.arguments import PRECISION_TEXT

TRUE, FALSE = ("true", "1", "yes", "on"), ("false", "0", "no", "off")


class ArgumentError(ValueError):
    """A launch argument has the wrong type; the message names the argument."""


def _boolean(text: str) -> bool:
    if text.lower() in TRUE:
        return True
    if text.lower() in FALSE:
        return False
    raise ValueError


#: argument -> parameter, parser of its text, type in words, description
PARAMETERS: dict[str, tuple[str, Callable[[str], Any], str, str]] = {
    "model": ("model", str, "a text", "bundled model name, or a converted directory"),
    "device": ("device", str, "a text", "auto, cpu, cuda or cuda:N"),
    "dtype": ("dtype", str, "a text", PRECISION_TEXT),
    "image_transport": ("image_transport", str, "a text", "raw or compressed"),
    "image_reliability": (
        "image_reliability",
        str,
        "a text",
        "best_effort, or reliable if the camera publishes reliably",
    ),
    "max_rate": (
        "max_rate",
        float,
        "a number",
        "frames per second that a repeated instruction is answered on; 0: all",
    ),
    "depth": (
        "depth_topics",
        lambda topic: [topic],
        "a topic",
        "depth topic registered to the image, for 3D points",
    ),
    "track": (
        "track",
        str,
        "a text",
        "off, or flow: masks on every frame, carried by optical flow between two answers of the model",
    ),
    "rejection_threshold": (
        "rejection_threshold",
        float,
        "a number",
        "reject expressions with a probability below this; negative: the model's own value",
    ),
    "target_frame": (
        "target_frame",
        str,
        "a text",
        "tf frame of the 3D points, instead of the image's",
    ),
    "autostart": (
        "autostart",
        _boolean,
        "true or false",
        "configure and activate at start-up; if false, a lifecycle manager does",
    ),
    "use_sim_time": (
        "use_sim_time",
        _boolean,
        "true or false",
        "take the time from /clock, for example when playing a bag",
    ),
}

#: argument -> default, description
OTHERS: dict[str, tuple[str, str]] = {
    "image": (
        "image",
        "image topic (the base name, also for compressed transport), to which `image` is remapped; has no "
        "effect if params_file sets image_topics to others",
    ),
    "namespace": ("", "namespace of the node and its topics"),
    "rviz": ("false", "start RViz with the package's configuration"),
}


def overrides(given: Mapping[str, str]) -> dict[str, Any]:
    """The parameters set by launch arguments; an empty text counts as not given.

    Raises:
        ArgumentError: a text cannot be parsed as the argument's type.
    """
    found = {}
    for name, (parameter, read, kind, _) in PARAMETERS.items():
        text = given.get(name, "")
        if not text:
            continue
        try:
            found[parameter] = read(text)
        except ValueError:
            raise ArgumentError(f"launch argument {name}: {text!r} is not {kind}") from None
    return found


def is_true(name: str, text: str) -> bool:
    """Parse a boolean launch argument; ArgumentError if it is neither true nor false."""
    try:
        return _boolean(text)
    except ValueError:
        raise ArgumentError(f"launch argument {name}: {text!r} is not true or false") from None
