"""Bags without ROS: this package's message types for rosbags, and the writer of its bags."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from rosbags.rosbag2 import CompressionFormat, CompressionMode, StoragePlugin, Writer, WriterError
from rosbags.typesys import Stores, get_types_from_msg, get_typestore
from rosbags.typesys.store import Typestore

from .errors import InputError, one_line
from .files import naming, only_writer

PACKAGE = "gsva_ros"


def message_folder() -> Path:
    """The folder of the .msg files: next to the package in the source tree, or in share/.

    Raises:
        FileNotFoundError: the installation lacks them.
    """
    for folder in Path(__file__).resolve().parents:
        for candidate in (folder / "msg", folder / "share" / PACKAGE / "msg"):
            if (candidate / "Segmentation.msg").exists():
                return candidate
    raise FileNotFoundError(f"no {PACKAGE} message files above {Path(__file__).parent}")


def mcap_writer(folder: Path) -> Writer:
    """A writer for a new mcap bag with per-message compression; opened as a context manager.

    Raises:
        rosbags.rosbag2.WriterError: the folder exists.
    """
    # Version 9 of metadata.yaml cannot be read by Humble's rosbag2.
    writer = Writer(folder, version=8, storage_plugin=StoragePlugin.MCAP)
    writer.set_compression(CompressionMode.MESSAGE, CompressionFormat.ZSTD)
    return writer


@contextmanager
def whole_bag(folder: Path) -> Iterator[Writer]:
    """An open `mcap_writer`, of a bag that is in its place once it is finished.

    Until then it is in FOLDER.partial; what a killed process left there is removed by the next one.

    Raises:
        InputError: the folder exists or is being written, or what is written is not a message.
        OSError: it cannot be written, or something took its name meanwhile: the bag stays.
    """
    if folder.exists() or folder.is_symlink():
        raise InputError(f"{folder}: exists already: choose another")
    partial = folder.with_name(f"{folder.name}.partial")
    with only_writer(partial / "lock"):
        fresh = partial / folder.name  # the writer names the bag's file like its folder
        shutil.rmtree(fresh, ignore_errors=True)
        try:
            with naming(folder), _written(fresh) as writer:
                yield writer
        except WriterError as error:
            raise InputError(f"{folder}: {one_line(error)}") from error
        else:
            fresh.rename(folder)
        finally:
            (partial / "lock").unlink(missing_ok=True)
            with suppress(OSError):  # something else is there
                partial.rmdir()


@contextmanager
def _written(folder: Path) -> Iterator[Writer]:
    """An open `mcap_writer`, closed at the end; if something is raised, the unfinished bag is removed."""
    writer = mcap_writer(folder)
    writer.open()
    try:
        yield writer
        writer.close()
    except BaseException:
        with suppress(OSError):  # nor does a full disk hold what is left to write
            writer.abort()
        shutil.rmtree(folder, ignore_errors=True)
        raise


def typestore() -> Typestore:
    """ROS 2's common message types and this package's."""
    store = get_typestore(Stores.ROS2_HUMBLE)
    types = {}
    for path in sorted(message_folder().glob("*.msg")):
        types.update(
            get_types_from_msg(path.read_text(encoding="utf-8"), f"{PACKAGE}/msg/{path.stem}")
        )
    store.register(types)
    return store
