"""Quality of service, one profile per kind of topic, so that no endpoint invents its own."""

from __future__ import annotations

from rclpy.qos import DurabilityPolicy, HistoryPolicy, QoSProfile, ReliabilityPolicy

#: Camera frames in: only the newest matters. Best effort matches every camera (sensor data), but
#: may lose most raw frames that are larger than the transport's buffers; reliable loses none, and
#: matches reliable publishers only.
IMAGE = {
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

#: Instructions in and answers out: none may be lost, also when a thousand come at once.
RELIABLE = QoSProfile(
    history=HistoryPolicy.KEEP_LAST,
    depth=1000,
    reliability=ReliabilityPolicy.RELIABLE,
    durability=DurabilityPolicy.VOLATILE,
)

#: Calls and goals: the default keeps ten that nobody has read yet, and a burst of more would lose some.
SERVICE = RELIABLE

#: Pictures out: reliable, so that both kinds of subscriber match, and only the last few are kept.
PICTURE = QoSProfile(
    history=HistoryPolicy.KEEP_LAST,
    depth=2,
    reliability=ReliabilityPolicy.RELIABLE,
    durability=DurabilityPolicy.VOLATILE,
)
