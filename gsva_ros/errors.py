"""Errors whose text is meant for the user: one line that says what is wrong, where, and what to do."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any, TypeVar

T = TypeVar("T")
#: The first bytes of a Git LFS pointer. Source: its specification, "The Pointer".
LFS_POINTER = b"version https://git-lfs.github.com/spec/"


class InputError(ValueError):
    """User input cannot be used; the text names the file and the place in it."""


def one_line(error: BaseException) -> str:
    """An error's text without line breaks; its type's name if it has no text."""
    return " ".join(str(error).split()) or type(error).__name__


def extras(names: str) -> str:
    """How to install the package named before, with its extras ("a" or "a,b", see setup.py)."""
    # In a robot's environment, `pip install .` would put a newer NumPy before the distribution's.
    return f"pip install '.[{names}]' in a clone of gsva_ros; on a robot, that package alone"


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


def is_lfs_pointer(path: Path) -> bool:
    """Whether a file is Git LFS's pointer, which a clone has in its place until it is downloaded."""
    with path.open("rb") as file:
        return file.read(len(LFS_POINTER)) == LFS_POINTER


def check_writable(*paths: Path | None) -> None:
    """Check that files can be written, before the work that produces them; creates their folders.

    Raises:
        InputError: a file cannot be written; names it.
    """
    for path in paths:
        if path is None:
            continue
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            fresh = not path.exists()
            path.open("ab").close()
            if fresh:
                path.unlink(missing_ok=True)  # another process of this run may have removed it
        except OSError as error:
            raise InputError(
                f"{path}: cannot be written ({error.strerror}); choose another"
            ) from error


def write_result(path: Path, text: str) -> Path:
    """Write a result; if that fails after all, into a temporary file, so that it is not lost.

    Returns:
        The path that was written.
    """
    try:
        path.write_text(text, encoding="utf-8")
        return path
    except OSError:
        with tempfile.NamedTemporaryFile(
            "w", encoding="utf-8", prefix="gsva-", suffix=path.suffix, delete=False
        ) as file:
            file.write(text)
        return Path(file.name)
