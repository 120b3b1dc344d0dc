"""Errors whose text is meant for the user: one line that says what is wrong, where, and what to do."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable
from typing import Any, TypeVar

T = TypeVar("T")
#: Control characters and those that set the direction of writing, as others' files and names may have them.
CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]")


class InputError(ValueError):
    """User input cannot be used; the text names the file and the place in it."""


def one_line(error: BaseException | str) -> str:
    """An error's text without line breaks, and `visible`.

    Its type's name if it has no text. A problem that is told without an error is taken as its text.
    """
    return visible(" ".join(str(error).split()) or type(error).__name__)


def visible(text: str) -> str:
    """Text with escapes for what would change other text of a terminal, and for line breaks."""
    return CONTROL.sub(lambda found: ascii(found[0])[1:-1], text)


def tell_left_out(problems: Iterable[str]) -> None:
    """Print what could not be used and was left out."""
    for problem in problems:
        print(f"left out: {one_line(problem)}", file=sys.stderr)


def extras(names: str) -> str:
    """How to install the package named before, with its extras ("a" or "a,b", see setup.py)."""
    # In a robot's environment, `pip install .` would put a newer NumPy before the distribution's.
    return f"pip install '.[{names}]' in a clone of gsva_ros; on a robot, that package alone"


def lacking(error: ModuleNotFoundError, names: str) -> str:
    """What a command cannot import, and how to install it with these extras.

    transformers raises an error without a name for whatever its modules raise, as a torchvision of another
    torch does; the cause says what it was.
    """
    if error.name:
        return f"needs the package {error.name}: {extras(names)}"
    cause: BaseException = error
    while cause.__cause__:
        cause = cause.__cause__
    return f"cannot import what it needs: {one_line(cause)}"


def validated(kind: type[T], data: Any, source: str, advice: str = "") -> T:
    """Data from a file as a typed object.

    Args:
        kind: a pydantic model, or a dataclass. source: names the file in errors. advice: what to do.

    Raises:
        InputError: the first value that does not fit, with its place.
    """
    from pydantic import TypeAdapter, ValidationError  # takes half a second, for nothing in a node

    try:
        return TypeAdapter(kind).validate_python(data)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        place = ".".join(str(part) for part in first["loc"]) or "top level"
        more = f" (and {error.error_count() - 1} more)" if error.error_count() > 1 else ""
        message = f"{source}: {place}: {first['msg']}{more}"
        raise InputError(f"{message}; {advice}" if advice else message) from error
