"""The real node with the fake engine, which takes FAKE_DELAY seconds to load: `python slow_node.py …`."""

import os
import sys
import time

from fake_engine import FakeEngine

from gsva_ros.ros.process import run


def load(model, device, dtype):
    """The engine, after FAKE_DELAY seconds."""
    time.sleep(float(os.environ["FAKE_DELAY"]))
    return FakeEngine()


if __name__ == "__main__":
    sys.exit(run(sys.argv, loader=load))
