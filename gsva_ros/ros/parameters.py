"""The node's parameters: names, defaults, ranges, descriptions, in one table."""

from __future__ import annotations

from typing import Any

from rcl_interfaces.msg import (
    FloatingPointRange,
    IntegerRange,
    ParameterDescriptor,
    ParameterType,
)

from .worker import Limits


def _fixed(text: str, constraints: str = "") -> ParameterDescriptor:
    return ParameterDescriptor(
        description=f"{text} Read at start only.",
        read_only=True,
        additional_constraints=constraints,
    )


def _whole(text: str, low: int, high: int) -> ParameterDescriptor:
    return ParameterDescriptor(
        description=text, integer_range=[IntegerRange(from_value=low, to_value=high, step=0)]
    )


def _real(text: str, low: float, high: float) -> ParameterDescriptor:
    return ParameterDescriptor(
        description=text,
        floating_point_range=[FloatingPointRange(from_value=low, to_value=high, step=0.0)],
    )


#: name -> default, descriptor
TABLE: dict[str, tuple[Any, ParameterDescriptor]] = {
    "model": (
        "gsva-mini",
        _fixed("Name of a bundled model, or a directory that `gsva convert` wrote."),
    ),
    "device": ("auto", _fixed("Where the model runs.", "auto, cpu, cuda or cuda:N")),
    "dtype": ("auto", _fixed("Precision of the model.", "auto, float32, bfloat16 or float16")),
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
        ParameterDescriptor(
            type=ParameterType.PARAMETER_STRING_ARRAY,
            description="Expressions answered on every frame from the start; [''] for none. "
            "Read at start only.",
            read_only=True,
        ),
    ),
    "max_rate": (
        0.0,
        _real("Frames a second for a repeated instruction; 0: all.", 0, 1e3),
    ),
    "max_expressions": (32, _whole("Expressions in one instruction.", 1, 1000)),
    "max_expression_length": (256, _whole("Characters in one expression or text.", 1, 10000)),
    "max_instructions": (1000, _whole("Instructions waiting or repeating at once.", 1, 100000)),
    "default_deadline": (
        0.0,
        _real("Seconds until an instruction without a deadline is EXPIRED; 0: never.", 0, 1e6),
    ),
    "rejection_threshold": (
        -1.0,
        _real("Reject what gets a probability below this; negative: the model's own value.", -1, 1),
    ),
    "overlay_opacity": (0.5, _real("Opacity of the masks in `overlay`.", 0, 1)),
}

#: Parameters with a few allowed words.
CHOICES = {
    "image_transport": ("raw", "compressed"),
    "image_reliability": ("best_effort", "reliable"),
    "text_mode": ("expressions", "ask"),
}


def declare(node: Any) -> None:
    """Declare every parameter of the table on `node`; a value out of the choices is an error."""
    for name, (default, descriptor) in TABLE.items():
        node.declare_parameter(name, default, descriptor)
    for name, choices in CHOICES.items():
        value = node.get_parameter(name).value
        if value not in choices:
            raise ValueError(f"parameter {name}: {value!r} is none of {', '.join(choices)}")


def apply_limits(node: Any, limits: Limits) -> Limits:
    """Copy the parameters that Limits holds into it."""
    for name in vars(limits):
        setattr(limits, name, node.get_parameter(name).value)
    return limits
