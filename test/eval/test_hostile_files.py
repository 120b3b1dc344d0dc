"""Damaged and hostile files: one line that names the file, exit status 2, and what can be read is read."""

from __future__ import annotations

import copy
import errno
import io
import json
import math
import os
import pickle
import random
import resource
import signal
import struct
import subprocess
import sys
import tempfile
import zlib
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import Mock

import cv2
import numpy as np
import pytest
import torch
import yaml
import zstandard
from mcap.writer import CompressionType, IndexType
from mcap.writer import Writer as McapWriter
from mcaps import Mcap
from PIL import Image
from pycocotools.coco import COCO
from rosbags.rosbag2 import Reader, StoragePlugin, Writer
from rosbags.typesys import Stores, get_typestore

import gsva_ros
from gsva_ros import cli, conversions
from gsva_ros.answer import Answer, ExpressionError, Rejection, Slot
from gsva_ros.bags import recovery
from gsva_ros.bags.bag import Bag, BagError
from gsva_ros.conversions import MessageError, file_rgb, fill_image, to_rgb
from gsva_ros.datasets import files
from gsva_ros.datasets.files import DatasetError, read_picture
from gsva_ros.errors import InputError, one_line, tell_left_out
from gsva_ros.eval.asks import read_asks
from gsva_ros.eval.commands import measure
from gsva_ros.eval.compare import read_run
from gsva_ros.eval.record import record_truth
from gsva_ros.eval.run import CaseRecord, Records, slot_record
from gsva_ros.eval.sources.bag import truth_cases
from gsva_ros.files import check_writable, only_writer, write_result, write_whole
from gsva_ros.image_files import check_format, write_rgb
from gsva_ros.masks import mask_box
from gsva_ros.model import config
from gsva_ros.model.weights import CheckpointError
from gsva_ros.serving.requests import BadImageError
from gsva_ros.truth import Referring, TruthError, read_truth, write_truth

ROOT = Path(__file__).resolve().parents[2]
DEMO = ROOT / "demo" / "tabletop"
TRUTH = ROOT / "demo" / "tabletop_truth.json"
TOPIC = "/camera/image"


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The first frames of the demo's bag as an mcap and as an sqlite3 bag."""
    folder = tmp_path_factory.mktemp("bags")
    store = get_typestore(Stores.ROS2_HUMBLE)
    found = {}
    for plugin in (StoragePlugin.MCAP, StoragePlugin.SQLITE3):
        path = folder / plugin.name
        with Reader(DEMO) as reader, Writer(path, version=9, storage_plugin=plugin) as writer:
            connection = writer.add_connection(TOPIC, "sensor_msgs/msg/Image", typestore=store)
            source = [c for c in reader.connections if c.topic == TOPIC]
            for number, (_, at, raw) in enumerate(reader.messages(source)):
                msg = store.deserialize_cdr(raw, connection.msgtype)
                pixels = msg.data.reshape(msg.height, msg.width, 3)[::8, ::8]
                small = type(msg)(
                    msg.header,
                    *pixels.shape[:2],
                    msg.encoding,
                    0,
                    pixels.shape[1] * 3,
                    np.ascontiguousarray(pixels).reshape(-1),
                )
                writer.write(connection, at, bytes(store.serialize_cdr(small, connection.msgtype)))
                if number == 7:
                    break
        found[plugin.name] = path
    return found


def one_line_about(path: Path, error: Exception) -> None:
    assert str(path) in str(error)
    assert "\n" not in str(error)


def flipped(source: Path, target: Path, rng: random.Random) -> None:
    """Copy a bag with a few bits of one of its files turned over."""
    target.mkdir()
    files = sorted(source.iterdir())
    chosen = rng.choice(files)
    for file in files:
        data = bytearray(file.read_bytes())
        if file == chosen:
            for _ in range(rng.choice([1, 1, 3])):
                data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
        (target / file.name).write_bytes(data)


@pytest.mark.parametrize("kind", ["MCAP", "SQLITE3"])
def test_bit_flips_in_bags(recorded: dict[str, Path], tmp_path: Path, kind: str) -> None:
    """Two hundred variants: frames, problems or one BagError, and nothing else."""
    rng = random.Random(kind)
    read = 0
    for number in range(200):
        path = tmp_path / str(number)
        flipped(recorded[kind], path, rng)
        try:
            with Bag(path) as bag:
                for topic in bag.image_topics:
                    for stamp in bag.frames(topic):
                        try:
                            bag.rgb(topic, stamp)
                            read += 1
                        except (MessageError, BagError):
                            pass
                bag.truth()
                bag.asks(TOPIC)
                truth_cases(bag, [])
        except InputError as error:
            one_line_about(path, error)
    # One bit costs what it hits, not the recording.
    assert read > 0.6 * 200 * 8


def words(**how: Any) -> bytes:
    """An mcap file of fifty messages in many chunks."""
    store = get_typestore(Stores.ROS2_HUMBLE)
    string = store.types["std_msgs/msg/String"]
    file = io.BytesIO()
    how = {"chunk_size": 200, "compression": CompressionType.NONE} | how
    with Mcap(file, **how) as writer:
        channel = writer.topic("/words")
        for number in range(50):
            data = bytes(store.serialize_cdr(string(f"word {number}" * 5), "std_msgs/msg/String"))
            writer.add_message(channel, number, data, number)
    return file.getvalue()


