"""The node's cameras: image topics, frames, depth images, and why frames are missing.

First step of a frame: a message becomes a `CameraFrame`, not yet decoded. Which of them are answered is
unknown here (`serving.schedule`).
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from functools import cache, partial
from typing import Any

from rclpy.callback_groups import MutuallyExclusiveCallbackGroup
from rclpy.qos import QoSProfile, qos_policy_name_from_kind
from sensor_msgs.msg import CameraInfo, CompressedImage, Image

try:
    from rclpy.event_handler import SubscriptionEventCallbacks
except ImportError:  # Humble
    from rclpy.qos_event import SubscriptionEventCallbacks

from gsva_ros.conversions import MessageError, to_rgb
from gsva_ros.errors import one_line
from gsva_ros.instructions import camera_named
from gsva_ros.serving.requests import BadImageError, CameraFrame
from gsva_ros.stamps import nanoseconds

from . import qos
from .depth import DepthBuffer
from .logs import short
from .parameters import ParameterError
from .picture_process import TOPICS


class Cameras:
    """Subscriptions to images, and to depth for cameras that have it.

    Args:
        offer: called with each camera frame, from any thread.
        warn: called with a problem's kind and description.
        dispose: called with functions that destroy subscriptions.

    Attributes:
        topics: the cameras' image topics, fully qualified, as in `CameraFrame.topic`.
        depth: depth buffers by image topic, while subscribed.
    """

    def __init__(
        self,
        node: Any,
        offer: Callable[[CameraFrame], None],
        warn: Callable[[str, str], None],
        dispose: Callable[..., None],
    ) -> None:
        self._node, self._offer, self._warn, self._dispose = node, offer, warn, dispose
        self.topics: list[str] = []
        self.depth: dict[str, DepthBuffer] = {}
        # As create_subscription takes them, which remaps them once more. Parallel to `topics`.
        self._names: list[str] = []
        self._depth_names: list[str] = []  # "": none
        self._pictures: list[Any] = []
        self._beside: list[Any] = []  # subscriptions to depth and camera_info
        # By image topic, its camera_info until it turns out to be latched: see `latch`.
        self._infos: dict[str, str] = {}

    @property
    def subscribed(self) -> bool:
        """Whether image subscriptions exist: between `subscribe` and `unsubscribe`."""
        return bool(self._pictures)

    def find(self) -> None:
        """Read the topics from the node's parameters.

        Raises:
            ParameterError: an invalid topic name, a duplicate camera, or more depth topics than cameras.
        """
        names = list(self._value("image_topics"))
        topics = [self._resolved("image_topics", name) for name in names]
        if self._compressed:
            # The compressed topic is next to the raw one, wherever that is remapped to.
            names = [f"{topic}/compressed" for topic in topics]
            topics = [self._resolved("image_topics", name) for name in names]
        if len(set(topics)) < len(topics):
            named = ", ".join(topics)
            raise ParameterError(
                f"parameter image_topics: duplicate camera ({named}); name each once"
            )
        depth = list(self._value("depth_topics"))
        for name in filter(None, depth):
            self._resolved("depth_topics", name)
        if len(depth) > len(topics):
            raise ParameterError(
                f"parameter depth_topics: {len(depth)} topics for {len(topics)} image_topics; give one "
                "per camera, '' for a camera without depth"
            )
        self.topics, self._names, self._depth_names = topics, names, depth

    def subscribe(self) -> None:
        """Create the subscriptions."""
        kind = CompressedImage if self._compressed else Image
        for number, (topic, name) in enumerate(zip(self.topics, self._names, strict=True)):
            self._pictures.append(
                self._node.create_subscription(
                    kind,
                    name,
                    partial(self._on_image, topic=topic),
                    qos.IMAGES_IN[self._value("image_reliability")],
                    # A callback group per camera: a burst of instructions must not delay frames.
                    callback_group=MutuallyExclusiveCallbackGroup(),
                    event_callbacks=SubscriptionEventCallbacks(
                        incompatible_qos=partial(self._on_incompatible, topic=topic)
                    ),
                )
            )
            if number < len(self._depth_names) and self._depth_names[number]:
                self._subscribe_to_depth(topic, self._depth_names[number])

    def latch(self) -> None:
        """Subscribe to what publishers keep of camera_info, if they do; call this about once a second.

        Some publish it once (durability transient_local), maybe before the node starts. A publisher of any
        other durability, as most have, would warn of such a subscription, which never gets its messages.
        """
        for image, info in list(self._infos.items()):
            publishers = self._node.get_publishers_info_by_topic(info)
            if any(p.qos_profile.durability is qos.LATCHED.durability for p in publishers):
                self._listen(CameraInfo, info, self.depth[image].add_info, qos.LATCHED)
                del self._infos[image]

    def unsubscribe(self) -> None:
        """Destroy the subscriptions; what callbacks still running deliver is discarded."""
        subscriptions = [*self._pictures, *self._beside]
        self._pictures.clear()
        self._beside.clear()
        self._infos.clear()
        self.depth.clear()
        self._dispose(*(partial(self._node.destroy_subscription, s) for s in subscriptions))

    def named(self, name: str) -> tuple[str, str]:
        """The image topic that a client's name refers to, and what is wrong with it ("": nothing).

        It may be the topic's full name, as `ros2 topic list` shows it, or a name that is remapped to it.
        """
        if not name:
            return "", ""
        resolved = ""
        with suppress(Exception):  # rcl's error has no public name; no camera has an invalid name
            resolved = self._node.resolve_topic_name(name)
        if topic := camera_named(name, self.topics) or camera_named(resolved, self.topics):
            return topic, ""
        return name, f"no camera {short(name)}; image_topics: {', '.join(self.topics)}"

    def frame(self, msg: Any, topic: str) -> CameraFrame:
        """Wrap an image message, to be decoded on demand, once for all who need it."""
        stamp = nanoseconds(msg.header.stamp)

        def keep() -> None:
            if buffer := self.depth.get(topic):
                buffer.hold(stamp)

        @cache
        def decode() -> Any:
            try:
                return to_rgb(msg, topic)
            except MessageError as error:
                raise BadImageError(str(error)) from error

        return CameraFrame(msg.header, stamp, topic, decode, keep=keep, size=len(msg.data))

    def silence(self, topic: str, seconds: float) -> str:
        """Explain why an instruction has waited `seconds` for a frame from a camera."""
        kind = _type_name(CompressedImage if self._compressed else Image)
        name = self._names[self.topics.index(topic)]  # which is remapped once more
        published = [p.topic_type for p in self._node.get_publishers_info_by_topic(name)]
        message = f"{topic}: an instruction has waited {seconds:.0f} s for a frame"
        if kind in published:
            return (
                f"{message}; the topic has {published.count(kind)} publisher(s), but no frame arrives, or "
                f"none is recent enough (not_before, max_frame_age, max_frame_lead){self._lossy}"
            )
        if published:
            return f"{message}; {self._instead(sorted(set(published)))}"
        own = [self._node.resolve_topic_name(topic) for topic in TOPICS]  # no camera's
        others = [
            name
            for name, kinds in self._node.get_topic_names_and_types()
            if kind in kinds and name not in own and self._node.count_publishers(name)
        ]
        return (
            f"{message}; it has no publisher; published image topics: {', '.join(others) or 'none'}"
        )

    # How

    @property
    def _compressed(self) -> bool:
        return bool(self._value("image_transport") == "compressed")

    @property
    def _lossy(self) -> str:
        """What may lose frames on their way, and what to do; "": nothing."""
        if self._compressed or self._value("image_reliability") == "reliable":
            return ""
        return (
            "; best effort loses large raw frames: set image_transport to compressed, or "
            "image_reliability to reliable if the camera publishes reliably"
        )

    def _instead(self, published: list[str]) -> str:
        """What a topic has instead of the images that the node expects, and what to do."""
        what = f"it is published as {', '.join(published)}"
        if self._compressed and _type_name(Image) in published:
            return f"{what}: set image_transport to raw"
        if not self._compressed and _type_name(CompressedImage) in published:
            return f"{what}: set image_transport to compressed, and name the camera without /compressed"
        return f"{what}, which is no image"

    def _value(self, name: str) -> Any:
        return self._node.get_parameter(name).value

    def _resolved(self, parameter: str, topic: str) -> str:
        try:
            return str(self._node.resolve_topic_name(topic))
        except Exception as error:  # rcl's errors share no base class
            message = one_line(error)
            raise ParameterError(
                f"parameter {parameter}: {topic!r} is not a valid topic name: {message}"
            ) from error

    def _subscribe_to_depth(self, image: str, depth: str) -> None:
        info = image.removesuffix("/compressed").rsplit("/", 1)[0] + "/camera_info"
        resolved = self._node.resolve_topic_name
        buffer = self.depth[image] = DepthBuffer(resolved(depth), resolved(info))
        self._listen(Image, depth, buffer.add_depth)
        self._listen(CameraInfo, info, buffer.add_info)
        self._infos[image] = info

    def _listen(
        self,
        kind: type,
        topic: str,
        keep: Callable[[Any], None],
        profile: QoSProfile = qos.IMAGES_IN["best_effort"],
    ) -> None:
        group = MutuallyExclusiveCallbackGroup()
        self._beside.append(
            self._node.create_subscription(kind, topic, keep, profile, callback_group=group)
        )

    def _on_image(self, msg: Any, topic: str) -> None:
        self._offer(self.frame(msg, topic))

    def _on_incompatible(self, event: Any, topic: str) -> None:
        self._warn(
            f"quality of service {topic}",
            f"{topic}: a publisher's QoS is incompatible, so its frames do not arrive "
            f"({qos_policy_name_from_kind(event.last_policy_kind)}): set image_reliability to "
            "best_effort, or make the publisher reliable",
        )


def _type_name(kind: type) -> str:
    return f"sensor_msgs/msg/{kind.__name__}"
