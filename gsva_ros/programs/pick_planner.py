"""An example planner: asks for objects by words, picks up what is present, and keeps still on a rejection.

It runs a simulated table with a gantry (`sim.pick`), publishes its camera to the node, and acts on the
answers: SEGMENTED with a p_seg that is high enough leads to a grasp and a lift; on REJECTED and every other
outcome the arm stays where it is.

With --episodes it does so in many scenes, and counts by the simulation's ground truth what was lifted.
"""

from __future__ import annotations

import argparse
import itertools
import json
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from uuid import uuid4

import numpy as np
import rclpy
from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor
from rclpy.node import Node
from rclpy.time import Time
from sensor_msgs.msg import CameraInfo, Image

from gsva_ros.arguments import Parser, count, positive, probability, seed
from gsva_ros.conversions import fill_image, mask_of
from gsva_ros.errors import InputError
from gsva_ros.files import write_result
from gsva_ros.geometry import organised_points
from gsva_ros.image_files import write_rgb
from gsva_ros.msg import Instruction, Outcome, Provenance, Segmentation
from gsva_ros.overlay import draw
from gsva_ros.programs.grasp import Grasp, top_grasp
from gsva_ros.programs.pick_episodes import (
    Episode,
    Trace,
    judge,
    pushed,
    risen,
    shown,
    table,
    task_of,
)
from gsva_ros.ros import qos
from gsva_ros.ros.answers import targets_in
from gsva_ros.ros.start import init, own_arguments
from gsva_ros.sim.pick import OPENING, PARKED, PickWorld, View
from gsva_ros.sim.render import Renderer
from gsva_ros.sim.sight import visible_scene

LIFT = 0.15  # metres
HELD = 0.004  # metres: fingers that close further hold nothing
MARGIN = 0.05  # metres: opening beyond the object's width; a wider one would touch its neighbours
FLAT = 0.025  # metres: lower objects have no side for the fingers to hold
FRAME = "camera_optical_frame"
SURE = 0.9  # p_seg: a wrong move costs an arm more than a wrong mask costs a viewer
SEED = 20_900_000  # of the test split
EPISODE_SEED = 20_910_000  # of the test split


@dataclass(frozen=True)
class Ending:
    """How one request ended: PICKED, REJECTED, or UNSURE, MISSED, UNREACHABLE and UNANSWERED, and why.

    From the simulation's ground truth, which the planner does not act on: the object that the answer's mask
    shows (`shown`), and the objects that were lifted.
    """

    verdict: str
    reason: str
    found: tuple[int, float] = (0, 0.0)
    risen: tuple[int, ...] = ()
    looks: int = 1


