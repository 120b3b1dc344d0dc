"""Off-screen rendering of household scenes: one compiled model per shelf, placed and painted per scene."""

from __future__ import annotations

import math
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from ..render import HIDDEN, SHOWN
from .canvas import Canvas, mujoco
from .paint import FINISHES
from .panoramas import Backdrop, skybox
from .scans import SIZE as SCAN
from .scene import Camera, Scene, Slab
from .shelf import GRAIN, PRINT, SURFACE, Shelf

UNSEEN = {"material": "matte", "contype": 0, "conaffinity": 0, "group": HIDDEN}  # until placed
LAMPS = 3
SLOTS = 4  # textures per scene for prints laid over their thing's colour
#: Supersampling factor: gives smooth edges at less cost than multisampling.
FINER = 1.5
#: Number of bodies of the room, by form. The first of a form can be the table.
FORMS = {"plane": 6, "box": 7, "cylinder": 7}
_TYPES = {
    "plane": mujoco.mjtGeom.mjGEOM_PLANE,
    "box": mujoco.mjtGeom.mjGEOM_BOX,
    "cylinder": mujoco.mjtGeom.mjGEOM_CYLINDER,
}


@dataclass(frozen=True)
class Labels:
    """Labels of each pixel, int32 [H, W], -1 for none.

    thing: index in the scene's list. part: index of the part within its thing.
    table: bool [H, W], the table top or floor.
    """

    thing: npt.NDArray[np.int32]
    part: npt.NDArray[np.int32]
    table: npt.NDArray[np.bool_]


