"""Bags scored from disk: the same frames whatever the storage, and broken input said by name."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
import rendering  # noqa: F401 (skips this module where nothing can be rendered)
from rosbags.highlevel import AnyReader
from rosbags.rosbag2 import StoragePlugin, Writer
from rosbags.typesys import Stores, get_typestore
from tiny import tiny_checkpoint

from gsva_ros import cli
from gsva_ros.eval.bags import BagError, ImageBag, bag_cases
from gsva_ros.model.checkpoint import save_pretrained
from gsva_ros.sim.bag import TOPIC, write_bag
from gsva_ros.truth import FrameTruth, TruthError, read_truth

TYPES = get_typestore(Stores.ROS2_HUMBLE)


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bag")
    write_bag(folder / "bag", [20_000_004], 3, 4.0, 160, 120, truth=folder / "truth.json")
    return folder


def test_truth_belongs_to_the_frames(recorded: Path) -> None:
    truth = read_truth(recorded / "truth.json")
    bag = ImageBag(recorded / "bag")
    cases, problems = bag_cases(bag, truth)
    assert (len(cases), problems) == (3, [])
    for case in cases:
        rgb, queries = case.read()
        assert rgb.shape == (120, 160, 3)
        assert len(queries) >= 8
        present = [q for q in queries if q.referents]
        assert len(present) == len(queries) / 2
        for query in queries:
            assert query.truth.any() == bool(query.referents)
        # "the red mug" is red: its pixels have more of that channel than the others.
        for query in present:
            words = query.expression.split()
            for channel, colour in enumerate(("red", "green", "blue")):
                if colour in words[:3] and len(words) <= 4:
                    means = rgb[query.truth].mean(0)
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


@pytest.mark.parametrize("compressed", [False, True])
@pytest.mark.parametrize("plugin", [StoragePlugin.SQLITE3, StoragePlugin.MCAP])
def test_storage_and_transport_do_not_matter(
    recorded: Path, tmp_path: Path, plugin: StoragePlugin, compressed: bool
) -> None:
    truth = read_truth(recorded / "truth.json")
    bags = [
        ImageBag(recorded / "bag"),
        ImageBag(rewritten(recorded, tmp_path / "bag", plugin, compressed)),
    ]
    cases = [bag_cases(bags[0], truth)[0], bag_cases(bags[1], truth, "/other/name")[0]]
    assert len(cases[0]) == len(cases[1]) == 3
    for one, other in zip(*cases, strict=True):
        assert np.array_equal(one.read()[0], other.read()[0])
    for bag in bags:
        bag.close()


def test_what_is_missing_is_named_and_the_rest_is_scored(recorded: Path) -> None:
    first, second, third = read_truth(recorded / "truth.json")
    bag = ImageBag(recorded / "bag")
    wrong = [
        first,
        FrameTruth(TOPIC, 77, second.size, second.annotations),
        FrameTruth(TOPIC, third.stamp, (10, 10), []),
    ]
    cases, problems = bag_cases(bag, wrong)
    assert len(cases) == 1
    assert f"{TOPIC} at 77 ns: no such frame" in problems[0]
    assert "(120, 160)" in problems[1]
    with pytest.raises(BagError, match=f"image topics: {TOPIC}"):
        bag_cases(bag, wrong, "/nowhere")
    bag.close()


def test_broken_files_are_named(recorded: Path, tmp_path: Path) -> None:
    with pytest.raises(BagError, match="no-bag"):
        ImageBag(tmp_path / "no-bag")
    whole = next((recorded / "bag").glob("*.mcap")).read_bytes()
    (tmp_path / "cut.mcap").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(BagError, match=r"cut\.mcap"):
        ImageBag(tmp_path / "cut.mcap")
    for text, complaint in (
        ("{", "truth.json"),
        ('{"images": []}', "annotations"),
        ('{"images": [], "annotations": [{"image_id": 1}]}', "annotation 1 lacks caption"),
    ):
        (tmp_path / "truth.json").write_text(text)
        with pytest.raises(TruthError, match=complaint):
            read_truth(tmp_path / "truth.json")


def test_the_command(recorded: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    checkpoint = tiny_checkpoint()
    save_pretrained(checkpoint.model, checkpoint.prompt.tokenizer, tmp_path / "model")
    common = ["--model", str(tmp_path / "model"), "--device", "cpu"]
    command = ["eval", "bag", str(recorded / "bag"), "--truth", str(recorded / "truth.json")]
    assert cli.main([*command, *common, "--out", str(tmp_path / "out.json")]) == 0
    numbers = json.loads((tmp_path / "out.json").read_text())
    assert numbers["cases"] == 3
    assert numbers["protocol"] == "deployed"
    assert cli.main([*command, *common, "--topic", "/nowhere"]) == 1
    assert "/nowhere" in capsys.readouterr().err
