"""The process that draws answers and publishes the images; `ros/pictures.py` starts it and feeds it.

It knows nothing of requests or models: it reads one `Shown` after the other from its standard input, until
that ends.
"""

from __future__ import annotations

import pickle
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, BinaryIO

import cv2
import numpy as np
import rclpy
from numpy.typing import NDArray
from rclpy.node import Node
from rclpy.signals import SignalHandlerOptions
from sensor_msgs.msg import CompressedImage, Image
from std_msgs.msg import Header

from gsva_ros.conversions import byte_array, fill_image
from gsva_ros.errors import one_line
from gsva_ros.overlay import Target, draw, label_image
from gsva_ros.serving.requests import Decision

from . import qos
from .pending import delivered

#: Its topics, as they are called without namespace and remapping.
TOPICS = {"overlay": Image, "overlay/compressed": CompressedImage, "label_image": Image}
#: The longest side of a JPEG that OpenCV writes, pixels.
JPEG_SIDE = 65_500
#: Seconds after its start within which subscribers are waited for: the node discovers them earlier.
DISCOVERY = 10.0


@dataclass(frozen=True)
class Setup:
    """What the process is told first.

    topics: the full name of each of `TOPICS`. arguments: a command line; its `--enclave` is used (SROS 2).
    """

    name: str
    namespace: str
    domain: int
    topics: Mapping[str, str]
    arguments: Sequence[str]


@dataclass(frozen=True)
class Shown:
    """An answer to be drawn: its image, uint8 [H, W, 3] RGB, and header, and what it decided.

    topics: those of `TOPICS` that have subscribers.
    """

    topics: Sequence[str]
    rgb: NDArray[np.uint8]
    header: Header
    decisions: Sequence[Decision]
    opacity: float


class Painter:
    """Draws answers for the topics that have subscribers.

    Args:
        publishers: one for each of `TOPICS`.
    """

    def __init__(self, publishers: Mapping[str, Any]) -> None:
        self._publishers = publishers
        self._discovered = time.monotonic() + DISCOVERY

    def publish(self, shown: Shown) -> None:
        """Draw what is subscribed to, and publish it."""
        while not all(map(self._heard, shown.topics)) and time.monotonic() < self._discovered:
            time.sleep(0.01)
        if not any(map(self._heard, TOPICS)):
            return
        targets = _targets(shown)
        overlay, compressed = self._heard("overlay"), self._heard("overlay/compressed")
        if overlay or compressed:
            picture = draw(shown.rgb, targets, shown.opacity)
            if compressed and max(picture.shape) <= JPEG_SIDE:
                self._send("overlay/compressed", _jpeg(picture), shown)
            if overlay:
                self._send("overlay", fill_image(Image(), picture, "rgb8"), shown)
        if self._heard("label_image"):
            labels = label_image(shown.rgb.shape[:2], targets)
            self._send("label_image", fill_image(Image(), labels, "mono16"), shown)

    def _heard(self, topic: str) -> bool:
        return bool(self._publishers[topic].get_subscription_count() > 0)

    def _send(self, topic: str, msg: Image | CompressedImage, shown: Shown) -> None:
        msg.header = shown.header
        self._publishers[topic].publish(msg)


def main(stream: BinaryIO | None = None) -> None:
    """Publish each picture that arrives, until the end of the stream (None: standard input)."""
    if stream is None:  # the node, which imports this module, may have none
        stream = sys.stdin.buffer
    setup: Setup = pickle.load(stream)
    rclpy.init(
        args=list(setup.arguments),
        domain_id=setup.domain,
        signal_handler_options=SignalHandlerOptions.NO,
    )
    node = Node(
        setup.name,
        namespace=setup.namespace,
        use_global_arguments=False,  # a `__node` among them is the other node's name
        enable_rosout=False,
        start_parameter_services=False,
    )
    publishers = {
        topic: node.create_publisher(kind, setup.topics[topic], qos.IMAGES_OUT)
        for topic, kind in TOPICS.items()
    }
    painter = Painter(publishers)
    while True:
        try:
            painter.publish(pickle.load(stream))
        except EOFError:
            break
        except Exception as error:  # one bad picture must not end all others
            node.get_logger().error(f"overlay: {type(error).__name__}: {one_line(error)}")
    for publisher in publishers.values():
        delivered(publisher, 0.3)
    rclpy.try_shutdown()


def _targets(shown: Shown) -> list[Target]:
    size = shown.rgb.shape[:2]
    return [
        Target(d.slot, d.expression, d.region.placed(size) if d.region else None, d.p_seg)
        for d in shown.decisions
    ]


def _jpeg(picture: NDArray[np.uint8]) -> CompressedImage:
    msg = CompressedImage(format="rgb8; jpeg compressed bgr8")
    _, data = cv2.imencode(".jpg", cv2.cvtColor(picture, cv2.COLOR_RGB2BGR))
    msg.data = byte_array(data)
    return msg
