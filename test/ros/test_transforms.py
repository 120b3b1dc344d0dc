"""The node and tf2, with a stand-in for tf2_ros."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import harness
import rclpy
from fake_engine import FakeEngine
from rclpy.parameter import Parameter

from gsva_ros.ros.node import GsvaNode
from gsva_ros.ros.transforms import Transforms

harness.isolate()


@contextmanager
def a_node() -> Iterator[Any]:
    """A node in this process, unconfigured."""
    rclpy.init()
    node = GsvaNode(lambda *_: FakeEngine())
    try:
        yield node
    finally:
        node.destroy_node()
        rclpy.shutdown()


class Buffer:
    """tf2's buffer, of which the calls are counted."""

    def __init__(self) -> None:
        self.cleared = 0

    def clear(self) -> None:
        self.cleared += 1


def test_a_jump_in_time_forgets_the_transforms_of_before() -> None:
    """Or tf2 refuses those of a bag that starts again until they are newer than those of the last round."""
    with a_node() as node:
        buffer = Buffer()
        node._views._transforms = Transforms(buffer)
        node.set_parameters([Parameter("use_sim_time", value=True)])
        assert buffer.cleared == 1
        node._views._transforms = Transforms()  # as without tf2_ros
        node.set_parameters([Parameter("use_sim_time", value=False)])
