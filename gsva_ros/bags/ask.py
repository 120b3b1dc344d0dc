"""Instructions recorded in a bag."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Ask:
    """An instruction as recorded. `at` and `not_before` in nanoseconds; `text` or `expressions`."""

    id: str
    topic: str
    at: int
    expressions: tuple[str, ...] = ()
    text: str = ""
    not_before: int = 0
    every_frame: bool = False
    cancel: bool = False
