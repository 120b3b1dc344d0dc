"""Off-screen rendering of household scenes: one compiled model a shelf, its bodies placed and painted."""

from __future__ import annotations

import math
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from .canvas import Canvas, mujoco
from .layout import FINISHES, Scene, Slab
from .shelf import GRAIN, PRINT, SKY, SURFACE, Shelf

SHOWN, HIDDEN = 1, 5  # geom groups; MuJoCo draws groups 0 to 2 by default
LAMPS = 3
#: Pictures are drawn so much larger than asked and made smaller: smooth edges for less than multi-sampling.
FINER = 1.5
#: Bodies of the room: name and number of each form. The first plane or box or cylinder is the table.
FORMS = {"plane": 6, "box": 7, "cylinder": 7}
_TYPES = {
    "plane": mujoco.mjtGeom.mjGEOM_PLANE,
    "box": mujoco.mjtGeom.mjGEOM_BOX,
    "cylinder": mujoco.mjtGeom.mjGEOM_CYLINDER,
}
OPAQUE = 0.999  # MuJoCo takes the very default of a geom's colour for none


@dataclass(frozen=True)
class Labels:
    """What each pixel shows: int32 [H, W], -1 for neither.

    thing: index in the scene's list. part: index of a part of all parts on the shelf.
    table: bool [H, W], the table top or floor.
    """

    thing: npt.NDArray[np.int32]
    part: npt.NDArray[np.int32]
    table: npt.NDArray[np.bool_]


