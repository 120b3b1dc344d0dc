"""The demo's processes and its folder; what it answers is tested where its page is."""

from __future__ import annotations

import os
import signal
import subprocess
from pathlib import Path

import harness
import pytest
import rclpy
from harness import wait
from rosbags.rosbag2 import Writer

from gsva_ros.bags.bag import Bag
from gsva_ros.interfaces import typestore
from gsva_ros.programs import demo
from gsva_ros.ros import parameters
from gsva_ros.ros.cameras import Cameras

DEMO = Path(__file__).resolve().parents[2] / "demo"

harness.isolate()


def test_a_folder_of_other_files_is_left_alone(tmp_path: Path) -> None:
    for name in ("2024_holiday.png", "index.html", "results/thesis.csv"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("mine")
    with pytest.raises(ValueError, match="contains other files: choose an empty or new folder"):
        demo._clear(tmp_path)
    assert len(list(tmp_path.rglob("*"))) == 4


def test_an_earlier_runs_folder_is_used_again(tmp_path: Path) -> None:
    output = tmp_path / "new" / "folder"
    demo._clear(output)
    for name in ("01_answer.png", "index.html", "results/results.mcap", "notes.txt"):
        (output / name).parent.mkdir(exist_ok=True)
        (output / name).touch()
    demo._clear(output)
    assert {path.name for path in output.iterdir()} == {demo.MARK, "notes.txt"}


@pytest.mark.parametrize(
    ("distribution", "name", "value"),
    [
        ("humble", "ROS_LOCALHOST_ONLY", "1"),
        ("jazzy", "ROS_AUTOMATIC_DISCOVERY_RANGE", "LOCALHOST"),
    ],
)
def test_it_stays_on_this_machine(
    monkeypatch: pytest.MonkeyPatch, distribution: str, name: str, value: str
) -> None:
    for each in ("ROS_LOCALHOST_ONLY", "ROS_AUTOMATIC_DISCOVERY_RANGE", "ROS_DOMAIN_ID"):
        monkeypatch.setenv(each, "")  # put back afterwards, however it is changed
        monkeypatch.delenv(each)
    monkeypatch.setenv("ROS_DISTRO", distribution)
    assert demo._stay_apart() == os.environ["ROS_DOMAIN_ID"]
    asked = {
        each: os.environ[each] for each in os.environ if each.startswith(("ROS_LOC", "ROS_AUT"))
    }
    assert asked == {name: value}


def test_its_processes_find_each_other_where_discovery_is_off(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("ROS_DISTRO", "kilted")
    monkeypatch.setenv("ROS_DOMAIN_ID", "")
    monkeypatch.setenv("ROS_AUTOMATIC_DISCOVERY_RANGE", "OFF")
    demo._stay_apart()
    assert os.environ["ROS_AUTOMATIC_DISCOVERY_RANGE"] == "LOCALHOST"


@pytest.mark.parametrize(
    ("topic", "kind"),
    [("/c/raw", "Image"), ("/c/raw/compressed", "CompressedImage"), ("/c/jpeg", "CompressedImage")],
)
def test_the_node_is_given_the_bags_camera(tmp_path: Path, topic: str, kind: str) -> None:
    with Writer(tmp_path / "bag", version=9) as writer:
        writer.add_connection(topic, f"sensor_msgs/msg/{kind}", typestore=typestore())
    with Bag(tmp_path / "bag") as bag:
        arguments = demo._node_arguments(bag, topic, "gsva-mini", "cpu")
    context = rclpy.Context()
    rclpy.init(args=arguments, context=context)
    try:
        node = rclpy.create_node("node", context=context)
        parameters.declare(node)
        cameras = Cameras(node, print, print, print)
        cameras.find()
        cameras.subscribe()
        ((found, kinds),) = (t for t in node.get_topic_names_and_types() if t[0].startswith("/c/"))
        assert (found, kinds) == (topic, [f"sensor_msgs/msg/{kind}"])
    finally:
        rclpy.shutdown(context=context)


@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGTERM, signal.SIGINT])
def test_however_it_is_ended_it_ends_its_node(tmp_path: Path, number: signal.Signals) -> None:
    program = Path(harness.REAL[0]).parent / "gsva_demo"
    # A program inherits what its parent ignores, as under nohup.
    before = signal.signal(number, signal.SIG_DFL)
    with subprocess.Popen(
        [program, "--output", tmp_path / "out"], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
    ) as run:
        signal.signal(number, before)
        log = tmp_path / "out" / "node.log"
        wait(lambda: run.poll() is not None or (log.exists() and "ready:" in log.read_text()))
        assert run.poll() is None
        found = subprocess.run(["pgrep", "-P", str(run.pid)], capture_output=True, check=True)
        run.send_signal(number)
        assert run.stderr is not None
        told = run.stderr.read().decode()
        assert run.wait(harness.PATIENCE) == 130, told
    assert "Traceback" not in told
    children = [int(number) for number in found.stdout.split()]
    assert children
    for child in children:
        with pytest.raises(ProcessLookupError):
            os.kill(child, 0)


def test_a_node_that_ends_is_told_at_once(tmp_path: Path) -> None:
    """Not a minute later, as answers that did not come."""
    program = Path(harness.REAL[0]).parent / "gsva_demo"
    with subprocess.Popen(
        [program, "--output", tmp_path / "out"], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
    ) as run:
        wait(lambda: run.poll() is not None or (tmp_path / "out" / "player.log").exists())
        assert run.poll() is None
        found = subprocess.run(
            ["pgrep", "-P", str(run.pid), "-f", "gsva_node"], capture_output=True, check=True
        )
        os.kill(int(found.stdout), signal.SIGKILL)
        assert run.wait(30.0) == 1
        assert run.stderr is not None
        assert "gsva_demo: the node ended with status -9" in run.stderr.read().decode()
    assert not (tmp_path / "out" / "index.html").exists()


def test_instructions_that_would_replace_each_other_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    """All are sent before the bag is played."""
    script = tmp_path / "script.yaml"
    script.write_text("instructions: [{id: a, text: b}, {id: a, text: c}]")
    assert demo.main(["--script", str(script), "--output", str(tmp_path / "out")]) == 1
    assert "2 instructions have the id 'a'" in capsys.readouterr().err


def test_a_damaged_bag_is_told_in_one_line(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    bag, truth, out = tmp_path / "bag", DEMO / "tabletop_truth.json", tmp_path / "out"
    bag.mkdir()
    (bag / "bag.mcap").write_text("no messages")
    given = ["--bag", str(bag), "--truth", str(truth), "--output", str(out)]
    assert demo.main(given) == 1
    assert capsys.readouterr().err.startswith(f"gsva_demo: {bag} ")
    assert not out.exists()