class Stage:
    """Renders the scenes of one shelf at one size. Close it: GL contexts are scarce."""

    def __init__(self, shelf: Shelf, width: int, height: int) -> None:
        self.shelf, self.width, self.height = shelf, width, height
        self._fine = round(width * FINER), round(height * FINER)
        self._backdrop: Backdrop | None = None
        spec = mujoco.MjSpec()
        spec.visual.global_.offwidth, spec.visual.global_.offheight = self._fine
        spec.visual.quality.offsamples, spec.visual.quality.shadowsize = 0, 1024
        spec.visual.map.znear, spec.visual.map.zfar = 0.02, 30
        spec.stat.extent, spec.stat.center = 1.0, [0, 0, 0]
        self._materials(spec)
        for number, shape in enumerate(shelf.shapes):
            body = spec.worldbody.add_body(name=f"thing{number}", mocap=True)
            for k, part in enumerate(shape.parts):
                name = f"mesh{number}_{k}"
                mesh = spec.add_mesh(
                    name=name,
                    uservert=part.mesh.vertices.ravel(),
                    userface=part.mesh.faces.ravel(),
                    inertia=mujoco.mjtMeshInertia.mjMESH_INERTIA_SHELL,
                )
                if part.mesh.uv is not None:
                    mesh.usertexcoord = part.mesh.uv.ravel()
                body.add_geom(type=mujoco.mjtGeom.mjGEOM_MESH, meshname=name, **UNSEEN)
        for form, count in FORMS.items():
            for k in range(count):
                body = spec.worldbody.add_body(name=f"{form}{k}", mocap=True)
                body.add_geom(name=f"{form}{k}", type=_TYPES[form], size=[1, 1, 1], **UNSEEN)
        for k in range(LAMPS):
            lamp = spec.worldbody.add_light(name=f"lamp{k}", pos=[0, 0, 2], dir=[0, 0, -1])
            lamp.type, lamp.cutoff, lamp.exponent = mujoco.mjtLightType.mjLIGHT_SPOT, 70, 1
            lamp.castshadow = k == 0
        spec.worldbody.add_camera(name="camera")
        self.model: mujoco.MjModel = spec.compile()
        self.data = mujoco.MjData(self.model)
        self._canvas = Canvas(self.model, *self._fine)
        self._shown = np.flatnonzero(self.model.geom_group == HIDDEN)

    def close(self) -> None:
        """Release the GL context."""
        self._canvas.close()

    def _materials(self, spec: mujoco.MjSpec) -> None:
        """Add the shelf's textures and the finishes."""
        flat, cube = mujoco.mjtTexture.mjTEXTURE_2D, mujoco.mjtTexture.mjTEXTURE_CUBE
        groups = (
            ("ground", self.shelf.grounds, SURFACE, flat),
            ("wall", self.shelf.walls, SURFACE, flat),
            ("label", self.shelf.labels, PRINT, flat),
            ("slot", [np.zeros((PRINT, PRINT, 3), np.uint8)] * SLOTS, PRINT, flat),
            ("grain", self.shelf.grains, GRAIN, cube),
            ("metal", self.shelf.metals, GRAIN, cube),
            ("scan", self.shelf.scans, SCAN, flat),
            ("sky", (self.shelf.sky,), len(self.shelf.sky), mujoco.mjtTexture.mjTEXTURE_SKYBOX),
        )
        for group, images, size, kind in groups:
            for k, image in enumerate(images):
                name = f"{group}{k}"
                texture = spec.add_texture(name=name, type=kind, nchannel=image.shape[-1])
                texture.width, texture.height = size, size if kind == flat else 6 * size
                texture.data = (image if kind == flat else np.tile(image, (6, 1, 1))).tobytes()
                if group != "sky":
                    material = spec.add_material(name=name)
                    polished = group == "metal"
                    material.specular, material.shininess = (0.9, 0.5) if polished else (0.2, 0.3)
                    material.textures[mujoco.mjtTextureRole.mjTEXROLE_RGB] = name
                    material.texuniform = group in ("ground", "wall")
        for name, (specular, shininess) in FINISHES.items():
            spec.add_material(name=name, specular=specular, shininess=shininess)

    def place(self, scene: Scene) -> None:
        """Put the scene's things, room, lamps and camera into the model."""
        self.model.geom_group[self._shown] = HIDDEN
        self._place_things(scene)
        if scene.backdrop != self._backdrop:
            self._stand_before(scene.backdrop)
        self._furnish(scene)
        self._light(scene)
        self._aim(scene.camera)
        mujoco.mj_forward(self.model, self.data)
        self._canvas.look(self.data)

    def _place_things(self, scene: Scene) -> None:
        model, slots = self.model, 0
        for thing in scene.things:
            body = model.body(f"thing{thing.number}")
            self._pose(body.mocapid[0], thing.position, thing.rotation)
            slot = None
            for k, paint in enumerate(thing.paints):
                geom, material, rgba = body.geomadr[0] + k, paint.material, paint.rgba
                if material.startswith("print"):
                    if slot is None and slots < SLOTS:
                        slot, slots = f"slot{slots}", slots + 1
                        self._print(slot, material, rgba[:3])
                    material, rgba = (slot, (1, 1, 1, 1)) if slot else ("satin", rgba)
                model.geom_rgba[geom] = rgba
                model.geom_matid[geom] = model.material(material).id
                model.geom_group[geom] = SHOWN

    def _furnish(self, scene: Scene) -> None:
        """Put up the table and the room, and set how often their textures repeat."""
        model, used = self.model, dict.fromkeys(FORMS, 0)
        for slab in (scene.table, *scene.room):
            if used[slab.form] < FORMS[slab.form]:
                self._slab(f"{slab.form}{used[slab.form]}", slab)
                used[slab.form] += 1
        pictures = (("ground", self.shelf.grounds), ("wall", self.shelf.walls))
        for (name, images), repeat in zip(pictures, scene.repeats, strict=True):
            for k in range(len(images)):
                material = model.material(f"{name}{k}").id
                model.mat_texrepeat[material], model.mat_reflectance[material] = repeat, 0.0
        model.mat_reflectance[model.material(scene.table.material).id] = scene.mirror

    def _light(self, scene: Scene) -> None:
        model = self.model
        for k in range(LAMPS):
            lit = k < len(scene.lamps)
            model.light_active[k] = lit
            if lit:
                lamp = scene.lamps[k]
                model.light_pos[k], model.light_dir[k] = lamp.position, lamp.toward
                model.light_diffuse[k] = lamp.colour
                model.light_specular[k] = np.multiply(lamp.colour, lamp.specular)
        model.vis.headlight.ambient[:] = scene.ambient
        model.vis.headlight.diffuse[:] = scene.headlight
        model.vis.headlight.specular[:] = scene.headlight * 0.3

    def _aim(self, camera: Camera) -> None:
        model = self.model
        number = model.camera("camera").id
        model.cam_pos[number] = camera.pose[:3, 3]
        # MuJoCo's camera looks along -z with y up.
        mujoco.mju_mat2Quat(model.cam_quat[number], (camera.pose[:3, :3] * (1, -1, -1)).ravel())
        half = math.tan(camera.fov / 2) * self.height / self.width
        model.cam_fovy[number] = math.degrees(2 * math.atan(half))

    def _print(self, slot: str, name: str, rgb: tuple[float, ...]) -> None:
        """Write a print over a colour into a slot's texture."""
        picture = self.shelf.prints[int(name.removeprefix("print"))]
        marks = picture[..., 3:] / np.float32(255)
        ground = 255 * np.array(rgb, np.float32)
        self._paint(slot, (picture[..., :3] * marks + ground * (1 - marks)).astype(np.uint8))

    def _stand_before(self, backdrop: Backdrop | None) -> None:
        """Set the skybox to a panorama or to the shelf's sky."""
        sky = np.tile(self.shelf.sky, (6, 1, 1))
        if backdrop:
            sky = skybox(self.shelf.panoramas[backdrop.number], len(self.shelf.sky), backdrop)
        self._paint("sky0", sky)
        self._backdrop = backdrop

    def _paint(self, texture: str, image: npt.NDArray[np.uint8]) -> None:
        index = self.model.texture(texture).id
        start = self.model.tex_adr[index]
        self.model.tex_data[start : start + image.size] = image.ravel()
        self._canvas.upload(index)

    def _slab(self, name: str, slab: Slab) -> None:
        model = self.model
        geom = model.geom(name).id
        self._pose(model.body(name).mocapid[0], np.array(slab.position), slab.rotation)
        model.geom_size[geom] = slab.size
        model.geom_rgba[geom] = slab.rgba
        model.geom_matid[geom] = model.material(slab.material).id
        model.geom_group[geom] = SHOWN

    def _pose(
        self, mocap: int, position: npt.NDArray[np.float64], rotation: npt.NDArray[np.float64]
    ) -> None:
        self.data.mocap_pos[mocap] = position
        mujoco.mju_mat2Quat(self.data.mocap_quat[mocap], np.ascontiguousarray(rotation).ravel())

    def labels(self, scene: Scene) -> Labels:
        """Labels of each pixel of the placed scene."""
        found = self._canvas.geoms(self.width, self.height)
        count = self.model.ngeom
        thing = np.full(count + 1, -1, np.int32)
        part = np.full(count + 1, -1, np.int32)
        for index, placed in enumerate(scene.things):
            start = self.model.body(f"thing{placed.number}").geomadr[0]
            end = start + len(placed.paints)
            thing[start:end] = index
            part[start:end] = np.arange(len(placed.paints))
        table = np.zeros(count + 1, bool)
        table[self.model.geom(f"{scene.table.form}0").id] = True
        return Labels(thing[found], part[found], table[found])

    def picture(self, scene: Scene, labels: Labels) -> npt.NDArray[np.uint8]:
        """The placed scene's image before the sensor model, uint8 [H, W, 3]."""
        canvas, size = self._canvas, (self.width, self.height)
        fine = canvas.picture(*self._fine, shadows=scene.shadow == "hard")
        rgb = cv2.resize(fine, size, interpolation=cv2.INTER_AREA)
        if scene.shadow != "soft" and not scene.nooks:
            return rgb
        coarse = self.width // 2, self.height // 2
        plain = canvas.picture(*coarse, shadows=False).sum(-1, dtype=np.float32)
        if scene.nooks:
            near = canvas.nearness(*coarse)
            dim = 1 - scene.nooks * nooks(near, scene.camera.focal(coarse[0]))
            rgb = darkened(rgb, cv2.resize(dim, size, interpolation=cv2.INTER_LINEAR))
        if scene.shadow == "soft":
            dark = canvas.picture(*coarse, shadows=True).sum(-1, dtype=np.float32)
            shade = cv2.resize((dark + 3) / (plain + 3), size, interpolation=cv2.INTER_LINEAR)
            rgb = darkened(rgb, softened(shade, labels.table, scene.softness * self.width / 320))
        return rgb


