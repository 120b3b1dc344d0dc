"""Image messages to arrays and back.

Works on any object with the fields of sensor_msgs/Image or sensor_msgs/CompressedImage (rclpy's,
rosbags'), so that bags and topics share it. Colour conversion uses cv_bridge where a ROS 2 installation
provides it, and rosbags-image elsewhere. The layout is read here: neither rejects every message with an
inconsistent layout, rosbags-image ignores `step`, and cv_bridge rounds down a step that is not a multiple
of the pixel size, and fails on big-endian messages with NumPy 2.
"""

from __future__ import annotations

import array
import io
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
from PIL import Image, UnidentifiedImageError

from . import MAX_PIXELS
from .errors import InputError, lacking, one_line

try:
    from cv_bridge import CvBridge

    _BRIDGE: Any = CvBridge()
except Exception:  # cv_bridge built for another NumPy fails in other ways than ImportError
    _BRIDGE = None

#: Readable encodings (sensor_msgs/image_encodings.hpp) and their bytes per pixel.
#: 8UC3 and the like are deliberately left out: they do not say which channel is red.
BYTES_PER_PIXEL = {
    "rgb8": 3,
    "bgr8": 3,
    "rgba8": 4,
    "bgra8": 4,
    "mono8": 1,
    "mono16": 2,
    "rgb16": 6,
    "bgr16": 6,
    "rgba16": 8,
    "bgra16": 8,
    "bayer_rggb8": 1,
    "bayer_bggr8": 1,
    "bayer_gbrg8": 1,
    "bayer_grbg8": 1,
    "bayer_rggb16": 2,
    "bayer_bggr16": 2,
    "bayer_gbrg16": 2,
    "bayer_grbg16": 2,
    "uyvy": 2,
    "yuv422": 2,
    "yuyv": 2,
    "yuv422_yuy2": 2,
}
#: Older names of the same encodings, the only ones that cv_bridge knows.
_OLDER_NAMES = {"uyvy": "yuv422", "yuyv": "yuv422_yuy2"}

#: The first bytes of a PNG file.
PNG = b"\x89PNG\r\n\x1a\n"
#: The model resizes the longer side to its input size: nothing would be left of a thinner image.
MAX_ASPECT = 100


class MessageError(InputError):
    """A message cannot be used; the text names the topic and what is wrong."""

    def __init__(self, topic: str, problem: str) -> None:
        super().__init__(f"{topic}: {problem}" if topic else problem)
        self.topic = topic
        self.problem = problem

    def __reduce__(self) -> tuple[type[MessageError], tuple[str, str]]:
        """From its arguments: pickle would give back its text alone, and a pool of processes would hang."""
        return type(self), (self.topic, self.problem)


def to_rgb(msg: Any, topic: str = "") -> np.ndarray:
    """Return the image in `msg` (Image or CompressedImage) as uint8, height x width x 3, RGB.

    The orientation is the sensor's, as `camera_info` and depth assume: EXIF rotates only TIFFs.
    The array may share the message's memory, and may be read-only: copy it before writing to it.

    Raises MessageError, naming the topic, for a message that cannot be read.
    """
    if hasattr(msg, "format"):
        return _decompress(msg, topic)
    pixels = _pixels(msg, topic)
    try:
        return np.ascontiguousarray(_convert(pixels, msg.encoding))
    except ModuleNotFoundError as error:
        raise MessageError(topic, f"{msg.encoding} {lacking(error, 'eval')}") from error
    except Exception as error:  # cv2.error and the libraries' own: all mean "cannot convert"
        size = f"{msg.width}x{msg.height}"
        problem = f"cannot convert {size} {msg.encoding} to rgb8: {one_line(error)}"
        raise MessageError(topic, problem) from error


def file_rgb(data: bytes, suffix: str) -> np.ndarray:
    """Return an image file's pixels as uint8, height x width x 3, RGB, rotated as its EXIF says.

    Raises MessageError for a file that is not an image, or that `to_rgb` would reject, too.
    """
    return _decompress(SimpleNamespace(format=suffix, data=data), "", cv2.IMREAD_COLOR)


