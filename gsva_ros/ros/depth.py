"""A camera's depth images and intrinsics: which belong to a frame, and the messages as arrays.

It knows no masks; `instances_3d` puts the two together.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from itertools import pairwise
from statistics import median_low

import numpy as np
from sensor_msgs.msg import CameraInfo, Image

from gsva_ros.conversions import MessageError
from gsva_ros.geometry import to_metres
from gsva_ros.stamps import SECOND, nanoseconds

from .patience import AGAIN, Patience

#: Recent depth images kept to choose from: one second at 30 Hz.
KEPT = 30
#: Frames whose depth is kept until their answers are published: the most recently held ones.
HELD = 8
_TYPES = {"16UC1": "u2", "mono16": "u2", "32FC1": "f4"}


class DepthBuffer:
    """Depth images and camera_info of one camera; thread-safe.

    Keeps the last `KEPT` depth images to choose from, and in addition the one that `hold` chose for each
    frame being answered, however long the answer takes.

    Args:
        depth, info: the topics, for errors.
    """

    def __init__(self, depth: str, info: str) -> None:
        self._topics = depth, info
        self._changed = threading.Condition()
        self._images: deque[Image] = deque(maxlen=KEPT)
        self._held: dict[int, Image | None] = {}  # by the frame's stamp, most recently held last
        self._info: CameraInfo | None = None
        self._patience = Patience()
        self._heard = float("-inf")  # seconds, when the last depth image was received

    def add_depth(self, msg: Image) -> None:
        """Keep a depth image, also for held frames whose current match is further away in time."""
        stamp, now = nanoseconds(msg.header.stamp), time.monotonic()
        with self._changed:
            self._images.append(msg)
            # Depth that arrives all the time, but too late or too far away, does not end waits. Nor does
            # any without camera_info.
            if self._info is not None and now - self._heard > AGAIN:
                self._patience.renew()
            self._heard = now
            for picture, best in self._held.items():
                if best is None or abs(stamp - picture) < abs(_stamp(best) - picture):
                    self._held[picture] = msg
            self._changed.notify_all()

    def hold(self, stamp: int) -> None:
        """Keep the depth nearest to a frame stamped `stamp` nanoseconds, which is being answered."""
        with self._changed:
            self._held.pop(stamp, None)
            self._held[stamp] = self._nearest(stamp)
            while len(self._held) > HELD:
                del self._held[next(iter(self._held))]

    def add_info(self, msg: CameraInfo) -> None:
        """Keep the newest camera_info."""
        with self._changed:
            # Only the first one resets the count: a camera that sends no depth sends camera_info, too.
            if self._info is None:
                self._patience.renew()
            self._info = msg
            self._changed.notify_all()

    def forget(self) -> None:
        """Discard all depth images: they are of another time than the frames to come."""
        with self._changed:
            self._images.clear()
            self._held.clear()

    def beside(
        self, stamp: int, tolerance: float, wait: float
    ) -> tuple[Image, CameraInfo, float] | None:
        """Depth image (held or recent), camera_info and offset in seconds for a frame.

        Args:
            tolerance: the largest accepted offset, seconds. wait: seconds to wait for a late depth image,
                or for a nearer one that is due, with `Patience`.

        Returns:
            None if no depth image arrives in time, or there is no camera_info: see `missing`.
        """
        with self._changed:
            waiting = self._patience.left
            if self._changed.wait_for(
                lambda: not self.missing(stamp, tolerance) and not self._nearer_is_due(stamp),
                wait if waiting else 0.0,
            ):
                self._patience.renew()
            elif waiting:
                self._patience.spend()
            if self.missing(stamp, tolerance):
                return None
            image, info = self._best(stamp), self._info
        assert image is not None
        assert info is not None
        return image, info, (_stamp(image) - stamp) / SECOND

    def missing(self, stamp: int, tolerance: float) -> str:
        """What a frame lacks for 3D points ("": nothing); arguments as those of `beside`."""
        with self._changed:
            image, info = self._best(stamp), self._info
        if image is None:
            return f"no depth image on {self._topics[0]}"
        if info is None:
            return f"no camera_info on {self._topics[1]}"
        offset = abs(_stamp(image) - stamp) / SECOND
        if offset > tolerance:
            where = f"the nearest image on {self._topics[0]}"
            return f"{where} is {offset:.3g} s away (depth_tolerance {tolerance:g})"
        return ""

    def _nearer_is_due(self, stamp: int) -> bool:
        """Whether the next depth image, judging by the recent ones, will be nearer to a frame.

        One after the frame must be nearer by more than the time that it still takes.
        """
        best, stamps = self._best(stamp), sorted({_stamp(image) for image in self._images})
        if best is None or len(stamps) < 2:
            return False
        # Neither the mean nor the smallest distance: images get lost, and some are stamped in a burst.
        due = stamps[-1] + median_low(later - earlier for earlier, later in pairwise(stamps))
        return max(stamp - due, 2 * (due - stamp)) < abs(_stamp(best) - stamp)

    def _best(self, stamp: int) -> Image | None:
        return self._held.get(stamp) or self._nearest(stamp)

    def _nearest(self, stamp: int) -> Image | None:
        """The recent depth image nearest to a frame in time; of several, the last received.

        Where nothing is stamped, all are as near.
        """
        return min(reversed(self._images), key=lambda m: abs(_stamp(m) - stamp), default=None)


def _stamp(msg: Image) -> int:
    return nanoseconds(msg.header.stamp)


def is_distorted(info: CameraInfo, topic: str) -> bool:
    """Whether a topic's images have lens distortion, which displaces points computed from intrinsics."""
    return not _rectified(topic) and bool(np.any(info.d))


