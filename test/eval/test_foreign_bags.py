"""Bags of other makers: what other writers record differently is read, or refused in one line."""

from __future__ import annotations

import argparse
import shutil
import sqlite3
import struct
import subprocess
import sys
from collections.abc import Iterable
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
from mcaps import Mcap
from rosbags import rosbag1 as ros1
from rosbags.rosbag2 import CompressionFormat, CompressionMode, StoragePlugin, Writer
from rosbags.typesys import Stores, get_typestore

from gsva_ros.bags.bag import Bag, BagError
from gsva_ros.bags.recovery import unpacked
from gsva_ros.eval.record import record_truth
from gsva_ros.eval.sources.bag import add_arguments, gather
from gsva_ros.stamps import SECOND
from gsva_ros.truth import Annotation, FrameTruth

IMAGE, COMPRESSED = "sensor_msgs/msg/Image", "sensor_msgs/msg/CompressedImage"
STRING = "std_msgs/msg/String"
Recorded = tuple[str, str, bytes]  # topic, type, message


def _text(body: bytes, text: str) -> bytes:
    """`body` with a CDR string appended."""
    body += b"\0" * (-len(body) % 4)
    return body + struct.pack("<I", len(text) + 1) + text.encode() + b"\0"


def image(second: int, rgb: tuple[int, int, int] = (250, 0, 10)) -> bytes:
    """A serialised sensor_msgs/Image of 6 x 4 pixels of one colour."""
    body = _text(struct.pack("<iI", second, 0), "c")
    body += b"\0" * (-len(body) % 4) + struct.pack("<II", 4, 6)
    body = _text(body, "rgb8") + b"\0"
    body += b"\0" * (-len(body) % 4) + struct.pack("<II", 18, 72) + bytes(rgb) * 24
    return b"\0\1\0\0" + body


def write_mcap(
    path: Path,
    messages: Iterable[Recorded],
    definitions: dict[str, str] | None = None,
    profile: str = "ros2",
    begin: int = 0,
) -> Path:
    """A file of messages, one per second, without definitions of other types than the given ones."""
    with Mcap(path, profile) as writer:
        channels: dict[tuple[str, str], int] = {}
        for second, (topic, kind, raw) in enumerate(messages, start=begin + 1):
            if (topic, kind) not in channels:
                text = (definitions or {}).get(kind, "")
                language = "ros2msg" if text else ""
                channels[topic, kind] = writer.topic(topic, kind, text.encode(), language=language)
            writer.add_message(channels[topic, kind], second * SECOND, raw, second * SECOND)
    return path


def cases(bag: Path, arguments: str) -> list[str]:
    """What `gsva eval bag` asks."""
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    with gather(parser.parse_args([str(bag), *arguments.split()])) as gathered:
        return [case.id for case in gathered.cases]


@pytest.mark.parametrize(
    ("topic", "kind"),
    [("camera/image", IMAGE), ("/camera/image", "sensor_msgs/Image")],
)
def test_topics_and_types_have_their_full_names(tmp_path: Path, topic: str, kind: str) -> None:
    """As the node names them, so that what is asked and answered of a played bag can be found in it."""
    recorded = [(topic, kind, image(1)), (topic, kind, image(2))]
    with Bag(write_mcap(tmp_path / "bag.mcap", recorded)) as bag:
        assert bag.topics == {"/camera/image": IMAGE}
        assert list(bag.frames("/camera/image")) == [SECOND, 2 * SECOND]
        assert bag.rgb("/camera/image", SECOND)[0, 0].tolist() == [250, 0, 10]
        assert bag.published("/camera/image", SECOND) == (IMAGE, image(1))
        assert {c.topic for c, _, _ in bag.raw()} == {"/camera/image"}
        said = [Annotation(image_id=1, caption="a can", category="", referents=0)]
        record_truth(bag, [FrameTruth("/camera/image", SECOND, (4, 6), said)], tmp_path / "asked")
        assert bag.problems == []
    with Bag(tmp_path / "asked") as copy:
        assert np.array_equal(
            copy.rgb("/camera/image", 2 * SECOND), np.full((4, 6, 3), [250, 0, 10])
        )
        assert [ask.topic for ask in copy.asks("")] == ["/camera/image"]