def check_layout(msg: Any, topic: str) -> None:
    """Raise MessageError unless encoding, size, step and amount of data agree; copies nothing."""
    bytes_per_pixel = BYTES_PER_PIXEL.get(msg.encoding)
    if bytes_per_pixel is None:
        known = ", ".join(BYTES_PER_PIXEL)
        raise MessageError(
            topic, f"unknown encoding {msg.encoding!r}; those that can be read: {known}"
        )
    if msg.width == 0 or msg.height == 0:
        raise MessageError(topic, f"empty image ({msg.width}x{msg.height})")
    check_size(msg.width, msg.height, topic)
    row = msg.width * bytes_per_pixel
    if msg.step < row:
        raise MessageError(
            topic,
            f"step {msg.step} is too small: {msg.width} {msg.encoding} pixels have {row} bytes",
        )
    if len(msg.data) < msg.step * msg.height:
        raise MessageError(
            topic,
            f"{len(msg.data)} bytes of data, but step {msg.step} x height {msg.height} "
            f"({msg.encoding}) is {msg.step * msg.height}",
        )


def check_size(width: int, height: int, topic: str) -> None:
    """Raise MessageError for an image larger than any camera's, or too thin for the model."""
    if width * height > MAX_PIXELS:
        raise MessageError(topic, f"{width}x{height} pixels are not plausible")
    if max(width, height) > MAX_ASPECT * min(width, height):
        raise MessageError(
            topic,
            f"{width}x{height} is too thin: the longer side may be at most {MAX_ASPECT} times the shorter",
        )


def _pixels(msg: Any, topic: str) -> np.ndarray:
    """View the data as height x width [x channels] in native byte order, without row padding."""
    check_layout(msg, topic)
    bytes_per_pixel = BYTES_PER_PIXEL[msg.encoding]
    sample: np.dtype[Any] = np.dtype(np.uint8)
    if msg.encoding.endswith("16"):
        sample = np.dtype(">u2" if msg.is_bigendian else "<u2")
    data = np.frombuffer(msg.data, np.uint8, count=msg.step * msg.height)
    rows = data.reshape(msg.height, msg.step)[:, : msg.width * bytes_per_pixel]
    pixels = np.ascontiguousarray(rows).view(sample)
    channels = bytes_per_pixel // sample.itemsize
    if channels > 1:
        pixels = pixels.reshape(msg.height, msg.width, channels)
    return pixels.astype(sample.newbyteorder("="), copy=False)


def _convert(pixels: np.ndarray, encoding: str) -> np.ndarray:
    """Convert what `_pixels` returns to rgb8."""
    if pixels.dtype == np.uint16:
        # Rounds, like cv_bridge; rosbags-image truncates, which is half a level darker.
        pixels, encoding = cv2.convertScaleAbs(pixels, alpha=255 / 65535), f"{encoding[:-2]}8"
    if encoding == "rgb8":
        return pixels
    packed: Any = SimpleNamespace(
        height=pixels.shape[0],
        width=pixels.shape[1],
        encoding=_OLDER_NAMES.get(encoding, encoding),
        is_bigendian=0,
        step=pixels.strides[0],
        data=pixels.data,
    )
    if _BRIDGE is not None:
        return _BRIDGE.imgmsg_to_cv2(packed, "rgb8")
    from rosbags.image import message_to_cvimage

    return message_to_cvimage(packed, "rgb8")


def _decompress(
    msg: Any, topic: str, how: int = cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION
) -> np.ndarray:
    """RGB of a compressed image; how: flags of `cv2.imdecode`."""
    if len(msg.data) == 0:
        raise MessageError(topic, "empty compressed image")
    encoding, grey = _check_header(msg, topic)
    if encoding.startswith("bayer_") and grey:
        mosaic = _decoded(msg, topic, cv2.IMREAD_GRAYSCALE | cv2.IMREAD_IGNORE_ORIENTATION)
        height, width = mosaic.shape
        raw = SimpleNamespace(
            height=height,
            width=width,
            encoding=encoding.replace("16", "8"),  # as it was decoded
            is_bigendian=0,
            step=width,
            data=mosaic.tobytes(),
        )
        return to_rgb(raw, topic)
    return cv2.cvtColor(_decoded(msg, topic, how), cv2.COLOR_BGR2RGB)


def _decoded(msg: Any, topic: str, how: int) -> np.ndarray:
    data, problem = bytes(msg.data), "is damaged, or ends before the image"
    if not is_cut(data):
        try:
            pixels = cv2.imdecode(np.frombuffer(data, np.uint8), how)
        except cv2.error as error:
            problem = f"compressed image ({msg.format!r}): {one_line(error)}"
            raise MessageError(topic, problem) from error
        if pixels is not None:
            return pixels
        problem = "cannot be decoded"
    raise MessageError(topic, f"compressed image ({msg.format!r}) of {len(data)} bytes {problem}")


def is_cut(data: bytes) -> bool:
    """Whether a PNG or JPEG file ends before its image; to be asked before OpenCV decodes it."""
    return _is_cut_png(data) if data.startswith(PNG) else _is_cut_jpeg(data)


