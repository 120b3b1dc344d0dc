"""A fake engine for fault tests: finds pure colours, optionally slowly or with faults."""

import os
import time

import numpy as np

from gsva_ros.answer import Answer, ExpressionError, Rejection, Slot
from gsva_ros.asking import thresholds_of
from gsva_ros.masks import trimmed

COLOURS = {"red": (255, 0, 0), "green": (0, 255, 0), "blue": (0, 0, 255)}
#: While this file exists, no answer is finished (`harness.NodeProcess.hold`).
HOLD = os.environ.get("FAKE_HOLD", "")


class FakeEngine:
    name = "fake"
    device = "cpu"
    precision = "none"
    weights_hash = "0" * 64
    prompt_template = "none"
    rejection_threshold = 0.5
    can_reject = True

    def __init__(self, delay: float = 0.0):
        self.delay = delay
        self.encoded = 0  # frames so far
        self.released = 0
        self.most_expressions = 10**9  # more at once run out of memory
        self.hang = None  # a threading.Event that "hang" waits for

    def release(self):
        self.released += 1

    def encode(self, rgb):
        self.encoded += 1
        return rgb

    def segment(self, frame, expressions, *, joint=False, threshold=None, mask_rejected=False):
        faults = {
            i: "too many tokens"
            for i, e in enumerate(expressions)
            if e == "too long for the tokenizer"
        }
        if faults:
            raise ExpressionError("too many tokens", faults)
        time.sleep(self.delay)
        while os.path.exists(HOLD):
            time.sleep(0.005)
        if "hang" in expressions:
            if self.hang is None:
                time.sleep(3600.0)
            else:
                self.hang.wait()
        if len(expressions) > self.most_expressions or "too big" in expressions:
            raise MemoryError("device memory is spent")
        limits = thresholds_of(threshold, len(expressions), self.rejection_threshold)
        slots = [self._slot(frame, e, t) for e, t in zip(expressions, limits, strict=True)]
        # The seconds of encoding are the frame's, whoever asked first.
        return Answer(slots, timings={"encode": 7.0, "decide": 0.001})

    def ask(self, frame, text, *, threshold=None):
        words = [w for w in text.split() if w in COLOURS]
        return self.segment(frame, words, threshold=threshold)

    def _slot(self, rgb, expression, threshold):
        size = rgb.shape[:2]
        if expression == "raise":
            raise RuntimeError("this engine was told to fail")
        if expression == "not a number":
            return Slot(expression, 0.0, None, size, fault="the model's mask is not finite")
        if expression == "unmarked":
            return Slot(expression, 0.97, Rejection.EMPTY_MASK, size)
        colour = COLOURS.get(expression, (1, 2, 3))
        mask = (rgb == np.array(colour, np.uint8)).all(-1)
        # The image's first pixel is the probability of "wavering", in hundredths.
        p_seg = 0.97 if mask.any() else 0.03
        if expression == "wavering":
            p_seg, mask = rgb[0, 0, 0] / 100, np.ones(size, bool)
        if p_seg < threshold:
            return Slot(expression, p_seg, Rejection.MODEL, size)
        return Slot(expression, p_seg, None, size, trimmed(mask), 0.9)


def load(model, device, dtype):
    return FakeEngine(float(os.environ.get("FAKE_DELAY", "0")))
