"""A bag played to the node scores as it does when it is read from disk; sim time is the bag's."""

from __future__ import annotations

import json
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import harness
import numpy as np
import pytest
import rclpy
from gsva_ros.msg import InstanceMask, Outcome, Provenance, Rejection, Segmentation
from harness import REAL, Client, NodeProcess
from mcap.writer import IndexType
from mcaps import Mcap
from pycocotools import mask as rle
from rclpy.executors import SingleThreadedExecutor
from rclpy.qos import qos_profile_sensor_data
from rclpy.serialization import serialize_message
from rosbags.rosbag2 import Reader
from rosbags.rosbag2 import Writer as RosbagWriter
from sensor_msgs.msg import Image

from gsva_ros import cli
from gsva_ros.conversions import fill_image
from gsva_ros.errors import InputError
from gsva_ros.interfaces import typestore, whole_bag
from gsva_ros.programs import live
from gsva_ros.programs.live import LiveEvaluation, _period
from gsva_ros.programs.player import Player
from gsva_ros.stamps import SECOND, fill
from gsva_ros.truth import Annotation, FrameTruth, Referring, RunLengths, read_truth, write_truth

DEMO = Path(__file__).resolve().parents[2] / "demo"
PROGRAMS = Path(REAL[0]).parent
EVERY = 7  # frames of the demo's from one to the next: 1.75 s

harness.isolate()


@contextmanager
def two_contexts() -> Iterator[tuple[rclpy.Context, rclpy.Context]]:
    """Two participants for a player: of its images, and of its requests."""
    contexts = rclpy.Context(), rclpy.Context()
    for context in contexts:
        rclpy.init(context=context)
    try:
        yield contexts
    finally:
        for context in contexts:
            rclpy.shutdown(context=context)


