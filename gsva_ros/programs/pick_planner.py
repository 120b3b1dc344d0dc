"""An example planner: asks for things by words, picks up what is there, and keeps still where it is not.

It owns a simulated table with a gantry (`sim.pick`), shows the node its camera, and acts on the answers:
SEGMENTED becomes a grasp and a lift, REJECTED and every other outcome leave the arm where it is.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import rclpy
from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor
from rclpy.node import Node
from rclpy.utilities import remove_ros_args
from sensor_msgs.msg import CameraInfo, Image

from gsva_ros.conversions import fill_image, mask_of
from gsva_ros.geometry import organised_points
from gsva_ros.msg import Instruction, Outcome, Segmentation
from gsva_ros.overlay import Target, draw
from gsva_ros.programs.grasp import Grasp, top_grasp
from gsva_ros.ros import qos
from gsva_ros.sim.dataset import visible_scene
from gsva_ros.sim.pick import OPENING, PARKED, PickWorld, View
from gsva_ros.sim.render import Renderer

LIFT = 0.15  # metres
HELD = 0.004  # metres: fingers that close further hold nothing
FRAME = "camera_optical_frame"


@dataclass(frozen=True)
class Ending:
    """How one request ended: PICKED, REJECTED, or MISSED, UNREACHABLE and UNANSWERED, and why."""

    expression: str
    verdict: str
    reason: str


class PickPlanner(Node):
    """The loop of looking, asking and acting."""

    def __init__(self, world: PickWorld, pictures: Path | None) -> None:
        super().__init__("gsva_pick_planner")
        self.world, self._pictures, self._count = world, pictures, 0
        self._answers: dict[str, Segmentation] = {}
        self._images = self.create_publisher(Image, "image", qos.PICTURE)
        self._depths = self.create_publisher(Image, "depth", qos.PICTURE)
        self._infos = self.create_publisher(CameraInfo, "camera_info", qos.PICTURE)
        self._instructions = self.create_publisher(Instruction, "instruction", qos.RELIABLE)
        self.create_subscription(Segmentation, "segmentation", self._on_answer, qos.RELIABLE)
        self._executor = SingleThreadedExecutor()
        self._executor.add_node(self)

    def _on_answer(self, msg: Segmentation) -> None:
        self._answers[msg.instruction_id] = msg

    def connect(self, timeout: float) -> bool:
        """Wait until the node listens to camera and instructions; False: nobody came."""
        end = time.monotonic() + timeout
        needed = (self._images, self._instructions)
        while not all(p.get_subscription_count() for p in needed):
            if time.monotonic() > end or not rclpy.ok():
                return False
            self._executor.spin_once(timeout_sec=0.1)
        return True

    def pick(self, expression: str, timeout: float) -> Ending:
        """Look, ask, and act on the answer; the arm is parked before and after."""
        view = self.world.observe()
        answer = self._ask(view, expression, timeout)
        if answer is None:
            return Ending(expression, "UNANSWERED", f"no answer within {timeout:.0f} s: no move")
        self._keep(self._drawn(view, expression, answer), "answer")
        outcome = answer.outcomes[0]
        if outcome.outcome == Outcome.REJECTED:
            probability = answer.rejections[0].probability
            return Ending(
                expression, "REJECTED", f"not there (probability {probability:.3f}): no move"
            )
        if outcome.outcome != Outcome.SEGMENTED:
            return Ending(expression, "UNANSWERED", f"{outcome.reason}: no move")
        grasp = self._grasp(view, answer)
        if grasp is None or grasp.width > OPENING:
            return Ending(expression, "UNREACHABLE", "too few points, or too wide: no move")
        return self._carry_out(expression, grasp)

    def _ask(self, view: View, expression: str, timeout: float) -> Segmentation | None:
        """Show the picture and ask about it, again and again until it is answered: the first ones may be
        sent before the node has found us.
        """
        stamp = self.get_clock().now().to_msg()
        name = f"pick-{stamp.sec}.{stamp.nanosec:09d}"
        end = time.monotonic() + timeout
        again = 0.0
        while name not in self._answers and time.monotonic() < end and rclpy.ok():
            if time.monotonic() >= again:
                self._show(view, stamp)
                self._instructions.publish(
                    Instruction(id=name, expressions=[expression], not_before=stamp)
                )
                again = time.monotonic() + max(2.0, timeout / 10)
            self._executor.spin_once(timeout_sec=0.05)
        return self._answers.get(name)

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

    def _grasp(self, view: View, answer: Segmentation) -> Grasp | None:
        mask = mask_of(answer.instances[0], answer.width, answer.height)
        points = organised_points(view.depth, view.intrinsics, mask, (0, 0))
        rotation, position = view.pose[:3, :3], view.pose[:3, 3]
        return top_grasp((points @ rotation.T + position).astype(np.float32))

    def _carry_out(self, expression: str, grasp: Grasp) -> Ending:
        world = self.world
        world.move_to(grasp.x, grasp.y, PARKED[2], grasp.yaw)
        world.move_to(grasp.x, grasp.y, grasp.z, grasp.yaw)
        world.grip(closed=True)
        self._keep(world.observe().rgb, "grasped")
        world.move_to(grasp.x, grasp.y, grasp.z + LIFT, grasp.yaw)
        self._keep(world.observe().rgb, "lifted")
        held = world.opening()
        world.move_to(grasp.x, grasp.y, grasp.z + 0.003, grasp.yaw)
        world.grip(closed=False)
        world.park()
        if held <= HELD:
            return Ending(expression, "MISSED", "the fingers closed on nothing")
        return Ending(
            expression, "PICKED", f"lifted {LIFT:.2f} m, {1000 * held:.0f} mm wide, put back"
        )

    def _drawn(self, view: View, expression: str, answer: Segmentation) -> np.ndarray:
        masks = [mask_of(i, answer.width, answer.height) for i in answer.instances]
        p_seg = (
            answer.instances[0].p_seg
            if masks
            else 1 - sum(r.probability for r in answer.rejections[:1])
        )
        return draw(view.rgb, [Target(0, expression, masks[0] if masks else None, p_seg)])

    def _keep(self, rgb: np.ndarray, what: str) -> None:
        if self._pictures is not None:
            self._count += 1
            path = self._pictures / f"{self._count:02d}_{what}.png"
            cv2.imwrite(str(path), cv2.cvtColor(rgb, cv2.COLOR_RGB2BGR))


def run(args: argparse.Namespace) -> int:
    """Pick one after another; 0 where each was PICKED or REJECTED."""
    spec, _, _ = visible_scene(args.seed, Renderer(args.width, args.height))
    world = PickWorld(spec, args.width, args.height)
    if args.pictures is not None:
        args.pictures.mkdir(parents=True, exist_ok=True)
    planner = PickPlanner(world, args.pictures)
    if not planner.connect(args.timeout):
        raise RuntimeError(
            f"nobody listens to {planner.resolve_topic_name('image')} and "
            f"{planner.resolve_topic_name('instruction')}: is the node up, in the same namespace?"
        )
    endings = []
    for expression in args.expressions:
        endings.append(planner.pick(expression, args.timeout))
        print(f"{expression}: {endings[-1].verdict}, {endings[-1].reason}", flush=True)
        joints = ", ".join(f"{value:.3f}" for value in world.joints())
        heights = ", ".join(f"{value:.3f}" for value in world.heights())
        planner.get_logger().info(f"arm at {joints}; things at heights {heights}")
    return 0 if all(e.verdict in ("PICKED", "REJECTED") for e in endings) else 1


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point of `ros2 run gsva_ros gsva_pick_planner`."""
    argv = list(sys.argv if argv is None else argv)
    parser = argparse.ArgumentParser(prog="gsva_pick_planner", description=__doc__)
    parser.add_argument("expressions", nargs="+", help='what to pick up: "the red can" ...')
    parser.add_argument("--seed", type=int, default=20_900_000, help="of the table's scene")
    parser.add_argument("--width", type=int, default=640, help="pixels")
    parser.add_argument("--height", type=int, default=480, help="pixels")
    parser.add_argument("--timeout", type=float, default=60.0, help="seconds for each answer")
    parser.add_argument("--pictures", type=Path, help="a folder for pictures of each step")
    args = parser.parse_args(remove_ros_args(argv)[1:])
    rclpy.init(args=argv)
    try:
        return run(args)
    except (KeyboardInterrupt, ExternalShutdownException):
        return 130
    except RuntimeError as error:
        print(f"gsva_pick_planner: {error}", file=sys.stderr)
        return 1
    finally:
        rclpy.try_shutdown()
