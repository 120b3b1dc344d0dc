"""Plays a bag's cameras and instructions at the recorded speed; does not need rosbag2."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import rclpy
from rclpy.exceptions import InvalidTopicNameException
from rclpy.node import Node
from rclpy.signals import SignalHandlerOptions
from rclpy.validate_full_topic_name import validate_full_topic_name
from rosgraph_msgs.msg import Clock
from sensor_msgs.msg import CameraInfo, CompressedImage, Image
from std_msgs.msg import String

from gsva_ros.arguments import Parser, patience, rate
from gsva_ros.bags.bag import Bag
from gsva_ros.errors import one_line
from gsva_ros.msg import Instruction
from gsva_ros.programs.signals import end_alike
from gsva_ros.ros import qos
from gsva_ros.ros.start import init, own_arguments
from gsva_ros.stamps import SECOND, fill

TYPES = {
    "sensor_msgs/msg/Image": (Image, qos.IMAGES_OUT),
    "sensor_msgs/msg/CompressedImage": (CompressedImage, qos.IMAGES_OUT),
    "sensor_msgs/msg/CameraInfo": (CameraInfo, qos.IMAGES_OUT),
    "gsva_ros/msg/Instruction": (Instruction, qos.RELIABLE),
    "std_msgs/msg/String": (String, qos.RELIABLE),
}
CLOCK_PERIOD = 0.025  # seconds of wall time, the default of `ros2 bag play --clock`


class Player(Node):
    """Publishes the messages of a bag, as they were published, under their topics' names.

    Instructions and the clock come from a second DDS participant, as on a robot, where camera and planner
    are two processes. A participant has 512 KiB of Fast DDS's shared memory by default: a larger image
    evicts unread messages, and a lost instruction is resent only with the writer's next heartbeat, up to
    3 s later.

    Args:
        apart: an initialised context for the second participant.
    """

    def __init__(self, bag: Path, apart: rclpy.Context, clock: bool, **kwargs: Any) -> None:
        super().__init__("gsva_player", **kwargs)
        self._bag = bag
        self._requests = rclpy.create_node("gsva_player_requests", context=apart)
        self._time = self._requests.create_publisher(Clock, "/clock", 10) if clock else None

    def play(self, rate: float, wait: float) -> int:
        """Wait at most `wait` seconds for subscribers, play, and return the number of messages."""
        with Bag(self._bag) as bag:
            kinds = {t: k for t, k in bag.topics.items() if k in TYPES and self._is_valid(t)}
            if not kinds:
                raise ValueError(f"{self._bag}: no instructions, and {bag.image_choice}")
            publishers = {}
            for topic, name in kinds.items():
                kind, profile = TYPES[name]
                node = self if profile is qos.IMAGES_OUT else self._requests
                publishers[topic] = node.create_publisher(kind, topic, profile)
            # One of the images is enough: the others may be depth, or the same ones compressed.
            images = [publishers[topic] for topic in kinds if kinds[topic].endswith("Image")]
            asks = [[publishers[topic]] for topic in kinds if kinds[topic].endswith("Instruction")]
            self._wait([images, *asks] if images else asks, wait)
            messages = bag.raw(lambda c: kinds.get(c.topic) == c.msgtype)
            count = self._play(messages, publishers, rate)
            for problem in bag.problems:
                self.get_logger().warning(one_line(problem))
            return count

    def _is_valid(self, topic: str) -> bool:
        """Whether a topic can be published under the name that it was recorded with; told if not."""
        try:
            validate_full_topic_name(topic)
        except InvalidTopicNameException as error:
            reason = str(error).splitlines()[0]
            self.get_logger().warning(f"{self._bag}: {topic} is not played: {reason}")
            return False
        return True

    def _wait(self, needed: Sequence[Sequence[Any]], seconds: float) -> None:
        """Wait until one publisher of each group has a subscriber."""
        end = time.monotonic() + seconds
        while rclpy.ok(context=self.context) and (
            missing := [g for g in needed if not any(p.get_subscription_count() for p in g)]
        ):
            if time.monotonic() > end:
                topics = ", ".join(p.topic_name for group in missing for p in group)
                self.get_logger().warning(f"no subscriber on {topics}; playing anyway")
                return
            time.sleep(0.05)
        # The subscriber may not have matched yet, and best effort would lose the first frames.
        time.sleep(0.5)

    def _play(self, messages: Any, publishers: dict[str, Any], rate: float) -> int:
        count = 0
        begin = first = None
        for connection, stamp, raw in messages:
            if first is None:
                begin, first = time.monotonic(), stamp
            self._pass_time(begin + (stamp - first) / SECOND / rate, stamp, rate)
            if not rclpy.ok(context=self.context):
                break
            publishers[connection.topic].publish(bytes(raw))
            count += 1
        time.sleep(0.5)  # let the last messages be sent before the publishers are destroyed
        return count

    def _pass_time(self, until: float, stamp: int, rate: float) -> None:
        """Sleep until `until` (monotonic), when bag time is `stamp`; publish /clock meanwhile."""
        while self._time is not None and rclpy.ok(context=self.context):
            rest = max(0.0, until - time.monotonic())
            now = stamp - round(rest * rate * SECOND)
            msg = Clock()
            fill(msg.clock, now)
            self._time.publish(msg)
            if rest == 0.0:
                return
            time.sleep(min(rest, CLOCK_PERIOD))
        time.sleep(max(0.0, until - time.monotonic()))


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point of `ros2 run gsva_ros gsva_player`."""
    argv = list(sys.argv if argv is None else argv)
    parser = Parser(prog="gsva_player", description=__doc__)
    parser.add_argument(
        "bag", type=Path, help="rosbag2 folder, or one of its files (sqlite3 or mcap)"
    )
    parser.add_argument(
        "--rate", type=rate, default=1.0, help="playback speed, relative to the recording"
    )
    parser.add_argument(
        "--wait", type=patience, default=30.0, help="seconds to wait for a subscriber"
    )
    parser.add_argument("--clock", action="store_true", help="publish /clock, for use_sim_time")
    args = own_arguments(parser, argv)
    apart = rclpy.Context()
    try:
        # rclpy's handlers would not end the sleep until the next message.
        init(args=argv, signal_handler_options=SignalHandlerOptions.NO)
        init(args=argv, context=apart)
        end_alike()
        player = Player(args.bag, apart, args.clock)
        count = player.play(args.rate, args.wait)
        player.get_logger().info(f"played {count} messages of {args.bag}")
    except KeyboardInterrupt:
        return 130
    except Exception as error:
        print(f"gsva_player: {error}", file=sys.stderr)
        return 1
    finally:
        apart.try_shutdown()
        rclpy.try_shutdown()
    return 0
