"""The closed loop in simulation: words, masks, a grasp, and an arm that keeps still on a rejection."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cv2
import harness
import numpy as np
import pytest
import rclpy
import rendering  # noqa: F401 (skips this module where nothing can be rendered)
from gsva_ros.msg import InstanceMask, Outcome, Segmentation
from harness import FAKE, REAL, NodeProcess, blocks
from rclpy.clock import Clock, ClockType
from rclpy.executors import ExternalShutdownException
from rclpy.time import Time
from rosgraph_msgs.msg import Clock as ClockMessage
from sensor_msgs.msg import Image

from gsva_ros.conversions import fill_image
from gsva_ros.errors import InputError
from gsva_ros.geometry import organised_points
from gsva_ros.programs.grasp import top_grasp
from gsva_ros.programs.pick_episodes import STILL
from gsva_ros.programs.pick_planner import Ending, PickPlanner, main
from gsva_ros.sim.pick import PARKED, PickWorld, View
from gsva_ros.sim.scene import sample_scene

SEED = 20_900_000  # of the test split: a purple mug, a purple plate, a yellow and a red can
CAN = 4

harness.isolate()


@pytest.mark.parametrize("package", ["mujoco", "rclpy"])
def test_without_its_simulation_it_says_so_in_one_line(package: str) -> None:
    """And no other package is taken for that."""
    code = f"import sys; sys.modules[{package!r}] = None; from gsva_ros.programs.pick import main; "
    command = [sys.executable, "-c", code + "sys.exit(main())", "the red can"]
    done = subprocess.run(command, cwd="/", capture_output=True, text=True, check=False)
    assert done.returncode == 1
    said = f"gsva_pick_planner: needs the package {package}: pip install mujoco trimesh\n"
    assert (done.stderr == said) == (package == "mujoco"), done.stderr


def test_a_box_is_grasped_across_its_shorter_side() -> None:
    rng = np.random.default_rng(0)
    turn = 0.5
    faces = rng.uniform(-0.5, 0.5, (4000, 3)) * [0.10, 0.04, 0.06]
    faces[:2000, 2] = 0.03  # the top is seen, and a side
    faces[2000:, 1] = -0.02
    c, s = np.cos(turn), np.sin(turn)
    points = faces @ np.array([[c, -s, 0], [s, c, 0], [0, 0, 1]]).T + [0.3, -0.1, 0.03]
    points[::100] += [0, 0.3, 0.2]  # a mask's edge takes in the background
    grasp = top_grasp(points.astype(np.float32))
    assert grasp is not None
    assert (grasp.x, grasp.y) == pytest.approx((0.3, -0.1), abs=0.006)
    assert grasp.z == pytest.approx(0.06 - 0.035, abs=0.003)
    assert np.cos(grasp.yaw - (turn + np.pi / 2)) ** 2 == pytest.approx(1.0, abs=0.01)
    assert grasp.width == pytest.approx(0.04, abs=0.006)
    assert top_grasp(np.full((5, 5, 3), np.nan, np.float32)) is None


@pytest.mark.parametrize("degrees", range(0, 90, 15))
def test_a_square_thing_is_grasped_by_its_faces(degrees: int) -> None:
    """Not by its corners, however it is turned; its top is seen, and two sides."""
    faces = np.random.default_rng(0).uniform(-0.5, 0.5, (4000, 3)) * [0.06, 0.06, 0.1]
    faces[:2000, 2] = 0.05
    faces[2000:3000, 0] = faces[3000:, 1] = -0.03
    c, s = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    points = faces @ np.array([[c, -s, 0], [s, c, 0], [0, 0, 1]]).T + [0.3, -0.1, 0.05]
    grasp = top_grasp(points.astype(np.float32))
    assert grasp is not None
    assert (np.degrees(grasp.yaw) - degrees + 45) % 90 - 45 == pytest.approx(0, abs=4)
    assert grasp.width == pytest.approx(0.06, abs=0.004)
    assert (grasp.x, grasp.y) == pytest.approx((0.3, -0.1), abs=0.004)


def test_what_a_mask_takes_of_the_thing_behind_does_not_move_the_grasp() -> None:
    """A quarter of the points is that of a taller thing, 4 cm away."""
    rng = np.random.default_rng(0)
    own = rng.uniform(0, 1, (3000, 3)) * [0.10, 0.04, 0.06] + [0.2, 0.1, 0]
    others = rng.uniform(0, 1, (1000, 3)) * [0.08, 0.02, 0.15] + [0.2, 0.18, 0]
    grasp = top_grasp(np.concatenate([own, others]).astype(np.float32))
    alone = top_grasp(own.astype(np.float32))
    assert grasp == alone
    assert grasp is not None
    assert (grasp.x, grasp.y, grasp.height) == pytest.approx((0.25, 0.12, 0.06), abs=0.004)


def test_two_things_in_one_mask_that_are_far_apart_are_not_grasped_between() -> None:
    own = np.random.default_rng(0).uniform(0, 1, (500, 3)) * [0.05, 0.05, 0.06]
    both = np.concatenate([own, own + np.array([1.4, 0, 0])]).astype(np.float32)
    assert top_grasp(both) is None
    assert top_grasp(both[:0]) is None


def test_true_masks_lift_the_right_thing() -> None:
    """No model in it: what a perfect mask is worth to the arm."""
    world = PickWorld(sample_scene(SEED), 320, 240)
    view, mask = world.observe(), world.instances() == CAN
    assert not (world.observe().depth[~mask] < 0.2).any(), "the parked arm is out of sight"
    points = organised_points(view.depth, view.intrinsics, mask, (0, 0))
    points = (points @ view.pose[:3, :3].T + view.pose[:3, 3]).astype(np.float32)
    grasp = top_grasp(points)
    assert grasp is not None
    before = world.heights()
    world.grip(0.12)
    assert world.opening() == pytest.approx(0.12, abs=0.002)
    assert world.strayed < STILL, "an arm that only opened its fingers"
    world.move_to(grasp.x, grasp.y, PARKED[2], grasp.yaw)
    world.move_to(grasp.x, grasp.y, grasp.z, grasp.yaw)
    world.grip(0.0)
    world.move_to(grasp.x, grasp.y, grasp.z + 0.15, grasp.yaw)
    risen = world.heights() - before
    assert risen[CAN - 1] > 0.1
    assert np.abs(np.delete(risen, CAN - 1)).max() < 0.02
    assert world.opening() > 0.02
    world.park()
    assert world.strayed > 1.0, "the arm is back, but it was at the table"


class Looks:
    """Stands for a planner: its attempts end as they are told to."""

    def __init__(self, *endings: Ending) -> None:
        self.endings = list(endings)

    def _attempt(self, *_: Any) -> Ending:
        return self.endings.pop(0)


def test_empty_fingers_look_once_more() -> None:
    missed = Ending("MISSED", "", found=(3, 0.8))
    picked = Ending("PICKED", "", found=(5, 0.9), risen=(3,))

    def pick(*endings: Ending) -> Ending:
        return PickPlanner.pick(Looks(*endings), None, "the red can", 1.0)

    assert pick(picked) == picked
    second = pick(missed, picked)
    assert (second.verdict, second.looks, second.risen) == ("PICKED", 2, (3,))
    assert second.found == (3, 0.8), "the first answer tells whose fault it was"
    assert pick(missed, missed, picked).verdict == "MISSED"


def test_a_planner_that_is_told_to_end_asks_for_nothing_more() -> None:
    rclpy.init()
    planner = PickPlanner(None)
    rclpy.shutdown()
    with pytest.raises(ExternalShutdownException):
        planner._ask(None, "the red can", 1.0)


def test_a_failed_answer_is_not_drawn_as_a_rejection(tmp_path: Path, monkeypatch) -> None:
    rgb = np.full((48, 64, 3), 200, np.uint8)
    view = View(rgb, np.ones(rgb.shape[:2], np.float32), np.eye(3), np.eye(4))
    failed = Segmentation(height=48, width=64)
    failed.outcomes = [Outcome(expression="red", outcome=Outcome.FAILED, reason="boom")]
    rclpy.init()
    planner = PickPlanner(tmp_path)
    rclpy.shutdown()
    monkeypatch.setattr(planner, "_ask", lambda *_: failed)
    world = SimpleNamespace(observe=lambda: view, instances=lambda: None)
    assert planner.pick(world, "red", 1.0) == Ending("UNANSWERED", "boom: no move")
    (picture,) = tmp_path.glob("*.png")
    assert np.array_equal(cv2.imread(str(picture)), rgb)


@pytest.mark.parametrize(("p_seg", "verdict"), [(0.89, "UNSURE"), (0.91, "UNREACHABLE")])
def test_the_arm_moves_only_for_what_is_sure(monkeypatch, p_seg: float, verdict: str) -> None:
    """Whatever threshold the node decides by. Without depth, the surer mask cannot be grasped."""
    view = View(blocks()[0], np.zeros((60, 80), np.float32), np.eye(3), np.eye(4))
    answer = Segmentation(height=60, width=80)
    answer.outcomes = [Outcome(expression="red", outcome=Outcome.SEGMENTED)]
    answer.instances = [InstanceMask(expression="red", p_seg=p_seg)]
    answer.instances[0].roi.width = answer.instances[0].roi.height = 10
    answer.instances[0].mask = fill_image(Image(), np.full((10, 10), 255, np.uint8), "mono8")
    rclpy.init()
    planner = PickPlanner(None, sure=0.9)
    rclpy.shutdown()
    monkeypatch.setattr(planner, "_ask", lambda *_: answer)
    things = np.full((60, 80), 3)
    ending = planner.pick(SimpleNamespace(observe=lambda: view, instances=lambda: things), "red", 1)
    assert (ending.verdict, ending.found[0]) == (verdict, 3)


@pytest.mark.parametrize(
    "arguments", [[], ["a can", "--episodes", "2"], ["a can", "--out", "a.json"]]
)
def test_words_or_episodes(arguments: list[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["gsva_pick_planner", *arguments])
    assert ended.value.code == 2


def test_a_file_in_place_of_the_pictures_folder_is_told(tmp_path: Path, capsys) -> None:
    path = tmp_path / "pick.png"
    path.touch()
    assert main(["gsva_pick_planner", "the red can", "--pictures", str(path)]) == 1
    told = f"--pictures {path}: cannot be created (File exists); choose another folder"
    assert capsys.readouterr().err == f"gsva_pick_planner: {told}\n"


def test_a_picture_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    rclpy.init()
    planner = PickPlanner(tmp_path / "removed")
    rclpy.shutdown()
    with pytest.raises(InputError, match=r"removed/01_answer\.png: cannot be written"):
        planner._keep(blocks()[0], "answer")


def planned(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """The planner's run beside a node with the shipped model, to its end with status 0."""
    planner = Path(REAL[0]).parent / "gsva_pick_planner"
    parameters = {"device": "cpu", "image_reliability": "reliable"}
    with closing(NodeProcess(REAL, parameters)) as node:
        run = subprocess.run(
            [planner, *arguments, "--ros-args", "-r", "__ns:=/test"],
            capture_output=True,
            text=True,
            timeout=600,
        )
    assert run.returncode == 0, run.stdout + run.stderr + node.log
    return run


