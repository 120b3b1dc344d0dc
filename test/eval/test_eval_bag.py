"""Bags scored from disk: the same frames whatever the storage, and broken input said by name."""

from __future__ import annotations

import argparse
import json
import re
import sqlite3
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import cv2
import numpy as np
import pytest
import rendering  # noqa: F401 (skips this module where nothing can be rendered)
import yaml
import zstandard
from mcaps import Mcap
from rosbags.highlevel import AnyReader
from rosbags.rosbag2 import CompressionFormat, CompressionMode, StoragePlugin, Writer
from rosbags.typesys import Stores, get_typestore
from tiny import tiny_gsva

from gsva_ros import cli
from gsva_ros.bags.bag import INSTRUCTION_TYPE, Bag, BagError
from gsva_ros.conversions import to_rgb
from gsva_ros.errors import InputError
from gsva_ros.eval.asks import Ask, Recorded, match_frames, read_asks, read_script
from gsva_ros.eval.commands import measure
from gsva_ros.eval.record import record_truth
from gsva_ros.eval.sources.bag import gather, truth_cases
from gsva_ros.interfaces import mcap_writer, typestore
from gsva_ros.sim.bag import TOPIC, write_bag
from gsva_ros.stamps import SECOND
from gsva_ros.truth import FrameTruth, Referring, TruthError, of_camera, read_truth, write_truth

TYPES = get_typestore(Stores.ROS2_HUMBLE)


def instruction(
    topic: str, words: Sequence[str], name: str = "a", mode: int = 0, not_before: int = 0
) -> Any:
    """An Instruction; `not_before` in seconds."""
    made = typestore().types
    time, duration = (made[f"builtin_interfaces/msg/{n}"] for n in ("Time", "Duration"))
    header = made["std_msgs/msg/Header"](time(not_before, 0), "")
    start, end = time(not_before, 0), duration(0, 0)
    return made[INSTRUCTION_TYPE](header, topic, name, mode, "", words, start, end)


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bag")
    write_bag(folder / "bag", [20_000_004], 3, 4.0, 160, 120, truth=folder / "truth.json")
    return folder


def test_truth_belongs_to_the_frames(recorded: Path) -> None:
    truth = read_truth(recorded / "truth.json")
    bag = Bag(recorded / "bag")
    cases = truth_cases(bag, truth)
    assert (len(cases), bag.problems) == (3, [])
    for case in cases:
        rgb, queries = case.read()
        assert rgb.shape == (120, 160, 3)
        assert len(queries) >= 8
        present = [q for q in queries if q.referents]
        assert len(present) == len(queries) / 2
        for query in queries:
            assert query.mask.any() == bool(query.referents)
        # "the red mug" is red: its pixels have more of that channel than the others.
        for query in present:
            words = query.expression.split()
            for channel, colour in enumerate(("red", "green", "blue")):
                if colour in words[:3] and len(words) <= 4:
                    means = rgb[query.mask].mean(0)
                    assert means.argmax() == channel, query.expression
    bag.close()


def rewritten(recorded: Path, out: Path, plugin: StoragePlugin, compressed: bool) -> Path:
    """The same frames in another storage, as compressed images under another name, or both."""
    kind = f"sensor_msgs/msg/{'CompressedImage' if compressed else 'Image'}"
    with (
        AnyReader([recorded / "bag"]) as reader,
        Writer(out, version=9, storage_plugin=plugin) as writer,
    ):
        to = writer.add_connection("/other/name", kind, typestore=TYPES)
        for connection, stamp, raw in reader.messages():
            if connection.topic != TOPIC:
                continue
            msg = reader.deserialize(raw, connection.msgtype)
            if compressed:
                rgb = msg.data.reshape(msg.height, msg.width, 3)
                _, data = cv2.imencode(".png", cv2.cvtColor(rgb, cv2.COLOR_RGB2BGR))
                msg = TYPES.types[kind](msg.header, "png", data.reshape(-1))
            writer.write(to, stamp, TYPES.serialize_cdr(msg, kind))
    return out


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_truth_as_programs_for_windows_write_it(
    recorded: Path, tmp_path: Path, encoding: str
) -> None:
    text = (recorded / "truth.json").read_text()
    (tmp_path / "truth.json").write_text(text, encoding=encoding)
    assert read_truth(tmp_path / "truth.json") == read_truth(recorded / "truth.json")


