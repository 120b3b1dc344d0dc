"""A client that watches a node: its cameras' newest frames, its answers drawn on them, and its health.

It publishes instructions and otherwise only subscribes. Overlays are drawn here and not requested from the
node, which draws them only for subscribers: watching costs the node no time.
"""

from __future__ import annotations

import math
import threading
import time
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import rclpy
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from numpy.typing import NDArray
from rclpy.context import Context
from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor
from rclpy.node import Node
from rclpy.qos import QoSProfile, ReliabilityPolicy
from rclpy.topic_endpoint_info import TopicEndpointInfo
from sensor_msgs.msg import CompressedImage, Image

from gsva_ros.conversions import MessageError, to_rgb
from gsva_ros.instructions import camera_named
from gsva_ros.msg import Instruction, Segmentation
from gsva_ros.overlay import fitted, poster
from gsva_ros.ros import qos
from gsva_ros.ros.answers import outcome_name, targets_in
from gsva_ros.ros.pending import delivered
from gsva_ros.ros.start import init
from gsva_ros.stamps import SECOND, nanoseconds

KINDS = {"sensor_msgs/msg/Image": Image, "sensor_msgs/msg/CompressedImage": CompressedImage}
LEVELS = {
    DiagnosticStatus.OK: "OK",
    DiagnosticStatus.WARN: "WARN",
    DiagnosticStatus.ERROR: "ERROR",
    DiagnosticStatus.STALE: "STALE",
}
#: Encodings of depth images (REP 118), which are not shown. mono16 is shown: thermal cameras use it.
DEPTH = ("16UC1", "32FC1")
#: A camera's frames are held for their answers: at least FRAMES, and for up to AGE seconds in HELD bytes.
FRAMES, AGE, HELD = 15, 30.0, 256 * 2**20
#: Outcomes kept for the list.
OUTCOMES = 1000
#: Characters of each text of an outcome that are kept: a node echoes the longest instruction in full.
CHARACTERS = 256
#: Pixels of the longer side of an answer's image.
LONGEST = 960
#: Seconds between two searches for cameras.
LOOK_AROUND = 1.0


@dataclass(frozen=True)
class Ended:
    """How an expression of an instruction ended.

    latency and age (of the frame) in seconds; age NaN: no frame; inf: the clocks differ. arrived: monotonic
    seconds.
    """

    instruction: str
    camera: str
    slot: int
    expression: str
    outcome: str
    detail: str
    latency: float
    age: float
    arrived: float


@dataclass
class Camera:
    """A camera's newest frames, and the last one that an answer could be drawn on, with that answer.

    frames: by stamp (nanoseconds), each with the monotonic seconds of its arrival. unseen: the last answer
    and its frame, until they are drawn. answered: the picture, the frame's stamp in seconds, its arrival.
    undrawn: the stamp of the last answer, if its frame was not held.
    """

    subscription: Any = None
    frames: dict[int, tuple[float, Any]] = field(default_factory=dict)
    depth: bool = False  # a frame showed that this is a depth topic: not offered as a camera
    unseen: tuple[Segmentation, tuple[float, Any]] | None = None
    answered: tuple[NDArray[np.uint8] | None, float, float] = None, 0.0, 0.0
    undrawn: int | None = None

    def hold(self, stamp: int, msg: Any) -> None:
        """Hold a frame, and let go of the oldest ones that are too many."""
        now = time.monotonic()
        self.frames.pop(stamp, None)  # a bag played again: the newest frame goes last
        self.frames[stamp] = now, msg
        size = sum(len(held.data) for _, held in self.frames.values())
        while len(self.frames) > FRAMES:
            oldest, (arrived, held) = next(iter(self.frames.items()))
            if size <= HELD and now - arrived <= AGE:
                return
            size -= len(held.data)
            del self.frames[oldest]


