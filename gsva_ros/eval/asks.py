"""Which frames an instruction is about, when a bag is read instead of played.

The node's rule: one that asks once is answered on the newest frame that it finds, or on the first one
that comes and is not before `not_before`; one for every frame on that and all that follow, until it is
cancelled or replaced.
"""

from __future__ import annotations

import bisect
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml


class AskError(ValueError):
    """An instruction file that cannot be used; names the file and the entry."""


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


@dataclass(frozen=True)
class Recorded:
    """A frame: its header's stamp and when the bag received it, nanoseconds."""

    stamp: int
    at: int


def read_asks(path: Path, topic: str, start: int) -> list[Ask]:
    """Read a YAML file in the form of config/demo.yaml.

    Args:
        topic: the image topic where the file names none. start: stamp of the bag's first frame; an entry's
            `at` counts from it, in seconds.

    Raises:
        AskError: not such a file; names the entry.
    """
    try:
        data: Any = yaml.safe_load(path.read_text())
    except (OSError, yaml.YAMLError) as error:
        raise AskError(f"{path}: {error}") from error
    entries = data.get("instructions") if isinstance(data, dict) else None
    if not isinstance(entries, list) or not entries:
        raise AskError(f"{path}: needs a list `instructions`")
    asks = []
    for number, entry in enumerate(entries, start=1):
        where = f"{path}: instruction {number}"
        if not isinstance(entry, dict):
            raise AskError(f"{where}: not a mapping")
        if unknown := sorted(entry.keys() - {"id", "at", "expressions", "text", "repeat"}):
            raise AskError(f"{where}: unknown: {', '.join(unknown)}")
        if bool(entry.get("text")) == bool(entry.get("expressions")):
            raise AskError(f"{where}: give either text or expressions")
        try:
            first = start + round(float(entry.get("at", 0.0)) * 1e9)
            words = tuple(str(e) for e in entry.get("expressions", ()))
        except (TypeError, ValueError) as error:
            raise AskError(f"{where}: {error}") from error
        asks.append(
            Ask(
                str(entry.get("id", number)),
                data.get("image_topic", topic),
                first,
                words,
                str(entry.get("text", "")),
                not_before=first,
                every_frame=bool(entry.get("repeat", False)),
            )
        )
    return asks


def frames_of(ask: Ask, later: Sequence[Ask], frames: Sequence[Recorded]) -> list[int]:
    """Stamps of the frames that an instruction is answered on; none: it never met one.

    Args:
        later: the instructions recorded after it. frames: of its topic, in the order recorded.
    """
    newest = bisect.bisect_right([f.at for f in frames], ask.at) - 1
    end = next((other.at for other in later if other.id == ask.id), None)
    fitting = [
        f.stamp
        for f in frames[max(0, newest) :]
        if f.stamp >= ask.not_before and (end is None or f.at < end)
    ]
    return fitting if ask.every_frame else fitting[:1]


def answered(
    asks: Sequence[Ask], frames: dict[str, list[Recorded]]
) -> tuple[list[tuple[Ask, int]], list[str]]:
    """Each instruction with each frame that it is about, and what is wrong with the others.

    Args:
        frames: of every topic that an instruction means.
    """
    pairs: list[tuple[Ask, int]] = []
    problems = []
    for number, ask in enumerate(asks):
        if ask.cancel:
            continue
        if not ask.text and not ask.expressions:
            problems.append(f"instruction {ask.id!r} at {ask.at} ns: neither text nor expressions")
            continue
        stamps = frames_of(ask, asks[number + 1 :], frames.get(ask.topic, []))
        if not stamps:
            problems.append(
                f"instruction {ask.id!r} at {ask.at} ns: no frame of {ask.topic} to answer it on"
            )
        pairs += [(ask, stamp) for stamp in stamps]
    return pairs, problems
