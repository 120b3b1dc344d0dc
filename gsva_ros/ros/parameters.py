"""The node's parameters: names, defaults, ranges, descriptions, in one table."""

from __future__ import annotations

from typing import Any

from rcl_interfaces.msg import FloatingPointRange, IntegerRange, ParameterDescriptor, ParameterType
from rclpy.parameter import Parameter

from gsva_ros.arguments import PRECISION_TEXT
from gsva_ros.overlay import TINT
from gsva_ros.serving.requests import Limits


class ParameterError(ValueError):
    """A parameter's value cannot be used; the message names the parameter."""


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


#: Parameters with a fixed set of values.
CHOICES = {
    "image_transport": ("raw", "compressed"),
    "image_reliability": ("best_effort", "reliable"),
    "text_mode": ("expressions", "ask"),
    "track": ("off", "flow"),
}

_LIMITS = Limits()
#: name -> default, descriptor
TABLE: dict[str, tuple[Any, ParameterDescriptor]] = {
    "model": (
        "gsva-mini",
        _fixed("Name of a bundled model, or a directory written by `gsva convert`."),
    ),
    "device": ("auto", _fixed("Device that the model runs on.", "auto, cpu, cuda or cuda:N")),
    "dtype": ("auto", _fixed("Precision of the model.", PRECISION_TEXT)),
    "autostart": (
        True,
        ParameterDescriptor(
            description="Configure and activate the node at start-up; if false, a lifecycle manager does. "
            "Read only at start-up.",
            read_only=True,
        ),
    ),
    "image_topics": (
        ["image"],
        _list("Cameras. An instruction names one of them, or gets the newest frame of any."),
    ),
    "depth_topics": (
        [""],
        _list(
            "Depth topic registered to each of image_topics, '' for none; camera_info is expected next to "
            "the image topic."
        ),
    ),
    "image_transport": (
        "raw",
        _fixed("Transport of `image`.", " or ".join(CHOICES["image_transport"])),
    ),
    "image_reliability": (
        "best_effort",
        _fixed(
            "QoS reliability of the image subscription: best_effort matches every camera; reliable loses "
            "fewer large frames, but matches only reliable publishers.",
            " or ".join(CHOICES["image_reliability"]),
        ),
    ),
    "text_mode": (
        "expressions",
        ParameterDescriptor(
            description="How a string on `instruction_text` is read: as expressions separated by "
            "semicolons, or as a free-form request to which the model writes the answer.",
            additional_constraints=" or ".join(CHOICES["text_mode"]),
        ),
    ),
    "instructions": (
        [""],
        _list(
            "Expressions that are answered on every frame once the node is active; [''] for none."
        ),
    ),
    "max_rate": (
        _LIMITS.max_rate,
        _real("Frames per second that a repeated instruction is answered on; 0: all.", 0, 1e3),
    ),
    "max_expressions": (
        _LIMITS.max_expressions,
        _whole("Maximum number of expressions in one instruction.", 1, 1000),
    ),
    "max_expression_length": (
        _LIMITS.max_expression_length,
        _whole("Maximum number of characters in one expression or text.", 1, 10000),
    ),
    "max_instructions": (
        _LIMITS.max_instructions,
        _whole(
            "Maximum number of waiting or repeated instructions; the same limit applies to goals and to "
            "service calls.",
            1,
            100000,
        ),
    ),
    "default_deadline": (
        _LIMITS.default_deadline,
        _real(
            "Seconds after which an instruction without its own deadline, a call or a goal is EXPIRED "
            "unless it was answered on a frame before; 0: never. Not for the parameter `instructions`.",
            0,
            1e6,
        ),
    ),
    "max_frame_age": (
        _LIMITS.max_frame_age,
        _real(
            "Maximum age of a frame, in seconds by the node's clock; older ones are not answered; 0: any.",
            0,
            1e6,
        ),
    ),
    "max_frame_lead": (
        _LIMITS.max_frame_lead,
        _real(
            "How long before an instruction a frame may have been received in order to answer it, in "
            "wall-clock seconds; for an earlier one, the instruction waits for a new frame; 0: any.",
            0,
            1e6,
        ),
    ),
    "inference_timeout": (
        _LIMITS.inference_timeout,
        _real(
            "Time limit for one inference, in wall-clock seconds; when it is exceeded, the node answers "
            "everything with FAILED and exits with status 1, so that its supervisor can restart it; "
            "0: no limit.",
            0,
            1e6,
        ),
    ),
    "hysteresis": (
        _LIMITS.hysteresis,
        _real(
            "Half the width of the band around the threshold in which a repeated expression keeps its "
            "previous outcome; 0: every frame is decided by itself.",
            0,
            0.5,
        ),
    ),
    "rejection_threshold": (
        _LIMITS.rejection_threshold,
        _real(
            "Reject expressions with a probability below this; negative: the model's own value.",
            -1,
            1,
        ),
    ),
    "split_instances": (
        _LIMITS.split_instances,
        ParameterDescriptor(
            description="Return one InstanceMask for each connected part of an expression's mask, so that "
            '"all cans" gives one per can, as long as they do not touch in the image.'
        ),
    ),
    "track": (
        _LIMITS.track,
        ParameterDescriptor(
            description="Which frames repeated instructions and goals are answered on: off (those that the "
            "model processes), or flow (every frame: between two answers of the model, its masks are "
            "carried by optical flow and marked as carried). For a model that is slower than the camera.",
            additional_constraints=" or ".join(CHOICES["track"]),
            dynamic_typing=True,  # see `as_meant`
        ),
    ),
    "depth_tolerance": (
        0.05,
        _real("Maximum time between an image and the depth image used with it, in seconds.", 0, 10),
    ),
    "depth_wait": (
        0.1,
        _real(
            "Maximum time to wait for a late depth image, in seconds, for segmentation_3d.", 0, 5
        ),
    ),
    "target_frame": (
        "",
        ParameterDescriptor(
            description="tf frame of segmentation_3d, transformed through tf2_ros at the image's stamp; if "
            "empty, or without that transform, the image's optical frame is used, as the header shows."
        ),
    ),
    "overlay_opacity": (TINT, _real("Opacity of the masks in `overlay`.", 0, 1)),
}

