"""Broken messages are answered or reported, and the node goes on."""

import array
import itertools

import cv2
import harness
import numpy as np
import pytest
from gsva_ros.msg import Instruction, Outcome
from harness import FAKE, Client, NodeProcess, blocks, image, outcomes

from gsva_ros import conversions
from gsva_ros.conversions import BYTES_PER_PIXEL, MessageError, to_rgb
from gsva_ros.instructions import camera_named, expressions_in

harness.isolate()


def broken(**changes):
    """Return a good image message with `changes`."""
    message = image(blocks()[0])
    for name, value in changes.items():
        setattr(message, name, value)
    return message


SECONDS = itertools.count(1)
BAD_IMAGES = {
    "unknown encoding": (broken(encoding="jpg9"), "jpg9"),
    "encoding without colours": (broken(encoding="32FC1"), "32FC1"),
    "no encoding": (broken(encoding=""), "encoding"),
    "step too small": (broken(step=79), "step 79"),
    "step zero": (broken(step=0), "step 0"),
    "step too large for the data": (broken(step=100_000), "step 100000"),
    "data cut off": (broken(data=array.array("B", bytes(100))), "100 bytes"),
    "no data": (broken(data=array.array("B")), "0 bytes"),
    "no pixels": (broken(width=0, height=0, step=0, data=array.array("B")), "empty image"),
    "absurd size": (broken(width=2**31, height=2**31), "pixels"),
}


@pytest.fixture(scope="module")
def running():
    node = NodeProcess(FAKE)
    client = Client()
    client.connect(node)
    yield node, client
    client.close()
    node.close()


def shown(client, message):
    """Publish an image, stamped with a new second; return its stamp, for `not_before`."""
    message.header.stamp.sec = next(SECONDS)
    client.images.publish(message)
    return message.header.stamp


def still_works(node, client, name):
    client.ask(["red"], id=name, not_before=shown(client, broken()))
    assert outcomes(client.answer(name)) == [(Outcome.SEGMENTED, Outcome.NONE)]
    assert node.process.poll() is None


@pytest.mark.parametrize("kind", BAD_IMAGES)
def test_bad_image_is_answered_and_survived(running, kind):
    node, client = running
    message, word = BAD_IMAGES[kind]
    client.ask(["red", "green"], id=kind, not_before=shown(client, message))
    answer = client.answer(kind)
    assert outcomes(answer) == [(Outcome.FAILED, Outcome.BAD_IMAGE)] * 2
    assert word in answer.outcomes[0].reason
    assert "/test/image" in answer.outcomes[0].reason
    still_works(node, client, f"after {kind}")


@pytest.mark.parametrize("kind", BAD_IMAGES)
def test_bad_image_is_refused_in_words(kind):
    message, word = BAD_IMAGES[kind]
    with pytest.raises(MessageError, match=f"^/camera: .*{word}") as error:
        to_rgb(message, "/camera")
    assert (error.value.topic, str(error.value)) == ("/camera", f"/camera: {error.value.problem}")
    with pytest.raises(MessageError) as error:
        to_rgb(message)
    assert str(error.value) == error.value.problem


@pytest.mark.parametrize(
    ("width", "height", "word"),
    [
        (0, 60, "empty image"),
        (80, 0, "empty image"),
        (101, 1, "thin"),
        (1, 101, "thin"),
        (10_001, 10_000, "not plausible"),
        (100, 1, ""),
        (1, 100, ""),
    ],
)
def test_a_raw_picture_is_as_large_as_a_cameras(width, height, word):
    message = broken(width=width, height=height, step=3 * width, data=array.array("B", bytes(300)))
    if word:
        with pytest.raises(MessageError, match=word):
            to_rgb(message)
    else:
        assert to_rgb(message).shape == (height, width, 3)


@pytest.mark.parametrize("kind", BAD_IMAGES)
def test_bad_image_in_a_service_call(running, kind):
    _, client = running
    message, word = BAD_IMAGES[kind]
    reply = client.call(message, ["red"])
    assert not reply.success
    assert word in reply.message


@pytest.mark.parametrize(
    ("name", "fields", "code"),
    [
        ("nothing", {}, Outcome.EMPTY_INSTRUCTION),
        ("blank", {"expressions": ["  "]}, Outcome.EMPTY_INSTRUCTION),
        ("blank text", {"text": " \t"}, Outcome.EMPTY_INSTRUCTION),
        ("both", {"expressions": ["red"], "text": "red"}, Outcome.INVALID_INSTRUCTION),
        ("too long", {"expressions": ["x" * 5000]}, Outcome.INVALID_INSTRUCTION),
        ("too many", {"expressions": ["red"] * 200}, Outcome.INVALID_INSTRUCTION),
        ("mode", {"expressions": ["red"], "mode": 77}, Outcome.INVALID_INSTRUCTION),
    ],
)
def test_bad_instruction_fails_at_once(running, name, fields, code):
    node, client = running
    expressions = fields.pop("expressions", [])
    client.ask(expressions, id=name, **fields)
    answer = client.answer(name)
    assert outcomes(answer) == [(Outcome.FAILED, code)] * max(1, len(expressions))
    still_works(node, client, f"after {name}")


