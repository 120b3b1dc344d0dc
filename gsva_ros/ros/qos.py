"""QoS profiles, one per kind of topic, so that no endpoint defines its own."""

from __future__ import annotations

from rclpy.qos import DurabilityPolicy, HistoryPolicy, QoSProfile, ReliabilityPolicy

#: Incoming camera frames: only the newest matters. Best effort is compatible with every camera
#: (sensor data), but may lose most raw frames that are larger than the transport's buffers;
#: reliable loses none, but is compatible with reliable publishers only.
IMAGES_IN = {
    name: QoSProfile(
        history=HistoryPolicy.KEEP_LAST,
        depth=1,
        reliability=reliability,
        durability=DurabilityPolicy.VOLATILE,
    )
    for name, reliability in (
        ("best_effort", ReliabilityPolicy.BEST_EFFORT),
        ("reliable", ReliabilityPolicy.RELIABLE),
    )
}

#: Incoming instructions and outgoing answers: none may be lost, even in a burst of a thousand.
RELIABLE = QoSProfile(
    history=HistoryPolicy.KEEP_LAST,
    depth=1000,
    reliability=ReliabilityPolicy.RELIABLE,
    durability=DurabilityPolicy.VOLATILE,
)

#: Calls and goals: the default depth is ten unread requests, so a larger burst would lose some.
SERVICE = RELIABLE

#: Outgoing images: reliable, hence compatible with both kinds of subscriber; only the last few are kept.
IMAGES_OUT = QoSProfile(
    history=HistoryPolicy.KEEP_LAST,
    depth=2,
    reliability=ReliabilityPolicy.RELIABLE,
    durability=DurabilityPolicy.VOLATILE,
)

#: Outgoing labels: late-joining subscribers receive the last ones too.
LATCHED = QoSProfile(
    history=HistoryPolicy.KEEP_LAST,
    depth=1,
    reliability=ReliabilityPolicy.RELIABLE,
    durability=DurabilityPolicy.TRANSIENT_LOCAL,
)
