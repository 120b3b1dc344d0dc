"""The node's own overhead per answer: from an image's bytes to the engine, and back to bytes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from rclpy.serialization import deserialize_message, serialize_message
from sensor_msgs.msg import Image

from gsva_ros.conversions import fill_image, to_rgb
from gsva_ros.masks import Region
from gsva_ros.msg import Provenance, Segmentation
from gsva_ros.serving.requests import CameraFrame, Decision, Outcome, Request, Result

from .answers import segmentation

#: Masks per answer, and the height and width of each as a fraction of the image's.
MASKS, SHARE = 8, 0.3


def steps(rgb: np.ndarray) -> dict[str, Callable[[], Any]]:
    """The processing steps of an image (uint8 [H, W, 3]) and its answer, by name."""
    pictures = {
        encoding: fill_image(Image(), pixels, encoding)
        for encoding, pixels in (("rgb8", rgb), ("bgr8", rgb[..., ::-1]))
    }
    arrived = serialize_message(pictures["bgr8"])
    result = answered(rgb)
    message = segmentation(result, Provenance(), 0)
    return {
        "message from bytes (rclpy)": lambda: deserialize_message(arrived, Image),
        "rgb8 to the engine": lambda: to_rgb(pictures["rgb8"]),
        "bgr8 to the engine": lambda: to_rgb(pictures["bgr8"]),
        f"message of {MASKS} masks": lambda: segmentation(result, Provenance(), 0),
        "message to bytes (rclpy)": lambda: serialize_message(message),
    }


def answered(rgb: np.ndarray) -> Result:
    """An answer with `MASKS` elliptical masks, each filling its box."""
    size = [int(SHARE * n) for n in rgb.shape[:2]]
    y, x = (np.linspace(-1, 1, n) for n in size)
    crop = y[:, None] ** 2 + x**2 <= 1
    regions = [Region.within((n, n, n + size[1], n + size[0]), crop) for n in range(MASKS)]
    decisions = [
        Decision(n, f"thing {n}", Outcome.SEGMENTED, region=region)
        for n, region in enumerate(regions)
    ]
    frame = CameraFrame(Segmentation().header, 0, "image", lambda: rgb)
    return Result(Request(), decisions, frame, rgb)