def test_a_model_that_takes_long_is_waited_for() -> None:
    """Longer than until the planner shows its picture again: that does not replace what it asked."""
    node = NodeProcess(FAKE, {"image_reliability": "reliable"}, delay=3.0)
    rclpy.init(args=["planner", "--ros-args", "-r", "__ns:=/test"])
    try:
        planner = PickPlanner(None)
        planner.connect(harness.PATIENCE)
        rgb, _ = blocks()
        view = View(rgb, np.ones(rgb.shape[:2], np.float32), np.eye(3), np.eye(4))
        answer = planner._ask(view, "red", 20.0)
        assert answer is not None
        assert [o.outcome for o in answer.outcomes] == [Outcome.SEGMENTED], answer.outcomes
    finally:
        node.close()
        rclpy.try_shutdown()


@pytest.fixture
def stopped() -> Iterator[PickPlanner]:
    """A planner of simulated time, which is 100 s and stays so, beside a node."""
    node = NodeProcess(FAKE, {"image_reliability": "reliable"})
    rclpy.init(args=["planner", "--ros-args", "-r", "__ns:=/test", "-p", "use_sim_time:=true"])
    planner = PickPlanner(None)
    with pytest.raises(RuntimeError, match="/clock has no publisher"):
        planner.connect(1.0)
    clock = planner.create_publisher(ClockMessage, "/clock", 10)
    now = ClockMessage(clock=Time(seconds=100).to_msg())
    planner.create_timer(
        0.1, lambda: clock.publish(now), clock=Clock(clock_type=ClockType.STEADY_TIME)
    )
    planner.connect(harness.PATIENCE)
    yield planner
    node.close()
    rclpy.try_shutdown()


