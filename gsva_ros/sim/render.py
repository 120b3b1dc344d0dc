"""Off-screen rendering with MuJoCo: one compiled model, its bodies placed and coloured per scene."""

from __future__ import annotations

import os

os.environ.setdefault("MUJOCO_GL", "egl")

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ..errors import InputError, one_line
from .scene import SAME, TABLES, SceneSpec, direction
from .shapes import AS_DRAWN, KINDS, SIZES, Stretch, geoms, meshes

NO_OPENGL = "no off-screen rendering ({}): install libegl1 and libgl1-mesa-dri"
try:
    import mujoco
except ModuleNotFoundError:
    raise
except (ImportError, AttributeError) as error:  # AttributeError: PyOpenGL without libEGL
    raise InputError(NO_OPENGL.format(one_line(error))) from error

SHOWN, HIDDEN = 1, 5  # geom groups; MuJoCo draws groups 0 to 2 by default


@dataclass(frozen=True)
class Look:
    """How a scene's look differs from that of training scenes.

    stretch: factors of the things' width and height. light: factors of red, green and blue of all lights.
    """

    stretch: Stretch = AS_DRAWN
    light: tuple[float, float, float] = (1.0, 1.0, 1.0)


#: "workshop": dark, warm light, and much slimmer, taller things.
LOOKS = {"studio": Look(), "workshop": Look((0.65, 1.7), (0.3, 0.25, 0.2))}


@dataclass(frozen=True)
class Rendering:
    """One view of a scene.

    rgb: uint8 [H, W, 3]. instances: uint8 [H, W], 0 for background and k for the scene's k-th object
    (1-based). depth: float32 [H, W], metres along the optical axis. intrinsics: float64 [3, 3], pixels.
    pose: float64 [4, 4], camera optical frame (x right, y down, z forward; REP 103) in the world.
    """

    rgb: npt.NDArray[np.uint8]
    instances: npt.NDArray[np.uint8]
    depth: npt.NDArray[np.float32]
    intrinsics: npt.NDArray[np.float64]
    pose: npt.NDArray[np.float64]


def _table_textures() -> str:
    """Procedural table tops, in unsaturated colours that no object's colour name fits."""
    shades = [
        ("flat", "0.62 0.48 0.34", "0.62 0.48 0.34"),
        ("gradient", "0.55 0.42 0.30", "0.70 0.56 0.42"),
        ("checker", "0.58 0.58 0.60", "0.68 0.68 0.70"),
        ("flat", "0.50 0.52 0.55", "0.50 0.52 0.55"),
        ("checker", "0.60 0.50 0.40", "0.68 0.58 0.47"),
        ("flat", "0.40 0.33 0.28", "0.40 0.33 0.28"),
        ("gradient", "0.66 0.64 0.60", "0.52 0.50 0.47"),
        ("flat", "0.72 0.70 0.66", "0.72 0.70 0.66"),
        ("checker", "0.46 0.44 0.42", "0.54 0.52 0.50"),
        ("gradient", "0.38 0.40 0.42", "0.56 0.57 0.58"),
    ]
    assert len(shades) == TABLES
    return "\n".join(
        f'<texture name="top{i}" type="2d" builtin="{builtin}" rgb1="{a}" rgb2="{b}" width="256" '
        f'height="256" mark="random" markrgb="0.45 0.42 0.38" random="{0.004 * (i % 3)}"/>'
        f'<material name="top{i}" texture="top{i}" texrepeat="{2 + i % 4} {2 + i % 4}" '
        f'specular="0.1" reflectance="0"/>'
        for i, (builtin, a, b) in enumerate(shades)
    )


def model_xml(width: int, height: int, stretch: Stretch) -> str:
    """The MJCF of the whole pool of bodies."""
    bodies = "\n".join(
        f'<body name="{kind}_{size}_{n}" mocap="true" >{geoms(kind, size, stretch=stretch)}</body>'
        for kind in KINDS
        for size in SIZES
        for n in range(SAME)
    )
    return world_xml(width, height, bodies, stretch=stretch)