class PickPlanner(Node):
    """The loop of looking, asking and acting. provenance: of the newest answer, if there was one.

    Args:
        pictures: folder for images of each step.
        sure: the arm moves for masks with at least this p_seg, whatever threshold the node decides by.
    """

    def __init__(self, pictures: Path | None, sure: float = SURE) -> None:
        super().__init__("gsva_pick_planner")
        self._pictures, self._count, self._sure = pictures, 0, sure
        self.provenance: Provenance | None = None
        self._own, self._asked = uuid4().hex[:8], 0  # this planner, and how often it has asked
        self._awaited = ""  # the id of the pending instruction
        self._answer: Segmentation | None = None  # to it
        self._stamp = 0  # of the newest image, nanoseconds
        self._images = self.create_publisher(Image, "image", qos.IMAGES_OUT)
        self._depths = self.create_publisher(Image, "depth", qos.IMAGES_OUT)
        self._infos = self.create_publisher(CameraInfo, "camera_info", qos.IMAGES_OUT)
        self._instructions = self.create_publisher(Instruction, "instruction", qos.RELIABLE)
        self.create_subscription(Segmentation, "segmentation", self._on_answer, qos.RELIABLE)
        self._executor = SingleThreadedExecutor()
        self._executor.add_node(self)

    def _on_answer(self, msg: Segmentation) -> None:
        if msg.instruction_id == self._awaited:
            self._answer = msg

    def connect(self, timeout: float) -> None:
        """Wait until the node subscribes to camera and instructions.

        Raises:
            RuntimeError: no node does in time, or there is no clock to stamp images with.
        """
        end = time.monotonic() + timeout
        needed = (self._images, self._instructions)
        while not (all(p.get_subscription_count() for p in needed) and self._now()):
            if time.monotonic() > end or not rclpy.ok():
                if not self._now():
                    raise RuntimeError("use_sim_time is set, but /clock has no publisher")
                raise RuntimeError(
                    f"no node subscribes to {self.resolve_topic_name('image')} and "
                    f"{self.resolve_topic_name('instruction')}: is it up, in the same namespace?"
                )
            self._executor.spin_once(timeout_sec=0.1)

    def pick(self, world: PickWorld, expression: str, timeout: float) -> Ending:
        """Look, ask, and act on the answer, and once more if the fingers come up empty; the arm is parked
        before and after.
        """
        first = self._attempt(world, expression, timeout)
        if first.verdict != "MISSED":
            return first
        # What the fingers pushed has moved, and is clearer of its neighbours.
        second = self._attempt(world, expression, timeout)
        up = tuple(sorted({*first.risen, *second.risen}))
        return replace(second, found=first.found, risen=up, looks=2)

    def _attempt(self, world: PickWorld, expression: str, timeout: float) -> Ending:
        view, truth = world.observe(), world.instances()
        answer = self._ask(view, expression, timeout)
        if answer is None:
            return Ending("UNANSWERED", f"no answer within {timeout:.0f} s: no move")
        self.provenance = answer.provenance
        self._keep(draw(view.rgb, targets_in(answer)), "answer")
        outcome = answer.outcomes[0]
        if outcome.outcome == Outcome.REJECTED:
            probability = answer.rejections[0].probability
            return Ending("REJECTED", f"not there (probability {probability:.3f}): no move")
        if outcome.outcome != Outcome.SEGMENTED:
            return Ending("UNANSWERED", f"{outcome.reason}: no move")
        found = answer.instances[0]
        mask = mask_of(found, answer.width, answer.height)
        if found.p_seg < self._sure:
            reason = f"p_seg {found.p_seg:.3f} is below {self._sure:g}: no move"
            return Ending("UNSURE", reason, found=shown(mask, truth))
        return replace(self._act(world, view, mask), found=shown(mask, truth))

    def _act(self, world: PickWorld, view: View, mask: np.ndarray) -> Ending:
        grasp = self._grasp(view, mask)
        if grasp is None:
            return Ending("UNREACHABLE", "too few points: no move")
        if grasp.width > OPENING:
            return Ending("UNREACHABLE", f"{1000 * grasp.width:.0f} mm wide, too wide: no move")
        if grasp.height < FLAT:
            return Ending("UNREACHABLE", f"{1000 * grasp.height:.0f} mm high, too flat: no move")
        return self._carry_out(world, grasp)

    def _ask(self, view: View, expression: str, timeout: float) -> Segmentation | None:
        """Ask, and republish the image until it is answered: images are lost until discovery has finished.

        The instruction is sent once, reliably: if resent, it would replace itself, and a slow model would
        never finish.

        Raises:
            ExternalShutdownException: the program is shutting down.
        """
        # If the clock stands still, the previous image must not pass for this one.
        self._stamp = max(self._now(), self._stamp + 1)
        stamp = Time(nanoseconds=self._stamp).to_msg()
        self._asked += 1
        self._awaited, self._answer = f"pick-{self._own}-{self._asked}", None
        asked = Instruction(id=self._awaited, expressions=[expression], not_before=stamp)
        end = time.monotonic() + timeout
        again = 0.0
        while self._answer is None and time.monotonic() < end:
            if not rclpy.ok():
                raise ExternalShutdownException
            if time.monotonic() >= again:
                self._show(view, stamp)
                if not again:
                    self._instructions.publish(asked)
                again = time.monotonic() + max(2.0, timeout / 10)
            self._executor.spin_once(timeout_sec=0.05)
        return self._answer

    def _now(self) -> int:
        return int(self.get_clock().now().nanoseconds)

    def _show(self, view: View, stamp: Any) -> None:
        image = fill_image(Image(), view.rgb, "rgb8")
        height, width = view.depth.shape
        depth = Image(height=height, width=width, encoding="32FC1", step=4 * width)
        depth.data = view.depth.astype("<f4").tobytes()
        info = CameraInfo(height=height, width=width, distortion_model="plumb_bob", d=[0.0] * 5)
        info.k = view.intrinsics.reshape(-1)
        info.r = np.eye(3).reshape(-1)
        info.p = np.hstack([view.intrinsics, np.zeros((3, 1))]).reshape(-1)
        for msg in (image, depth, info):
            msg.header.stamp, msg.header.frame_id = stamp, FRAME
        self._infos.publish(info)
        self._depths.publish(depth)
        self._images.publish(image)

    def _grasp(self, view: View, mask: np.ndarray) -> Grasp | None:
        points = organised_points(view.depth, view.intrinsics, mask, (0, 0))
        rotation, position = view.pose[:3, :3], view.pose[:3, 3]
        return top_grasp((points @ rotation.T + position).astype(np.float32))

    def _carry_out(self, world: PickWorld, grasp: Grasp) -> Ending:
        before = world.places()
        ready = min(OPENING, grasp.width + MARGIN)
        world.grip(ready)
        world.move_to(grasp.x, grasp.y, PARKED[2], grasp.yaw)
        world.move_to(grasp.x, grasp.y, grasp.z, grasp.yaw)
        world.grip(0.0)
        self._keep(world.observe().rgb, "grasped")
        world.move_to(grasp.x, grasp.y, grasp.z + LIFT, grasp.yaw)
        self._keep(world.observe().rgb, "lifted")
        held, up = world.opening(), risen(before, world.places())
        world.move_to(grasp.x, grasp.y, grasp.z + 0.003, grasp.yaw)
        world.grip(ready)
        world.park()
        if held <= HELD:
            return Ending("MISSED", "the fingers closed on nothing", risen=up)
        reason = f"lifted {LIFT:.2f} m, {1000 * held:.0f} mm wide, put back"
        return Ending("PICKED", reason, risen=up)

    def _keep(self, rgb: np.ndarray, what: str) -> None:
        if self._pictures is not None:
            self._count += 1
            path = self._pictures / f"{self._count:02d}_{what}.png"
            write_rgb(path, rgb)


