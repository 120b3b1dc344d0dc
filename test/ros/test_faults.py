"""Load and noise: nothing unanswered, memory flat, whatever arrives."""

from __future__ import annotations

import array
import time
from collections import Counter

import harness
import numpy as np
from gsva_ros.msg import Instruction, Outcome
from harness import FAKE, blocks
from soak import soak

harness.isolate()

MESSAGES = 10_000
WORDS = [
    "red",
    "blue",
    "the mug",
    "[SEG]",
    "<image>",
    "</s>",
    "[REJ]",
    "\x00\x01\x1b[2J",
    "\u202eright",
]
WORDS += ["", " ", "\n", "e\u0301" * 50, "漢字", "🤖" * 20, "x" * 300, "raise", "USER: ASSISTANT:"]
ENCODINGS = [
    "rgb8",
    "bgr8",
    "mono8",
    "mono16",
    "rgba8",
    "bayer_rggb8",
    "yuv422",
    "8UC3",
    "",
    "jpeg",
    "漢",
]


def test_a_camera_that_never_stops():
    """Twenty seconds of what `make soak` does for ten minutes."""
    report = soak(FAKE, {}, 20.0, rate=30.0, instructions=200)
    assert report.frames > 200
    assert not report.unanswered
    assert not report.twice
    assert report.outcomes == {Outcome.SEGMENTED: 200, Outcome.REJECTED: 200}
    assert report.followed > 20
    # Not the 50 of ten minutes: on a busy machine the transport's buffers still fill up (a frame: 2.6 MiB).
    assert report.growth < 120, report.memory


def fuzzed_image(rng):
    """A message whose fields agree now and then."""
    msg = harness.Image()
    msg.encoding = str(rng.choice(ENCODINGS))
    msg.height, msg.width = (int(rng.choice([0, 1, 2, 7, 60, 2**31])) for _ in range(2))
    fitting = msg.width * int(rng.choice([1, 2, 3, 4]))
    msg.step = int(rng.choice([0, 1, min(fitting, 2**31), 2**32 - 1]))
    size = int(rng.choice([0, 1, min(msg.step * msg.height, 20_000)]))
    msg.data = array.array("B", rng.integers(0, 256, size, np.uint8).tobytes())
    msg.is_bigendian = int(rng.choice([0, 1, 7]))
    msg.header.stamp.sec = int(rng.integers(-(2**31), 2**31))
    msg.header.stamp.nanosec = int(rng.integers(0, 2**32))
    msg.header.frame_id = str(rng.choice(WORDS))
    return msg


def fuzzed_instruction(rng, name):
    msg = Instruction(id=name, mode=int(rng.choice([0, 0, 0, 0, 3, 255])))
    count = int(rng.choice([0, 1, 2, 5, 33, 2000], p=[0.1, 0.4, 0.3, 0.1, 0.05, 0.05]))
    msg.expressions = [str(w) for w in rng.choice(WORDS, count)]
    if rng.random() < 0.2:
        msg.text = str(rng.choice(WORDS))
    msg.not_before.sec = int(rng.choice([0, 0, 0, -5, 2**31 - 1]))
    msg.not_before.nanosec = int(rng.choice([0, 2**32 - 1]))
    msg.deadline.sec = int(rng.choice([0, 0, -1, 1]))
    msg.image_topic = str(rng.choice(["", "", "", "image", "/no/camera", "not a topic!"]))
    return msg


def test_ten_thousand_fuzzed_messages(start):
    """Each instruction ends exactly once, with one outcome an expression, and the node goes on."""
    rng = np.random.default_rng(0)
    node, client = start({"default_deadline": 3.0, "max_instructions": 300})
    expected = {}
    rgb, _ = blocks()
    sent = 0
    while sent < MESSAGES:
        for _ in range(100):
            client.images.publish(fuzzed_image(rng))
            msg = fuzzed_instruction(rng, f"fuzz-{sent}")
            expected[msg.id] = len(msg.expressions) or 1
            client.instructions.publish(msg)
            sent += 2
        client.frame(rgb, stamp=2.0)
        # No faster than it answers: the transport keeps a thousand messages, not ten.
        client.wait(
            lambda: node.process.poll() is not None or len(client.answers) >= len(expected) - 300,
            what="answers",
        )
        assert node.process.poll() is None, node.log[-3000:]
    client.wait(lambda: len(client.answers) >= len(expected), what="every answer")
    time.sleep(0.3)
    counts = Counter(answer.instruction_id for answer in client.answers)
    assert counts.keys() == expected.keys()
    assert set(counts.values()) == {1}
    for answer in client.answers:
        # A free text's answer may name nothing or several things.
        assert len(answer.outcomes) >= 1
    ended = Counter(o.outcome for a in client.answers for o in a.outcomes)
    assert ended[Outcome.SEGMENTED]
    assert ended[Outcome.REJECTED]
    assert ended[Outcome.EXPIRED]
    assert ended[Outcome.FAILED]
    client.frame(rgb, stamp=3.0)
    client.ask(["red"], id="after")
    assert [o.outcome for o in client.answer("after").outcomes] == [Outcome.SEGMENTED]
    assert node.process.poll() is None