def world_xml(
    width: int, height: int, bodies: str, besides: str = "", stretch: Stretch = AS_DRAWN
) -> str:
    """The MJCF of table, floor and lamp, with `bodies` in the world and further sections `besides`."""
    return f"""
<mujoco>
  <visual>
    <global offwidth="{width}" offheight="{height}"/>
    <quality offsamples="4" shadowsize="1024"/>
    <map znear="0.02" zfar="20"/>
  </visual>
  <statistic extent="1" center="0 0 0"/>
  <asset>
    {meshes(stretch)}
    {_table_textures()}
    <texture name="floor" type="2d" builtin="flat" rgb1="0.3 0.3 0.32" rgb2="0.3 0.3 0.32"
             width="8" height="8"/>
    <material name="floor" texture="floor"/>
  </asset>
  <worldbody>
    <light name="lamp" pos="0 0 1.5" dir="0 0 -1" directional="false" castshadow="true"
           cutoff="75" exponent="1"/>
    <geom name="floor" type="plane" size="6 6 1" pos="0 0 -0.7" material="floor"/>
    <geom name="table" type="box" size="0.55 0.42 0.02" pos="0 0 -0.02" material="top0"/>
    {bodies}
  </worldbody>
  {besides}
</mujoco>"""


@contextmanager
def opening(width: int, height: int) -> Iterator[None]:
    """Context manager: report in one line why a renderer of this size cannot be opened.

    Raises:
        InputError: OpenGL is missing, or cannot render images of this size.
    """
    try:
        yield
    except mujoco.FatalError as error:
        raise InputError(
            f"{width} x {height} pixels cannot be rendered ({one_line(error)}); choose another size"
        ) from error
    except (ImportError, AttributeError) as error:  # MuJoCo loads OpenGL only now
        raise InputError(NO_OPENGL.format(one_line(error))) from error


class Renderer:
    """Renders scenes at one size. Not thread-safe; create one per process."""

    def __init__(self, width: int, height: int, look: str = "studio") -> None:
        """Args: look: a name in LOOKS.

        Raises:
            InputError: rendering is impossible, or not possible at this size.
        """
        self.look = LOOKS[look]
        xml = model_xml(width, height, self.look.stretch)
        self.model = mujoco.MjModel.from_xml_string(xml)
        self.data = mujoco.MjData(self.model)
        self.width, self.height = width, height
        with opening(width, height):
            self._renderer = mujoco.Renderer(self.model, height, width)
        self._pool = np.flatnonzero(self.model.geom_group == HIDDEN)

    def render(self, spec: SceneSpec) -> Rendering:
        """RGB, instances and depth of a scene."""
        of_body = self._place(spec)
        camera = camera_of(self.model, spec)
        renderer = self._renderer
        renderer.update_scene(self.data, camera)
        rgb = renderer.render().copy()
        instances, depth = instances_of(self.model, renderer, of_body), depth_of(renderer)
        intrinsics = intrinsics_of(spec, self.width, self.height)
        return Rendering(rgb, instances, depth, intrinsics, pose_of(spec))

    def _place(self, spec: SceneSpec) -> npt.NDArray[np.uint8]:
        """Put the scene's objects on the table; returns each body's object number, 0 for none."""
        model, data = self.model, self.data
        model.geom_group[self._pool] = HIDDEN
        of_body = np.zeros(model.nbody, np.uint8)
        used: dict[tuple[str, str], int] = {}
        for number, thing in enumerate(spec.objects, start=1):
            n = used.get((thing.kind, thing.size), 0)
            used[thing.kind, thing.size] = n + 1
            body = model.body(f"{thing.kind}_{thing.size}_{n}")
            mocap = body.mocapid[0]
            data.mocap_pos[mocap] = (thing.x, thing.y, 0.0)
            data.mocap_quat[mocap] = (math.cos(thing.yaw / 2), 0, 0, math.sin(thing.yaw / 2))
            of_body[body.id] = number
            start, count = body.geomadr[0], body.geomnum[0]
            model.geom_rgba[start : start + count] = (*thing.rgb, 1.0)
            model.geom_group[start : start + count] = SHOWN
            if thing.kind == "can":  # a metal lid
                model.geom_rgba[start + 1] = (0.75, 0.75, 0.76, 1.0)
        light(model, spec, self.look.light)
        mujoco.mj_forward(model, data)
        return of_body


