"""Recordings of one mcap file, with any definitions that tests want."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

from mcap.writer import Writer


class Mcap(Writer):
    """A recording that is finished at the end of its block."""

    def __init__(self, target: Path | io.BytesIO, profile: str = "ros2", **how: Any) -> None:
        super().__init__(target if isinstance(target, io.BytesIO) else str(target), **how)
        self.start(profile)

    def topic(
        self,
        name: str,
        kind: str = "std_msgs/msg/String",
        definition: bytes = b"string data",
        *,
        language: str = "ros2msg",
        encoding: str = "cdr",
    ) -> int:
        """Define a topic of this type; return its channel."""
        return self.register_channel(
            name, encoding, self.register_schema(kind, language, definition)
        )

    def __enter__(self) -> Mcap:
        return self

    def __exit__(self, *_: object) -> None:
        self.finish()