@pytest.mark.parametrize("compressed", [False, True])
@pytest.mark.parametrize("plugin", [StoragePlugin.SQLITE3, StoragePlugin.MCAP])
def test_storage_and_transport_do_not_matter(
    recorded: Path, tmp_path: Path, plugin: StoragePlugin, compressed: bool
) -> None:
    truth = read_truth(recorded / "truth.json")
    bags = [
        Bag(recorded / "bag"),
        Bag(rewritten(recorded, tmp_path / "bag", plugin, compressed)),
    ]
    cases = [
        truth_cases(bags[0], truth),
        truth_cases(bags[1], of_camera(truth, "/other/name", bags[1].image_topics)),
    ]
    assert len(cases[0]) == len(cases[1]) == 3
    for one, other in zip(*cases, strict=True):
        assert np.array_equal(one.read()[0], other.read()[0])
    kind, raw = bags[1].published("/other/name", truth[1].stamp)
    rgb = to_rgb(TYPES.deserialize_cdr(raw, kind))
    assert np.array_equal(rgb, bags[0].rgb(TOPIC, truth[1].stamp))
    for bag in bags:
        bag.close()


def test_what_is_missing_is_named_and_the_rest_is_scored(recorded: Path) -> None:
    first, second, third = read_truth(recorded / "truth.json")
    wrong = [
        first,
        FrameTruth(TOPIC, 77, second.size, second.annotations),
        FrameTruth(TOPIC, third.stamp, (10, 10), []),
    ]
    with Bag(recorded / "bag") as bag:
        assert len(truth_cases(bag, wrong)) == 1
        assert f"{TOPIC} at 77 ns: no such frame" in bag.problems[0]
        assert "(120, 160)" in bag.problems[1]
        with pytest.raises(BagError, match=f"image topics: {TOPIC}"):
            truth_cases(bag, of_camera(wrong, "/nowhere", []))


@pytest.mark.parametrize("with_metadata", [True, False])
def test_of_a_cut_file_everything_before_the_cut_is_read(
    recorded: Path, tmp_path: Path, with_metadata: bool
) -> None:
    """As a crash leaves a recording: chunks of messages, and the last one cut in two."""
    file = tmp_path / "whole.mcap"
    with Bag(recorded / "bag") as whole, Mcap(file, chunk_size=50_000) as writer:
        channels: dict[str, int] = {}
        for connection, at, raw in whole.raw():
            topic, definition = connection.topic, connection.msgdef.data.encode()
            if topic not in channels:
                channels[topic] = writer.topic(topic, connection.msgtype, definition)
            writer.add_message(channels[topic], at, bytes(raw), at)
        frames = list(whole.frames(TOPIC))
    data = file.read_bytes()
    folder = tmp_path / "crashed"
    folder.mkdir()
    (folder / "crashed.mcap").write_bytes(data[: int(len(data) * 0.6)])
    if with_metadata:
        metadata = (recorded / "bag" / "metadata.yaml").read_text()
        lines = metadata.replace("bag.mcap", "crashed.mcap").splitlines()
        lines = [re.sub("compression_(mode|format): .*", r"compression_\1: ''", x) for x in lines]
        (folder / "metadata.yaml").write_text("\n".join(lines))
    with Bag(folder) as bag:
        assert 0 < len(bag.frames(TOPIC)) < len(frames)
        assert list(bag.frames(TOPIC)) == frames[: len(bag.frames(TOPIC))]
        said = "\n".join(bag.problems)
        assert re.search(rf"crashed\.mcap: lost from byte \d+ on .*{TOPIC}: \d messages", said)
        assert ("no metadata.yaml" in said) != with_metadata
        # What is left can be scored, and what is lost is told.
        cases = truth_cases(bag, read_truth(recorded / "truth.json"))
        assert len(cases) == len(bag.frames(TOPIC))
        assert "no such frame" in bag.problems[-1]
        assert cases[0].read()[0].shape == (120, 160, 3)


def write_pictures(folder: Path, topic: str, stamps: Sequence[int], plugin: StoragePlugin) -> None:
    """A bag of small grey pictures that were all received at once, and an instruction about /camera."""
    types = typestore()
    made = types.types
    Header, Time = made["std_msgs/msg/Header"], made["builtin_interfaces/msg/Time"]
    with Writer(folder, version=9, storage_plugin=plugin) as writer:
        kind = "sensor_msgs/msg/CompressedImage"
        pictures = writer.add_connection(topic, kind, typestore=types)
        asked = writer.add_connection("/instruction", INSTRUCTION_TYPE, typestore=types)
        for stamp in stamps:
            _, data = cv2.imencode(".png", np.full((2, 2, 3), stamp, np.uint8))
            picture = made[kind](Header(Time(stamp, 0), "c"), "png", data.reshape(-1))
            writer.write(pictures, 5 * SECOND, types.serialize_cdr(picture, kind))
        said = types.serialize_cdr(instruction("camera", ["x"]), INSTRUCTION_TYPE)
        writer.write(asked, 6 * SECOND, said)