def _is_cut_png(data: bytes) -> bool:
    """Whether a chunk of a PNG file would end after the file, or none has pixels."""
    # OpenCV 5 reserves as much memory as a chunk says it is long, up to 4 GB, before it reads the chunk.
    at, kinds = len(PNG), set()
    while at < len(data) and b"IEND" not in kinds:
        kinds.add(data[at + 4 : at + 8])
        at += 12 + int.from_bytes(data[at : at + 4], "big")
    return at > len(data) or b"IDAT" not in kinds


def _is_cut_jpeg(data: bytes) -> bool:
    """Whether a JPEG file ends before its image, the rest of which older OpenCV makes up."""
    if not data.startswith(b"\xff\xd8") or data.rstrip(b"\0").endswith(b"\xff\xd9"):
        return False
    # Other data may follow the image, as a phone's video does: only decoding tells.
    try:
        with undecoded(io.BytesIO(data)) as picture:
            picture.load()
    except (UnidentifiedImageError, Image.DecompressionBombError):
        return False
    except OSError:
        return True
    return False


@contextmanager
def undecoded(file: Path | io.BytesIO) -> Iterator[Image.Image]:
    """Pillow's view of an image file, of which it decodes no pixels until it is asked to."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        with Image.open(file) as picture:
            yield picture


def _check_header(msg: Any, topic: str) -> tuple[str, bool]:
    """Check what raw images are checked for, from the format and the file's header, before decoding.

    Returns:
        The encoding before compression ("": not stated), and whether the file has one channel.
    """
    # compressed_image_transport writes "ENCODING; jpeg compressed bgr8"; others "jpeg" or "png".
    encoding, parted, how = msg.format.partition(";")
    encoding = encoding.strip() if parted else ""
    # What the camera sent does not matter if the file's channels are stated: "nv12; jpeg compressed bgr8".
    stated = how.rpartition(" ")[2] in ("bgr8", "rgb8", "bgr16", "rgb16")
    if parted and encoding not in BYTES_PER_PIXEL and not stated:
        known = ", ".join(BYTES_PER_PIXEL)
        raise MessageError(
            topic,
            f"compressed image of unknown encoding {encoding!r}; those that can be read: {known}",
        )
    try:
        with undecoded(io.BytesIO(bytes(msg.data))) as picture:
            width, height = picture.size
            grey = len(picture.getbands()) == 1 and picture.mode != "P"
    except Image.DecompressionBombError as error:
        raise MessageError(topic, f"compressed image: {error}") from error
    except Exception as error:  # Pillow's plugins raise what struct and zlib raise
        raise MessageError(
            topic,
            f"compressed image ({msg.format!r}) of {len(msg.data)} bytes has no readable header",
        ) from error
    check_size(width, height, topic)
    return encoding, grey


def mask_of(instance: Any, width: int, height: int) -> np.ndarray:
    """Return an InstanceMask's mask as bool, height x width of the whole image."""
    full = np.zeros((height, width), bool)
    roi = instance.roi
    full[roi.y_offset : roi.y_offset + roi.height, roi.x_offset : roi.x_offset + roi.width] = (
        cropped_mask(instance)
    )
    return full


def cropped_mask(instance: Any) -> np.ndarray:
    """Return an InstanceMask's mask as bool, height x width of its `roi`."""
    mask = instance.mask
    return np.frombuffer(mask.data, np.uint8).reshape(mask.height, mask.step)[:, : mask.width] > 0


def fill_image(msg: Any, pixels: np.ndarray, encoding: str) -> Any:
    """Put `pixels` (height x width [x channels], uint8 or uint16) into the Image `msg`.

    Its data becomes a NumPy array where it was one, as rosbags needs it, and else an array.array.
    """
    pixels = np.ascontiguousarray(pixels)
    msg.height, msg.width = pixels.shape[:2]
    msg.encoding = encoding
    msg.is_bigendian = 0
    if pixels.dtype.itemsize > 1:
        pixels = pixels.astype(pixels.dtype.newbyteorder("<"), copy=False)
    msg.step = pixels.nbytes // max(1, msg.height)
    data = byte_array(pixels)
    msg.data = np.asarray(data) if isinstance(getattr(msg, "data", None), np.ndarray) else data
    return msg


def byte_array(values: np.ndarray) -> array.array[int]:
    """The bytes of `values` (C-contiguous) for a message's field of type uint8[].

    rclpy accepts an array.array as it is, and checks anything else byte by byte.
    """
    data = array.array("B")
    data.frombytes(values.reshape(-1).view(np.uint8).data)
    return data
