"""A simulated tabletop scene with a gantry that picks things up, for the pick planner.

The gantry has four joints (x, y, z, yaw) and a parallel gripper, driven by position servos. It grasps by
friction alone; nothing is ever attached to it. It parks behind the camera, out of view.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from .render import (
    camera_of,
    depth_of,
    instances_of,
    intrinsics_of,
    light,
    mujoco,
    opening,
    pose_of,
    world_xml,
)
from .scene import SceneSpec
from .shapes import geoms

JOINTS = ("x", "y", "z", "yaw")
#: Distance between the open fingers, metres: the widest thing that fits between them.
OPENING = 0.16
REACH = 0.11  # from the fingertips to the palm, metres
PARKED = (0.0, -1.6, 0.45, 0.0)
LID = "0.75 0.75 0.76 1"  # metal, as in the renderer
SPEED = 0.6  # metres or radians per second

_ARM = f"""
<body name="gantry" pos="0 0 0" gravcomp="1">
  <joint name="x" type="slide" axis="1 0 0" damping="40"/>
  <inertial pos="0 0 0" mass="1" diaginertia="0.01 0.01 0.01"/>
  <body name="bridge" gravcomp="1">
    <joint name="y" type="slide" axis="0 1 0" damping="40"/>
    <inertial pos="0 0 0" mass="1" diaginertia="0.01 0.01 0.01"/>
    <body name="lift" gravcomp="1">
      <joint name="z" type="slide" axis="0 0 1" damping="40"/>
      <inertial pos="0 0 0" mass="1" diaginertia="0.01 0.01 0.01"/>
      <geom type="cylinder" size="0.018 0.5" pos="0 0 {REACH + 0.52}" rgba="0.55 0.57 0.6 1"
            contype="0" conaffinity="0" mass="0.01"/>
      <body name="hand" gravcomp="1">
        <joint name="yaw" type="hinge" axis="0 0 1" damping="1"/>
        <geom type="box" size="0.10 0.022 0.012" pos="0 0 {REACH + 0.012}" rgba="0.25 0.26 0.28 1"
              mass="0.3" contype="0" conaffinity="0"/>
        <body name="left" pos="-{OPENING / 2} 0 0" gravcomp="1">
          <joint name="left" type="slide" axis="1 0 0" range="0 {OPENING / 2}" damping="8"/>
          <geom name="left" type="box" size="0.006 0.014 {REACH / 2}" pos="-0.006 0 {REACH / 2}"
                rgba="0.35 0.36 0.4 1" mass="0.05" friction="2 0.05 0.001" condim="4"/>
        </body>
        <body name="right" pos="{OPENING / 2} 0 0" gravcomp="1">
          <joint name="right" type="slide" axis="-1 0 0" range="0 {OPENING / 2}" damping="8"/>
          <geom name="right" type="box" size="0.006 0.014 {REACH / 2}" pos="0.006 0 {REACH / 2}"
                rgba="0.35 0.36 0.4 1" mass="0.05" friction="2 0.05 0.001" condim="4"/>
        </body>
      </body>
    </body>
  </body>
</body>"""

_DRIVES = """
<option timestep="0.002" cone="elliptic" impratio="10"/>
<equality><joint joint1="left" joint2="right" polycoef="0 1 0 0 0"/></equality>
<actuator>
  <position name="x" joint="x" kp="4000" dampratio="1"/>
  <position name="y" joint="y" kp="4000" dampratio="1"/>
  <position name="z" joint="z" kp="4000" dampratio="1"/>
  <position name="yaw" joint="yaw" kp="60" dampratio="1"/>
  <position name="left" joint="left" kp="400" forcerange="-12 12"/>
  <position name="right" joint="right" kp="400" forcerange="-12 12"/>