def test_a_damaged_chunk_costs_its_messages_only(tmp_path: Path) -> None:
    path, whole = tmp_path / "chunks.mcap", words()
    first = whole.index(b"word 0")  # beside the records that define the topic
    for place in (len(whole) // 3, first):
        data = bytearray(whole)
        data[place] ^= 255
        path.write_bytes(data)
        with Bag(path) as bag:
            assert 30 <= sum(1 for _ in bag.raw()) < 50
            assert any("1 damaged records" in problem for problem in bag.problems)
    path.write_bytes(data[: whole.rindex(b"word")])  # what repeats the definitions is lost, too
    with pytest.raises(BagError, match="messages whose topic's record is damaged"):
        Bag(path)


def test_a_chunk_that_unpacks_to_more_than_any_writer_makes_is_lost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Seventy kilobytes of a file can unpack to gigabytes, also where the chunk's record denies it."""
    file, store, starts = io.BytesIO(), get_typestore(Stores.ROS2_HUMBLE), []
    string = store.types["std_msgs/msg/String"]
    with Mcap(file, chunk_size=1) as writer:  # packed, one message in each
        channel = writer.topic("/words")
        for at, size in enumerate((5, 5, 100_000, 5)):
            starts.append(file.tell())
            data = bytes(store.serialize_cdr(string("a" * size), "std_msgs/msg/String"))
            writer.add_message(channel, at, data, at)
    honest, path = file.getvalue(), tmp_path / "bomb.mcap"
    lying = bytearray(honest)
    sizes = starts[2] + 9 + 16  # behind the opcode, the length, and the times
    lying[sizes : sizes + 12] = struct.pack("<QI", 10, 0)  # without a checksum
    for content in (honest, lying):
        path.write_bytes(content)
        monkeypatch.setattr(recovery, "LARGEST_CHUNK", 200_000)
        with Bag(path) as bag:
            assert [at for _, at, _ in bag.raw()] == [0, 1, 2, 3]
        monkeypatch.setattr(recovery, "LARGEST_CHUNK", 50_000)
        with Bag(path) as bag:
            assert [at for _, at, _ in bag.raw()] == [0, 1, 3]
            (problem,) = bag.problems
        assert f"{path}: 1 damaged records, the first: Chunk at byte {starts[2]}: " in problem
        assert "at most 50000: write smaller chunks" in problem


def test_the_place_of_what_is_lost_and_the_end_of_what_is_read_are_told(tmp_path: Path) -> None:
    """Of a topic without a definition, too."""
    file, ends = io.BytesIO(), []
    writer = Mcap(file, use_chunking=False)
    channel = writer.topic("/words")
    writer.add_message(writer.register_channel("/raw", "cdr", 0), 5, b"\0\1\0\0\2", 3)
    for at in (10, 20, 30):
        writer.add_message(channel, at, b"\0\1\0\0\2\0\0\0a\0", 3)
        ends.append(file.tell())
    path = tmp_path / "cut.mcap"
    path.write_bytes(file.getvalue()[: ends[1] + 20])
    with Bag(path) as bag:
        assert [at for _, at, _ in bag.raw()] == [5, 10, 20]
        assert bag.problems == [
            f"{path}: lost from byte {ends[1]} on (the file ends inside a record). "
            "Read: /raw: 1 messages, until 5 ns; /words: 2 messages, until 20 ns"
        ]
    chunked = bytearray(words())
    start = 17 + int.from_bytes(chunked[9:17], "little")  # behind the magic bytes and the header
    chunked[start + 100] ^= 1
    path.write_bytes(chunked)
    with Bag(path) as bag:
        assert f"1 damaged records, the first: Chunk at byte {start}: " in bag.problems[0]


def test_a_bag_may_be_named_from_the_current_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One of its files is replaced by a copy, and the other is not."""
    (tmp_path / "0.mcap").write_bytes(words())
    (tmp_path / "1.mcap").write_bytes(words()[:-1])
    monkeypatch.chdir(tmp_path.parent)
    with Bag(Path(tmp_path.name)) as bag:
        assert sum(1 for _ in bag.raw()) == 100


@pytest.mark.parametrize("index", [IndexType.ALL, IndexType.NONE])
def test_a_file_without_checksums_is_not_damaged(tmp_path: Path, index: IndexType) -> None:
    """Nor is one that repeats nothing at its end."""
    path, repeated = tmp_path / "words.mcap", index is IndexType.ALL
    how = dict.fromkeys(("repeat_channels", "repeat_schemas", "use_statistics"), repeated)
    how["use_summary_offsets"] = repeated
    path.write_bytes(words(enable_crcs=False, index_types=index, **how))
    with Bag(path) as bag:
        assert sum(1 for _ in bag.raw()) == 50
        assert bag.problems == []


def test_a_damaged_index_costs_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The messages are all there, wherever the bytes are that repeat the topics and say where they are."""
    path, whole = tmp_path / "index.mcap", words()
    monkeypatch.setattr(recovery, "BLOCK", 100)  # as of a recording of hours, it takes several
    path.write_bytes(whole)
    with Bag(path) as bag:
        assert bag.problems == []
    (start,) = struct.unpack("<Q", whole[-28:-20])  # in the footer
    rng = random.Random(0)
    for place in rng.sample(range(start, len(whole)), 15):
        data = bytearray(whole)
        data[place] ^= 1 << rng.randrange(8)
        path.write_bytes(data)
        with Bag(path) as bag:
            assert {c.topic for c, _, _ in bag.raw()} == {"/words"}
            assert sum(1 for _ in bag.raw()) == 50
            assert str(path) in bag.problems[0]


def unclosed(path: Path, text: bytes) -> Path:
    """An mcap file of one message that lacks only its last byte."""
    with Mcap(path) as writer:
        data = b"\0\1\0\0" + struct.pack("<I", len(text)) + text
        writer.add_message(writer.topic("/words"), 1, data, 1)
    path.write_bytes(path.read_bytes()[:-1])
    return path


def test_a_copy_takes_no_more_space_than_the_recording(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = unclosed(tmp_path / "bag.mcap", bytes(2_000_000))
    copies = tmp_path / "copies"
    copies.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(copies))
    with Bag(path) as bag:
        assert len(list(bag.raw())) == 1
        (copy,) = copies.glob("*/bag.mcap")
        assert copy.stat().st_size < 1.1 * path.stat().st_size


class AlmostFull(io.BytesIO):
    """A file on a disk with room for what is small; counts what it refused."""

    refused = 0

    def __init__(self, reason: int) -> None:
        super().__init__()
        self.reason = reason

    def write(self, data: Any) -> int:
        if len(data) > 100:
            self.refused += 1
            raise OSError(self.reason, os.strerror(self.reason))
        return super().write(data)


@pytest.mark.parametrize(("size", "reason"), [(20, errno.ENOSPC), (2_000_000, errno.EDQUOT)])
def test_where_a_copy_has_no_space_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size: int, reason: int
) -> None:
    """Whether that shows at the end of the copy, or in the middle, as where a quota is used up."""
    path = unclosed(tmp_path / "bag.mcap", random.Random(0).randbytes(size))
    disk = AlmostFull(reason)
    monkeypatch.setattr(recovery, "Writer", lambda _: McapWriter(disk))
    with pytest.raises(BagError, match=r"no space for a readable copy in .*: set TMPDIR") as error:
        Bag(path)
    one_line_about(path, error.value)
    assert tempfile.gettempdir() in str(error.value)
    assert disk.refused == 1  # the rest of the recording is not tried


@pytest.mark.parametrize("kept", [0, 5, 0.5])
@pytest.mark.parametrize("described", [True, False])
@pytest.mark.parametrize("kind", ["MCAP", "SQLITE3"])
def test_a_bad_file_does_not_take_the_others_along(
    recorded: dict[str, Path], tmp_path: Path, kind: str, described: bool, kept: float
) -> None:
    """As where the disk is full: of a bag's last file nothing, a few bytes or half was written."""
    (file,) = (f for f in recorded[kind].iterdir() if f.suffix != ".yaml")
    data = file.read_bytes()
    names = [f"{number}{file.suffix}" for number in range(3)]
    for name in names:
        (tmp_path / name).write_bytes(data)
    bad = tmp_path / names[-1]
    bad.write_bytes(data[: round(kept * len(data)) if kept < 1 else int(kept)])
    if described:
        metadata = yaml.safe_load((recorded[kind] / "metadata.yaml").read_text())
        told = metadata["rosbag2_bagfile_information"]
        told["relative_file_paths"] = names
        told["files"] = [told["files"][0] | {"path": name} for name in names]
        (tmp_path / "metadata.yaml").write_text(yaml.safe_dump(metadata))
    with Bag(tmp_path) as bag:
        assert 16 <= sum(1 for _ in bag.raw()) < 24
        assert any(problem.startswith(f"{bad}: ") for problem in bag.problems)


@pytest.mark.parametrize("page", [0.3, 0.5, 0.8])
def test_a_bad_sector_of_one_of_several_sqlite_files(
    recorded: dict[str, Path], tmp_path: Path, page: float
) -> None:
    (file,) = recorded["SQLITE3"].glob("*.db3")
    data = bytearray(file.read_bytes())
    for number in range(2):
        (tmp_path / f"{number}.db3").write_bytes(data)
    start = int(page * len(data)) // 4096 * 4096
    data[start : start + 4096] = bytes(4096)
    (tmp_path / "2.db3").write_bytes(data)
    with Bag(tmp_path) as bag:
        count = sum(1 for _ in bag.raw())
        assert count >= 16 or any("lost after" in problem for problem in bag.problems)
        assert count > 0


