"""A bag of answers, readable by rosbag2, rosbags and Foxglove without this package."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rclpy.serialization import serialize_message

from gsva_ros.interfaces import mcap_writer, typestore


class ResultsBag:
    """Writes messages (rclpy's) into an mcap bag; use as a context manager."""

    def __init__(self, folder: Path) -> None:
        self._store = typestore()
        self._writer = mcap_writer(folder)
        self._connections: dict[str, Any] = {}

    def __enter__(self) -> ResultsBag:
        self._writer.open()
        return self

    def __exit__(self, *error: object) -> None:
        self._writer.close()

    def write(self, topic: str, msg: Any, stamp: int) -> None:
        """Add a message; `stamp` in nanoseconds."""
        package, name = type(msg).__module__.split(".")[0], type(msg).__name__
        self.write_raw(topic, f"{package}/msg/{name}", serialize_message(msg), stamp)

    def write_raw(self, topic: str, kind: str, raw: bytes, stamp: int) -> None:
        """Add a message that is already serialised (CDR)."""
        if topic not in self._connections:
            self._connections[topic] = self._writer.add_connection(
                topic, kind, typestore=self._store
            )
        self._writer.write(self._connections[topic], stamp, raw)
