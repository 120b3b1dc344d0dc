"""A stand-in for the engine, for fault tests only: finds pure colours, slowly or not at all."""

import os
import time
from dataclasses import dataclass, field

import numpy as np

COLOURS = {"red": (255, 0, 0), "green": (0, 255, 0), "blue": (0, 0, 255)}


@dataclass
class FakeSlot:
    expression: str
    rejected: bool
    p_seg: float
    mask: np.ndarray | None = None
    box: tuple[int, int, int, int] | None = None
    predicted_iou: float = 0.0


@dataclass
class FakeAnswer:
    slots: list[FakeSlot]
    text: str = ""
    timings: dict[str, float] = field(default_factory=dict)


class ExpressionError(ValueError):
    """Named like the engine's own."""


class FakeEngine:
    name = "fake"
    device = "cpu"
    precision = "none"
    weights_hash = "0" * 64
    prompt_template = "none"
    rejection_threshold = 0.5

    def __init__(self, delay: float = 0.0):
        self.delay = delay
        self.encoded = 0  # frames so far
        self.released = 0
        self.most_expressions = 10**9  # more at once are out of memory

    def release(self):
        self.released += 1

    def encode(self, rgb):
        self.encoded += 1
        return rgb

    def segment(self, frame, expressions):
        time.sleep(self.delay)
        if len(expressions) > self.most_expressions or "too big" in expressions:
            raise MemoryError("device memory is spent")
        return FakeAnswer([self._slot(frame, e) for e in expressions], timings={"decide": 0.001})

    def ask(self, frame, text):
        return self.segment(frame, [w for w in text.split() if w in COLOURS])

    def _slot(self, rgb, expression):
        if expression == "raise":
            raise RuntimeError("this engine was told to fail")
        if expression == "too long for the tokenizer":
            raise ExpressionError("too many tokens")
        colour = COLOURS.get(expression, (1, 2, 3))
        mask = (rgb == np.array(colour, np.uint8)).all(-1)
        p_seg = 0.97 if mask.any() else 0.03
        if p_seg < self.rejection_threshold:
            return FakeSlot(expression, True, p_seg)
        ys, xs = np.nonzero(mask)
        box = (int(xs.min()), int(ys.min()), int(xs.max()) + 1, int(ys.max()) + 1)
        return FakeSlot(expression, False, p_seg, mask, box, 0.9)


def load(model, device, dtype):
    return FakeEngine(float(os.environ.get("FAKE_DELAY", "0")))