class Stage:
    """Renders the scenes of one shelf at one size. Close it; GL contexts are few."""

    def __init__(self, shelf: Shelf, width: int, height: int) -> None:
        self.shelf, self.width, self.height = shelf, width, height
        self._fine = round(width * FINER), round(height * FINER)
        spec = mujoco.MjSpec()
        spec.visual.global_.offwidth, spec.visual.global_.offheight = self._fine
        spec.visual.quality.offsamples, spec.visual.quality.shadowsize = 0, 1024
        spec.visual.map.znear, spec.visual.map.zfar = 0.02, 30
        spec.stat.extent, spec.stat.center = 1.0, [0, 0, 0]
        pictures = self._materials(spec)
        self.first_part = np.cumsum([0, *(len(s.parts) for s in shelf.shapes)])
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
                body.add_geom(
                    type=mujoco.mjtGeom.mjGEOM_MESH, meshname=name, material="matte", contype=0, conaffinity=0,
                    group=HIDDEN,
                )  # fmt: skip
        for form, count in FORMS.items():
            for k in range(count):
                body = spec.worldbody.add_body(name=f"{form}{k}", mocap=True)
                body.add_geom(
                    name=f"{form}{k}", type=_TYPES[form], size=[1, 1, 1], material="matte", contype=0, conaffinity=0,
                    group=HIDDEN,
                )  # fmt: skip
        for k in range(LAMPS):
            spec.worldbody.add_light(
                name=f"lamp{k}", pos=[0, 0, 2], dir=[0, 0, -1], type=mujoco.mjtLightType.mjLIGHT_SPOT,
                cutoff=70, exponent=1, castshadow=k == 0,
            )  # fmt: skip
        spec.worldbody.add_camera(name="camera")
        self.model: mujoco.MjModel = spec.compile()
        for name, picture in pictures.items():
            self._upload(name, picture)
        self.data = mujoco.MjData(self.model)
        self._canvas = Canvas(self.model, *self._fine)
        self._shown = np.flatnonzero(self.model.geom_group == HIDDEN)

    def close(self) -> None:
        """Give the GL context back."""
        self._canvas.close()

    def _materials(self, spec: mujoco.MjSpec) -> dict[str, npt.NDArray[np.uint8]]:
        """Add textures and materials; returns the textures' pictures, which the model gets once compiled."""
        flat, cube = mujoco.mjtTexture.mjTEXTURE_2D, mujoco.mjtTexture.mjTEXTURE_CUBE
        pictures: dict[str, npt.NDArray[np.uint8]] = {}
        groups = (
            ("ground", self.shelf.grounds, SURFACE, flat),
            ("wall", self.shelf.walls, SURFACE, flat),
            ("label", self.shelf.labels, PRINT, flat),
            ("grain", self.shelf.grains, GRAIN, cube),
            ("sky", (self.shelf.sky,), SKY, mujoco.mjtTexture.mjTEXTURE_SKYBOX),
        )
        for group, images, size, kind in groups:
            for k, image in enumerate(images):
                name = f"{group}{k}"
                high = size if kind == flat else 6 * size
                spec.add_texture(
                    name=name,
                    type=kind,
                    builtin=mujoco.mjtBuiltin.mjBUILTIN_FLAT,
                    width=size,
                    height=high,
                    nchannel=3,
                )
                pictures[name] = image if kind == flat else np.tile(image, (6, 1, 1))
                if group != "sky":
                    material = spec.add_material(name=name, specular=0.2, shininess=0.3)
                    material.textures[mujoco.mjtTextureRole.mjTEXROLE_RGB] = name
                    material.texuniform = group in ("ground", "wall")
        for name, (specular, shininess) in FINISHES.items():
            spec.add_material(name=name, specular=specular, shininess=shininess)
        return pictures

    def _upload(self, name: str, picture: npt.NDArray[np.uint8]) -> None:
        model = self.model
        index = model.texture(name).id
        start = int(model.tex_adr[index])
        model.tex_data[start : start + picture.size] = picture.ravel()

    def place(self, scene: Scene) -> None:
        """Put the scene's things, room, lamps and camera into the model."""
        model, data = self.model, self.data
        model.geom_group[self._shown] = HIDDEN
        for thing in scene.things:
            body = model.body(f"thing{thing.number}")
            self._pose(body.mocapid[0], thing.position, thing.rotation)
            for k, paint in enumerate(thing.paints):
                geom = body.geomadr[0] + k
                model.geom_rgba[geom] = np.minimum(
                    paint.rgba, (1, 1, 1, OPAQUE if paint.rgba[3] == 1 else 1)
                )
                model.geom_matid[geom] = model.material(paint.material).id
                model.geom_group[geom] = SHOWN
        used = dict.fromkeys(FORMS, 0)
        for slab in (scene.table, *scene.room):
            if used[slab.form] == FORMS[slab.form]:
                continue
            name = f"{slab.form}{used[slab.form]}"
            used[slab.form] += 1
            self._slab(name, slab)
        for name in ("ground", "wall"):
            for k in range(len(self.shelf.grounds if name == "ground" else self.shelf.walls)):
                model.mat_texrepeat[model.material(f"{name}{k}").id] = scene.repeats[name == "wall"]
                model.mat_reflectance[model.material(f"{name}{k}").id] = 0.0
        model.mat_reflectance[model.material(scene.table.material).id] = scene.mirror
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
        camera = model.camera("camera").id
        view = scene.view
        model.cam_pos[camera] = view.pose[:3, 3]
        # MuJoCo's camera looks along -z with y up.
        mujoco.mju_mat2Quat(model.cam_quat[camera], (view.pose[:3, :3] * (1, -1, -1)).ravel())
        half = math.tan(view.fov / 2) * self.height / self.width
        model.cam_fovy[camera] = math.degrees(2 * math.atan(half))
        mujoco.mj_forward(model, data)
        self._canvas.look(data)

    def _slab(self, name: str, slab: Slab) -> None:
        model = self.model
        geom = model.geom(name).id
        self._pose(model.body(name).mocapid[0], np.array(slab.position), slab.rotation)
        model.geom_size[geom] = slab.size
        model.geom_rgba[geom] = (*slab.rgba[:3], OPAQUE)
        model.geom_matid[geom] = model.material(slab.material).id
        model.geom_group[geom] = SHOWN

    def _pose(
        self, mocap: int, position: npt.NDArray[np.float64], rotation: npt.NDArray[np.float64]
    ) -> None:
        self.data.mocap_pos[mocap] = position
        mujoco.mju_mat2Quat(self.data.mocap_quat[mocap], np.ascontiguousarray(rotation).ravel())

    def labels(self, scene: Scene) -> Labels:
        """What each pixel of the placed scene shows."""
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
        """The placed scene's picture before the sensor, uint8 [H, W, 3]."""
        canvas, size = self._canvas, (self.width, self.height)
        fine = canvas.picture(*self._fine, shadows=scene.shadow == "hard")
        rgb = cv2.resize(fine, size, interpolation=cv2.INTER_AREA)
        if scene.shadow != "soft":
            return rgb
        coarse = self.width // 2, self.height // 2
        plain = canvas.picture(*coarse, shadows=False).sum(-1, dtype=np.float32)
        dark = canvas.picture(*coarse, shadows=True).sum(-1, dtype=np.float32)
        shade = cv2.resize((dark + 3) / (plain + 3), size, interpolation=cv2.INTER_LINEAR)
        return softened(rgb, shade, labels.table, scene.softness * self.width / 320)


def softened(
    plain: npt.NDArray[np.uint8],
    shade: npt.NDArray[np.float32],
    table: npt.NDArray[np.bool_],
    sigma: float,
) -> npt.NDArray[np.uint8]:
    """The plain picture under shadows that are blurred on the table by `sigma` pixels, on things by less.

    Args:
        plain: uint8 [H, W, 3]. shade: float32 [H, W], the share of light that is left. table: bool [H, W].
    """
    out = np.empty_like(shade)
    for mask, width in ((table, sigma), (~table, sigma * 0.35)):
        weight = mask.astype(np.float32)
        blurred = cv2.GaussianBlur(shade * weight, (0, 0), width)
        around = cv2.GaussianBlur(weight, (0, 0), width)
        out[mask] = (blurred / np.maximum(around, 1e-3))[mask]
    return np.clip(plain * out[..., None], 0, 255).astype(np.uint8)