@pytest.fixture(scope="module")
def bag(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Some frames of the demo's bag, with instructions and truth."""
    folder = tmp_path_factory.mktemp("live")
    frames: list[FrameTruth] = read_truth(DEMO / "tabletop_truth.json")[::EVERY]
    told: list[tuple[int, list[Referring]]] = [(f.stamp, f.expressions()) for f in frames]
    write_truth(folder / "truth.json", frames[0].topic, told)
    with Reader(DEMO / "tabletop") as all_of_it, whole_bag(folder / "few") as writer:
        topics = {
            c.topic: writer.add_connection(c.topic, c.msgtype, typestore=typestore())
            for c in all_of_it.connections
        }
        for connection, stamp, raw in all_of_it.messages():
            if stamp in dict(told):
                writer.write(topics[connection.topic], stamp, raw)
    arguments = [folder / "few", folder / "truth.json", folder / "bag"]
    assert cli.main(["record-truth", *map(str, arguments)]) == 0
    return folder / "bag"


def test_live_is_as_offline(bag: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    node = NodeProcess(
        REAL,
        {"device": "cpu", "image_reliability": "reliable", "use_sim_time": "true"},
        remap={"image": "/camera/image", "instruction": "/instruction"},
    )
    client = Client()  # hears the answers too, and tells when the node is up
    evaluator = None
    try:
        client.instructions = client.node.create_publisher(
            harness.Instruction, "/instruction", harness.qos.RELIABLE
        )
        client.connect(node, listens=False)  # to a player, instead
        ros = ["--ros-args", "-r", "__ns:=/test", "-p", "use_sim_time:=true"]
        live = tmp_path / "live.json"
        evaluator = subprocess.Popen(
            [PROGRAMS / "gsva_evaluate", bag, "--out", live, "--wait", "60", "--idle", "30", *ros]
        )
        client.wait(
            lambda: client.node.count_subscribers("segmentation") == 2, what="the evaluation"
        )
        # Slower than recorded: a busy machine answers these frames, too, and no later ones instead.
        # From its one file, which does not tell that its messages are compressed.
        (file,) = bag.glob("*.mcap")
        play = [PROGRAMS / "gsva_player", file, "--clock", "--rate", "0.5"]
        subprocess.run(play, check=True, timeout=600)
        assert evaluator.wait(600) == 0
    finally:
        if evaluator:
            evaluator.kill()
        client.close()
        node.close()
    offline = tmp_path / "offline.json"
    assert cli.main(["eval", "bag", str(bag), "--device", "cpu", "--out", str(offline)]) == 0
    first, second = (json.loads(p.read_text()) for p in (offline, live))
    here, there = ({r["id"]: r["slots"] for r in run["records"]} for run in (first, second))
    both = here.keys() & there.keys()
    assert len(both) >= 2, (here.keys(), there.keys())
    for name in both:
        for a, b in zip(here[name], there[name], strict=True):
            assert (a["expression"], a["kept"]) == (b["expression"], b["kept"])
            assert a["p_seg"] == pytest.approx(b["p_seg"], abs=1e-5)
            if a["kept"]:
                same = ("area", "intersection", "union", "box_iou", "truth_area")
                assert [a[k] for k in same] == [b[k] for k in same]
    # The node's clock was the bag's: frames were seconds old at most, not decades.
    ages = [a.timings.frame_age for a in client.answers]
    assert ages
    assert all(-1.0 < age < 30.0 for age in ages)
    capsys.readouterr()
    assert cli.main(["eval", "compare", str(offline), str(live)]) == 0
    assert f"{len(both)} cases in both" in capsys.readouterr().out


def test_no_image_shares_a_participant_with_an_instruction(bag: Path) -> None:
    """A large image pushes out what the same participant has in shared memory."""
    with two_contexts() as (images, apart):
        watcher = rclpy.create_node("watcher", context=images)
        player = Player(bag, apart, clock=True, context=images)
        playing = threading.Thread(target=player.play, args=(1.0, 60.0))
        playing.start()
        participants: dict[str, set[bytes]] = {}
        topics = ("/camera/image", "/camera/camera_info", "/instruction", "/clock")
        end = time.monotonic() + 60.0
        while not all(participants.get(topic) for topic in topics) and time.monotonic() < end:
            for topic in topics:
                found = watcher.get_publishers_info_by_topic(topic)
                participants[topic] = {bytes(p.endpoint_gid)[:12] for p in found}
            time.sleep(0.05)
    playing.join()
    image, info, instruction, clock = (participants[topic] for topic in topics)
    assert image
    assert image == info
    assert instruction
    assert instruction == clock
    assert image.isdisjoint(instruction)


def test_what_can_be_read_of_a_bag_is_played(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """One whose messages are out of order, without an index, and whose last one is damaged."""
    types = typestore()
    kind = "std_msgs/msg/String"
    path = tmp_path / "bag.mcap"
    with Mcap(path, index_types=IndexType.NONE, use_chunking=False) as writer:
        channel = writer.topic("/instruction_text")
        for at in (2, 1, 3):
            text = types.types[kind](f"thing {at}")
            writer.add_message(channel, at, bytes(types.serialize_cdr(text, kind)), at)
        writer.add_message(channel, 4, b"\x28\xb5\x2f\xfd damaged", 4)
    with two_contexts() as (images, apart):
        assert Player(path, apart, clock=False, context=images).play(1.0, 0.0) == 3
    assert "/instruction_text at 4 ns: not a" in capfd.readouterr().err


def test_a_topic_with_an_impossible_name_costs_itself(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    types = typestore()
    kind = "std_msgs/msg/String"
    path = tmp_path / "bag"
    with RosbagWriter(path, version=9) as writer:
        for topic in ("/arm-1/text", "/2d", "/a//b", "/instruction_text"):
            connection = writer.add_connection(topic, kind, typestore=types)
            writer.write(connection, 1, types.serialize_cdr(types.types[kind]("a"), kind))
    with two_contexts() as (images, apart):
        assert Player(path, apart, clock=False, context=images).play(1.0, 0.0) == 1
    told = capfd.readouterr().err
    for topic in ("/arm-1/text", "/2d", "/a//b"):
        assert f"{path}: {topic} is not played: " in told


def test_one_camera_of_several_is_enough_to_play_to(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """Nobody subscribes to the depth image and to the compressed one, too."""
    path = tmp_path / "bag"
    with RosbagWriter(path, version=9) as writer:
        for name, kind in (("a", "CompressedImage"), ("b", "Image"), ("c", "Image")):
            writer.add_connection(f"/{name}", f"sensor_msgs/msg/{kind}", typestore=typestore())
    with two_contexts() as (images, apart):
        viewer = rclpy.create_node("viewer", context=images)
        viewer.create_subscription(Image, "/b", lambda _: None, qos_profile_sensor_data)
        Player(path, apart, clock=False, context=images).play(1.0, 60.0)
    assert "no subscriber" not in capfd.readouterr().err


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_player_ends_at_once_while_it_waits_for_a_message(
    tmp_path: Path, number: signal.Signals
) -> None:
    kind, instruction = "gsva_ros/msg/Instruction", harness.Instruction
    path = tmp_path / "bag"
    with RosbagWriter(path, version=9) as writer:
        connection = writer.add_connection("/instruction", kind, typestore=typestore())
        for minute in range(2):
            writer.write(connection, minute * 60 * SECOND, serialize_message(instruction()))
    heard: list[harness.Instruction] = []
    context = rclpy.Context()
    rclpy.init(context=context)
    watcher = rclpy.create_node("watcher", context=context)
    watcher.create_subscription(instruction, "/instruction", heard.append, harness.qos.RELIABLE)
    executor = SingleThreadedExecutor(context=context)
    executor.add_node(watcher)
    player = subprocess.Popen([PROGRAMS / "gsva_player", path], stderr=subprocess.PIPE, text=True)
    try:
        end = time.monotonic() + harness.PATIENCE
        while not heard and time.monotonic() < end:
            executor.spin_once(timeout_sec=0.1)
        assert heard
        player.send_signal(number)
        _, told = player.communicate(timeout=30.0)
    finally:
        player.kill()
        rclpy.shutdown(context=context)
    assert player.returncode == 130, told
    assert "played" not in told
    assert "Traceback" not in told


#: What is asked about a frame: for a can, which it does not show.
ASKS = [Annotation(image_id=1, caption="can", category="single", referents=0)]


@contextmanager
def evaluating(frames: list[FrameTruth]) -> Iterator[LiveEvaluation]:
    """An evaluation on frames, which is handed its answers by the test."""
    context = rclpy.Context()
    rclpy.init(context=context)
    evaluation = LiveEvaluation(frames, context=context)
    try:
        yield evaluation
    finally:
        evaluation.destroy_node()
        rclpy.shutdown(context=context)


def test_what_was_counted_is_explained() -> None:
    """A node that needs two seconds for frames that come twice a second: a rate is advised."""
    frames = [FrameTruth("/camera", SECOND + i * SECOND // 2, (4, 4), ASKS) for i in range(8)]
    with evaluating(frames) as evaluation:
        for asked, answered in ((0, 0), (1, 4), (5, 99)):
            msg = Segmentation(image_topic="/camera", width=4, height=4)
            msg.instruction_id = f"truth-{frames[asked].stamp}"
            stamp = frames[answered].stamp if answered < len(frames) else 77
            fill(msg.header.stamp, stamp)
            msg.timings.total = 2.0
            msg.outcomes = [Outcome(expression="can", outcome=Outcome.REJECTED)]
            msg.rejections = [Rejection(expression="can", kind=Rejection.MODEL, probability=0.9)]
            if answered >= len(frames):
                msg.outcomes = [Outcome(outcome=Outcome.SEGMENTED, carried=True)]
                fill(msg.outcomes[0].age, SECOND // 2)
            evaluation._on_answer(msg)
        counted, carried, advice = evaluation.explanation()
        # A frame that was answered about something else is not answered.
        msg.outcomes = [Outcome(expression="mug", outcome=Outcome.REJECTED)]
        fill(msg.header.stamp, frames[2].stamp)
        evaluation._on_answer(msg)
        assert evaluation.waiting == 6
    assert counted.startswith("8 frames with truth: 2 answered, 6 not; 2 instructions")
    assert carried.startswith("1 of 3 answers were carried")
    assert "0.50 s at most" in carried
    assert "--rate 0.20" in advice


@pytest.mark.parametrize("apart", [0, SECOND // 40])
def test_the_frames_of_several_cameras_come_more_often(apart: int) -> None:
    """Two at 10 Hz give 20 frames a second, whether they share stamps or not."""
    frames = [("/left", i * SECOND // 10) for i in range(9)]
    frames += [("/right", stamp + apart) for _, stamp in frames]
    assert _period(frames) == pytest.approx(0.05)
    assert _period(frames[:9]) == pytest.approx(0.1)
    assert _period(frames[8:10]) == np.inf


def test_a_fast_node_that_missed_frames_is_not_called_slow(monkeypatch: pytest.MonkeyPatch) -> None:
    """Instructions came late, the node was gone, or it ended: a lower rate would not help."""
    frames = [FrameTruth("/camera", (1 + i) * SECOND, (4, 4), ASKS) for i in range(2)]
    advice = []
    with evaluating(frames) as evaluation:
        for frame in frames:
            msg = Segmentation(image_topic="/camera", instruction_id=f"truth-{frame.stamp}")
            fill(msg.header.stamp, 9 * SECOND)
            msg.timings.total = 0.05
            evaluation._on_answer(msg)
        for count in (0, 1, 0, 1):
            monkeypatch.setattr(evaluation, "count_publishers", {"segmentation": count}.get)
            evaluation.count_nodes()
            advice.append(evaluation.explanation()[-1])
    for told, expected in zip(advice, ("after their", "after their", "ended", "gone"), strict=True):
        assert expected in told
        assert "--rate" not in told


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_an_interrupted_evaluation_says_so(
    bag: Path, tmp_path: Path, number: signal.Signals
) -> None:
    frames = read_truth(bag.parent / "truth.json")
    first = frames[0]
    msg = Segmentation(image_topic=first.topic, height=first.size[0], width=first.size[1])
    fill(msg.header.stamp, first.stamp)
    expression = first.annotations[0].caption
    msg.outcomes = [Outcome(expression=expression, outcome=Outcome.REJECTED)]
    msg.rejections = [Rejection(expression=expression, kind=Rejection.MODEL, probability=0.9)]
    context = rclpy.Context()
    rclpy.init(context=context)
    node = rclpy.create_node("node", context=context)
    answers = node.create_publisher(Segmentation, "segmentation", harness.qos.RELIABLE)
    live, said = tmp_path / "live.json", tmp_path / "said"
    with said.open("w") as output:
        run = subprocess.Popen(
            [PROGRAMS / "gsva_evaluate", bag, "--out", live], stdout=output, stderr=output
        )
    try:
        end = time.monotonic() + harness.PATIENCE
        while f" 1/{len(frames)} " not in said.read_text() and time.monotonic() < end:
            answers.publish(msg)  # again and again: it may not have been matched yet
            time.sleep(0.2)
        run.send_signal(number)
        assert run.wait(harness.PATIENCE) == 130, said.read_text()
    finally:
        run.kill()
        rclpy.shutdown(context=context)
    told, result = said.read_text(), json.loads(live.read_text())
    assert "interrupted: " in told
    assert "Traceback" not in told
    counts = [result[name] for name in ("cases", "frames", "unanswered", "failed")]
    assert counts == [1, len(frames), len(frames) - 1, 0]


def test_an_answer_of_another_size_than_its_truth_is_told() -> None:
    """And a frame about which the truth says nothing is not waited for."""
    frames = [FrameTruth("/camera", 5, (4, 4), ASKS), FrameTruth("/camera", 6, (4, 4), [])]
    with evaluating(frames) as evaluation:
        assert evaluation.waiting == 1
        msg = Segmentation(
            image_topic="/camera", width=8, height=6, instruction_id="truth-5 /camera"
        )
        msg.header.stamp.nanosec = 5
        msg.outcomes = [Outcome(expression="can", outcome=Outcome.REJECTED)]
        evaluation._on_answer(msg)
        assert evaluation.failed == {"the frame is 8x6, its truth 4x4": ["truth-5 /camera"]}
        assert not evaluation.later
        assert not evaluation.records


def test_answers_of_two_models_or_thresholds_are_not_mixed() -> None:
    frames = [FrameTruth("/camera", stamp, (4, 4), ASKS) for stamp in (5, 6, 7)]
    with evaluating(frames) as evaluation:
        msg = Segmentation(image_topic="/camera", width=4, height=4)
        msg.outcomes = [Outcome(expression="can", outcome=Outcome.REJECTED)]
        msg.rejections = [Rejection(expression="can", kind=Rejection.MODEL, probability=0.9)]
        msg.provenance = Provenance(model="gsva-mini", device="cpu", rejection_threshold=0.5)
        for stamp in (5, 6):
            msg.header.stamp.nanosec = stamp
            evaluation._on_answer(msg)
        assert len(evaluation.records) == 2
        msg.header.stamp.nanosec = 7
        msg.provenance.rejection_threshold = 0.98
        with pytest.raises(InputError, match=r"threshold 0\.5\) and .* 0\.98\): stop one"):
            evaluation._on_answer(msg)
        assert len(evaluation.records) == 2


def test_two_equal_nodes_are_told(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    with evaluating([]) as evaluation:
        for count, told in ((0, 0), (1, 0), (2, 1), (2, 0), (1, 0)):
            monkeypatch.setattr(evaluation, "count_publishers", {"segmentation": count}.get)
            evaluation.count_nodes()
            assert capfd.readouterr().err.count("segmentation has 2 publishers") == told


def test_answers_about_no_frame_of_the_truth_say_why() -> None:
    with evaluating([FrameTruth("/camera", 5, (4, 4), ASKS)]) as evaluation:
        assert evaluation.silence() == "is the node up, and the bag playing?"
        evaluation._on_answer(Segmentation(image_topic="/front"))
        assert (
            evaluation.silence()
            == "1 answers came, on /front; its frames with truth are on /camera"
        )
        failed = Outcome(expression="can", outcome=Outcome.FAILED, reason="no camera '/camera'")
        evaluation._on_answer(Segmentation(image_topic="/front", outcomes=[failed]))
        assert "2 answers came, on /front" in evaluation.silence()
        evaluation._on_answer(Segmentation(outcomes=[failed]))
        assert evaluation.silence() == "all that was asked about them failed"


def test_what_the_node_could_not_do_is_not_blamed_on_the_way(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Nor has what ends before it has a frame a time: a slow node would look like a fast one."""
    frames = [FrameTruth("/camera", (1 + i) * SECOND, (4, 4), ASKS) for i in range(4)]
    with evaluating(frames) as evaluation:
        monkeypatch.setattr(evaluation, "count_publishers", lambda _: 1)
        for frame in frames:
            msg = Segmentation(width=4, height=4, instruction_id=f"truth-{frame.stamp}")
            msg.outcomes = [
                Outcome(expression="can", outcome=Outcome.FAILED, reason="the node is not active")
            ]
            if frame is frames[0]:
                msg.image_topic, msg.timings.total = "/camera", 0.5
                fill(msg.header.stamp, frame.stamp)
                msg.outcomes[0].outcome = Outcome.REJECTED
                msg.rejections = [
                    Rejection(expression="can", kind=Rejection.MODEL, probability=0.9)
                ]
            evaluation._on_answer(msg)
            evaluation.count_nodes()
        other = Outcome(expression="mug", outcome=Outcome.EXPIRED, reason="another client's")
        for _ in frames:
            evaluation._on_answer(Segmentation(outcomes=[other]))
        counted, advice = evaluation.explanation()
        assert "3 answers FAILED, EXPIRED or CANCELLED" in counted
        assert advice == "most of these failed: the node is not active"
        # One that also asks for what the ground truth does not is the evaluation's own.
        can = Outcome(expression="can", outcome=Outcome.REJECTED)
        evaluation._on_answer(Segmentation(outcomes=[other, can]))
        assert evaluation.failed["another client's"] == [": mug"]
        evaluation._seconds = [each * 6 for each in evaluation._seconds]
        assert "an answer takes 3.00 s" in evaluation.explanation()[-1]


def test_what_a_node_echoes_cannot_rewrite_the_terminal(
    bag: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = Annotation(image_id=1, caption="a\x1b[2J", category="single", referents=0)
    with evaluating([FrameTruth("/camera", 5, (4, 4), [asked])]) as evaluation:
        failed = Outcome(expression=asked.caption, outcome=Outcome.FAILED, reason="b\u202e")
        evaluation._on_answer(Segmentation(instruction_id="c\r", outcomes=[failed]))
        monkeypatch.setattr(live, "LiveEvaluation", lambda _: evaluation)
        for name in ("init", "end_alike", "_listen"):
            monkeypatch.setattr(live, name, lambda *_, **__: None)
        assert live.main(["gsva_evaluate", str(bag), "--out", str(tmp_path / "live.json")]) == 2
    told = capsys.readouterr().err.split("\n")[0]
    assert told == "gsva_evaluate: not answered: c\\r: a\\x1b[2J: b\\u202e"


def test_parts_of_a_split_mask_are_scored_together() -> None:
    """Two blocks that are one expression's, sent as instances of their own."""
    truth = np.zeros((60, 100), bool)
    truth[10:30, 10:30] = truth[10:30, 60:80] = True
    coded = rle.encode(np.asfortranarray(truth.astype(np.uint8)))
    lengths = RunLengths(size=[60, 100], counts=coded["counts"].decode())
    said = Annotation(
        image_id=1, caption="all cans", category="multi", referents=2, segmentation=lengths
    )
    with evaluating([FrameTruth("/camera", 5, (60, 100), [said])]) as evaluation:
        msg = Segmentation(image_topic="/camera", width=100, height=60)
        msg.header.stamp.nanosec = 5
        msg.outcomes = [Outcome(expression="all cans", outcome=Outcome.SEGMENTED)]
        for number, left in enumerate((10, 60)):
            part = InstanceMask(expression="all cans", instance=number, p_seg=0.9)
            part.roi.x_offset, part.roi.y_offset, part.roi.width, part.roi.height = left, 10, 20, 20
            part.mask = fill_image(Image(), np.full((20, 20), 255, np.uint8), "mono8")
            msg.instances.append(part)
        evaluation._on_answer(msg)
        (record,) = evaluation.records.values()
    (slot,) = record.slots
    assert (slot.intersection, slot.union, slot.area) == (800, 800, 800)