def test_of_a_packed_file_everything_before_the_cut_is_read(
    recorded: dict[str, Path], tmp_path: Path
) -> None:
    """Of rosbag2's file compression, with metadata.yaml."""
    whole, packer = words(), zstandard.ZstdCompressor().compressobj()
    packed = packer.compress(whole[: len(whole) // 2])
    cut = tmp_path / "words.mcap.zstd"
    cut.write_bytes(packed + packer.flush(zstandard.COMPRESSOBJ_FLUSH_BLOCK))
    metadata = yaml.safe_load((recorded["MCAP"] / "metadata.yaml").read_text())
    told = metadata["rosbag2_bagfile_information"]
    told |= {"compression_format": "zstd", "compression_mode": "FILE"}
    told["relative_file_paths"] = [cut.name]
    (tmp_path / "metadata.yaml").write_text(yaml.safe_dump(metadata))
    with Bag(tmp_path) as bag:
        assert 10 < sum(1 for _ in bag.raw()) < 40
        assert any(problem.startswith(f"{cut}: lost from byte ") for problem in bag.problems)


def test_a_file_beside_its_unfinished_compression_is_read_once(tmp_path: Path) -> None:
    (tmp_path / "words.mcap").write_bytes(words())
    (tmp_path / "words.mcap.zstd").write_bytes(zstandard.compress(words())[:100])
    (tmp_path / "earlier.mcap.zstd").write_bytes(zstandard.compress(words()))
    (tmp_path / "notes.zstd").write_bytes(zstandard.compress(b"notes"))
    assert [f.name for f in recovery.bag_files(tmp_path)] == ["earlier.mcap.zstd", "words.mcap"]
    with Bag(tmp_path) as bag:
        assert sum(1 for _ in bag.raw()) == 100
        assert bag.problems == [f"{tmp_path}: no metadata.yaml; its files are read individually"]


@pytest.mark.parametrize(
    "how",
    [
        {"use_chunking": False},
        {"index_types": IndexType.NONE},
        {"index_types": IndexType.NONE, "chunk_size": 10_000},
        {"index_types": IndexType.CHUNK},
    ],
)
def test_messages_are_found_without_an_index(tmp_path: Path, how: dict[str, object]) -> None:
    """As rosbag2's preset "fastwrite" leaves them out, and messages of two topics out of order."""
    path = tmp_path / "words.mcap"
    with Mcap(path, **{"chunk_size": 200} | how) as writer:
        channels = [writer.topic("/one"), writer.topic("/two")]
        data = b"\0\1\0\0\2\0\0\0a\0"
        times = [10 * number + 15 * (number % 2) for number in range(20)]
        for number, at in enumerate(times):
            writer.add_message(channels[number % 2], at, data, at)
    with Bag(path) as bag:
        assert [at for _, at, _ in bag.raw()] == sorted(times)
        (problem,) = bag.problems
        assert "its index does not say where its messages are. Read: " in problem


def test_other_types_are_copied_where_the_bag_defines_them(tmp_path: Path) -> None:
    """Of a file by itself no metadata.yaml says more; a topic may even have two types."""
    path = tmp_path / "other.mcap"
    with Mcap(path) as writer:
        for name, definition in (("Known", b"int8 data"), ("Other", b"int8 x"), ("Unknown", b"")):
            topic, language = ("/odd", "ros2msg") if definition else ("/unknown", "")
            odd = writer.topic(topic, f"odd_msgs/msg/{name}", definition, language=language)
            writer.add_message(odd, 5, b"\0\1\0\0\2", 5)
    with Bag(path) as bag:
        assert record_truth(bag, [], tmp_path / "copy") == 0
        assert bag.problems == [
            f"{path}: /unknown: left out of the copy: the bag does not define odd_msgs/msg/Unknown"
        ]
    with Bag(tmp_path / "copy") as bag:
        found = {
            c.msgtype: (c.topic, bag.types.deserialize_cdr(r, c.msgtype)) for c, _, r in bag.raw()
        }
    assert set(found) == {"odd_msgs/msg/Known", "odd_msgs/msg/Other"}
    assert found["odd_msgs/msg/Known"][1].data == found["odd_msgs/msg/Other"][1].x == 2


@pytest.mark.parametrize(
    ("encoding", "language", "definition"),
    [
        ("json", "jsonschema", b"{}"),
        ("protobuf", "protobuf", b"\x01\xff"),
        ("cdr", "ros2msg", "float32 t  # in °C".encode("latin-1")),
        ("cdr", "ros2idl", b'#include "a.idl"\nmodule a { struct'),
        ("cdr", "", b""),
    ],
)
def test_a_foreign_topic_does_not_take_the_others_along(
    tmp_path: Path, encoding: str, language: str, definition: bytes
) -> None:
    """Nor does one whose type only it does not define; and what is copied from there can be read again."""
    path = tmp_path / "mixed.mcap"
    with Mcap(path) as writer:
        odd = writer.topic(
            "/odd", "odd_msgs/msg/Odd", definition, language=language, encoding=encoding
        )
        writer.add_message(odd, 1, b"{}", 1)
        for topic in ("/instruction_text", "/words"):
            undefined = writer.topic(topic, definition=b"", language="")
            writer.add_message(undefined, 2, b"\0\1\0\0\2\0\0\0a\0", 2)
        numbers = writer.topic("/number", "std_msgs/msg/Int8", b"int8 data")
        writer.add_message(numbers, 3, b"\0\1\0\0\2", 3)
    with Bag(path) as bag:
        assert [ask.expressions for ask in bag.asks("/camera")] == [("a",)]
        assert record_truth(bag, [], tmp_path / "copy") == 0
    with Bag(tmp_path / "copy") as bag:
        copied = [
            (c.topic, bag.types.deserialize_cdr(raw, c.msgtype).data) for c, _, raw in bag.raw()
        ]
        assert copied[-2:] == [("/words", "a"), ("/number", 2)]


def test_a_foreign_topic_is_found_in_a_file_that_names_its_topics_once(tmp_path: Path) -> None:
    """Among the messages, and not at the end."""
    path = tmp_path / "mixed.mcap"
    with Mcap(path, repeat_channels=False, repeat_schemas=False) as writer:
        for topic, encoding in (("/number", "cdr"), ("/odd", "json"), ("/other", "cdr")):
            channel = writer.topic(topic, "std_msgs/msg/Int8", b"int8 data", encoding=encoding)
            writer.add_message(channel, 1, b"\0\1\0\0\2", 1)
    with Bag(path) as bag:
        assert [connection.topic for connection, _, _ in bag.raw()] == ["/number", "/other"]
        assert "it contains other than ROS 2 messages" in bag.problems[0]


@pytest.mark.parametrize(("kind", "legible"), [("int8", True), ("int8 int8", False)])
def test_definitions_in_idl_have_several_parts(tmp_path: Path, kind: str, legible: bool) -> None:
    path, text = tmp_path / "idl.mcap", ""
    for name, field in (("Odd", "odd_msgs::msg::Part part"), ("Part", f"{kind} x")):
        text += f"{'=' * 80}\nIDL: odd_msgs/msg/{name}\n"
        text += f"module odd_msgs {{ module msg {{ struct {name} {{ {field}; }}; }}; }};\n"
    with Mcap(path) as writer:
        odd = writer.topic("/odd", "odd_msgs/msg/Odd", text.encode(), language="ros2idl")
        writer.add_message(odd, 1, b"\0\1\0\0\2", 1)
    with Bag(path) as bag:
        ((connection, _, raw),) = bag.raw()
        if legible:
            assert bag.types.deserialize_cdr(raw, connection.msgtype).part.x == 2
        assert ["unreadable definitions" in p for p in bag.problems] == [True] * (not legible)


@pytest.mark.parametrize("kept", [1.0, 0.8])
def test_of_compressed_messages_one_file_is_enough(tmp_path: Path, kept: float) -> None:
    """Only metadata.yaml tells that each message is compressed, and here there is none."""
    with Bag(DEMO) as whole:
        frames = list(whole.frames(TOPIC))
        first = whole.rgb(TOPIC, frames[0])
        published = {(c.topic, at): bytes(raw) for c, at, raw in whole.raw()}
    data = (DEMO / "tabletop.mcap").read_bytes()
    alone = tmp_path / "alone.mcap"
    alone.write_bytes(data[: int(len(data) * kept)])
    with Bag(alone) as bag:
        read = list(bag.frames(TOPIC))
        assert read == frames[: len(read)]
        assert len(read) > 0.7 * kept * len(frames)
        assert np.array_equal(bag.rgb(TOPIC, frames[0]), first)
        for connection, at, raw in bag.raw():
            assert bytes(raw) == published[connection.topic, at]
            assert bag.stamp(connection, raw) == at


def test_hostile_truth(tmp_path: Path) -> None:
    """Every field replaced by what does not belong there: a TruthError of one line, or it reads."""
    path = tmp_path / "truth.json"
    whole = json.loads(TRUTH.read_text())
    whole["annotations"] = whole["annotations"][:6]
    nonsense = [None, -1, 1e308, 10**30, "", "x" * 1000, "\udcff", [], [[]], {}, [None], True]
    nonsense += [{"size": [10**6, 10**6], "counts": "0"}, {"size": [240, 320], "counts": "~~~~0"}]
    nonsense += [{"size": [480, 640], "counts": [1, 2]}, {"size": [-1, 640], "counts": ""}]
    nonsense += [[[0, 0, 1e300, 5, 5, 5]], [[1, 2, 3]], [[float("nan")] * 6], [[0, 1] * 4 + [3]]]
    rng = random.Random(0)
    kept = 0
    for _ in range(600):
        data = copy.deepcopy(whole)
        entry = rng.choice([data, *data["images"][:3], *data["annotations"]])
        keys = list(entry)
        entry[rng.choice(keys)] = rng.choice(nonsense)
        path.write_text(json.dumps(data), errors="surrogateescape")
        try:
            for frame in read_truth(path):
                for expression in frame.expressions():
                    assert expression.mask.shape == frame.size
            kept += 1
        except TruthError as error:
            one_line_about(path, error)
    assert kept < 400


FRAME_OF = b'{"images": [{"id": 1, "topic": "", "height": 1, %s}], "annotations": []}'


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"\xff\xfe",
        b"[" * 100_000,
        b"null",
        b"[]",
        b'{"images": {}, "annotations": 3}',
        b"NaN",
        b"9" * 5000,
        # A float is no stamp: at today's it is exact to 256 ns only.
        FRAME_OF % b'"stamp": 1.7e18, "width": 1',
        FRAME_OF % b'"stamp": 1, "width": 0',
        FRAME_OF
        % b'"stamp": 1, "width": 1}, {"id": 1, "topic": "", "height": 1, "stamp": 2, "width": 1',
    ],
)
def test_truth_that_is_none(tmp_path: Path, text: bytes) -> None:
    path = tmp_path / "truth.json"
    path.write_bytes(text)
    with pytest.raises(TruthError, match=r"truth\.json"):
        read_truth(path)