def test_frames_received_at_once_each_get_their_own_truth(tmp_path: Path) -> None:
    topic = "/camera/compressed"
    write_pictures(tmp_path / "bag", topic, (1, 2, 3), StoragePlugin.MCAP)
    there = np.ones((2, 2), bool)
    known = [(n * SECOND, [Referring(f"thing {n}", "x", 1, there)]) for n in (1, 2, 3)]
    write_truth(tmp_path / "truth.json", topic, known)
    with Bag(tmp_path / "bag") as bag:
        assert record_truth(bag, read_truth(tmp_path / "truth.json"), tmp_path / "out") == 3
    with Bag(tmp_path / "out") as bag:
        assert [frame.stamp for frame in bag.truth()] == [n * SECOND for n in (1, 2, 3)]


def test_instructions_of_the_bag_are_not_asked_beside_the_truth(tmp_path: Path) -> None:
    """Whatever their topic; each topic that is left out is named."""
    two_cameras(tmp_path)
    types = typestore()
    follow = instruction("/right", ["a thing"], mode=1)
    text = types.types["std_msgs/msg/String"]("a thing")
    with Bag(tmp_path / "bag") as bag, Writer(tmp_path / "robot", version=9) as writer:
        to = {t: writer.add_connection(t, kind, typestore=types) for t, kind in bag.topics.items()}
        for name, said in (("/arm/instruction", follow), ("/arm/instruction_text", text)):
            asked = writer.add_connection(name, said.__msgtype__, typestore=types)
            writer.write(asked, SECOND, types.serialize_cdr(said, said.__msgtype__))
        for connection, at, raw in bag.raw():
            writer.write(to[connection.topic], at, raw)
    with Bag(tmp_path / "robot") as bag:
        assert record_truth(bag, read_truth(tmp_path / "one.json"), tmp_path / "own") == 3
        text, follow = sorted(bag.problems, reverse=True)
    assert "/arm/instruction_text: left out of the copy" in text
    assert "/arm/instruction: left out of the copy" in follow
    with Bag(tmp_path / "own") as bag:
        assert len(bag.asks("/right")) == 3
        assert set(bag.topics) == {"/left", "/right", "/instruction", "/ground_truth"}


def test_a_camera_is_meant_as_the_node_takes_it(tmp_path: Path) -> None:
    """By its name without a namespace, where its pictures are compressed."""
    write_pictures(tmp_path / "bag", "/camera/compressed", (1,), StoragePlugin.MCAP)
    with Bag(tmp_path / "bag") as bag:
        assert [ask.topic for ask in bag.asks("")] == ["/camera/compressed"]


def test_an_sqlite_bag_without_metadata_is_read(tmp_path: Path) -> None:
    write_pictures(tmp_path / "bag", "/camera", (1, 2), StoragePlugin.SQLITE3)
    (tmp_path / "bag" / "metadata.yaml").unlink()
    with Bag(tmp_path / "bag") as bag:
        assert list(bag.frames("/camera")) == [SECOND, 2 * SECOND]
        assert "no metadata.yaml" in bag.problems[0]


def test_instructions_that_cannot_be_read_are_not_called_missing_alone(tmp_path: Path) -> None:
    write_pictures(tmp_path / "bag", "/camera", (1,), StoragePlugin.SQLITE3)
    database = sqlite3.connect(next((tmp_path / "bag").glob("*.db3")))
    with database:
        database.execute("UPDATE messages SET data = x'0001' WHERE timestamp = ?", (6 * SECOND,))
    database.close()
    told = "no instructions in it: .*; .*: /instruction at 6000000000 ns: not a gsva_ros/msg/Instruction"
    with pytest.raises(BagError, match=told), gather(gathered_from(tmp_path / "bag")):
        pass