class Watcher:
    """Watches the node `name` (fully qualified) from its own thread; thread-safe."""

    def __init__(self, name: str = "/gsva", arguments: Sequence[str] | None = None) -> None:
        self.name = name if name.startswith("/") else f"/{name}"
        self._context = Context()
        init(args=list(arguments or []), context=self._context)
        namespace, _, base = self.name.rpartition("/")
        self._base, self._namespace = base, namespace or "/"
        self.node = Node("gsva_view", namespace=namespace or None, context=self._context)
        self._lock = threading.Lock()
        self._drawing = threading.Lock()  # pages draw one after the other: the newest answer last
        self._cameras: dict[str, Camera] = {}
        self._outcomes: dict[tuple[str, str, int], Ended] = {}  # the newest last
        self._health: tuple[DiagnosticStatus, float] | None = None
        self._own, self._count = uuid.uuid4().hex[:6], 0  # ids of instructions
        # Ids of those on every frame that have not ended, with the receivers of instructions at that time.
        self._repeated: dict[str, set[tuple[int, ...]]] = {}
        self._instructions = self.node.create_publisher(Instruction, "instruction", qos.RELIABLE)
        self.node.create_subscription(Segmentation, "segmentation", self._on_answer, qos.RELIABLE)
        self.node.create_subscription(DiagnosticArray, "/diagnostics", self._on_health, 10)
        self.node.create_timer(LOOK_AROUND, self._look_around)
        self._executor = SingleThreadedExecutor(context=self._context)
        self._executor.add_node(self.node)
        self._thread = threading.Thread(target=self._spin, name="gsva-view", daemon=True)
        self._thread.start()

    def _spin(self) -> None:
        try:
            self._executor.spin()
        except ExternalShutdownException:
            return

    def close(self) -> None:
        """Cancel its instructions on every frame, then shut down its ROS context and thread."""
        for name in list(self._repeated):
            self.cancel(name)
        delivered(self._instructions, 0.5)
        rclpy.try_shutdown(context=self._context)
        self._thread.join(5.0)

    # What comes in

    def _look_around(self) -> None:
        """Subscribe to the image topics that the node subscribes to, as it does; forget those of nobody."""
        try:
            found = self.node.get_subscriber_names_and_types_by_node(self._base, self._namespace)
        except Exception:  # rclpy raises NodeNameNonExistentError, and others while it shuts down
            return
        for topic, kinds in found:
            kind = next((KINDS[k] for k in kinds if k in KINDS), None)
            if kind is None:
                continue
            with self._lock:
                camera = self._cameras.setdefault(topic, Camera())
            profile = self._profile(topic)
            if camera.subscription is not None:
                if camera.subscription.qos_profile == profile:
                    continue
                self.node.destroy_subscription(camera.subscription)  # the node was restarted
            camera.subscription = self.node.create_subscription(
                kind, topic, lambda msg, t=topic: self._on_frame(t, msg), profile
            )
        # An inactive node subscribes to none, but its cameras can still be seen.
        for topic in self._cameras.keys() - dict(found).keys():
            if not self.node.count_publishers(topic):
                with self._lock:
                    gone = self._cameras.pop(topic)
                self.node.destroy_subscription(gone.subscription)

    def _profile(self, topic: str) -> QoSProfile:
        """QoS with the node's own reliability, so that the same frames are received."""
        for info in self.node.get_subscriptions_info_by_topic(topic):
            if self._is_node(info):
                reliable = info.qos_profile.reliability is ReliabilityPolicy.RELIABLE
                return qos.IMAGES_IN["reliable" if reliable else "best_effort"]
        return qos.IMAGES_IN["best_effort"]

    def _is_node(self, info: TopicEndpointInfo) -> bool:
        return (info.node_name, info.node_namespace) == (self._base, self._namespace)

    def _on_frame(self, topic: str, msg: Any) -> None:
        with self._lock:
            camera = self._cameras[topic]
            camera.depth = getattr(msg, "encoding", "") in DEPTH
            if not camera.depth:
                camera.hold(nanoseconds(msg.header.stamp), msg)

    def _on_answer(self, msg: Segmentation) -> None:
        ended = [_ended(msg, outcome) for outcome in msg.outcomes]
        stamp = nanoseconds(msg.header.stamp)
        with self._lock:
            self._list(ended)
            if not msg.image_topic:  # only an end is without a frame
                self._repeated.pop(msg.instruction_id, None)
            camera = self._cameras.get(camera_named(msg.image_topic, self._cameras))
            if camera is None or not (msg.instances or msg.rejections):
                return
            if stamp not in camera.frames:
                camera.undrawn = stamp
                return
            camera.unseen, camera.undrawn = (msg, camera.frames[stamp]), None

    def _list(self, ended: Sequence[Ended]) -> None:
        """Replace the outcomes of the same slots; one that stays the same keeps its place in the list.

        So the answers to a repeated instruction do not crowd out others.
        """
        for each in reversed(ended):
            slot = each.instruction, each.camera, each.slot
            # It ended without a frame, whichever camera it was answered on before.
            if not each.camera:
                for camera in self._cameras:
                    self._outcomes.pop((each.instruction, camera, each.slot), None)
            known = self._outcomes.get(slot, each)
            if (known.expression, known.outcome) != (each.expression, each.outcome):
                del self._outcomes[slot]
            self._outcomes[slot] = each
        while len(self._outcomes) > OUTCOMES:
            del self._outcomes[next(iter(self._outcomes))]

    def _on_health(self, msg: DiagnosticArray) -> None:
        for status in msg.status:
            if status.name.startswith(f"{self.name}:"):
                with self._lock:
                    self._health = (status, time.monotonic())

    # What goes out

    def heard(self) -> bool:
        """Whether anyone would receive an instruction now; a killed node seems to for some 20 s."""
        return self._instructions.get_subscription_count() > 0

    def ask(self, expressions: Sequence[str], text: str, camera: str, every_frame: bool) -> str:
        """Send an instruction: expressions, or a text; returns its id."""
        receivers = {tuple(info.endpoint_gid) for info in self._receivers()}
        with self._lock:
            self._count += 1
            name = f"view-{self._own}-{self._count}"
            if every_frame:
                self._repeated[name] = receivers
        msg = Instruction(id=name, expressions=list(expressions), text=text)
        msg.image_topic = camera.removesuffix("/compressed")
        msg.mode = Instruction.EVERY_FRAME if every_frame else Instruction.ONCE
        msg.header.stamp = self.node.get_clock().now().to_msg()
        self._instructions.publish(msg)
        return name

    def cancel(self, name: str) -> bool:
        """End an instruction on every frame; False: it had ended, as when the node was deactivated.

        Or the node was killed, and another started.
        """
        now = {tuple(info.endpoint_gid) for info in self._receivers() if self._is_node(info)}
        with self._lock:
            receivers = self._repeated.pop(name, None)
        if receivers is None or not now <= receivers:
            return False
        self._instructions.publish(Instruction(id=name, mode=Instruction.CANCEL))
        return True

    def _receivers(self) -> list[TopicEndpointInfo]:
        return self.node.get_subscriptions_info_by_topic(self._instructions.topic_name)

    # What is seen

    def cameras(self) -> list[str]:
        """Topics of the cameras that have sent images, or still may."""
        with self._lock:
            return sorted(topic for topic, camera in self._cameras.items() if not camera.depth)

    def newest(self, topic: str) -> tuple[NDArray[np.uint8] | None, float]:
        """A camera's newest frame, uint8 [H, W, 3], and the seconds since it arrived; None: none yet.

        Raises:
            MessageError: it cannot be read.
        """
        with self._lock:
            camera = self._cameras.get(topic)
            if camera is None or not camera.frames:
                return None, math.nan
            arrived, msg = next(reversed(camera.frames.values()))
        return to_rgb(msg, topic), time.monotonic() - arrived

    def answered(self, topic: str) -> tuple[NDArray[np.uint8] | None, float, float, float]:
        """A camera's last frame with its answer (None: none yet), its stamp, its age, and another stamp.

        In seconds: the age since it arrived, the other stamp of the last answer, if its frame was not held
        (NaN: it was).
        """
        with self._lock:
            camera = self._cameras.get(topic, Camera())
        self._draw(camera)
        with self._lock:
            undrawn = math.nan if camera.undrawn is None else camera.undrawn / SECOND
            picture, stamp, arrived = camera.answered
        return picture, stamp, time.monotonic() - arrived, undrawn

    def _draw(self, camera: Camera) -> None:
        """Draw a camera's last answer, in a page's thread: the watcher's own would lose frames by it."""
        with self._drawing:
            with self._lock:
                unseen, camera.unseen = camera.unseen, None
            if unseen is None:
                return
            msg, (arrived, frame) = unseen
            try:
                rgb = to_rgb(frame, msg.image_topic)
                picture = poster(*fitted(rgb, targets_in(msg), LONGEST))
            except (MessageError, ValueError):
                return  # the node itself reports such a frame
            with self._lock:
                camera.answered = picture, nanoseconds(msg.header.stamp) / SECOND, arrived

    def outcomes(self) -> list[Ended]:
        """The last outcome of each slot of each instruction on each camera; what is new comes first."""
        with self._lock:
            return list(reversed(self._outcomes.values()))

    def health(self) -> tuple[str, str, Mapping[str, str], float]:
        """The node's level ("": never received), message, values, and the seconds since they arrived."""
        with self._lock:
            if self._health is None:
                return "", "", {}, math.inf
            status, when = self._health
        values = {pair.key: pair.value for pair in status.values}
        return LEVELS.get(status.level, "?"), status.message, values, time.monotonic() - when


def _ended(msg: Segmentation, outcome: Any) -> Ended:
    name = outcome_name(outcome.outcome)
    age = float(msg.timings.frame_age)
    if math.isnan(age) and nanoseconds(msg.header.stamp):
        age = math.inf  # as when a bag is played
    detail = outcome.reason
    for instance in msg.instances:
        if instance.slot == outcome.slot:
            detail = f"p([SEG]) {instance.p_seg:.3f} · predicted IoU {instance.predicted_iou:.2f}"
    return Ended(
        _cut(msg.instruction_id),
        msg.image_topic,
        outcome.slot,
        _cut(outcome.expression),
        name,
        _cut(detail),
        float(msg.timings.queue + msg.timings.total),
        age,
        time.monotonic(),
    )


def _cut(text: str) -> str:
    return text if len(text) <= CHARACTERS else f"{text[:CHARACTERS]}…"