#: Parameters that cannot change once the node is configured, as their descriptions say.
FIXED = tuple(
    name for name, (_, about) in TABLE.items() if about.description.endswith(UNCONFIGURED_ONLY)
)


def declare(node: Any) -> None:
    """Declare every parameter of the table on `node`; ParameterError for a value that is not allowed."""
    for name, (default, descriptor) in TABLE.items():
        value = node.declare_parameter(name, default, descriptor).value
        if value is None and isinstance(default, list):  # `[]` in YAML, which tells no type
            value = []
            node.set_parameters([Parameter(name, Parameter.Type.STRING_ARRAY, value)])
        if problem := problem_with(name, value):
            raise ParameterError(f"parameter {problem}")


def problem_with(name: str, value: Any) -> str | None:
    """What is wrong with a parameter's value, apart from its range; None: nothing."""
    if value is None:
        return f"{name}: is given without a value"
    choices, value = CHOICES.get(name), as_meant(name, value)
    if choices and value not in choices:
        return f"{name}: {value!r} is not one of {', '.join(choices)}"
    if name == "image_topics" and not value:
        return f"{name}: names no camera; name at least one"
    if name == "image_topics" and not all(value):
        return f"{name}: {value!r} has an empty name"
    if name == "image_topics" and len(set(value)) < len(value):
        return f"{name}: {value!r} names a camera twice; name each once"
    return None


def as_meant(name: str, value: Any) -> Any:
    """A parameter's intended value: YAML reads a bare `off`, as after `-p track:=`, as false."""
    return "off" if value is False and "off" in CHOICES.get(name, ()) else value


def limits_of(node: Any) -> Limits:
    """The node's parameters that are fields of Limits."""
    given = {name: node.get_parameter(name).value for name in vars(_LIMITS)}
    return Limits(**{name: as_meant(name, value) for name, value in given.items()})
