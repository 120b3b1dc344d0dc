"""A household scene: placed things, paint, light and camera."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from .camera import Sensor
from .colours import Rgb
from .panoramas import Backdrop
from .shapes import Pose, Shape

Rgba = tuple[float, float, float, float]
Array = npt.NDArray[np.float64]
Rng = np.random.Generator


@dataclass(frozen=True)
class Paint:
    """The appearance of a part.

    material: a finish of `paint.FINISHES`, or a texture of the shelf: "label3", "grain0", "metal1", or
    "print2", which is laid over the colour. main: whether it has the thing's named colour.
    """

    rgba: Rgba
    material: str
    main: bool


@dataclass(frozen=True)
class Placed:
    """A thing of the shelf in the scene.

    number: its index on the shelf. position [3] of its origin and rotation [3, 3], in the world, metres.
    support, inside: index in the scene's list of the thing it stands on or in; None for the table.
    """

    number: int
    shape: Shape
    pose: Pose
    position: Array
    rotation: Array
    colour: str = ""
    paints: tuple[Paint, ...] = ()
    support: int | None = None
    inside: int | None = None

    def points(self) -> Array:
        """Its vertices in the world, [n, 3]."""
        return self.shape.points() @ self.rotation.T + self.position


@dataclass(frozen=True)
class Camera:
    """A camera: horizontal fov and roll in radians, pose [4, 4] of its optical frame."""

    fov: float
    pose: Array

    def focal(self, width: int) -> float:
        """Focal length in pixels."""
        return width / 2 / math.tan(self.fov / 2)


@dataclass(frozen=True)
class Lamp:
    """A light: position and direction in the world, diffuse and specular colour."""

    position: tuple[float, float, float]
    toward: tuple[float, float, float]
    colour: Rgb
    specular: float


@dataclass(frozen=True)
class Slab:
    """A piece of the room: a MuJoCo shape, half sizes, position, rotation, material and colour."""

    form: str  # plane, box, cylinder
    size: tuple[float, float, float]
    position: tuple[float, float, float]
    rotation: Array
    material: str
    rgba: Rgba


@dataclass(frozen=True)
class Scene:
    """A complete description for the renderer. The table top is z = 0.

    shadow: "none", "hard", or "soft" with a blur of standard deviation `softness`, in pixels of an image
    320 wide. nooks: strength of ambient occlusion. repeats: of textures on table and walls, per metre.
    mirror: how much the table reflects. backdrop: a panorama instead of the shelf's sky.
    """

    things: tuple[Placed, ...]
    camera: Camera
    lamps: tuple[Lamp, ...]
    ambient: Rgb
    headlight: float
    table: Slab
    room: tuple[Slab, ...]
    repeats: tuple[float, float]
    mirror: float
    shadow: str
    softness: float
    nooks: float
    sensor: Sensor = field(default_factory=Sensor)
    backdrop: Backdrop | None = None


def on_table(table: Slab, circles: Array) -> bool:
    """Whether circles [n, 3] are on the table, at least nearly."""
    if table.form == "plane":
        return True
    local = np.abs(circles[:, :2] @ table.rotation[:2, :2])
    margin = 0.8 * circles[:, 2]
    if table.form == "cylinder":
        return bool((np.hypot(*local.T) < table.size[0] - margin).all())
    return bool((local < np.array(table.size[:2]) - margin[:, None]).all())