def test_one_bad_expression_does_not_spoil_the_others(running):
    _, client = running
    words = ["red", "", "x" * 5000, "blue"]
    client.ask(words, id="mixed", not_before=shown(client, broken()))
    assert outcomes(client.answer("mixed")) == [
        (Outcome.SEGMENTED, Outcome.NONE),
        (Outcome.FAILED, Outcome.EMPTY_INSTRUCTION),
        (Outcome.FAILED, Outcome.INVALID_INSTRUCTION),
        (Outcome.REJECTED, Outcome.NONE),
    ]
    rgb, _ = blocks()
    reply = client.call(rgb, words)
    assert reply.success, "some were answered"
    assert reply.message.startswith("'': an empty expression; 'xxx")
    assert reply.message.endswith("5000 characters, at most 256 are allowed")
    assert not client.call(rgb, words[1:3]).success


def test_an_engine_that_raises_is_an_answer(running):
    node, client = running
    client.ask(["raise"], id="raise", not_before=shown(client, broken()))
    assert outcomes(client.answer("raise")) == [(Outcome.FAILED, Outcome.INTERNAL)]
    client.ask(["too long for the tokenizer"], id="tokens")
    assert outcomes(client.answer("tokens")) == [(Outcome.FAILED, Outcome.INVALID_INSTRUCTION)]
    client.ask(text="nothing of the kind", id="no slot")
    assert outcomes(client.answer("no slot")) == [(Outcome.FAILED, Outcome.NO_SLOT)]
    still_works(node, client, "after raise")


def test_odd_words_are_words(running):
    node, client = running
    words = ["[SEG]", "<image>", "</s>", "naïve 茶碗 🍎", "a\x01b\x07", "'; drop table --", "%s {}"]
    client.ask(words, id="odd", not_before=shown(client, broken()))
    answer = client.answer("odd")
    assert [o.expression for o in answer.outcomes] == words
    assert {o.outcome for o in answer.outcomes} == {Outcome.REJECTED}
    client.ask(id="unknown id", mode=Instruction.CANCEL)
    still_works(node, client, "after odd")


def test_problems_show_in_diagnostics(running):
    _, client = running
    client.ask(["red"], text="green", id="broken")
    client.answer("broken")

    def warned():
        status = client.status()
        return status and status.level == b"\x01" and "either text or" in status.message

    client.wait(warned, what="a warning in /diagnostics")


@pytest.mark.parametrize("encoding", ["rgb8", "bgr8", "rgba8", "bgra8", "mono8"])
@pytest.mark.parametrize("padding", [0, 5])
def test_encodings_and_row_padding(encoding, padding):
    """Every colour encoding gives the same picture, with and without bytes at the rows' ends."""
    rgb, _ = blocks()
    alpha = np.full((*rgb.shape[:2], 1), 255, np.uint8)
    pixels = {
        "rgb8": rgb,
        "bgr8": rgb[..., ::-1],
        "rgba8": np.concatenate([rgb, alpha], -1),
        "bgra8": np.concatenate([rgb[..., ::-1], alpha], -1),
        "mono8": rgb[..., :1],
    }[encoding]
    rows = pixels.reshape(pixels.shape[0], -1)
    rows = np.pad(rows, ((0, 0), (0, padding)), constant_values=77)
    message = broken(encoding=encoding, step=rows.shape[1], data=array.array("B", rows.tobytes()))
    wanted = np.repeat(rgb[..., :1], 3, -1) if encoding == "mono8" else rgb
    assert np.array_equal(to_rgb(message), wanted)


