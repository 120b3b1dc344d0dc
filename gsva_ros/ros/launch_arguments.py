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


#: argument -> parser of its text, description
PARAMETERS: dict[str, tuple[Callable[[str], Any], str]] = {
    "model": (str, "bundled model name, or a converted directory"),
    "device": (str, "auto, cpu, cuda or cuda:N"),
    "dtype": (str, PRECISION_TEXT),
    "image_transport": (str, "raw or compressed"),
    "image_reliability": (str, "best_effort, or reliable if the camera publishes reliably"),
    "max_rate": (float, "frames per second that a repeated instruction is answered on; 0: all"),
    "depth": (lambda topic: [topic], "depth topic registered to the image, for 3D points"),
    "track": (
        str,
        "off, or flow: masks on every frame, carried by optical flow between two answers of the model",
    ),
    "rejection_threshold": (
        float,
        "reject expressions with a probability below this; negative: the model's own value",
    ),
    "target_frame": (str, "tf frame of the 3D points, instead of the image's"),
    "autostart": (
        _boolean,
        "configure and activate at start-up; if false, a lifecycle manager does",
    ),
    "use_sim_time": (_boolean, "take the time from /clock, for example when playing a bag"),
}
#: The parameters that are not called like their arguments.
RENAMED = {"depth": "depth_topics"}

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
    return {
        RENAMED.get(name, name): _read(name, given[name], read)
        for name, (read, _) in PARAMETERS.items()
        if given.get(name)
    }


def is_true(name: str, text: str) -> bool:
    """Parse a boolean launch argument; ArgumentError if it is neither true nor false."""
    return bool(_read(name, text, _boolean))


def _read(name: str, text: str, read: Callable[[str], Any]) -> Any:
    try:
        return read(text)
    except ValueError:
        kind = "true or false" if read is _boolean else "a number"
        raise ArgumentError(f"launch argument {name}: {text!r} is not {kind}") from None