def test_what_an_annotation_tool_exports_is_told_what_it_lacks(tmp_path: Path) -> None:
    image = {"id": 1, "width": 64, "height": 48, "file_name": "cam/0001.jpg"}
    box = {"id": 1, "image_id": 1, "category_id": 1, "segmentation": [[1, 1, 9, 1, 9, 9]]}
    export = {"images": [image], "annotations": [box], "categories": [{"id": 1, "name": "mug"}]}
    path = tmp_path / "truth.json"
    path.write_text(json.dumps(export))
    with pytest.raises(
        TruthError, match=r"truth\.json: images\.0\.topic: .*export no topic, stamp"
    ):
        read_truth(path)


def test_a_caption_is_one_annotation(tmp_path: Path) -> None:
    """Two objects by one caption: as two annotations only one of them would be scored."""
    path, data = tmp_path / "truth.json", json.loads(TRUTH.read_text())
    entry = next(e for e in data["annotations"] if e["referents"] == 1)
    data["annotations"] = [entry, entry]
    path.write_text(json.dumps(data))
    assert len(next(f for f in read_truth(path) if f.annotations).annotations) == 2
    data["annotations"] = [entry, entry | {"segmentation": [[0, 0, 9, 0, 9, 9]]}]
    path.write_text(json.dumps(data))
    with pytest.raises(TruthError, match=r"annotation 2 .*annotation 1 has the same .*under one"):
        read_truth(path)


def test_frames_of_one_stamp_are_told(tmp_path: Path) -> None:
    """A stamp is what a frame is known by: a driver that leaves it 0 makes one of all."""
    store = get_typestore(Stores.ROS2_HUMBLE)
    with Writer(tmp_path / "bag", version=9, storage_plugin=StoragePlugin.MCAP) as writer:
        kind = "sensor_msgs/msg/Image"
        to = writer.add_connection("/cam", kind, typestore=store)
        stamp = store.types["builtin_interfaces/msg/Time"](0, 0)
        header = store.types["std_msgs/msg/Header"](stamp, "c")
        for number in range(8):
            pixels = np.full(6 * 8 * 3, number, np.uint8)
            msg = store.types[kind](header, 6, 8, "rgb8", 0, 24, pixels)
            writer.write(to, 1 + number, store.serialize_cdr(msg, kind))
    with Bag(tmp_path / "bag") as bag:
        assert list(bag.frames("/cam")) == [0]
        assert bag.rgb("/cam", 0)[0, 0, 0] == 7
        (problem,) = bag.problems
    assert "/cam: 7 frames have the stamp of another one (first 0 ns)" in problem


@pytest.mark.parametrize(
    "error",
    [
        MessageError("/camera", "empty image"),
        MessageError("", "empty image"),
        ExpressionError("too long", {1: "too long"}),
        *(
            kind("bag.mcap: cannot be used")
            for kind in (BadImageError, BagError, CheckpointError, DatasetError)
        ),
        *(kind("truth.json: cannot be used") for kind in (InputError, TruthError)),
    ],
    ids=lambda error: type(error).__name__,
)
def test_an_error_arrives_whole_from_another_process(error: Exception) -> None:
    back = pickle.loads(pickle.dumps(error))
    assert (type(back), str(back), vars(back)) == (type(error), str(error), vars(error))


def test_numbers_of_thousands_of_digits_are_no_json(tmp_path: Path) -> None:
    """Python refuses to read them, in an error of its own."""
    path = tmp_path / "long.json"
    path.write_text("9" * 5000)
    for read in (config.read_model_json, files.read_dataset_json):
        with pytest.raises(InputError, match="digits") as error:
            read(path)
        one_line_about(path, error.value)


def test_what_is_no_truth_is_not_written(tmp_path: Path) -> None:
    path, mask = tmp_path / "truth.json", np.ones((4, 6), bool)
    known = Referring("a", "x", 1, mask)
    for expressions, said in (
        ([], "no size"),
        ([Referring("a", "x", 0)], "no size"),
        ([known, Referring("b", "x", 1, mask.T)], "several sizes"),
        ([known, Referring("b")], "'b': its truth is not known"),
        ([known, Referring("b", "x", 2)], "'b': 2 referents and no mask"),
        ([known, Referring("b", "x", 2, ~mask)], "'b': 2 referents and no mask"),
        ([known, Referring("b", "x", 0, mask)], "'b': 0 referents and a mask with pixels"),
    ):
        with pytest.raises(TruthError, match=f"/cam at 5 ns: .*{said}") as error:
            write_truth(path, "/cam", [(5, expressions)])
        one_line_about(path, error.value)
        assert not path.exists()
    write_truth(path, "/cam", [(5, [Referring("none", "x", 0), known])])
    (frame,) = read_truth(path)
    assert [e.mask.sum() for e in frame.expressions()] == [0, 24]


@pytest.mark.parametrize(
    ("stamps", "given", "said"),
    [
        ((5,), [("a", 1), ("a", 2)], "annotation 2 .*'a'.*the same image and caption"),
        ((5, 5), [("a", 1)], "images 1 and 2 are both of /cam at 5 ns"),
        ((5,), [(" ", 1)], "its caption is empty"),
        ((5,), [("\ud800", 1)], "not valid text"),
        ((5,), [("a", -1)], "greater than or equal to 0"),
    ],
)
def test_a_truth_that_could_not_be_read_is_not_written(
    stamps: tuple[int, ...], given: list[tuple[str, int]], said: str, tmp_path: Path
) -> None:
    path, mask = tmp_path / "truth.json", np.ones((4, 6), bool)
    expressions = [Referring(words, "x", count, mask) for words, count in given]
    with pytest.raises(TruthError, match=said) as error:
        write_truth(path, "/cam", [(stamp, expressions) for stamp in stamps])
    one_line_about(path, error.value)
    assert not path.exists()


def test_numbers_of_a_truth_are_integers_of_any_type(tmp_path: Path) -> None:
    path, mask = tmp_path / "truth.json", np.ones((4, 6), bool)
    write_truth(path, "/cam", [(np.int64(5), [Referring("a", "x", np.uint8(2), mask)])])
    (frame,) = read_truth(path)
    assert (frame.stamp, frame.annotations[0].referents) == (5, 2)
    for stamp, count in ((5.0, 2), (5, 2.0)):
        with pytest.raises(TypeError, match="float"):
            write_truth(path, "/cam", [(stamp, [Referring("a", "x", count, mask)])])


def truth_of_one(folder: Path, **fields: object) -> Path:
    """A truth file of one image, 30 x 20, and one annotation with these fields."""
    image = {"id": 1, "topic": TOPIC, "stamp": 1, "width": 30, "height": 20}
    annotation = {"image_id": 1, "caption": "x", "category": "", "referents": 1} | fields
    path = folder / "truth.json"
    path.write_text(json.dumps({"images": [image], "annotations": [annotation]}))
    return path


def test_run_lengths_are_never_trusted(tmp_path: Path) -> None:
    """Random counts crash pycocotools; here they are refused before it sees them."""
    rng = random.Random(1)
    for _ in range(2000):
        counts = "".join(chr(rng.randrange(32, 127)) for _ in range(rng.randrange(60)))
        path = truth_of_one(tmp_path, segmentation={"size": [20, 30], "counts": counts})
        with pytest.raises(TruthError):
            read_truth(path)