@pytest.mark.parametrize("plugin", [StoragePlugin.SQLITE3, StoragePlugin.MCAP])
def test_what_a_crash_leaves_of_compressed_files_is_read(
    tmp_path: Path, plugin: StoragePlugin
) -> None:
    """Of a split bag all files but the last were compressed, one just now, and nothing describes them."""
    crashed = tmp_path / "crashed"
    crashed.mkdir()
    for number in range(3):
        write_pictures(tmp_path / str(number), "/camera", (number + 1,), plugin)
        (file,) = (f for f in (tmp_path / str(number)).iterdir() if f.suffix != ".yaml")
        if number < 2:
            data = zstandard.compress(file.read_bytes())
            (crashed / f"{file.name}.zstd").write_bytes(data)
        if number:
            file.rename(crashed / file.name)
    wanted = [SECOND, 2 * SECOND, 3 * SECOND]
    with Bag(crashed) as bag:
        assert sorted(bag.frames("/camera")) == wanted
        assert len(bag.asks("/camera")) == 3
    (packed,) = crashed.glob("0*")
    with Bag(packed) as bag:
        assert list(bag.frames("/camera")) == wanted[:1]


@pytest.mark.parametrize("compression", [None, CompressionMode.FILE, CompressionMode.MESSAGE])
@pytest.mark.parametrize("plugin", [StoragePlugin.SQLITE3, StoragePlugin.MCAP])
def test_topics_are_read_whatever_metadata_says_of_them(
    tmp_path: Path, plugin: StoragePlugin, compression: CompressionMode | None
) -> None:
    """As where somebody edits the quality of service so that `ros2 bag play` plays it."""
    folder = tmp_path / "bag"
    writer = Writer(folder, version=9, storage_plugin=plugin)
    if compression:
        writer.set_compression(compression, CompressionFormat.ZSTD)
    with writer:
        kind = "std_msgs/msg/String"
        asked = writer.add_connection("/instruction_text", kind, typestore=TYPES)
        writer.write(asked, 1, TYPES.serialize_cdr(TYPES.types[kind]("the mug"), kind))
    path = folder / "metadata.yaml"
    metadata = yaml.safe_load(path.read_text())
    (topic,) = metadata["rosbag2_bagfile_information"]["topics_with_message_count"]
    unlimited = {"sec": 9223372036, "nsec": 854775807}
    topic["topic_metadata"]["offered_qos_profiles"] = [
        {
            "history": "keep_last", "depth": 5, "reliability": "reliable",
            "durability": "volatile", "deadline": unlimited, "lifespan": unlimited,
            "liveliness": "automatic", "liveliness_lease_duration": unlimited,
            "avoid_ros_namespace_conventions": False,
        }
    ]  # fmt: skip
    path.write_text(yaml.safe_dump(metadata))
    with Bag(folder) as bag:
        assert [ask.expressions for ask in bag.asks("/camera")] == [("the mug",)]
        assert "describes /instruction_text differently" in "; ".join(bag.problems)


def test_an_instruction_meets_the_frames_that_the_node_would_answer() -> None:
    """Newest frame at the time of asking, or the first that `not_before` admits; until cancelled."""
    frames = {"/c": [Recorded(stamp, stamp + 5) for stamp in (100, 200, 300, 400)]}

    def stamps(*asks: Ask) -> list[int]:
        return [stamp for _, stamp in match_frames(asks, frames)[0]]

    once = Ask("a", "/c", 250, ("x",))
    assert stamps(once) == [200]
    assert stamps(Ask("a", "/c", 50, ("x",))) == [100]
    assert stamps(Ask("a", "/c", 250, ("x",), not_before=250)) == [300]
    every = Ask("a", "/c", 250, ("x",), every_frame=True)
    assert stamps(every) == [200, 300, 400]
    cancel = Ask("a", "/c", 310, cancel=True)
    assert stamps(every, cancel) == [200, 300]
    assert match_frames([every, cancel], frames)[1] == []  # a cancellation is nothing to answer
    assert stamps(every, Ask("b", "/c", 310, cancel=True)) == [200, 300, 400]
    assert stamps(every, Ask("a", "/c", 310, ("y",))) == [200, 300, 300]
    late = Ask("late", "/c", 500, ("x",), not_before=500)
    pairs, problems = match_frames(
        [late, Ask("odd", "/c", 1), Ask("n", "/none", 1, ("x",))], frames
    )
    assert pairs == []
    assert "'late' at 500 ns: no frame of /c" in problems[0]
    assert "neither text nor" in problems[1]
    assert "no frame of /none" in problems[2]