def test_a_topic_of_several_types_has_its_images(tmp_path: Path) -> None:
    text = b"\0\1\0\0" + _text(b"", "not an image")
    recorded = [("/c", IMAGE, image(1)), ("/c", STRING, text), ("/c", IMAGE, image(2))]
    with Bag(write_mcap(tmp_path / "bag.mcap", recorded)) as bag:
        assert list(bag.frames("/c")) == [SECOND, 2 * SECOND]
        assert bag.rgb("/c", 2 * SECOND).shape == (4, 6, 3)


def test_a_bag_of_ros_1_is_refused_with_the_command_that_converts_it(tmp_path: Path) -> None:
    path = tmp_path / "field test.bag"
    with ros1.Writer(path) as writer:
        store = get_typestore(Stores.ROS1_NOETIC)
        connection = writer.add_connection("/text", STRING, typestore=store)
        text = store.types[STRING]("the mug")
        writer.write(connection, 1, store.serialize_ros1(text, STRING))
    with pytest.raises(BagError, match="ROS 1") as error:
        Bag(path)
    command = str(error.value).split("`")[1]
    subprocess.run(f"{Path(sys.executable).parent}/{command}", shell=True, check=True)
    with Bag(path.with_suffix("")) as bag:
        assert bag.topics == {"/text": STRING}


def test_what_is_no_bag_is_said_to_be_none(tmp_path: Path) -> None:
    bags = tmp_path / "bags"
    bags.mkdir()
    with pytest.raises(BagError, match="bags: no bag: the folder has no metadata"):
        Bag(bags)
    with Writer(bags / "first", version=9):
        pass
    with pytest.raises(BagError, match=r"no bag: .* bags in it: .*/bags/first$"):
        Bag(bags)
    pointer = bags / "second" / "bag_0.db3"
    pointer.parent.mkdir()
    pointer.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n")
    for path in (pointer, pointer.parent):
        with pytest.raises(BagError, match=r"bag_0\.db3: not the recording, .*`git lfs pull`"):
            Bag(path)


def test_definitions_may_lack_what_they_refer_to(tmp_path: Path) -> None:
    alone = "std_msgs/Header header\nuint32 height\nuint32 width\nstring encoding\n"
    alone += "uint8 is_bigendian\nuint32 step\nuint8[] data\n"
    with Bag(write_mcap(tmp_path / "bag.mcap", [("/c", IMAGE, image(1))], {IMAGE: alone})) as bag:
        assert bag.rgb("/c", SECOND).shape == (4, 6, 3)
        assert bag.problems == []


def test_a_definition_without_the_fields_that_are_read_is_told(tmp_path: Path) -> None:
    """As where a bit of it has turned over: the messages are of that type by name only."""
    text = b"\0\1\0\0" + _text(b"", "the can")
    recorded = [("/c", IMAGE, image(1)), ("/instruction_text", STRING, text)]
    recorded.append(("/ground_truth", STRING, text))
    wrong = {IMAGE: "std_msgs/Header heater\n", STRING: "string date\n"}
    with Bag(write_mcap(tmp_path / "bag.mcap", recorded, wrong)) as bag:
        assert (bag.frames("/c"), bag.asks("/c"), bag.truth()) == ({}, [], [])
        kinds = [problem.split(": ")[2] for problem in bag.problems]
        assert kinds == [f"not a {kind}" for kind in (IMAGE, STRING, STRING)]


def test_a_file_need_not_name_its_profile(tmp_path: Path) -> None:
    with Bag(write_mcap(tmp_path / "bag.mcap", [("/c", IMAGE, image(1))], profile="")) as bag:
        assert bag.rgb("/c", SECOND).shape == (4, 6, 3)
        assert "its profile is '', not 'ros2'. Read: /c: 1 messages" in bag.problems[0]


