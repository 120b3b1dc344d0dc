"""The real node with the fake engine: `python fake_node.py --ros-args ...`."""

import sys

import fake_engine

from gsva_ros.ros.process import run

if __name__ == "__main__":
    sys.exit(run(sys.argv, loader=fake_engine.load))
