"""A camera bag: the camera moves around a few scenes, recorded as by a robot's camera driver."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from rosbags.typesys import Stores, get_typestore

from ..interfaces import whole_bag
from ..stamps import SECOND
from ..truth import Referring, write_truth
from .expressions import Expressions
from .render import Renderer, Rendering
from .scene import SceneSpec
from .sight import seen_objects, visible_scene
from .video import named_referrings, video

FRAME_ID = "camera_optical_frame"
SWING = 22.0  # degrees to either side
START_NS = SECOND
TOPIC = "/camera/image"
EXPRESSIONS = 12  # about each frame, in its truth


def swing(seed: int, frames: int, renderer: Renderer) -> Iterator[tuple[SceneSpec, Rendering]]:
    """The scene of a seed from `frames` viewpoints on an arc, there and back."""
    spec, _, _ = visible_scene(seed, renderer)
    for k in range(frames):
        turn = SWING * math.sin(2 * math.pi * k / frames)
        turned = replace(spec, azimuth=spec.azimuth + turn)
        yield turned, renderer.render(turned)


def referrings(spec: SceneSpec, view: Rendering, rng: np.random.Generator) -> list[Referring]:
    """Expressions about what the camera sees from here, with their masks."""
    things = [t for t in seen_objects(spec, view) if t.pixels]
    drawn = Expressions(things, view.instances.shape[1], rng).sample(EXPRESSIONS)
    return [
        Referring(e.text, e.category, len(e.targets), np.isin(view.instances, e.targets))
        for e in drawn
    ]


def write_bag(
    out: Path,
    seeds: Sequence[int],
    frames: int,
    rate: float,
    width: int = 640,
    height: int = 480,
    truth: Path | None = None,
    look: str = "studio",
) -> None:
    """Write a rosbag2 (mcap, zstd-compressed messages) of `frames` frames for each scene.

    Topics: /camera/image (sensor_msgs/Image, rgb8) and /camera/camera_info (sensor_msgs/CameraInfo,
    no distortion), at `rate` frames a second, in the optical frame of REP 103. `truth` gets expressions
    about every frame with their masks (`gsva_ros.truth`). `look`: a name in `render.LOOKS`.

    Raises:
        InputError: `out` exists, or rendering is impossible.
    """
    renderer = Renderer(width, height, look)
    swung = (view for seed in seeds for view in swing(seed, frames, renderer))
    views = (
        (referrings(spec, view, np.random.default_rng([spec.seed, number])), view)
        for number, (spec, view) in enumerate(swung)
    )
    _record(out, views, rate, truth)


def write_video(
    out: Path,
    seeds: Sequence[int],
    seconds: float,
    rate: float,
    width: int = 640,
    height: int = 480,
    truth: Path | None = None,
) -> None:
    """Write a bag like `write_bag`, of consecutive videos (`video.video`).

    The truth has the same expressions on every frame: those of things with a unique kind and colour.
    """
    renderer = Renderer(width, height)
    videos = (frame for seed in seeds for frame in video(seed, seconds, rate, renderer))
    _record(out, ((named_referrings(frame), frame.view) for frame in videos), rate, truth)


def _record(
    out: Path,
    views: Iterable[tuple[list[Referring], Rendering]],
    rate: float,
    truth: Path | None,
) -> None:
    types = get_typestore(Stores.ROS2_HUMBLE)
    image_type, info_type = "sensor_msgs/msg/Image", "sensor_msgs/msg/CameraInfo"
    Image, CameraInfo = types.types[image_type], types.types[info_type]
    Header = types.types["std_msgs/msg/Header"]
    Time = types.types["builtin_interfaces/msg/Time"]
    Region = types.types["sensor_msgs/msg/RegionOfInterest"]
    truths: list[tuple[int, list[Referring]]] = []
    with whole_bag(out) as writer:
        images = writer.add_connection(TOPIC, image_type, typestore=types)
        infos = writer.add_connection("/camera/camera_info", info_type, typestore=types)
        for number, (asked, view) in enumerate(views):
            stamp = START_NS + round(number * SECOND / rate)
            if asked:  # empty if no thing has a unique kind and colour
                truths.append((stamp, asked))
            height, width = view.rgb.shape[:2]
            header = Header(Time(*divmod(stamp, SECOND)), FRAME_ID)
            image = Image(header, height, width, "rgb8", 0, 3 * width, view.rgb.reshape(-1))
            k = view.intrinsics
            info = CameraInfo(
                header,
                height,
                width,
                "plumb_bob",
                np.zeros(5),
                k.reshape(-1),
                np.eye(3).reshape(-1),
                np.hstack([k, np.zeros((3, 1))]).reshape(-1),
                0,
                0,
                Region(0, 0, 0, 0, False),
            )
            writer.write(images, stamp, types.serialize_cdr(image, image_type))
            writer.write(infos, stamp, types.serialize_cdr(info, info_type))
        if truth is not None:  # before the bag, which would be in the next run's way
            write_truth(truth, TOPIC, truths)
