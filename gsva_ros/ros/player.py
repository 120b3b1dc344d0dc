"""Plays a bag's camera topics at the pace at which they were recorded; no rosbag2 needed."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import rclpy
from rclpy.executors import ExternalShutdownException
from rclpy.node import Node
from rclpy.utilities import remove_ros_args
from rosbags.rosbag2 import Reader
from sensor_msgs.msg import CameraInfo, CompressedImage, Image

from . import qos

TYPES = {
    "sensor_msgs/msg/Image": Image,
    "sensor_msgs/msg/CompressedImage": CompressedImage,
    "sensor_msgs/msg/CameraInfo": CameraInfo,
}


class Player(Node):
    """Publishes the messages of a bag, byte for byte, under their topics' names."""

    def __init__(self, bag: Path) -> None:
        super().__init__("gsva_player")
        self._bag = bag

    def play(self, rate: float, wait: float) -> int:
        """Wait until each image topic has a subscriber (at most `wait` seconds), play, count."""
        with Reader(self._bag) as reader:
            connections = [c for c in reader.connections if c.msgtype in TYPES]
            if not connections:
                raise ValueError(f"{self._bag} has no image or camera_info topic")
            publishers = {
                c.topic: self.create_publisher(TYPES[c.msgtype], c.topic, qos.PICTURE)
                for c in connections
            }
            images = [publishers[c.topic] for c in connections if "Info" not in c.msgtype]
            self._wait(images, wait)
            return self._play(reader.messages(connections), publishers, rate)

    def _wait(self, publishers: Sequence[Any], seconds: float) -> None:
        end = time.monotonic() + seconds
        while rclpy.ok() and any(p.get_subscription_count() == 0 for p in publishers):
            if time.monotonic() > end:
                self.get_logger().warning("nobody subscribes to the images; playing all the same")
                return
            time.sleep(0.05)
        # The subscriber's side may still be matching, and best effort would lose the first frames.
        time.sleep(0.5)

    def _play(self, messages: Any, publishers: dict[str, Any], rate: float) -> int:
        count = 0
        begin = first = None
        for connection, stamp, raw in messages:
            if first is None:
                begin, first = time.monotonic(), stamp
            rest = begin + (stamp - first) * 1e-9 / rate - time.monotonic()
            if rest > 0:
                time.sleep(rest)
            if not rclpy.ok():
                break
            publishers[connection.topic].publish(bytes(raw))
            count += 1
        time.sleep(0.5)  # let the last ones leave before the publishers go
        return count


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point of `ros2 run gsva_ros gsva_player`."""
    argv = list(sys.argv if argv is None else argv)
    parser = argparse.ArgumentParser(prog="gsva_player", description=__doc__)
    parser.add_argument("bag", type=Path, help="a rosbag2 folder (sqlite3 or mcap)")
    parser.add_argument("--rate", type=float, default=1.0, help="times the recorded pace")
    parser.add_argument("--wait", type=float, default=30.0, help="seconds to wait for a subscriber")
    args = parser.parse_args(remove_ros_args(argv)[1:])
    rclpy.init(args=argv)
    try:
        player = Player(args.bag)
        count = player.play(args.rate, args.wait)
        player.get_logger().info(f"played {count} messages of {args.bag}")
    except (KeyboardInterrupt, ExternalShutdownException):
        return 130
    except Exception as error:
        print(f"gsva_player: {error}", file=sys.stderr)
        return 1
    finally:
        rclpy.try_shutdown()
    return 0
