"""The node's parameters: names, defaults, ranges, descriptions, in one table."""

from __future__ import annotations

from typing import Any

from rcl_interfaces.msg import (
    FloatingPointRange,
    IntegerRange,
    ParameterDescriptor,
    ParameterType,
)

from gsva_ros.overlay import TINT
from gsva_ros.serving.requests import Limits


class ParameterError(ValueError):
    """A parameter whose value cannot be used; names the parameter."""


UNCONFIGURED_ONLY = "Changes only while the node is unconfigured."


def _fixed(text: str, constraints: str = "") -> ParameterDescriptor:
    return ParameterDescriptor(
        description=f"{text} {UNCONFIGURED_ONLY}", additional_constraints=constraints
    )


def _list(text: str) -> ParameterDescriptor:
    return ParameterDescriptor(
        type=ParameterType.PARAMETER_STRING_ARRAY, description=f"{text} {UNCONFIGURED_ONLY}"
    )


def _whole(text: str, low: int, high: int) -> ParameterDescriptor:
    return ParameterDescriptor(
        description=text, integer_range=[IntegerRange(from_value=low, to_value=high, step=0)]
    )


def _real(text: str, low: float, high: float) -> ParameterDescriptor:
    return ParameterDescriptor(
        description=text,
        floating_point_range=[
            FloatingPointRange(from_value=float(low), to_value=float(high), step=0.0)
        ],
    )


#: name -> default, descriptor
TABLE: dict[str, tuple[Any, ParameterDescriptor]] = {
    "model": (
        "gsva-mini",
        _fixed("Name of a bundled model, or a directory that `gsva convert` wrote."),
    ),
    "device": ("auto", _fixed("Where the model runs.", "auto, cpu, cuda or cuda:N")),
    "dtype": (
        "auto",
        _fixed("Precision of the model.", "auto, float32, bfloat16, float16, int8 or int4"),
    ),
    "autostart": (
        True,
        ParameterDescriptor(
            description="Configure and activate at start; otherwise a lifecycle manager does. "
            "Read at start only.",
            read_only=True,
        ),
    ),
    "image_topics": (
        ["image"],
        _list("Cameras; an instruction names the one it means, or takes whichever is newest."),
    ),
    "depth_topics": (
        [""],
        _list(
            "Depth registered to each of image_topics, '' for none; its camera_info is expected "
            "beside the image topic."
        ),
    ),
    "image_transport": ("raw", _fixed("What `image` carries.", "raw or compressed")),
    "image_reliability": (
        "best_effort",
        _fixed(
            "Quality of service of the image subscription: best_effort matches every camera; "
            "reliable loses no large frame, and matches reliable publishers only.",
            "best_effort or reliable",
        ),
    ),
    "text_mode": (
        "expressions",
        ParameterDescriptor(
            description="What a string on `instruction_text` is: expressions separated by "
            "semicolons, or a free request to which the model writes the answer.",
            additional_constraints="expressions or ask",
        ),
    ),
    "instructions": (
        [""],
        _list("Expressions answered on every frame from activation on; [''] for none."),
    ),
    "max_rate": (
        0.0,
        _real("Frames a second for a repeated instruction; 0: all.", 0, 1e3),
    ),
    "max_expressions": (32, _whole("Expressions in one instruction.", 1, 1000)),
    "max_expression_length": (256, _whole("Characters in one expression or text.", 1, 10000)),
    "max_instructions": (
        1000,
        _whole(
            "Instructions waiting or repeating at once; of goals and of calls as many.", 1, 100000
        ),
    ),
    "default_deadline": (
        0.0,
        _real("Seconds until an instruction without a deadline is EXPIRED; 0: never.", 0, 1e6),
    ),
    "max_frame_age": (
        0.0,
        _real("Seconds by the node's clock; an older frame is not answered; 0: any age.", 0, 1e6),
    ),
    "max_frame_lead": (
        1.0,
        _real(
            "Wall seconds by which a frame may have been received before the instruction that it "
            "answers; older ones are not of what the client sees, and the instruction waits; 0: any.",
            0,
            1e6,
        ),
    ),
    "inference_timeout": (
        300.0,
        _real(
            "Wall seconds for one inference; beyond it the node answers everything with FAILED and "
            "ends with status 1, so that its supervisor can start it again; 0: no limit.",
            0,
            1e6,
        ),
    ),
    "hysteresis": (
        0.0,
        _real(
            "Half the band around the threshold in which a repeated expression keeps the outcome it "
            "had; 0: every frame is decided by itself.",
            0,
            0.5,
        ),
    ),
    "rejection_threshold": (
        -1.0,
        _real("Reject what gets a probability below this; negative: the model's own value.", -1, 1),
    ),
    "split_instances": (
        False,
        ParameterDescriptor(
            description="One InstanceMask for each connected part of an expression's mask, so that "
            '"all cans" gives one a can, as long as they do not touch in the picture.'
        ),
    ),
    "track": (
        "off",
        ParameterDescriptor(
            description="Whether repeated instructions and goals are answered on every frame: off "
            "(those that the model gets to), or flow (between two answers of the model its masks are "
            "carried along by optical flow, and marked as carried). For a model slower than the camera.",
            additional_constraints="off or flow",
            dynamic_typing=True,  # see `as_meant`
        ),
    ),
    "depth_tolerance": (
        0.05,
        _real("Seconds between an image and the depth image it is taken together with.", 0, 10),
    ),
    "depth_wait": (
        0.1,
        _real("Seconds to wait for a depth image that is on its way, for segmentation_3d.", 0, 5),
    ),
    "target_frame": (
        "",
        ParameterDescriptor(
            description="tf frame of segmentation_3d, through tf2_ros at the image's stamp; without the "
            "transform, or empty: the image's optical frame, as the header says."
        ),
    ),
    "overlay_opacity": (TINT, _real("Opacity of the masks in `overlay`.", 0, 1)),
}