def test_polygons_are_read(tmp_path: Path) -> None:
    polygon = [[5, 5, 15, 5, 15, 10, 5, 10]]
    (expression,) = read_truth(truth_of_one(tmp_path, segmentation=polygon))[0].expressions()
    assert expression.mask.sum() == pytest.approx(50, abs=20)
    assert expression.mask[7, 10]
    around = [[-1, -1, 31, -1, 31, 21, -1, 21]]  # a pixel outside is none too many
    path = truth_of_one(tmp_path, segmentation=around)
    assert read_truth(path)[0].expressions()[0].mask.all()
    for field, value, said in (
        ("segmentation", [[-1.5, 0, 9, 0, 9, 9]], "a polygon lies outside the image"),
        ("segmentation", [[0, 0, 31.5, 0, 9, 9]], "a polygon lies outside the image"),
        ("segmentation", [[0, -1.5, 9, 0, 9, 9]], "a polygon lies outside the image"),
        ("segmentation", [[0, 0, 9, 0, 9, 21.5]], "a polygon lies outside the image"),
        ("segmentation", [[0, 0, 9, 0, 9, 9, 5]], "a polygon has an odd number of coordinates"),
        ("segmentation", [], "its segmentation has no polygon"),
        ("segmentation", None, "'x'.: 1 referents and no segmentation"),
        (
            "segmentation",
            {"size": [30, 20], "counts": [600]},
            r"its segmentation is of \[30, 20\], the image of \[20, 30\]",
        ),
        ("segmentation", {"size": [20, 30], "counts": "0p"}, "the invalid character 'p'"),
        ("segmentation", {"size": [20, 30], "counts": "0P"}, "end inside a number"),
        ("image_id", 7, "'x'.: no image has the id 7"),
        (
            "segmentation",
            [[1, 1, 1, 1, 1, 1]],
            "'x'.: 1 referents and a segmentation without a pixel",
        ),
        (
            "segmentation",
            [[5, 5, 15, 5, 15, 10], [1, 2]],
            r"polygons\.1: List should have at least 6",
        ),
        (
            "segmentation",
            {"size": [20, 30], "counts": [1.5, 598.5]},
            r"counts\.numbers\.0: Input should be a valid integer",
        ),
        ("referents", 0, "'x'.: 0 referents and a segmentation with pixels"),
        ("caption", " \n", "its caption is empty"),
        ("caption", "the \ud800", r"annotations\.0\.caption: .*not valid text"),
        ("category", "\ud800", r"annotations\.0\.category: .*not valid text"),
    ):
        path = truth_of_one(tmp_path, **{"segmentation": polygon, field: value})
        with pytest.raises(TruthError, match=said) as error:
            read_truth(path)
        one_line_about(path, error.value)


def test_masks_are_read_as_they_were_written(tmp_path: Path) -> None:
    """By COCO's own tools, too; runs of all lengths, coded as the difference to an earlier one."""
    path, rng = tmp_path / "truth.json", np.random.default_rng(0)
    masks = [rng.random((400, 300)) < share for share in (1e-5, 1e-3, 0.5, 0.999)]
    frames = [(at, [Referring("a", "x", 2, mask)]) for at, mask in enumerate(masks)]
    write_truth(path, "/cam", frames)
    for frame, (at, (given,)) in zip(read_truth(path), frames, strict=True):
        assert (frame.topic, frame.stamp, frame.size) == ("/cam", at, (400, 300))
        (read,) = frame.expressions()
        assert np.array_equal(read.mask, given.mask)
        assert (read.expression, read.category, read.referents) == ("a", "x", 2)
    coco = COCO(path)
    for entry, mask in zip(coco.loadAnns(coco.getAnnIds()), masks, strict=True):
        assert np.array_equal(coco.annToMask(entry), mask)
        x0, y0, x1, y1 = mask_box(mask)
        assert (entry["area"], entry["bbox"]) == (mask.sum(), [x0, y0, x1 - x0, y1 - y0])


def test_a_truth_file_that_cannot_be_used_is_named(tmp_path: Path) -> None:
    with pytest.raises(TruthError, match=r"none\.json: cannot be read as text: .*No such file"):
        read_truth(tmp_path / "none.json")
    path = tmp_path / "large.json"
    image = {"id": 3, "topic": TOPIC, "stamp": 1, "width": 100_000, "height": 100_000}
    path.write_text(json.dumps({"images": [image], "annotations": []}))
    with pytest.raises(TruthError, match=r"large\.json: image 3: 100000x100000 is too large"):
        read_truth(path)


@pytest.mark.parametrize("segmentation", [None, [], {"size": [20, 30], "counts": [600]}])
def test_nothing_may_be_meant_by_an_empty_mask(tmp_path: Path, segmentation: object) -> None:
    path = truth_of_one(tmp_path, referents=0, segmentation=segmentation)
    (expression,) = read_truth(path)[0].expressions()
    assert not expression.mask.any()


def test_hostile_instructions(tmp_path: Path) -> None:
    path = tmp_path / "asks.yaml"
    nonsense = [
        ".inf",
        "-.nan",
        "[]",
        "{}",
        "null",
        "!!python/object:os.system x",
        "2001-13-40",
        "&a [*a]",
    ]
    for key in ("id", "at", "expressions", "text", "repeat", "unknown"):
        for value in nonsense:
            path.write_text(f"instructions: [{{text: a, {key}: {value}}}]")
            try:
                read_asks(path, TOPIC, lambda _: {})
            except InputError as error:
                one_line_about(path, error)
    for data in (b"\xff", b"instructions: {", b"a: &a [*a, *a]", b"[" * 5000):
        path.write_bytes(data)
        with pytest.raises(InputError, match=r"asks\.yaml"):
            read_asks(path, TOPIC, lambda _: {})


def huge_png(width: int, height: int) -> bytes:
    """A small file that says that it is a large picture."""
    line = bytes(1 + width)
    packer = zlib.compressobj()
    data = b"".join([packer.compress(line) for _ in range(height)] + [packer.flush()])

    def chunk(kind: bytes, body: bytes) -> bytes:
        return (
            len(body).to_bytes(4, "big") + kind + body + zlib.crc32(kind + body).to_bytes(4, "big")
        )

    header = width.to_bytes(4, "big") + height.to_bytes(4, "big") + bytes([8, 0, 0, 0, 0])
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", data) + chunk(b"IEND", b"")
    )


def test_a_small_file_of_a_huge_picture_takes_no_memory() -> None:
    data = huge_png(20_000, 20_000)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(MessageError, match=r"camera: .*pixels"):
        to_rgb(SimpleNamespace(format="png", data=data), "camera")
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert grown < 50_000  # KiB; decoded it would be 1,200,000


def two_sizes(side: int) -> bytes:
    """A JPEG 2000 file: 64 x 64 by the last of its headers, which Pillow believes, else side x side."""
    file = io.BytesIO()
    Image.new("RGB", (64, 64)).save(file, "JPEG2000")
    data, size = bytearray(file.getvalue()), side.to_bytes(4, "big")
    at = (
        data.index(b"\xff\x4f\xff\x51") + 8
    )  # the codestream's sizes: of the image, and of its tile
    for place in (at, at + 4, at + 16, at + 20):
        data[place : place + 4] = size
    at = data.index(b"ihdr") - 4
    data[at:at] = data[at : at + 8] + size + size + data[at + 16 : at + 22]
    at = data.index(b"jp2h") - 4  # the length of what holds the headers
    data[at : at + 4] = (int.from_bytes(data[at : at + 4], "big") + 22).to_bytes(4, "big")
    return bytes(data)


def cut_jpeg(side: int) -> bytes:
    """The begin of a JPEG file that says that it is side x side."""
    data = bytearray(cv2.imencode(".jpg", np.zeros((8, 8, 3), np.uint8))[1].tobytes()[:-2])
    at = data.index(b"\xff\xc0") + 5
    data[at : at + 4] = side.to_bytes(2, "big") * 2
    return bytes(data)


