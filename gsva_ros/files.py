"""Files that are read with errors that name them, and written whole."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import sys
import tempfile
import weakref
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from .errors import InputError, one_line

#: The first bytes of a Git LFS pointer. Source: its specification, "The Pointer".
LFS_POINTER = b"version https://git-lfs.github.com/spec/"
#: Why a file may be writable where none can be made beside it to take its place: its folder is read-only,
#: or it is mounted by itself.
NOT_BESIDE = (errno.EACCES, errno.EPERM, errno.EBUSY, errno.EROFS)
#: Files whose locks this process holds. A forked child would keep them after its parent has ended.
_HELD: weakref.WeakSet[IO[str]] = weakref.WeakSet()


def parse_json(text: str | bytes) -> Any:
    """The value of a JSON text.

    Raises:
        ValueError: it is not JSON, has too long a number, or is nested too deeply.
    """
    try:
        return json.loads(text)
    except RecursionError as error:
        raise ValueError(one_line(error)) from error


def read_json(path: Path) -> Any:
    """The contents of a JSON file, UTF-8.

    Raises:
        InputError: it cannot be read, or is not JSON; names it.
    """
    try:
        return parse_json(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: cannot be read as JSON: {one_line(error)}") from error


def check_fetched(path: Path, kind: type[InputError], what: str = "file") -> None:
    """Check that a file is not Git LFS's pointer, which a clone has in its place until it is downloaded.

    Args:
        kind: the error's type. what: what the file should be, for the error's text.

    Raises:
        FileNotFoundError: there is no such file.
        InputError: it is a pointer; of type `kind`.
    """
    with path.open("rb") as file:
        start = file.read(len(LFS_POINTER))
    if start == LFS_POINTER:
        raise kind(f"{path}: not the {what}, but Git LFS's pointer to it: run `git lfs pull` there")


def check_folder() -> None:
    """Check that the working folder exists: without it, Intel's MKL ends a process that imports torch.

    Raises:
        InputError: it does not.
    """
    try:
        os.getcwd()
    except FileNotFoundError as error:
        raise InputError(
            "the folder that this was started in has been removed, and torch cannot be imported there: "
            "change to one that exists (cd), and start it again"
        ) from error


def check_writable(*paths: Path | None, inputs: Iterable[Path | None] = ()) -> None:
    """Check that files can be written, before the work that produces them; creates their folders.

    Args:
        inputs: what that work reads.

    Raises:
        InputError: a file cannot be written, or is one of the inputs; names it.
    """
    read = {os.path.realpath(path) for path in inputs if path}
    for path in paths:
        if path is None:
            continue
        if os.path.realpath(path) in read:
            raise InputError(f"{path} is an input, which would be overwritten: choose another")
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


@contextmanager
def only_writer(path: Path) -> Iterator[None]:
    """Wraps the writing of a folder, and holds the lock of this file in it meanwhile; creates both.

    However the process ends, its lock ends, too.

    Raises:
        InputError: another process is writing there.
        OSError: the file cannot be created.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as held:
        _HELD.add(held)
        try:
            fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise InputError(
                f"{path.parent}: another process is writing it: wait for that one, or choose another "
                "folder"
            ) from error
        except OSError:  # a file system without locks
            pass
        yield


def _let_go() -> None:
    for lock in _HELD:
        lock.close()


os.register_at_fork(after_in_child=_let_go)


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """Wraps the writing of a file or folder; an OSError without a name, as of a full disk, gets its."""
    try:
        yield
    except OSError as error:
        if error.errno and not error.filename:
            error.filename = str(path)
        raise


def write_whole(path: Path, data: bytes) -> None:
    """Write a file in one step: a kill or a full disk leaves what was there, and nobody reads half of it.

    Raises:
        OSError: it cannot be written.
    """
    # Each process of a run may write it.
    fresh = path.with_name(f"{path.name}.{os.getpid()}.partial")
    try:
        with naming(path):
            fresh.write_bytes(data)
            fresh.replace(path)
    finally:
        fresh.unlink(missing_ok=True)


def _replace(path: Path, data: bytes) -> None:
    """`write_whole`, or if only a new file beside it is impossible, in place."""
    try:
        write_whole(path, data)
    except OSError as error:
        if error.errno not in NOT_BESIDE:
            raise
        path.write_bytes(data)


def write_result(path: Path, text: str) -> Path:
    """Write a result whole; if that fails after all, into a temporary file, so that it is not lost.

    Returns:
        The path.

    Raises:
        InputError: it cannot be written; names the temporary file.
    """
    data = text.encode(errors="backslashreplace")  # it may name files whose names are not UTF-8
    try:
        if path.is_relative_to("/dev") or (path.exists() and not path.is_file()):
            path.write_bytes(data)  # such as /dev/stdout, which no file may replace
        else:
            _replace(Path(os.path.realpath(path)), data)
    except OSError as error:
        with tempfile.NamedTemporaryFile(prefix="gsva-", suffix=path.suffix, delete=False) as file:
            file.write(data)
        raise InputError(
            f"{path}: cannot be written ({error.strerror}): the result is in {file.name}"
        ) from error
    return path


@contextmanager
def results() -> Iterator[Callable[[Path, str], None]]:
    """A function that writes a result and prints where. One that cannot be written stops no other.

    Raises:
        InputError: at the end, if some were not written; where their spare copies are was told on stderr.
    """
    failed: list[str] = []

    def write(path: Path, text: str) -> None:
        try:
            print(f"written: {write_result(path, text)}")
        except InputError as error:
            print(error, file=sys.stderr)
            failed.append(str(path))

    yield write
    if failed:
        raise InputError(f"not written: {', '.join(failed)}")