@pytest.mark.parametrize("name", ["output.bag", "run #2", "50%25?"])
@pytest.mark.parametrize("compressed", [False, True])
def test_a_bag_may_have_any_name(tmp_path: Path, name: str, compressed: bool) -> None:
    """Its files have the name, too; with and without metadata.yaml, and one by itself."""
    folder = tmp_path / "plain"
    writer = Writer(folder, version=9, storage_plugin=StoragePlugin.SQLITE3)
    if compressed:
        writer.set_compression(CompressionMode.FILE, CompressionFormat.ZSTD)
    with writer:
        connection = writer.add_connection("/c", IMAGE, typestore=get_typestore(Stores.ROS2_HUMBLE))
        writer.write(connection, SECOND, image(1))
    (file,) = folder.glob("plain.db3*")
    file = file.rename(folder / file.name.replace("plain", name))
    metadata = folder / "metadata.yaml"
    metadata.write_text(metadata.read_text().replace("plain.db3", f"{name}.db3"))
    folder = folder.rename(tmp_path / name)
    for path in (folder, folder / file.name):
        with Bag(path) as bag:
            assert list(bag.frames("/c")) == [SECOND]
            assert bag.problems == []
    (folder / "metadata.yaml").unlink()
    with Bag(folder) as bag:
        assert list(bag.frames("/c")) == [SECOND]
        assert len(bag.problems) == 1


def test_the_log_of_an_sqlite_file_is_read(tmp_path: Path) -> None:
    """As a crash leaves a recording of rosbag2's preset `resilient`."""
    recorded = tmp_path / "recorded"
    with Writer(recorded, version=9, storage_plugin=StoragePlugin.SQLITE3) as writer:
        connection = writer.add_connection("/c", IMAGE, typestore=get_typestore(Stores.ROS2_HUMBLE))
        writer.write(connection, SECOND, image(1))
    crashed = tmp_path / "crashed"
    crashed.mkdir()
    with closing(sqlite3.connect(recorded / "recorded.db3")) as database:
        database.execute("PRAGMA journal_mode=WAL")
        database.execute("INSERT INTO messages VALUES (2, 1, ?, ?)", (2 * SECOND, image(2)))
        database.commit()
        for file in recorded.glob("recorded.db3*"):
            shutil.copy(file, crashed)
    assert {file.suffix for file in crashed.iterdir()} == {".db3", ".db3-wal", ".db3-shm"}
    for path in (crashed, crashed / "recorded.db3"):
        with Bag(path) as bag:
            assert list(bag.frames("/c")) == [SECOND, 2 * SECOND]
            assert "recorded.db3: the recording was not closed" in bag.problems[-1]
    (crashed / "recorded.db3-wal").write_bytes(b"nonsense")
    with Bag(crashed) as bag:
        assert list(bag.frames("/c")) == [SECOND]
    (crashed / "recorded.db3-wal").write_bytes(b"")  # as a recording that was closed may leave it
    with Bag(crashed / "recorded.db3") as bag:
        assert (list(bag.frames("/c")), bag.problems) == ([SECOND], [])


def test_a_file_that_metadata_does_not_list_is_told(tmp_path: Path) -> None:
    """As where it was copied there later: `ros2 bag play` does not read it either."""
    recorded = tmp_path / "recorded"
    writer = Writer(recorded, version=9, storage_plugin=StoragePlugin.MCAP)
    writer.set_compression(CompressionMode.FILE, CompressionFormat.ZSTD)
    with writer:
        connection = writer.add_connection("/c", IMAGE, typestore=get_typestore(Stores.ROS2_HUMBLE))
        writer.write(connection, SECOND, image(1))
    (packed,) = recorded.glob("*.zstd")
    unpacked(packed, recorded)  # as `zstd -d` leaves both
    described = recorded / "metadata.yaml"
    text = described.read_text().replace("custom_data: null", "custom_data: {a: b?c}")
    assert "b?c" in text  # which PyYAML refuses, and rosbags does not
    described.write_text(text)
    with Bag(recorded) as bag:
        assert bag.problems == []
    # The listed name contains its name.
    later = write_mcap(recorded / "ded.mcap", [("/c", IMAGE, image(2))], begin=1)
    with Bag(recorded) as bag:
        assert list(bag.frames("/c")) == [SECOND]
        (problem,) = bag.problems
    assert problem.startswith(f"{later}: not read: metadata.yaml does not list it")