def run_words(planner: PickPlanner, args: argparse.Namespace) -> int:
    """Pick one after another in one scene; 0 if each was PICKED or REJECTED."""
    spec, _, _ = visible_scene(args.seed, Renderer(args.width, args.height))
    world = PickWorld(spec, args.width, args.height)
    endings = []
    for expression in args.expressions:
        endings.append(planner.pick(world, expression, args.timeout))
        print(f"{expression}: {endings[-1].verdict}, {endings[-1].reason}", flush=True)
        joints = ", ".join(f"{value:.3f}" for value in world.joints())
        heights = ", ".join(f"{value:.3f}" for value in world.heights())
        planner.get_logger().info(f"arm at {joints}; things at heights {heights}")
    return 0 if all(e.verdict in ("PICKED", "REJECTED") for e in endings) else 1


def run_episodes(planner: PickPlanner, args: argparse.Namespace) -> int:
    """Ask for one object in each of many scenes, alternately a present and an absent one; returns 0."""
    episodes: list[Episode] = []
    renderer = Renderer(args.width, args.height)
    for number in itertools.count(args.seed):
        if len(episodes) == args.episodes:
            break
        spec, _, seen = visible_scene(number, renderer)
        task = task_of(number, seen, args.width, present=len(episodes) % 2 == 0)
        if task is None:
            continue
        world = PickWorld(spec, args.width, args.height)
        before = world.places()
        ending = planner.pick(world, task.expression, args.timeout)
        trace = Trace(
            ending.verdict,
            ending.reason,
            ending.looks,
            *ending.found,
            ending.risen,
            pushed(before, world.places(), (task.target, *ending.risen)),
            world.strayed,
        )
        episodes.append(Episode(task, trace, judge(task, trace)))
        print(episodes[-1].line(), flush=True)
    print(f"\n{table(episodes)}")
    if args.out is not None:
        text = json.dumps(_report(planner, episodes), indent=1) + "\n"
        print(f"written: {write_result(args.out, text)}")
    return 0


def _report(planner: PickPlanner, episodes: Sequence[Episode]) -> dict[str, Any]:
    by = planner.provenance
    return {
        "model": by and by.model,
        "weights_hash": by and by.weights_hash,
        "rejection_threshold": by and by.rejection_threshold,
        "episodes": [episode.record() for episode in episodes],
    }


def create_folder(pictures: Path) -> None:
    """Create the folder of --pictures; InputError if that fails."""
    try:
        pictures.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(
            f"--pictures {pictures}: cannot be created ({error.strerror}); choose another folder"
        ) from error


def main(argv: Sequence[str] | None = None) -> int:
    """Run the program with these arguments (`pick.main` starts it); returns the exit status."""
    argv = list(sys.argv if argv is None else argv)
    parser = Parser(prog="gsva_pick_planner", description=__doc__)
    asked = parser.add_mutually_exclusive_group(required=True)
    asked.add_argument(
        "expressions", nargs="*", default=[], help='what to pick up: "the red can" ...'
    )
    asked.add_argument(
        "--episodes", type=count, help="ask for one object in each of this many scenes"
    )
    parser.add_argument(
        "--seed", type=seed, help="seed of the table's scene, or of the first episode's"
    )
    parser.add_argument("--width", type=count, default=640, help="pixels")
    parser.add_argument("--height", type=count, default=480, help="pixels")
    parser.add_argument(
        "--timeout", type=positive, default=60.0, help="seconds to wait for each answer"
    )
    parser.add_argument(
        "--sure",
        type=probability,
        default=SURE,
        help="move only for a p_seg of at least this much",
    )
    parser.add_argument("--pictures", type=Path, help="output folder for images of each step")
    parser.add_argument("--out", type=Path, help="output JSON file of the episodes")
    args = own_arguments(parser, argv)
    if args.out is not None and not args.episodes:
        parser.error("--out is the file of the episodes: give --episodes as well")
    if args.seed is None:
        args.seed = EPISODE_SEED if args.episodes else SEED
    try:
        if args.pictures is not None:
            create_folder(args.pictures)
        init(args=argv)
        planner = PickPlanner(args.pictures, args.sure)
        planner.connect(args.timeout)
        return run_episodes(planner, args) if args.episodes else run_words(planner, args)
    except (KeyboardInterrupt, ExternalShutdownException):
        return 130
    except (RuntimeError, InputError) as error:
        print(f"gsva_pick_planner: {error}", file=sys.stderr)
        return 1
    finally:
        rclpy.try_shutdown()
