"""QoS profiles, one per kind of topic, so that no endpoint defines its own."""

from __future__ import annotations

from rclpy.qos import DurabilityPolicy, HistoryPolicy, QoSProfile, ReliabilityPolicy


def _last(
    depth: int,
    reliability: ReliabilityPolicy = ReliabilityPolicy.RELIABLE,
    durability: DurabilityPolicy = DurabilityPolicy.VOLATILE,
) -> QoSProfile:
    """Keeps the last `depth` messages."""
    history = HistoryPolicy.KEEP_LAST
    return QoSProfile(history=history, depth=depth, reliability=reliability, durability=durability)


#: Incoming camera frames: only the newest matters. Best effort is compatible with every camera
#: (sensor data), but may lose most raw frames that are larger than the transport's buffers;
#: reliable loses none, but is compatible with reliable publishers only.
IMAGES_IN = {"best_effort": _last(1, ReliabilityPolicy.BEST_EFFORT), "reliable": _last(1)}

#: Incoming instructions and outgoing answers: none may be lost, even in a burst of a thousand.
RELIABLE = _last(1000)

#: Calls and goals: the default depth is ten unread requests, so a larger burst would lose some.
SERVICE = RELIABLE

#: Outgoing images: reliable, hence compatible with both kinds of subscriber; only the last few are kept.
IMAGES_OUT = _last(2)

#: Labels, and camera_info from who publishes it once: late-joining subscribers receive the last ones too.
LATCHED = _last(1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