def test_instruction_files_say_what_is_wrong_with_them(tmp_path: Path) -> None:
    path = tmp_path / "asks.yaml"
    path.write_text(
        "image_topic: /c\ninstructions:\n"
        "  - {at: 0.5, expressions: [the red can, the mug]}\n"
        "  - {id: follow, text: hand me the can, repeat: true}\n"
        "  - {id: 5, text: '7'}\n"
    )
    assert read_asks(path, "/other", {"/c": {1000: 5000}}.__getitem__) == [
        Ask("1", "/c", 500_001_000, ("the red can", "the mug"), not_before=500_001_000),
        Ask("follow", "/c", 4999, (), "hand me the can", 1000, every_frame=True),
        Ask("5", "/c", 4999, (), "7", 1000),
    ]
    for text, complaint in (
        ("- nothing", "asks.yaml: top level"),
        ("instructions: []", "at least 1 item"),
        ("instructions: [5]", r"instructions\.0"),
        ("instructions: [{text: a, words: b}]", r"instructions\.0\.words: Extra"),
        ("instructions: [{at: 1}]", "give either text or expressions"),
        ("instructions: [{at: soon, text: a}]", r"instructions\.0\.at"),
        ("instructions: [{at: .inf, text: a}]", "finite"),
        ("instructions: [{at: -1, text: a}]", "greater than or equal to 0"),
        ("instructions: [{expressions: the red can}]", "valid list"),
        ("instructions: [{expressions: [[a]]}]", "valid string"),
        ("instructions: [{at: 2001-99-99, text: a}]", "asks.yaml"),
        ("instructions: {", "asks.yaml"),
    ):
        path.write_text(text)
        with pytest.raises(InputError, match=complaint):
            read_asks(path, "/c", {"/c": {}}.__getitem__)


def test_an_instruction_asked_twice_keeps_both_answers(recorded: Path, tmp_path: Path) -> None:
    """Two of one name, both while the first frame was the newest."""
    types = typestore()
    with AnyReader([recorded / "bag"]) as reader, mcap_writer(tmp_path / "asked") as writer:
        to = writer.add_connection(TOPIC, "sensor_msgs/msg/Image", typestore=types)
        asked = writer.add_connection("/instruction", INSTRUCTION_TYPE, typestore=types)
        frames = [(at, raw) for c, at, raw in reader.messages() if c.topic == TOPIC]
        for at, raw in frames:
            writer.write(to, at, raw)
        for number, word in enumerate(("the red mug", "the can"), start=1):
            said = types.serialize_cdr(instruction(TOPIC, [word]), INSTRUCTION_TYPE)
            writer.write(asked, frames[0][0] + number, said)
    with gather(gathered_from(tmp_path / "asked")) as gathered:
        first, second = gathered.cases
        assert second.id == f"{first.id} (2)"
        assert first.image == second.image != ""
        words = [case.read()[1][0].expression for case in gathered.cases]
        assert words == ["the red mug", "the can"]


def test_frames_of_a_truth_file_are_told_apart(recorded: Path, tmp_path: Path) -> None:
    path = tmp_path / "truth.json"
    for field, said in (("id", "have the id 1"), ("stamp", "images 1 and 2 are both of")):
        data = json.loads((recorded / "truth.json").read_text())
        data["images"][1][field] = data["images"][0][field]
        path.write_text(json.dumps(data))
        with pytest.raises(TruthError, match=said):
            read_truth(path)


def test_broken_files_are_named(recorded: Path, tmp_path: Path) -> None:
    with pytest.raises(BagError, match="no-bag"):
        Bag(tmp_path / "no-bag")
    (tmp_path / "noise.mcap").write_bytes(bytes(1000))
    with pytest.raises(BagError, match=r"noise\.mcap: lost from byte 0"):
        Bag(tmp_path / "noise.mcap")
    (tmp_path / "noise.db3").write_bytes(bytes(1000))
    with pytest.raises(BagError, match=r"noise\.db3"):
        Bag(tmp_path / "noise.db3")
    for text, complaint in (
        ("{", "truth.json"),
        ('{"images": []}', "annotations"),
        ('{"images": [], "annotations": [{"image_id": 1}]}', r"annotations\.0\.caption"),
    ):
        (tmp_path / "truth.json").write_text(text)
        with pytest.raises(TruthError, match=complaint):
            read_truth(tmp_path / "truth.json")