#: Decodes a file as a camera's message and as a data set's, and tells the memory that it took, in KiB.
DECODE = """
import resource, sys
from pathlib import Path
from types import SimpleNamespace
from gsva_ros.conversions import MessageError, to_rgb
from gsva_ros.datasets.files import DatasetError, read_picture

path = Path(sys.argv[1])
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
for read, error in (
    (lambda: to_rgb(SimpleNamespace(format="", data=path.read_bytes()), "camera"), MessageError),
    (lambda: read_picture(path), DatasetError),
):
    try:
        print("decoded", read().shape)
    except error as told:
        print(told)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


@pytest.mark.parametrize(
    "data",
    [two_sizes(12_000), huge_png(12_000, 12_000), cut_jpeg(60_000)],
    ids=["two sizes", "png", "cut jpeg"],
)
def test_no_file_is_decoded_that_is_larger_than_a_cameras(data: bytes, tmp_path: Path) -> None:
    path = tmp_path / "a.image"
    path.write_bytes(data)
    command = [sys.executable, "-c", DECODE, str(path)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    message, dataset, grown = done.stdout.splitlines()
    assert message.startswith("camera: ")
    assert dataset.startswith(f"{path}: cannot be read as an image")
    assert int(grown) < 50_000  # decoded, 400,000 and more


@pytest.mark.parametrize("before", [b"", b"\0\0\0\0IEND\xae\x42\x60\x82"])
def test_a_png_of_a_huge_chunk_takes_no_memory(before: bytes, tmp_path: Path) -> None:
    whole = huge_png(8, 8)
    at = whole.index(b"IDAT") - 4
    path = tmp_path / "a.png"
    path.write_bytes(whole[:at] + before + b"\x70\0\0\0" + whole[at + 4 :])
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(MessageError, match="is damaged, or ends before the image"):
        file_rgb(path.read_bytes(), ".png")
    with pytest.raises(DatasetError, match=r"a\.png: the end of the file is missing"):
        read_picture(path)
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - peak
    assert grown < 50_000  # KiB; OpenCV 5 reserves 1,800,000 of the chunk's length


def test_what_follows_a_png_does_not_matter() -> None:
    data = huge_png(8, 8)
    for after in (b"\0\0\0", b"\xff" * 20):
        assert file_rgb(data + after, ".png").shape == (8, 8, 3)
    for end in range(len(data)):
        with pytest.raises(MessageError):
            file_rgb(data[:end], ".png")


@pytest.mark.parametrize("kept", [0.4, 0.9])
def test_a_compressed_picture_that_is_cut_short_is_none(
    monkeypatch: pytest.MonkeyPatch, kept: float
) -> None:
    """OpenCV 4.6, of Ubuntu 24.04, repeats the last rows instead, as is done here in its place."""
    whole = np.random.default_rng(0).integers(0, 255, (60, 80, 3), np.uint8)
    data = cv2.imencode(".jpg", whole)[1].tobytes()
    monkeypatch.setattr(cv2, "imdecode", lambda *_: whole)
    for padding in (b"", b"\0\0\0", b"a phone's video"):
        assert to_rgb(SimpleNamespace(format="jpeg", data=data + padding), "camera").shape
    with pytest.raises(MessageError, match=r"camera: .* ends before the image"):
        to_rgb(SimpleNamespace(format="jpeg", data=data[: round(kept * len(data))]), "camera")


@pytest.mark.parametrize(
    ("form", "shape", "complaint"),
    [
        ("16UC1; png compressed", (20, 30), "16UC1"),
        ("32FC1; compressedDepth", (20, 30), "32FC1"),
        ("png", (1, 5000), "thin"),
        ("png", (5000, 2), "thin"),
    ],
)
def test_compressed_pictures_are_checked_as_raw_ones_are(
    form: str, shape: tuple[int, int], complaint: str
) -> None:
    data = cv2.imencode(".png", np.zeros(shape, np.uint8))[1].tobytes()
    with pytest.raises(MessageError, match=complaint):
        to_rgb(SimpleNamespace(format=form, data=data), "camera")
    fine = cv2.imencode(".png", np.zeros((20, 30, 3), np.uint8))[1].tobytes()
    assert to_rgb(SimpleNamespace(format="rgb8; png compressed bgr8", data=fine)).shape == (
        20,
        30,
        3,
    )


@pytest.mark.parametrize("suffix", ["png", "jpeg"])
def test_a_compressed_mosaic_has_its_colours(suffix: str) -> None:
    """compressed_image_transport packs a Bayer picture as it is, in one channel."""
    mosaic = np.tile(np.array([[200, 100], [100, 30]], np.uint8), (12, 16))
    data = cv2.imencode(f".{suffix}", mosaic, [cv2.IMWRITE_JPEG_QUALITY, 100])[1].tobytes()
    said = SimpleNamespace(format=f"bayer_rggb8; {suffix} compressed ", data=data)
    assert np.abs(to_rgb(said)[4:-4, 4:-4].astype(int) - (200, 100, 30)).max() <= 3
    # So has one of 16 bits, which only PNG keeps.
    deep = cv2.imencode(".png", mosaic.astype(np.uint16) * 257)[1].tobytes()
    said = SimpleNamespace(format="bayer_rggb16; png compressed ", data=deep)
    assert np.abs(to_rgb(said)[4:-4, 4:-4].astype(int) - (200, 100, 30)).max() <= 3
    # One that was made a colour picture before stays as it is.
    colour = cv2.imencode(".png", np.full((20, 30, 3), (30, 100, 200), np.uint8))[1].tobytes()
    said = SimpleNamespace(format="bayer_rggb8; png compressed bgr8", data=colour)
    assert (to_rgb(said) == (200, 100, 30)).all()


@pytest.mark.parametrize("sent", ["nv12", "bayer_rggb16", "rgba16", "8UC3"])
def test_what_was_compressed_as_colour_is_colour_whatever_the_camera_sent(sent: str) -> None:
    data = cv2.imencode(".png", np.full((20, 30, 3), (30, 100, 200), np.uint8))[1].tobytes()
    said = SimpleNamespace(format=f"{sent}; png compressed bgr8", data=data)
    assert (to_rgb(said) == (200, 100, 30)).all()


@pytest.mark.parametrize("said", ["jpeg", "mono8; jpeg compressed ", "rgb8; jpeg compressed "])
def test_a_grey_file_is_a_picture_whatever_its_message_says(said: str) -> None:
    data = cv2.imencode(".jpg", np.full((20, 30), 100, np.uint8))[1].tobytes()
    assert (to_rgb(SimpleNamespace(format=said, data=data)) == 100).all()


def test_a_kind_of_file_that_opencv_does_not_decode_is_told() -> None:
    file = io.BytesIO()
    Image.fromarray(np.zeros((20, 30, 3), np.uint8)).save(file, "PCX")
    with pytest.raises(MessageError, match="cannot be decoded"):
        file_rgb(file.getvalue(), ".pcx")


@pytest.mark.parametrize("height", [1, 20])
def test_a_picture_is_the_same_in_a_message_however_it_lies_in_memory(height: int) -> None:
    """One of a single row, mirrored, or with its bytes the other way round; more data may follow."""
    rgb = np.random.default_rng(0).integers(0, 255, (height, 30, 3), np.uint8)[:, ::-1]
    message = fill_image(SimpleNamespace(), rgb, "rgb8")
    message.data.extend(b"more")
    assert (to_rgb(message) == rgb).all()
    deep = rgb.astype(np.uint16) * 256
    swapped = fill_image(SimpleNamespace(), deep.astype(">u2"), "rgb16")
    assert swapped == fill_image(SimpleNamespace(), deep, "rgb16")


def test_rosbags_writes_a_message_that_was_filled() -> None:
    store, kind = get_typestore(Stores.ROS2_HUMBLE), "sensor_msgs/msg/Image"
    stamp = store.types["builtin_interfaces/msg/Time"](0, 0)
    header = store.types["std_msgs/msg/Header"](stamp, "camera")
    message = store.types[kind](header, 0, 0, "", 0, 0, np.zeros(0, np.uint8))
    rgb = np.random.default_rng(0).integers(0, 255, (20, 30, 3), np.uint8)
    fill_image(message, given := rgb.copy(), "rgb8")
    given[:] = 0  # the message has a copy
    back = store.deserialize_cdr(store.serialize_cdr(message, kind), kind)
    assert np.array_equal(to_rgb(back), rgb)


def test_what_converts_encodings_is_named_where_it_is_missing(monkeypatch) -> None:
    monkeypatch.setattr(conversions, "_BRIDGE", None)
    monkeypatch.setitem(sys.modules, "rosbags.image", None)
    raw = SimpleNamespace(
        height=2, width=2, encoding="bgr8", is_bigendian=0, step=6, data=bytes(12)
    )
    with pytest.raises(MessageError, match=r"camera: bgr8 needs the package .*'\.\[eval\]'"):
        to_rgb(raw, "camera")


def test_exif_turns_files_and_no_messages() -> None:
    """camera_info and depth are of the pixels as the sensor has them."""
    exif = Image.Exif()
    exif[0x0112] = 6  # Orientation: a quarter turn
    file = io.BytesIO()
    Image.fromarray(np.zeros((40, 80, 3), np.uint8)).save(file, "JPEG", exif=exif)
    assert to_rgb(SimpleNamespace(format="jpeg", data=file.getvalue())).shape == (40, 80, 3)
    assert file_rgb(file.getvalue(), ".jpg").shape == (80, 40, 3)


def ran(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    """Run a command that has to fail; return what it says, one line."""
    assert cli.main([str(a) for a in arguments]) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1, said
    return said


def test_commands_say_in_one_line_what_is_wrong(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    noise = tmp_path / "noise"
    noise.write_bytes(random.Random(0).randbytes(2000))
    picture = tmp_path / "picture.png"
    cv2.imwrite(str(picture), np.zeros((20, 30, 3), np.uint8))
    thin = tmp_path / "thin.png"
    cv2.imwrite(str(thin), np.zeros((1, 5000, 3), np.uint8))
    broken = tmp_path / "model"
    broken.mkdir()
    (broken / "config.json").write_text("{")
    bag = ("eval", "bag")
    for arguments, named in (
        (("segment", noise, "x"), noise),
        (("segment", noise, "x"), "give a .png or .jpg file"),
        (("segment", tmp_path / "none.png", "x"), "none.png"),
        (("segment", DEMO, "x"), f"{DEMO}: not an image that can be segmented: Is a directory"),
        (("segment", DEMO, "x"), "`gsva eval bag`"),
        (("segment", thin, "x"), "thin"),
        (("segment", picture), "expressions"),
        (("segment", picture, "x", "--model", "no-such"), "no-such"),
        (("segment", picture, "x", "--model", broken), "config.json"),
        (("segment", picture, "x", "--model", DEMO), f"{DEMO} is not a model directory"),
        (("segment", picture, "x", "--device", "abacus"), "abacus"),
        (("segment", picture, "", "--device", "cpu"), "empty"),
        (("segment", picture, "x", "--output", noise / "a.png"), "a.png"),
        (("segment", picture, "x", "--output", tmp_path / "a.xyz"), "a.xyz"),
        ((*bag, noise), noise),
        ((*bag, tmp_path / "none"), "none"),
        ((*bag, DEMO), "--instructions"),
        ((*bag, DEMO, "--truth", noise), noise),
        ((*bag, DEMO, "--instructions", noise), noise),
        ((*bag, DEMO, "--truth", TRUTH, "--out", noise / "x.json"), "x.json"),
        ((*bag, DEMO, "--truth", TRUTH, "--topic", "/none"), "/none"),
        (("eval", "scenes", "--data", tmp_path), tmp_path),
        (("eval", "scenes", "--data", tmp_path / "none"), "no such folder"),
        (("eval", "compare", noise, noise), noise),
        (("eval", "dataset", "grefcoco", "val", "--root", tmp_path), "grefs"),
        (("record-truth", DEMO, TRUTH, tmp_path), tmp_path),
        (("record-truth", DEMO, noise, tmp_path / "new"), noise),
        (("calibrate", "--data", tmp_path, "--model", broken), tmp_path),
        (
            (
                "convert",
                "--llava",
                tmp_path,
                "--weights",
                noise,
                "--vision-tower",
                tmp_path,
                broken,
            ),
            noise,
        ),
    ):
        assert str(named) in ran(capsys, *arguments)


def test_a_model_that_does_not_fit_into_memory_is_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def large(_: object) -> object:
        return torch.empty(1 << 60, dtype=torch.uint8)

    picture = tmp_path / "picture.png"
    cv2.imwrite(str(picture), np.zeros((20, 30, 3), np.uint8))
    monkeypatch.setattr("gsva_ros.loading.load_converted", large)
    said = ran(capsys, "segment", picture, "x", "--device", "cpu")
    assert "choose another device, or a dtype of fewer bits (bfloat16, int8, int4)" in said


def test_an_overlay_that_its_format_cannot_hold_is_told(tmp_path: Path, capsys) -> None:
    picture, overlay = tmp_path / "wide.png", tmp_path / "wide.webp"
    cv2.imwrite(str(picture), np.zeros((170, 16500, 3), np.uint8))
    options = ["--device", "cpu", "--output", str(overlay)]
    assert cli.main(["segment", str(picture), "x", *options]) == 2
    assert "wide.webp: the overlay, 16500x" in capsys.readouterr().err


def test_an_output_that_is_an_input_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    picture, other = tmp_path / "picture.png", tmp_path / "link"
    picture.write_bytes(before := huge_png(30, 20))
    other.symlink_to(picture)
    for command in (
        ("segment", picture, "x", "--device", "cpu", "--output"),
        ("eval", "bag", picture, "--out"),
        ("eval", "bag", tmp_path, "--truth", picture, "--report"),
        ("eval", "bag", tmp_path, "--instructions", picture, "--records"),
        ("eval", "tracking", picture, "--out"),
        ("eval", "tracking", tmp_path, "--truth", picture, "--out"),
    ):
        said = ran(capsys, *command, other)
        assert f"{other} is an input, which would be overwritten: choose another" in said
    assert picture.read_bytes() == before


def test_file_names_need_not_be_utf_8(tmp_path: Path, capsys) -> None:
    """OpenCV's bindings end the process if they are handed such a name."""
    picture = tmp_path / os.fsdecode(b"caf\xe9.png")
    picture.write_bytes(huge_png(30, 20))
    assert read_picture(picture).shape == (20, 30, 3)
    with pytest.raises(InputError, match="an image format that cannot be written"):
        check_format(tmp_path / os.fsdecode(b"a.pn\xe9"))
    assert cli.main(["segment", str(picture), "x", "--device", "cpu"]) == 0
    assert "caf\\udce9.overlay.png" in capsys.readouterr().out
    assert picture.with_suffix(".overlay.png").read_bytes().startswith(b"\x89PNG")
    report = write_result(tmp_path / "report.html", f"<p>{picture.name}</p>")
    assert report.read_text() == "<p>caf\\udce9.png</p>"