def darkened(rgb: npt.NDArray[np.uint8], shade: npt.NDArray[np.float32]) -> npt.NDArray[np.uint8]:
    """Multiply an image uint8 [H, W, 3] by a shade float32 [H, W], the fraction of light that remains."""
    return np.clip(rgb * shade[..., None], 0, 255).astype(np.uint8)


REACH = 0.035  # radius of ambient occlusion in metres


def nooks(near: npt.NDArray[np.float32], focal: float) -> npt.NDArray[np.float32]:
    """Ambient occlusion of each pixel, 0 to 1: where things meet, and inside hollow things.

    Args:
        near: inverse depth float32 [H, W], 1 / metres. focal: focal length in pixels.
    """
    height, width = near.shape
    area = 1 / np.maximum(near, 1e-3) ** 2
    limit = 2.5 * REACH / area
    wide = float(np.clip(focal * REACH * np.median(near), 2, width / 10))
    total = np.zeros_like(near)
    for part in (0.4, 1.0):
        pad = round(part * wide) + 1
        around = cv2.copyMakeBorder(near, pad, pad, pad, pad, cv2.BORDER_CONSTANT, value=0)
        for angle in np.arange(4) * np.pi / 4 + 0.4 * part:
            x, y = round(part * wide * math.cos(angle)), round(part * wide * math.sin(angle))
            one, other = (
                around[pad + sy : pad + sy + height, pad + sx : pad + sx + width]
                for sx, sy in ((x, y), (-x, -y))
            )
            # Inverse depth is linear on a plane: only in corners is the mean of two opposite neighbours
            # nearer. One much nearer or further belongs to another thing, or is outside the image.
            same = (np.abs(one - near) < limit) & (np.abs(other - near) < limit)
            rise = (one + other - 2 * near) * area / (REACH * part)
            total += np.clip(rise, 0, 1) * same
    return cv2.GaussianBlur(total / 8, (0, 0), 1.0)


def softened(
    shade: npt.NDArray[np.float32], table: npt.NDArray[np.bool_], sigma: float
) -> npt.NDArray[np.float32]:
    """Blur shadows, by `sigma` pixels on the table and by less on things.

    Args:
        shade: float32 [H, W], the fraction of light that remains. table: bool [H, W].
    """
    out = np.empty_like(shade)
    for mask, width in ((table, sigma), (~table, sigma * 0.35)):
        weight = mask.astype(np.float32)
        blurred = cv2.GaussianBlur(shade * weight, (0, 0), width)
        around = cv2.GaussianBlur(weight, (0, 0), width)
        out[mask] = (blurred / np.maximum(around, 1e-3))[mask]
    return out