def test_a_damaged_message_is_left_out_of_the_copy(recorded: Path, tmp_path: Path) -> None:
    """In a lone file of sqlite3, whose messages are compressed one by one."""
    writer = Writer(tmp_path / "bag", version=9, storage_plugin=StoragePlugin.SQLITE3)
    writer.set_compression(CompressionMode.MESSAGE, CompressionFormat.ZSTD)
    with Bag(recorded / "bag") as bag, writer:
        image = writer.add_connection(TOPIC, "sensor_msgs/msg/Image", typestore=TYPES)
        for connection, at, raw in bag.raw():
            if connection.topic == TOPIC:
                writer.write(image, at, raw)
    (file,) = (tmp_path / "bag").glob("*.db3")
    with sqlite3.connect(file) as database:
        database.execute("UPDATE messages SET data = substr(data, 1, 99) WHERE id = 2")
    with Bag(file) as bag:
        count = record_truth(bag, read_truth(recorded / "truth.json"), tmp_path / "copy")
        assert "ZstdError" in bag.problems[-1]
    assert count == 2
    with Bag(tmp_path / "copy") as bag:
        assert (len(bag.frames(TOPIC)), bag.problems) == (2, [])


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_gsva(tmp_path_factory.mktemp("model"))


def test_the_command(
    recorded: Path, tiny: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A truth file, the bag's own truth and instructions, an instruction file, and none of them."""
    common = ["--model", str(tiny), "--device", "cpu", "--out", str(tmp_path / "out.json")]
    bag, truth = str(recorded / "bag"), str(recorded / "truth.json")

    def numbers(*arguments: str) -> dict:
        assert cli.main(["eval", "bag", *arguments, *common]) == 0
        return json.loads((tmp_path / "out.json").read_text())

    beside = numbers(bag, "--truth", truth)
    assert beside["cases"] == 3
    assert beside["protocol"] == "deployed"
    assert cli.main(["eval", "bag", bag, "--truth", truth, "--topic", "/nowhere", *common]) == 2
    assert "/nowhere" in capsys.readouterr().err
    # The same, inside the bag.
    own = str(tmp_path / "own")
    assert cli.main(["record-truth", bag, truth, own]) == 0
    assert cli.main(["record-truth", bag, truth, own]) == 2
    within = numbers(own)
    assert within["scores"] == beside["scores"]
    assert within["unscored"] == 0
    with Bag(Path(own)) as copy, Bag(recorded / "bag") as source:
        assert copy.frames(TOPIC).keys() == source.frames(TOPIC).keys()
        assert len(copy.asks(TOPIC)) == len(copy.truth()) == 3
    # Asked otherwise: what the truth knows is scored, the rest is only answered.
    known = json.loads(Path(truth).read_text())["annotations"][0]["caption"]
    asks = tmp_path / "asks.yaml"
    entries = [{"expressions": [known, "the moon"]}, {"text": "hand me the can"}, {"at": 99}]
    entries[2]["expressions"] = ["the can"]
    asks.write_text(yaml.safe_dump({"instructions": entries}))
    capsys.readouterr()
    mixed = numbers(bag, "--truth", truth, "--instructions", str(asks))
    assert mixed["scores"]["all"]["n"] == 1
    assert mixed["unscored"] >= 1
    said = capsys.readouterr()
    assert "instruction '3' at 100000000000 ns: no frame" in said.err
    assert re.search(r" \d\.\d{3} .*\n( +-){4}\n", said.out), "one image: no interval"
    silent = numbers(bag, "--instructions", str(asks))
    assert "scores" not in silent
    assert "no ground truth" in capsys.readouterr().out
    assert cli.main(["eval", "bag", bag, *common]) == 2
    assert "no instructions in it" in capsys.readouterr().err


def test_answers_are_written_before_they_are_printed(
    recorded: Path, tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asks, out = tmp_path / "asks.yaml", tmp_path / "out.json"
    asks.write_text(yaml.safe_dump({"instructions": [{"expressions": ["the moon"]}]}))
    command = ["eval", "bag", recorded / "bag", "--instructions", asks, "--out", out]
    closed = Mock(side_effect=BrokenPipeError)  # as when `head` has ended
    monkeypatch.setattr(measure, "print", closed, raising=False)
    assert cli.main([*map(str, command), "--model", str(tiny), "--device", "cpu"]) == 2
    assert json.loads(out.read_text())["cases"] == 1


def two_cameras(folder: Path) -> list[FrameTruth]:
    """A bag of two cameras that share stamps and times of receipt, and truth about both, as JSON too."""
    types = typestore()
    made, kind = types.types, "sensor_msgs/msg/Image"
    Header, Time = made["std_msgs/msg/Header"], made["builtin_interfaces/msg/Time"]
    truth = []
    with Writer(folder / "bag", version=9) as writer:
        for value, topic in enumerate(("/left", "/right"), start=1):
            to = writer.add_connection(topic, kind, typestore=types)
            for second in (1, 2, 3):
                rgb = np.full(6 * 8 * 3, value, np.uint8)
                image = made[kind](Header(Time(second, 0), "c"), 6, 8, "rgb8", 0, 24, rgb)
                writer.write(to, second * SECOND, types.serialize_cdr(image, kind))
            mask = np.zeros((6, 8), bool)
            mask[:, :value] = True
            seconds = [(n * SECOND, [Referring("a thing", "x", 1, mask)]) for n in (1, 2, 3)]
            write_truth(folder / "one.json", topic, seconds)
            truth += read_truth(folder / "one.json")
    return truth


def gathered_from(bag: Path, **changes: object) -> argparse.Namespace:
    return argparse.Namespace(
        **{"bag": bag, "truth": None, "topic": None, "instructions": None} | changes
    )


@pytest.mark.parametrize("topic", [None, "/left", "/right"])
def test_cameras_that_share_stamps_keep_their_own_truth(tmp_path: Path, topic: str | None) -> None:
    """Also where the truth's instructions are answered, each by an id of its own."""
    truth = two_cameras(tmp_path)
    with Bag(tmp_path / "bag") as bag:
        assert record_truth(bag, truth, tmp_path / "own") == 6
    with gather(gathered_from(tmp_path / "own", topic=topic)) as gathered:
        assert not gathered.problems
        read = [case.read() for case in gathered.cases]
    seen = [(int(rgb[0, 0, 0]), int(queries[0].mask[0].sum())) for rgb, queries in read]
    values = {None: (1, 2), "/left": (1,), "/right": (2,)}[topic]
    assert sorted(seen) == [(value, value) for value in values for _ in range(3)]
    with Bag(tmp_path / "own") as bag:
        assert len({ask.id for ask in bag.asks("")}) == 6


def test_truth_of_other_cameras_is_not_taken_for_this_ones(tmp_path: Path) -> None:
    truth = two_cameras(tmp_path)
    assert of_camera(truth, None, ["/left"]) == truth
    assert {frame.topic for frame in of_camera(truth, "/left", ["/left"])} == {"/left"}
    assert {frame.topic for frame in of_camera(truth[:3], "/other", ["/other"])} == {"/other"}
    assert of_camera([], "/other", ["/left", "/other"]) == []
    unnamed = [replace(frame, topic="") for frame in truth[:3]]
    assert {frame.topic for frame in of_camera(unnamed, "/other", ["/other"])} == {"/other"}
    both = ["/other", "/left", "/left/compressed"]
    packed = of_camera(truth[:3], "/left/compressed", both)
    assert {frame.topic for frame in packed} == {"/left/compressed"}
    with pytest.raises(TruthError, match="no truth of /other, but of /left, /right"):
        of_camera(truth, "/other", [])
    only = gathered_from(tmp_path / "bag", truth=tmp_path / "one.json", topic="/left")
    with pytest.raises(TruthError, match="no truth of /left, but of /right"), gather(only):
        pass


def test_instructions_about_other_cameras_are_not_answered_on_this_one(tmp_path: Path) -> None:
    """Unless they name the only camera otherwise than the bag does."""
    truth = two_cameras(tmp_path)
    with Bag(tmp_path / "bag") as bag:
        record_truth(bag, truth[:3], tmp_path / "own")
    write_truth(tmp_path / "right.json", "/right", [(f.stamp, f.expressions()) for f in truth[3:]])
    right = gathered_from(tmp_path / "own", truth=tmp_path / "right.json", topic="/right")
    with (
        pytest.raises(BagError, match="no instruction about /right, but about /left"),
        gather(right),
    ):
        pass
    write_pictures(tmp_path / "named", "/wrist", (1,), StoragePlugin.MCAP)
    with gather(gathered_from(tmp_path / "named", topic="/wrist")) as gathered:
        assert [case.id for case in gathered.cases] == [f"/wrist {SECOND} a"]


def test_truth_that_cannot_be_of_its_frame_is_not_recorded(tmp_path: Path) -> None:
    """One of another size, and one that says nothing, which nobody could answer."""
    first, second, third, *_ = two_cameras(tmp_path)
    wrong = [first, FrameTruth("/left", second.stamp, (12, 16), second.annotations)]
    silent = FrameTruth("/left", third.stamp, third.size, [])
    with Bag(tmp_path / "bag") as bag:
        assert record_truth(bag, [*wrong, silent], tmp_path / "own") == 1
        (problem,) = bag.problems
    assert "the frame is (6, 8), its truth (12, 16)" in problem


def test_what_cannot_be_asked_is_left_out_alone(
    recorded: Path, tiny: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    known = read_truth(recorded / "truth.json")[0].annotations[0].caption
    asks = tmp_path / "asks.yaml"
    entries = [{"expressions": [" ", known]}, {"expressions": ["y " * 9000]}]
    asks.write_text(yaml.safe_dump({"instructions": entries}))
    page = tmp_path / "report.html"
    common = ["--model", str(tiny), "--device", "cpu", "--out", str(tmp_path / "out.json")]
    common += ["--truth", str(recorded / "truth.json"), "--report", str(page)]
    command = ["eval", "bag", str(recorded / "bag"), "--instructions", str(asks), *common]
    for again in range(2):
        records = tmp_path / "bag.records"
        assert cli.main([*command, "--records", str(records)]) == 0, again
        (case,) = json.loads((tmp_path / "out.json").read_text())["records"]
        assert [slot["expression"] for slot in case["slots"]] == [known]
        assert page.read_text().count(f"“{known}”") == 1
        page.unlink()
    said = capsys.readouterr().err
    assert re.search(r"left out: /camera/image \d+ 1: expression 1: an expression is empty", said)
    assert re.search(r"left out: /camera/image \d+ 2: ", said)


def test_of_several_cameras_one_instruction_does_not_take_the_others_along(tmp_path: Path) -> None:
    """A CANCEL need not name a camera, and one may be named that was not recorded."""
    two_cameras(tmp_path)
    types = typestore()
    asked = [(1, "/left", "a", 1), (1, "/right", "b", 1), (1, "/wrist", "c", 1), (2, "", "a", 2)]
    asked.append((1, "/right", "d", 0))  # on no frame before the third second
    with Bag(tmp_path / "bag") as bag, Writer(tmp_path / "asked", version=9) as writer:
        cameras = {
            topic: writer.add_connection(topic, kind, typestore=types)
            for topic, kind in bag.topics.items()
        }
        to = writer.add_connection("/instruction", INSTRUCTION_TYPE, typestore=types)
        for connection, at, raw in bag.raw():
            writer.write(cameras[connection.topic], at, raw)
        for second, topic, name, mode in asked:
            words = ["a thing"] if mode != 2 else []
            msg = instruction(topic, words, name, mode, not_before=0 if mode else 3)
            raw = types.serialize_cdr(msg, INSTRUCTION_TYPE)
            writer.write(to, second * SECOND + 1, raw)
    with gather(gathered_from(tmp_path / "asked")) as gathered:
        names = [case.id.split() for case in gathered.cases]
        assert [(topic, int(stamp) // SECOND, name) for topic, stamp, name in names] == [
            ("/left", 1, "a"), ("/left", 2, "a"),
            ("/right", 1, "b"), ("/right", 2, "b"), ("/right", 3, "b"), ("/right", 3, "d"),
        ]  # fmt: skip
        (problem,) = gathered.problems
    assert "'c'" in problem
    assert "no frame of /wrist" in problem


def test_results_beside_the_data_are_not_the_data(tmp_path: Path) -> None:
    two_cameras(tmp_path)
    found = []
    for name in ("metadata.yaml", "run.jsonl"):
        (tmp_path / "bag" / name).touch()
        with gather(gathered_from(tmp_path / "bag", truth=tmp_path / "one.json")) as gathered:
            found.append(gathered.fingerprint)
    assert found[0] == found[1]


def test_instructions_without_an_id_are_numbered(tmp_path: Path) -> None:
    entries = [{"expressions": ["a"]}, {"id": "b", "text": "c"}, {"text": "d"}]
    (tmp_path / "asks.yaml").write_text(yaml.safe_dump({"instructions": entries}))
    script = read_script(tmp_path / "asks.yaml")
    assert [entry.id for entry in script.instructions] == ["1", "b", "3"]
