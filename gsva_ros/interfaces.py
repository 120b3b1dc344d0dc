"""This package's message types for rosbags, which reads and writes bags without ROS."""

from __future__ import annotations

from pathlib import Path

from rosbags.typesys import Stores, get_types_from_msg, get_typestore
from rosbags.typesys.store import Typestore

PACKAGE = "gsva_ros"


def message_folder() -> Path:
    """The folder of the .msg files: beside the package in the source tree, or in share/.

    Raises:
        FileNotFoundError: the installation lacks them.
    """
    for folder in Path(__file__).resolve().parents:
        for candidate in (folder / "msg", folder / "share" / PACKAGE / "msg"):
            if (candidate / "Segmentation.msg").exists():
                return candidate
    raise FileNotFoundError(f"no {PACKAGE} message files above {Path(__file__).parent}")


def typestore() -> Typestore:
    """ROS 2's common types and this package's."""
    store = get_typestore(Stores.ROS2_HUMBLE)
    types = {}
    for path in sorted(message_folder().glob("*.msg")):
        types.update(get_types_from_msg(path.read_text(), f"{PACKAGE}/msg/{path.stem}"))
    store.register(types)
    return store