def _rectified(topic: str) -> bool:
    return "/image_rect" in topic


def intrinsics_of(info: CameraInfo, width: int, height: int, topic: str) -> np.ndarray:
    """Intrinsics [3, 3] of an image, adjusted to the binning and region of interest in camera_info.

    They are K, or those in P if the topic's name (`image_rect`) says that the image is rectified.

    Args:
        width, height: the image's. topic: its topic.

    Raises:
        MessageError: the camera is not calibrated, or camera_info describes an image of another size.
    """
    rectified = _rectified(topic)
    k = np.array(info.p).reshape(3, 4)[:, :3] if rectified else np.array(info.k).reshape(3, 3)
    if not (np.isfinite(k).all() and k[0, 0] > 0 and k[1, 1] > 0):
        raise MessageError(topic, "camera_info contains no focal lengths: calibrate the camera")
    roi, binning = info.roi, np.maximum((info.binning_x, info.binning_y), 1)
    whole = np.array([roi.width or info.width, roi.height or info.height])
    size = whole // binning
    # Drivers differ in how they round odd sizes when binning.
    if whole.all() and (abs(size - (width, height)) > 1).any():
        raise MessageError(
            topic,
            f"camera_info is for {size[0]}x{size[1]}, but the image is {width}x{height}: "
            "publish both at the same size",
        )
    k[:2, 2] -= roi.x_offset, roi.y_offset
    k[:2] /= binning[:, None]
    return k


def depth_of(msg: Image, topic: str) -> np.ndarray:
    """Depth in metres, float32 [H, W], NaN where it is missing.

    Raises:
        MessageError: an encoding other than REP 118's and mono16, or a layout that does not fit the data.
    """
    kind = _TYPES.get(msg.encoding)
    if kind is None:
        raise MessageError(topic, f"depth encoding {msg.encoding!r}; readable: {', '.join(_TYPES)}")
    order = ">" if msg.is_bigendian else "<"
    item = np.dtype(order + kind)
    if msg.step < msg.width * item.itemsize or len(msg.data) < msg.step * msg.height:
        raise MessageError(
            topic,
            f"{len(msg.data)} bytes with step {msg.step} are no {msg.width}x{msg.height} {msg.encoding}",
        )
    rows = np.frombuffer(msg.data, np.uint8, count=msg.step * msg.height)
    rows = rows.reshape(msg.height, msg.step)[:, : msg.width * item.itemsize]
    return to_metres(np.ascontiguousarray(rows).view(item).astype(item.newbyteorder("=")))