def test_an_image_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"a\.png: cannot be written \(No such file"):
        write_rgb(tmp_path / "gone" / "a.png", np.zeros((2, 2, 3), np.uint8))


def test_nobody_is_advised_to_run_what_is_given_for_weights(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    picture, code = tmp_path / "picture.png", tmp_path / "code.bin"
    cv2.imwrite(str(picture), np.zeros((20, 30, 3), np.uint8))
    code.write_bytes(pickle.dumps({"x": Path}, protocol=2))
    for weights in (picture, code):
        folders = ("--llava", tmp_path, "--vision-tower", tmp_path, tmp_path / "new")
        said = ran(capsys, "convert", "--weights", weights, *folders)
        assert f"{weights} cannot be read as weights: neither safetensors nor" in said
        assert "weights_only" not in said


SLOT = {"expression": "x", "category": "", "referents": 1, "p_seg": 0.5, "kept": True}
SLOT |= {"predicted_iou": 0.5, "intersection": 4, "union": 9, "area": 7, "truth_area": 6}
SLOT |= {"box_iou": 1.0}


def run_of(slot: dict[str, Any]) -> dict[str, Any]:
    """An evaluation's file of one record with this slot."""
    records = [{"id": "a", "seconds": {}, "slots": [slot]}]
    return {"protocol": "deployed", "rules": "grefcoco", "records": records}


def test_files_to_compare_are_checked(tmp_path: Path) -> None:
    path = tmp_path / "run.json"
    path.write_text(json.dumps(run_of(SLOT)))
    assert read_run(path).records[0].slots[0].expression == "x"
    for key in SLOT:
        path.write_text(json.dumps(run_of(SLOT | {key: [None]})))
        with pytest.raises(InputError, match=rf"run\.json: records\.0\.slots\.0\.{key}"):
            read_run(path)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        *((key, value) for key in ("area", "truth_area", "union") for value in (-1, 0, 10**30)),
        ("union", 11),
        ("intersection", 5),
        ("intersection", -1),
        ("p_seg", 1.5),
        ("p_seg", -0.5),
        ("p_seg", math.nan),
    ],
)
def test_numbers_that_no_masks_have_are_not_scored(tmp_path: Path, key: str, value: float) -> None:
    """One damaged byte made a gIoU of 2, or of 33."""
    head, whole, lines = {"model": "a model"}, tmp_path / "run.json", tmp_path / "records.jsonl"

    def write(slot: dict[str, Any]) -> None:
        run = run_of(slot)
        whole.write_text(json.dumps(run))
        lines.write_text(f"{json.dumps(head)}\n{json.dumps(run['records'][0])}\n")

    write(SLOT)
    assert read_run(whole).records == list(Records(lines, head).done.values())
    write(SLOT | {key: value})
    said = "p_seg is a probability, not" if key == "p_seg" else f"no two masks have .*{value}"
    with pytest.raises(InputError, match=rf"run\.json: records\.0\.slots\.0: .*{said}"):
        read_run(whole)
    with pytest.raises(InputError, match=rf"records\.jsonl: 0\.slots\.0: .*{said}"):
        Records(lines, head)


