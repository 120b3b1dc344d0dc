"""Transforms between tf frames, if tf2_ros is installed."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rclpy.duration import Duration
from rclpy.time import Time

from gsva_ros.errors import one_line
from gsva_ros.geometry import Shape, rotation_of, signed

from .beside import Beside
from .patience import Patience

try:
    import tf2_ros
except ImportError:
    tf2_ros = None

#: Seconds to wait for a transform that has not arrived yet.
TIMEOUT = 0.1
#: Seconds that transforms are kept; tf2's 10 s are less than what a large model takes on a CPU.
KEPT = 60.0
#: Pairs of frames of which is known how often a transform was waited for in vain.
FRAMES = 100


@dataclass(frozen=True)
class Transform:
    """Maps a point p of one frame to rotation @ p + translation in another. float64 [3, 3], [3], metres."""

    rotation: NDArray[np.float64]
    translation: NDArray[np.float64]

    def points(self, points: NDArray[np.float32]) -> NDArray[np.float32]:
        """Transform points, float32 [..., 3]; NaN (no point) stays NaN."""
        moved = points.astype(np.float64) @ self.rotation.T + self.translation
        return moved.astype(np.float32)

    def shape(self, shape: Shape) -> Shape:
        """Transform the result of `shape_of`, as `points` transforms the points."""
        centroid, center = (
            self.rotation @ point + self.translation for point in (shape.centroid, shape.center)
        )
        axes = signed(self.rotation @ shape.axes)
        return replace(shape, centroid=centroid, axes=axes, center=center)


class TransformError(RuntimeError):
    """A transform is not available; the message names both frames, the reason and what to do."""


class Transforms:
    """Looks up transforms at an image's stamp.

    Args:
        buffer: a tf2_ros.Buffer; None if tf2_ros is not installed.
    """

    def __init__(self, buffer: Any = None) -> None:
        self._buffer = buffer
        self._beside: Beside | None = None
        self._listener: Any = None
        # By target and source: the last ones, as a camera's frame_id may be another in each message.
        self._patience = lru_cache(FRAMES)(lambda target, source: Patience())

    @classmethod
    def create(cls) -> Transforms:
        """Create one that knows no transforms before `listen`."""
        return cls(None if tf2_ros is None else tf2_ros.Buffer(Duration(seconds=KEPT)))

    def listen(self, node: Any) -> None:
        """Listen to /tf and /tf_static from now on, beside `node`; nothing changes if it already does."""
        if self._buffer is not None and self._beside is None:
            self._beside = Beside(node, "tf", ["/tf", "/tf_static"])
            self._listener = tf2_ros.TransformListener(self._buffer, self._beside.node)
            self._beside.start()

    def close(self) -> None:
        """Stop listening."""
        if self._beside is not None:
            self._beside.close()
            self._beside = self._listener = None
            self.clear()  # tf2 interpolates over a time in which nobody listened, however long

    def clear(self) -> None:
        """Forget all transforms but the static ones.

        After the clock jumped, tf2 refuses transforms that are older than those it has, such as those of a
        bag that starts again. Its own buffer does not notice in Humble, and raises an exception in the
        first releases of Jazzy.
        """
        if self._buffer is not None:
            self._buffer.clear()

    def between(self, target: str, header: Any) -> Transform:
        """The transform from a message's frame to `target`, at the message's stamp.

        Waits for one that is on its way, but not again and again for one that does not come: whoever asks
        next would wait as well.

        Raises:
            TransformError: it is not available; names both frames.
        """
        wanted = f"no transform from {header.frame_id!r} to {target!r} at the image's stamp"
        if self._buffer is None:
            raise TransformError(f"{wanted}: tf2_ros_py is not installed")
        if not header.frame_id:
            raise TransformError(f"{wanted}: set frame_id in the camera's driver")
        frames = (target, header.frame_id)
        patience = self._patience(*frames)
        waiting = patience.left
        try:
            found = self._buffer.lookup_transform(
                *frames, Time.from_msg(header.stamp), Duration(seconds=TIMEOUT if waiting else 0.0)
            ).transform
        except Exception as error:
            if waiting:
                patience.spend()
            reason = one_line(error).rstrip(".")
            raise TransformError(
                f"{wanted}: {reason} (`ros2 run tf2_tools view_frames` draws what is published)"
            ) from error
        patience.renew()
        q, t = found.rotation, found.translation
        # tf2 refuses NaN, and makes it of what is infinite.
        if not np.isfinite([t.x, t.y, t.z]).all():
            raise TransformError(f"{wanted}: a transform on the way is infinitely far")
        return Transform(rotation_of(q.x, q.y, q.z, q.w), np.array([t.x, t.y, t.z]))