def instances_of(
    model: mujoco.MjModel, renderer: mujoco.Renderer, of_body: npt.NDArray[np.uint8]
) -> npt.NDArray[np.uint8]:
    """The number in `of_body` [nbody] of the body visible in each pixel, uint8 [H, W]; 0 for none."""
    renderer.enable_segmentation_rendering()
    geoms = renderer.render()[..., 0]  # -1 if there is none, which indexes the last entry
    renderer.disable_segmentation_rendering()
    return np.append(of_body[model.geom_bodyid], np.uint8(0))[geoms]


def depth_of(renderer: mujoco.Renderer) -> npt.NDArray[np.float32]:
    """Metres along the optical axis, float32 [H, W]."""
    renderer.enable_depth_rendering()
    depth = renderer.render().astype(np.float32)
    renderer.disable_depth_rendering()
    return depth


def light(
    model: mujoco.MjModel, spec: SceneSpec, factors: tuple[float, float, float] = (1.0, 1.0, 1.0)
) -> None:
    """Set a model's table top and lights; `factors` scale red, green and blue of the lights."""
    table = model.geom("table").id
    model.geom_matid[table] = model.material(f"top{spec.table}").id
    model.geom_rgba[table] = (*spec.table_tint, 1.0)
    lamp = model.light("lamp").id
    model.light_pos[lamp] = spec.light_position
    toward = -np.array(spec.light_position)
    model.light_dir[lamp] = toward / np.linalg.norm(toward)
    model.light_diffuse[lamp] = np.multiply(spec.light_colour, factors)
    model.vis.headlight.ambient[:] = np.multiply(spec.ambient, factors)
    model.vis.headlight.diffuse[:] = np.multiply(0.25, factors)


def camera_of(model: mujoco.MjModel, spec: SceneSpec) -> mujoco.MjvCamera:
    """The scene's camera for a renderer of this model; sets the model's field of view."""
    camera = mujoco.MjvCamera()
    camera.type = mujoco.mjtCamera.mjCAMERA_FREE
    camera.azimuth, camera.elevation = spec.azimuth, -spec.elevation
    camera.distance, camera.lookat[:] = spec.distance, (*spec.target, 0.03)
    model.vis.global_.fovy = spec.fov
    return camera


def intrinsics_of(spec: SceneSpec, width: int, height: int) -> npt.NDArray[np.float64]:
    """The camera matrix K [3, 3], pixels; as in ROS, a pixel's centre has whole coordinates."""
    focal = height / (2 * math.tan(math.radians(spec.fov) / 2))
    return np.array([[focal, 0, (width - 1) / 2], [0, focal, (height - 1) / 2], [0, 0, 1]])


def pose_of(spec: SceneSpec) -> npt.NDArray[np.float64]:
    """The camera's optical frame in the world [4, 4]."""
    forward = direction(math.radians(spec.azimuth), math.radians(-spec.elevation))
    right = np.cross(forward, (0.0, 0.0, 1.0))
    right /= np.linalg.norm(right)
    pose = np.eye(4)
    pose[:3, :3] = np.stack([right, np.cross(forward, right), forward], 1)
    pose[:3, 3] = np.array([*spec.target, 0.03]) - spec.distance * forward
    return pose
