"""An engine for tests of pages: finds areas of one colour, some colours with a lower probability."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from fake_engine import COLOURS
from rosbags.typesys import Stores, get_typestore

from gsva_ros.answer import Answer, ExpressionError, Rejection, Slot
from gsva_ros.interfaces import whole_bag
from gsva_ros.masks import trimmed

#: p([SEG]) of a present colour, by name; absent ones have ABSENT.
SURE = {"red": 0.95, "blue": 0.6}
ABSENT = 0.05


class PageEngine:
    """Counts how often it is asked. The mask of an absent colour is the image's upper left corner."""

    name, weights_hash, precision, device, prompt_template = (
        "colours",
        "0" * 64,
        "none",
        "cpu",
        "none",
    )
    rejection_threshold = 0.5
    can_reject = True

    def __init__(self) -> None:
        self.encoded = self.asked = 0

    def release(self) -> None:
        pass

    def encode(self, rgb: np.ndarray) -> np.ndarray:
        self.encoded += 1
        return rgb

    def segment(
        self,
        frame: np.ndarray,
        expressions: Sequence[str],
        *,
        joint: bool = False,
        threshold: float | None = None,
        mask_rejected: bool = False,
    ) -> Answer:
        self.asked += 1
        long = "an expression is too long: shorten it"
        if faults := {n: long for n, e in enumerate(expressions) if len(e) > 100}:
            raise ExpressionError(long, faults)
        if "memory" in expressions:
            raise MemoryError("spent")
        limit = self.rejection_threshold if threshold is None else threshold
        slots = [self._slot(frame, e, limit, mask_rejected) for e in expressions]
        said = ", ".join(f"{s.expression}: {'[REJ]' if s.rejected else '[SEG]'}" for s in slots)
        return Answer(slots, f"Sure, {said}.", {"encode": 0.01, "decide": 0.01})

    def ask(self, frame: np.ndarray, text: str, *, threshold: float | None = None) -> Answer:
        return self.segment(frame, [w for w in text.split() if w in COLOURS], threshold=threshold)

    def _slot(self, rgb: np.ndarray, expression: str, limit: float, masked: bool) -> Slot:
        size = rgb.shape[:2]
        mask = (rgb == np.array(COLOURS.get(expression, (1, 2, 3)), np.uint8)).all(-1)
        p_seg = SURE.get(expression, 0.9) if mask.any() else ABSENT
        rejected = p_seg < limit
        if rejected and not masked:
            return Slot(expression, p_seg, Rejection.MODEL, size)
        if not mask.any():
            mask[:10, :10] = True
        rejection = Rejection.MODEL if rejected else None
        return Slot(expression, p_seg, rejection, size, trimmed(mask), 0.9)


def picture() -> np.ndarray:
    """uint8 [240, 320, 3]: grey, a red and a blue block."""
    rgb = np.full((240, 320, 3), 120, np.uint8)
    rgb[40:120, 40:120] = COLOURS["red"]
    rgb[100:200, 200:280] = COLOURS["blue"]
    return rgb


def recorded(folder: Path, frames: Sequence[tuple[str, str]], silent: Sequence[str] = ()) -> Path:
    """A bag of `picture`s, one per second, by topic and claimed encoding; silent: empty topics."""
    types = get_typestore(Stores.ROS2_HUMBLE)
    kind = "sensor_msgs/msg/Image"
    Image, Header = types.types[kind], types.types["std_msgs/msg/Header"]
    Time = types.types["builtin_interfaces/msg/Time"]
    with whole_bag(folder) as writer:
        topics = dict.fromkeys([*silent, *(topic for topic, _ in frames)])
        ids = {topic: writer.add_connection(topic, kind, typestore=types) for topic in topics}
        for second, (topic, encoding) in enumerate(frames, start=1):
            data = picture().reshape(-1)
            image = Image(Header(Time(second, 0), "camera"), 240, 320, encoding, 0, 960, data)
            writer.write(ids[topic], second * 10**9, types.serialize_cdr(image, kind))
    return folder
