"""What `gsva_view` takes for a camera."""

from __future__ import annotations

import harness
import numpy as np
from sensor_msgs.msg import Image

from gsva_ros.conversions import fill_image
from gsva_ros.programs.watcher import Camera, Watcher

harness.isolate()


def test_a_thermal_camera_is_shown() -> None:
    """Its images are mono16; depth images are told by their encodings (REP 118)."""
    watcher = Watcher("/test/nobody")
    try:
        for encoding in ("mono16", "16UC1"):
            topic = f"/{encoding}"
            watcher._cameras[topic] = Camera()
            pixels = np.full((6, 8), 30_000, np.uint16)
            watcher._on_frame(topic, fill_image(Image(), pixels, encoding))
        assert watcher.cameras() == ["/mono16"]
        rgb, _ = watcher.newest("/mono16")
        assert rgb is not None
        assert rgb.shape == (6, 8, 3)
    finally:
        watcher.close()