def test_an_answer_is_about_what_was_asked_though_the_clock_stands_still(stopped) -> None:
    """Or the arm would move for a thing that nobody saw."""
    rgb, _ = blocks()
    depth = np.ones(rgb.shape[:2], np.float32)
    asked = []
    for shown, expression in ((rgb, "red"), (rgb, "blue"), (np.zeros_like(rgb), "red")):
        answer = stopped._ask(View(shown, depth, np.eye(3), np.eye(4)), expression, 20.0)
        asked.append((answer.instruction_id, answer.outcomes[0].expression))
        found = answer.outcomes[0].outcome == Outcome.SEGMENTED
        assert found == (shown is rgb and expression == "red"), expression
    assert [expression for _, expression in asked] == ["red", "blue", "red"]
    assert len({name for name, _ in asked}) == 3
    late = Segmentation(instruction_id=asked[0][0])
    stopped._on_answer(late)
    assert stopped._answer is not late


def test_words_move_the_arm_and_a_rejection_does_not(tmp_path: Path) -> None:
    """Three processes' worth of ROS: planner and simulator, node, and the shipped model in it."""
    words = ["the green bowl", "the red can", "the blue bottle"]
    run = planned(*words, "--pictures", tmp_path)
    verdicts = [line.partition(": ")[2].partition(",")[0] for line in run.stdout.splitlines()]
    assert verdicts == ["REJECTED", "PICKED", "REJECTED"], run.stdout
    told = re.findall(r"arm at ([-\d., ]+); things at heights ([-\d., ]+)", run.stderr + run.stdout)
    arms = [[float(x) for x in arm.split(", ")] for arm, _ in told]
    assert arms[0] == pytest.approx(PARKED, abs=2e-3), "a rejection moved the arm"
    assert arms[2] == pytest.approx(arms[1], abs=1e-3), "a rejection moved the arm"
    names = [path.name.split("_", 1)[1] for path in sorted(tmp_path.glob("*.png"))]
    assert names == ["answer.png", "answer.png", "grasped.png", "lifted.png", "answer.png"]


def test_episodes_are_judged_by_what_rose(tmp_path: Path) -> None:
    """The shipped model on two scenes: one thing that is there, and one that is not."""
    out = tmp_path / "episodes.json"
    run = planned("--episodes", "2", "--seed", "20930000", "--out", out)
    report = json.loads(out.read_text())
    assert report["model"] == "gsva-mini"
    there, absent = report["episodes"]
    assert there["judgement"] == "picked", there
    assert there["risen"] == [there["target"]] == [there["found"]]
    assert there["strayed"] > 1.0
    assert (absent["judgement"], absent["target"], absent["risen"]) == ("refused", 0, [])
    assert absent["strayed"] < STILL
    assert "| there: picked | 1 | 1 | 1.000 | [0.207, 1.000] |" in run.stdout
    assert "| not there: moved | 1 | 0 | 0.000 | [0.000, 0.793] |" in run.stdout