def test_a_bag_without_images_says_what_it_has_instead(tmp_path: Path) -> None:
    video = "ffmpeg_image_transport_msgs/msg/FFMPEGPacket"
    path = write_mcap(
        tmp_path / "bag.mcap", [("/c/ffmpeg", video, b"\0\1\0\0"), ("/t", STRING, b"")]
    )
    asks = tmp_path / "asks.yaml"
    asks.write_text("instructions: [{text: the mug}]")
    for given in ("", f"--instructions {asks}", f"--instructions {asks} --topic /c"):
        with pytest.raises(BagError) as error:
            cases(path, given)
        assert "CompressedImage): none; video is not read, " in str(error.value)


def test_instructions_are_about_one_camera_and_its_clock(tmp_path: Path) -> None:
    """Of a bag with two cameras: the other one's stamps, from its own clock, do not matter."""
    recorded = [("/a", IMAGE, image(900 + n)) for n in (1, 2)] + [
        ("/c", IMAGE, image(n)) for n in (3, 4)
    ]
    path = write_mcap(tmp_path / "bag.mcap", recorded)
    asks = tmp_path / "asks.yaml"
    asks.write_text("instructions: [{at: 1.0, text: the mug}]")
    with pytest.raises(BagError, match="several image topics, /a, /c: give --topic"):
        cases(path, f"--instructions {asks}")
    assert cases(path, f"--instructions {asks} --topic /c") == ["/c 4000000000 1"]
    asks.write_text("image_topic: /c\ninstructions: [{at: 1.0, text: the mug}]")
    assert cases(path, f"--instructions {asks}") == ["/c 4000000000 1"]


@pytest.mark.parametrize("ahead", [-900, 0, 2, 900])
def test_a_cameras_clock_may_differ_from_the_recorders(tmp_path: Path, ahead: int) -> None:
    """As when a camera's clock is wrong, or a converter counts the time of receipt from zero."""
    stamps = [1000 + ahead + second for second in range(1, 6)]
    path = tmp_path / "bag.mcap"
    write_mcap(path, [("/c", IMAGE, image(stamp)) for stamp in stamps], begin=1000)
    asks = tmp_path / "asks.yaml"
    asks.write_text(
        "instructions: [{text: a}, {at: 2.0, text: b}, {at: 2.5, text: c, repeat: true}]"
    )
    wanted = [(stamps[0], 1), (stamps[2], 2), (stamps[3], 3), (stamps[4], 3)]
    assert cases(path, f"--instructions {asks}") == [f"/c {s}000000000 {n}" for s, n in wanted]


def test_a_recording_of_a_looped_bag_is_in_order_of_receipt(tmp_path: Path) -> None:
    """Of frames that came twice the second one counts, also for the instructions that it meets."""
    recorded = [("/c", IMAGE, image(stamp)) for stamp in (1, 2, 3, 4, 1, 2)]
    recorded += [("/instruction_text", STRING, b"\0\1\0\0" + _text(b"", "the mug"))]
    path = write_mcap(tmp_path / "bag.mcap", recorded)
    with Bag(path) as bag:
        assert bag.frames("/c") == {
            s * SECOND: at * SECOND for s, at in ((3, 3), (4, 4), (1, 5), (2, 6))
        }
        assert list(bag.frames("/c").values()) == [at * SECOND for at in (3, 4, 5, 6)]
    assert cases(path, "") == [f"/c {2 * SECOND} /instruction_text {7 * SECOND}"]