#: What a configured node no longer changes.
FIXED = (
    "model",
    "device",
    "dtype",
    "image_topics",
    "depth_topics",
    "image_transport",
    "image_reliability",
    "instructions",
)

#: Parameters with a few allowed words.
CHOICES = {
    "image_transport": ("raw", "compressed"),
    "image_reliability": ("best_effort", "reliable"),
    "text_mode": ("expressions", "ask"),
    "track": ("off", "flow"),
}


def declare(node: Any) -> None:
    """Declare every parameter of the table on `node`; a value out of the choices is an error."""
    for name, (default, descriptor) in TABLE.items():
        node.declare_parameter(name, default, descriptor)
        if problem := problem_with(name, node.get_parameter(name).value):
            raise ParameterError(f"parameter {problem}")


def problem_with(name: str, value: Any) -> str | None:
    """What is wrong with a parameter's value beyond its range; None: nothing."""
    choices, value = CHOICES.get(name), as_meant(name, value)
    if choices and value not in choices:
        return f"{name}: {value!r} is none of {', '.join(choices)}"
    if name == "image_topics" and not value:
        return f"{name}: names no camera; name at least one"
    if name == "image_topics" and not all(value):
        return f"{name}: {value!r} has an empty name"
    if name == "image_topics" and len(set(value)) < len(value):
        return f"{name}: {value!r} names a camera twice; name each once"
    return None


def as_meant(name: str, value: Any) -> Any:
    """A parameter's value; YAML takes a bare `off`, as after `-p track:=`, for false."""
    return "off" if value is False and "off" in CHOICES.get(name, ()) else value


def apply_limits(node: Any, limits: Limits) -> Limits:
    """Copy the parameters that Limits holds into it."""
    for name in vars(limits):
        setattr(limits, name, as_meant(name, node.get_parameter(name).value))
    return limits