#: Bytes of a pixel (sensor_msgs/image_encodings.hpp).
SIZES = {
    "mono8": 1,
    "mono16": 2,
    "rgb8": 3,
    "bgr8": 3,
    "rgba8": 4,
    "bgra8": 4,
    "rgb16": 6,
    "bgr16": 6,
    "rgba16": 8,
    "bgra16": 8,
}
MOSAICS = ("bayer_rggb", "bayer_bggr", "bayer_gbrg", "bayer_grbg")
SIZES |= {f"{mosaic}{bits}": bits // 8 for mosaic in MOSAICS for bits in (8, 16)}
SIZES |= dict.fromkeys(("uyvy", "yuyv", "yuv422", "yuv422_yuy2"), 2)


def test_no_encoding_is_left_untried():
    assert SIZES.keys() == BYTES_PER_PIXEL.keys()


@pytest.mark.parametrize("encoding", SIZES)
def test_every_camera_encoding_gives_a_picture_of_the_right_size(encoding):
    step = 80 * SIZES[encoding]
    data = array.array("B", bytes([128]) * step * 60)
    picture = to_rgb(broken(encoding=encoding, step=step, data=data))
    assert picture.shape == (60, 80, 3)
    assert picture.dtype == np.uint8
    assert np.ptp(picture) <= 3  # grey everywhere
    with pytest.raises(MessageError, match=f"step {step - 1} is too small"):
        to_rgb(broken(encoding=encoding, step=step - 1, data=data))


#: What cv_bridge's colour conversion knows of the tried encodings, with their channels.
BRIDGE = {
    "bgr8": (3, cv2.COLOR_BGR2RGB),
    "rgba8": (4, cv2.COLOR_RGBA2RGB),
    "bgra8": (4, cv2.COLOR_BGRA2RGB),
    "mono8": (1, cv2.COLOR_GRAY2RGB),
    "yuv422": (2, cv2.COLOR_YUV2RGB_UYVY),
    "yuv422_yuy2": (2, cv2.COLOR_YUV2RGB_YUY2),
}


class Bridge:
    """How cv_bridge reads a message (`core.py`, Humble to Rolling), beside NumPy 2."""

    def imgmsg_to_cv2(self, msg, desired_encoding):
        """Its rows are as long as whole pixels fit into a step."""
        channels, code = BRIDGE[msg.encoding]
        size = (msg.height, msg.step // channels, channels)
        pixels = np.ndarray(size, np.uint8, msg.data)[:, : msg.width]
        if msg.is_bigendian:
            raise AttributeError("`newbyteorder` was removed from the ndarray class in NumPy 2.0")
        return cv2.cvtColor(np.ascontiguousarray(pixels), code)


@pytest.mark.parametrize("padding", [0, 5])
@pytest.mark.parametrize("big", [0, 1])
def test_cv_bridge_and_rosbags_image_give_one_picture(monkeypatch, padding, big):
    """Whichever converts, also where a step is no multiple of a pixel."""
    random = np.random.default_rng(0)
    for encoding in ("bgr8", "rgba8", "bgra8", "mono8", "uyvy", "yuyv", "mono16", "rgb16", "bgr16"):
        step = 80 * BYTES_PER_PIXEL[encoding] + padding
        data = array.array("B", random.integers(0, 256, step * 60, np.uint8).tobytes())
        message = broken(encoding=encoding, step=step, data=data, is_bigendian=big)
        pictures = []
        for bridge in (None, Bridge()):
            monkeypatch.setattr(conversions, "_BRIDGE", bridge)
            pictures.append(to_rgb(message))
        assert np.array_equal(*pictures), encoding


@pytest.mark.parametrize("big", [0, 1])
def test_sixteen_bit_pictures_honour_the_byte_order(big):
    values = np.array([[0, 257, 511, 65535]], ">u2" if big else "<u2")
    message = broken(
        encoding="mono16", width=4, height=1, step=8, is_bigendian=big,
        data=array.array("B", values.tobytes()),
    )  # fmt: skip
    assert to_rgb(message)[0, :, 0].tolist() == [0, 1, 2, 255]


@pytest.mark.parametrize("big", [0, 1])
@pytest.mark.parametrize("shallow", [*(f"{mosaic}8" for mosaic in MOSAICS), "rgba8", "bgra8"])
def test_sixteen_bits_show_what_eight_show(shallow, big):
    count = 80 * SIZES[shallow]
    values = np.random.default_rng(0).integers(0, 256, (60, count), np.uint8)
    deep = (values.astype(np.uint16) * 257).astype(">u2" if big else "<u2")
    pictures = [
        to_rgb(broken(encoding=encoding, step=step, is_bigendian=big, data=array.array("B", data)))
        for encoding, step, data in (
            (shallow, count, values.tobytes()),
            (f"{shallow[:-1]}16", 2 * count, deep.tobytes()),
        )
    ]
    assert np.array_equal(*pictures)


def test_a_camera_may_be_named_without_its_transport():
    topics = ["/left/image", "/right/image/compressed", "/left/image/compressed"]
    for name, wanted in (
        ("/left/image", "/left/image"),
        ("/left/image/compressed", "/left/image/compressed"),
        ("/right/image", "/right/image/compressed"),
        ("/right", ""),
        ("", ""),
    ):
        assert camera_named(name, topics) == wanted


def test_expressions_in_a_string_are_separated_by_semicolons():
    assert expressions_in(" the red mug ;; the apple, ripe; ") == [
        "the red mug",
        "the apple, ripe",
    ]
    assert expressions_in(" ; ") == []


@pytest.mark.parametrize("data", [b"", b"\x00", b"\xff\xd8\xff\xe0 not a jpeg", b"PNG"])
def test_broken_compressed_images(data):
    message = harness.CompressedImage(format="jpeg")
    message.data = data
    with pytest.raises(MessageError, match="a/topic"):
        to_rgb(message, "a/topic")
