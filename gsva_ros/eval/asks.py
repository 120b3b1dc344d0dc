"""The frames that an instruction refers to when a bag is read instead of played.

The node's rule: a one-shot instruction is answered on the newest frame at its arrival, or on the first one
after it that is not before `not_before`; a repeated one on that frame and all that follow, until it is
cancelled or replaced.
"""

from __future__ import annotations

import bisect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, model_validator

from ..bags.ask import Ask
from ..errors import validated
from ..serving.requests import Limits
from ..serving.schedule import fits
from ..settings import read_yaml
from ..stamps import SECOND

#: Default of the node's parameter max_frame_lead.
MAX_LEAD = Limits().max_frame_lead


@dataclass(frozen=True)
class Recorded:
    """A frame: its header stamp and when the bag received it, nanoseconds."""

    stamp: int
    at: int


class _Fields(BaseModel):
    model_config = ConfigDict(extra="forbid", coerce_numbers_to_str=True)


class ScriptEntry(_Fields):
    """One instruction: text or expressions, `at` seconds after the first frame, once or repeated."""

    id: str = ""
    at: Annotated[float, Field(ge=0, le=1e9, allow_inf_nan=False)] = 0.0
    expressions: list[str] = []
    text: str = ""
    repeat: bool = False

    @model_validator(mode="after")
    def _either(self) -> ScriptEntry:
        if bool(self.text) == bool(self.expressions):
            raise ValueError("give either text or expressions")
        return self


class Script(_Fields):
    """An instruction file, in the format of config/demo.yaml."""

    bag: str = ""  # the bag that the demo plays
    truth: str = ""  # the demo's ground truth, if it is not in the bag
    image_topic: str = ""
    instructions: Annotated[list[ScriptEntry], Field(min_length=1)]


def read_script(path: Path) -> Script:
    """Read an instruction file; instructions without an id get their number as one.

    Raises:
        InputError: not an instruction file; names the file and the entry.
    """
    script = validated(Script, read_yaml(path), str(path))
    for number, entry in enumerate(script.instructions, start=1):
        entry.id = entry.id or str(number)
    return script


def read_asks(path: Path, topic: str, frames: Callable[[str], Mapping[int, int]]) -> list[Ask]:
    """Read a YAML file in the format of config/demo.yaml.

    Args:
        topic: the image topic if the file names none. frames: gives time of receipt by stamp of an image
            topic's frames; an entry's `at` counts from the first stamp, in seconds.

    Raises:
        InputError: as `read_script`.
    """
    script = read_script(path)
    topic = script.image_topic or topic
    received = frames(topic) if topic else {}
    asks = []
    for entry in script.instructions:
        first = min(received, default=0) + round(entry.at * SECOND)
        # Just before its first frame: the camera's clock may differ from that of the receipt.
        at = min((at - 1 for stamp, at in received.items() if stamp >= first), default=first)
        asks.append(
            Ask(
                entry.id,
                topic,
                at,
                tuple(entry.expressions),
                entry.text,
                not_before=first,
                every_frame=entry.repeat,
            )
        )
    return asks


def frames_of(ask: Ask, later: Sequence[Ask], frames: Sequence[Recorded]) -> list[int]:
    """Stamps of the frames that an instruction is answered on; empty if none is suitable.

    Args:
        later: the instructions recorded after it. frames: those of its topic, in recorded order.
    """
    newest = bisect.bisect_right([f.at for f in frames], ask.at) - 1
    end = next((other.at for other in later if other.id == ask.id), None)
    fitting = [
        f.stamp
        for f in frames[max(0, newest) :]
        if (end is None or f.at < end)
        and fits(ask.not_before, f.stamp, (ask.at - f.at) / SECOND, MAX_LEAD)
    ]
    return fitting if ask.every_frame else fitting[:1]


def match_frames(
    asks: Sequence[Ask], frames: dict[str, list[Recorded]]
) -> tuple[list[tuple[Ask, int]], list[str]]:
    """Each instruction with each frame that it refers to, and what is wrong with the other instructions.

    Args:
        frames: those of the image topics that instructions refer to.
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