def full(path: Path, data: bytes) -> int:
    """`Path.write_bytes` on a full disk."""
    path.open("wb").close()
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_a_result_is_not_lost_at_the_last_step(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    page, spare = tmp_path / "page.md", tmp_path / "spare"
    spare.mkdir()
    old = "<!-- bench mini counted -->\nold\n<!-- end bench mini counted -->\n"
    page.write_text(old)
    monkeypatch.setattr(tempfile, "tempdir", str(spare))
    monkeypatch.setattr(Path, "write_bytes", full)
    out = str(tmp_path / "out.json")
    asked = ["bench", "--count", "--expressions", "1", "--page", str(page), "--out", out]
    assert cli.main(asked) == 2
    said = capsys.readouterr().err
    for path in (page, out):
        (kept,) = spare.glob(f"*{Path(path).suffix}")
        why = "cannot be written (No space left on device): the result is in"
        assert f"{path}: {why} {kept}\n" in said
        assert "GFLOP" in kept.read_text() or '"costs"' in kept.read_text()
    assert f"not written: {out}, {page}" in said
    assert page.read_text() == old


@pytest.mark.parametrize("why", [errno.EACCES, errno.EPERM, errno.EBUSY, errno.EROFS])
def test_a_result_is_written_in_place_where_no_file_can_take_its_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, why: int
) -> None:
    path = tmp_path / "mounted.json"
    path.write_text("old")

    def write_bytes(path: Path, data: bytes) -> int:
        """Only existing files can be written."""
        if not path.exists():
            raise OSError(why, os.strerror(why))
        with path.open("wb") as file:
            return file.write(data)

    monkeypatch.setattr(Path, "write_bytes", write_bytes)
    assert write_result(path, "new") == path
    assert path.read_text() == "new"


def test_a_loop_of_links_is_told(tmp_path: Path) -> None:
    loop = tmp_path / "loop"
    loop.symlink_to(loop)
    with pytest.raises(InputError, match="loop: cannot be written"):
        check_writable(loop, inputs=[loop.with_name("other")])


def test_a_lock_ends_with_its_holder_whatever_that_has_started(tmp_path: Path) -> None:
    """A killed training's workers outlive it for some seconds."""
    code = """
import os, sys, time
from pathlib import Path
from gsva_ros.files import only_writer
with only_writer(Path(sys.argv[1])):
    if not os.fork():
        print(os.getpid(), flush=True)
    time.sleep(60)
"""
    lock = tmp_path / "lock"
    with subprocess.Popen(
        [sys.executable, "-c", code, str(lock)], cwd=ROOT, stdout=subprocess.PIPE, text=True
    ) as holder:
        assert holder.stdout is not None
        worker = int(holder.stdout.readline())
        try:
            with pytest.raises(InputError, match="another process"), only_writer(lock):
                pass
            holder.kill()
            holder.wait()
            with only_writer(lock):
                pass
        finally:
            os.kill(worker, signal.SIGKILL)


def test_a_result_may_go_to_a_link_or_a_device(tmp_path: Path) -> None:
    link = tmp_path / "link.json"
    link.symlink_to("results.json")
    write_result(link, "numbers")
    assert link.is_symlink()
    assert (tmp_path / "results.json").read_text() == "numbers"
    os.mkfifo(pipe := tmp_path / "pipe")
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    write_result(pipe, "numbers")
    assert os.read(reader, 20) == b"numbers"
    os.close(reader)
    # What a shell has redirected `/dev/stdout` to is the shell's, and stays so.
    with (tmp_path / "stdout").open("w") as redirected:
        write_result(Path(f"/dev/fd/{redirected.fileno()}"), "numbers")
        assert os.path.samestat(os.stat(tmp_path / "stdout"), os.fstat(redirected.fileno()))


def test_a_full_disk_leaves_the_file_that_was_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "config.json"
    write_whole(path, b"old")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(OSError, match=r"No space .*: '.*config\.json'"):
        write_whole(path, b"new")
    assert list(tmp_path.iterdir()) == [path]
    assert path.read_bytes() == b"old"


def without(module: str, error: str, command: list[str]) -> subprocess.CompletedProcess[str]:
    """Run a command where importing a module, of which a condition on `name` is true, raises an error."""
    code = (
        "import sys\n"
        "class Finder:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        f"        if {module}:\n"
        f"            raise {error}\n"
        "sys.meta_path.insert(0, Finder())\n"
        "from gsva_ros.cli import main\n"
        f"sys.exit(main({command!r}))\n"
    )
    return subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        cwd=ROOT,
        timeout=600,
        check=False,
    )


@pytest.mark.parametrize(
    ("module", "command", "extra"),
    [
        ("rosbags", ["eval", "bag", str(DEMO)], "eval"),
        ("accelerate", ["eval", "bag", str(DEMO), "--truth", str(TRUTH)], "eval"),
        ("mcap", ["record-truth", str(DEMO), str(TRUTH), "/nowhere/new"], "eval"),
        (
            "mujoco",
            ["sim", "render", "--split", "test", "--count", "1", "--out", "/nowhere"],
            "sim",
        ),
    ],
)
def test_a_command_without_its_packages_names_the_extra(
    module: str, command: list[str], extra: str
) -> None:
    error = "ModuleNotFoundError(f'No module named {name!r}', name=name)"
    done = without(f"name.partition('.')[0] == {module!r}", error, command)
    assert done.returncode == 2, done.stderr
    assert done.stderr.count("\n") == 1, done.stderr
    assert module in done.stderr
    assert extra in done.stderr


@pytest.mark.parametrize(
    "command",
    [
        ["segment", str(ROOT / "test/data/scene.png"), "the mug"],
        ["eval", "bag", str(DEMO), "--truth", str(TRUTH)],
    ],
)
def test_a_command_whose_packages_do_not_work_says_why(command: list[str]) -> None:
    """transformers says "Could not import module", and names no package."""
    name = "transformers.models.llama.modeling_llama"
    error = "RuntimeError('operator torchvision::nms does not exist')"
    done = without(f"name == {name!r}", error, command)
    why = "cannot import what it needs: operator torchvision::nms does not exist"
    assert (done.returncode, done.stderr) == (2, f"gsva {command[0]}: {why}\n")


def test_files_are_utf_8_whatever_the_locale(tmp_path):
    code = """
from contextlib import suppress
from pathlib import Path
from jinja2 import UndefinedError
from gsva_ros.files import read_json, write_result
from gsva_ros.eval.report import render
from gsva_ros.settings import read_yaml
from gsva_ros.truth import read_truth
path = write_result(Path("words.yaml"), '{"images": [], "annotations": [], "categories": ["T\\xfcr"]}')
assert path.read_bytes().count(b"\\xc3\\xbc") == 1
assert read_yaml(path)["categories"] == read_json(path)["categories"] == ["T\\xfcr"]
read_truth(path)
with suppress(UndefinedError):  # after the template was read
    render({}, [])
"""
    locale = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    environment = {**os.environ, **locale}
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=environment, check=True)


def test_a_files_name_cannot_rewrite_the_line_that_tells_of_it(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """ESC clears a terminal, a carriage return hides what is before it, U+202E turns the rest around."""
    error = InputError("a\x1b[2J\x9b\x00\r\u202egpj.txt\u2066: نمی‌شود")
    told = "a\\x1b[2J\\x9b\\x00 \\u202egpj.txt\\u2066: نمی‌شود"
    assert one_line(error) == told
    tell_left_out([str(error)])
    assert capsys.readouterr().err == f"left out: {told}\n"


def test_an_answer_cannot_rewrite_the_terminal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Models write what they were trained to; bags contain whatever was asked."""
    picture = tmp_path / "picture.png"
    picture.write_bytes(huge_png(30, 20))
    slots = [Slot("a\x1b[2J", 0.1, Rejection.MODEL, (20, 30)), Slot("b\r", 0, fault="c\u202e")]
    engine = Mock()
    engine.ask.return_value = Answer(slots, "Sure,\n\x9b: [REJ]")
    monkeypatch.setattr(gsva_ros, "load", lambda *_, **__: engine)
    assert cli.main(["segment", str(picture), "--text", "where?"]) == 0
    text, rejected, failed, *_ = capsys.readouterr().out.split("\n")
    assert text == "Sure,\\n\\x9b: [REJ]"
    assert rejected.startswith("a\\x1b[2J: REJECTED: ")
    assert failed == "b\\r: FAILED: c\\u202e"
    record = CaseRecord("/camera\x1b", {}, [slot_record(Referring(slots[0].expression), slots[0])])
    measure._answers(SimpleNamespace(out=None, report=None), {"data": "bag"}, [record])
    told = capsys.readouterr().out.split("\n")[1]
    assert told.startswith("/camera\\x1b  a\\x1b[2J  ")