</actuator>"""


@dataclass(frozen=True)
class View:
    """A camera view: rgb uint8 [H, W, 3], depth float32 [H, W] in metres, K [3, 3], and the pose [4, 4] of
    the optical frame (REP 103) in the world.
    """

    rgb: npt.NDArray[np.uint8]
    depth: npt.NDArray[np.float32]
    intrinsics: npt.NDArray[np.float64]
    pose: npt.NDArray[np.float64]


class PickWorld:
    """A simulation of the scene `spec` with the gantry. Not thread-safe."""

    def __init__(self, spec: SceneSpec, width: int = 640, height: int = 480) -> None:
        self.spec, self._size = spec, (width, height)
        bodies = "\n".join(
            f'<body name="thing{n}" pos="{t.x} {t.y} 0.002" euler="0 0 {math.degrees(t.yaw)}">'
            f'<freejoint name="thing{n}"/>{_solid(t.kind, t.size, t.rgb)}</body>'
            for n, t in enumerate(spec.objects, start=1)
        )
        self.model = mujoco.MjModel.from_xml_string(
            world_xml(width, height, bodies + _ARM, _DRIVES)
        )
        self.data = mujoco.MjData(self.model)
        light(self.model, spec)
        with opening(width, height):
            self._renderer = mujoco.Renderer(self.model, height, width)
        self._camera = camera_of(self.model, spec)
        for name, value in zip(JOINTS, PARKED, strict=True):
            self.data.joint(name).qpos = value
            self.data.actuator(name).ctrl = value
        #: Maximum distance of any joint from its parked position so far, metres or radians.
        self.strayed = 0.0
        self._arm = [int(self.model.joint(name).qposadr[0]) for name in JOINTS]
        self.step(0.6)  # until things come to rest

    def step(self, seconds: float) -> None:
        """Advance the simulation."""
        for _ in range(max(1, round(seconds / self.model.opt.timestep))):
            self._tick()

    def _tick(self) -> None:
        mujoco.mj_step(self.model, self.data)
        self.strayed = max(self.strayed, float(np.abs(self.joints() - PARKED).max()))

    def observe(self) -> View:
        """Render the camera's view."""
        self._renderer.update_scene(self.data, self._camera)
        rgb, depth = self._renderer.render().copy(), depth_of(self._renderer)
        return View(rgb, depth, intrinsics_of(self.spec, *self._size), pose_of(self.spec))

    def instances(self) -> npt.NDArray[np.uint8]:
        """The thing visible in each pixel, uint8 [H, W]; 0: none. Ground truth, for checks."""
        self._renderer.update_scene(self.data, self._camera)
        of_body = np.zeros(self.model.nbody, np.uint8)
        for number in range(1, len(self.spec.objects) + 1):
            of_body[self.model.body(f"thing{number}").id] = number
        return instances_of(self.model, self._renderer, of_body)

    def joints(self) -> npt.NDArray[np.float64]:
        """x, y, z (metres) and yaw (radians) of the fingertips in the world."""
        return self.data.qpos[self._arm]

    def places(self) -> npt.NDArray[np.float64]:
        """Positions of things' bases [N, 3], metres; the table top is z = 0. Ground truth, for checks."""
        bodies = (self.data.body(f"thing{n}") for n in range(1, len(self.spec.objects) + 1))
        return np.array([body.xpos for body in bodies])

    def heights(self) -> npt.NDArray[np.float64]:
        """Height of each thing's base above the table [N], metres. Ground truth, for checks."""
        return self.places()[:, 2]

    def opening(self) -> float:
        """Distance between the fingers, metres."""
        return OPENING - float(self.data.joint("left").qpos[0] + self.data.joint("right").qpos[0])

    def move_to(self, x: float, y: float, z: float, yaw: float) -> None:
        """Drive all joints to a position, none faster than SPEED, and wait until they arrive."""
        start, goal = self.joints(), np.array([x, y, z, yaw])
        seconds = max(0.1, float(np.abs(goal - start).max()) / SPEED)
        steps = round(seconds / self.model.opt.timestep)
        for k in range(1, steps + 1):
            now = start + (goal - start) * (k / steps)
            for name, value in zip(JOINTS, now, strict=True):
                self.data.actuator(name).ctrl = value
            self._tick()
        self.step(0.3)

    def grip(self, opening: float) -> None:
        """Drive the fingers to a distance of `opening` metres, or until something blocks them."""
        for name in ("left", "right"):
            self.data.actuator(name).ctrl = (OPENING - opening) / 2
        self.step(0.8)

    def park(self) -> None:
        """Raise the gripper and move it out of the camera's view."""
        x, y, _, yaw = self.joints()
        self.move_to(x, y, PARKED[2], yaw)
        self.move_to(*PARKED)


def _solid(kind: str, size: str, rgb: tuple[float, float, float]) -> str:
    """Geoms of a thing with mass and friction."""
    colour = " ".join(f"{c:.4f}" for c in rgb)
    rest = f'rgba="{colour} 1" mass="0.06" friction="1 0.01 0.001" condim="4"'
    body, *details = geoms(kind, size, rest).split("/>")
    # Handles and lids get almost no mass; otherwise a mug would fall over.
    light_ones = [d.replace('mass="0.06"', 'mass="0.001"') for d in details]
    if kind == "can":
        light_ones[0] = light_ones[0].replace(f"{colour} 1", LID)
    return "/>".join([body, *light_ones])
