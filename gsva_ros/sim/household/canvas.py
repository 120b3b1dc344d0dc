"""MuJoCo rendering at several sizes, with or without shadows, for one compiled model."""

from __future__ import annotations

import sys

import numpy as np
import numpy.typing as npt

from ..render import mujoco, opening

MAX_GEOMS = 1000
Image = npt.NDArray[np.uint8]


class Canvas:
    """Renders one of the model's cameras. Close it: GL contexts are scarce."""

    _gl: mujoco.GLContext | None = None

    def __init__(self, model: mujoco.MjModel, width: int, height: int) -> None:
        """Args: width, height: of the largest image, pixels.

        Raises:
            InputError: rendering is impossible, or not possible at this size.
        """
        self._model = model
        with opening(width, height):
            gl = mujoco.GLContext(width, height)
            gl.make_current()
            # The smallest font: no text is rendered, and larger fonts load slowly.
            self._context = mujoco.MjrContext(model, mujoco.mjtFontScale.mjFONTSCALE_50)
        self._gl = gl
        mujoco.mjr_setBuffer(mujoco.mjtFramebuffer.mjFB_OFFSCREEN, self._context)
        self._scene = mujoco.MjvScene(model, MAX_GEOMS)
        self._option, self._perturb = mujoco.MjvOption(), mujoco.MjvPerturb()
        self._camera = mujoco.MjvCamera()
        self._camera.type, self._camera.fixedcamid = mujoco.mjtCamera.mjCAMERA_FIXED, 0

    def close(self) -> None:
        """Release the GL context."""
        if self._gl is not None:
            # Free resources in the context that created them; otherwise another context's would break.
            self._gl.make_current()
            self._context.free()
            self._gl.free()
            self._gl = None

    def __del__(self) -> None:
        if not sys.is_finalizing():
            self.close()

    def upload(self, texture: int) -> None:
        """Upload a texture's pixels again from the model."""
        self._gl.make_current()
        mujoco.mjr_uploadTexture(self._model, self._context, texture)

    def look(self, data: mujoco.MjData) -> None:
        """Take over the current state of the world."""
        everything = mujoco.mjtCatBit.mjCAT_ALL
        mujoco.mjv_updateScene(
            self._model, data, self._option, self._perturb, self._camera, everything, self._scene
        )

    def picture(self, width: int, height: int, shadows: bool) -> Image:
        """RGB, uint8 [height, width, 3]."""
        self._scene.flags[mujoco.mjtRndFlag.mjRND_SHADOW] = shadows
        return self._drawn(width, height)

    def nearness(self, width: int, height: int) -> npt.NDArray[np.float32]:
        """Inverse depth of the last picture, 1 / metres along the optical axis, float32 [height, width]."""
        depth = np.empty((height, width), np.float32)
        mujoco.mjr_readPixels(None, depth, mujoco.MjrRect(0, 0, width, height), self._context)
        near, far = (self._model.vis.map.znear, self._model.vis.map.zfar)
        return (1 / near - depth[::-1] * np.float32(1 / near - 1 / far)) / self._model.stat.extent

    def geoms(self, width: int, height: int) -> npt.NDArray[np.int32]:
        """The geom visible in each pixel, int32 [height, width]; the model's number of geoms for none."""
        flags = self._scene.flags
        modes = [mujoco.mjtRndFlag.mjRND_SEGMENT, mujoco.mjtRndFlag.mjRND_IDCOLOR]
        for mode in modes:
            flags[mode] = True
        code = self._drawn(width, height).astype(np.int32)
        for mode in modes:
            flags[mode] = False
        drawn = np.full(self._scene.ngeom + 1, self._model.ngeom, np.int32)
        for geom in self._scene.geoms[: self._scene.ngeom]:
            if geom.segid >= 0 and geom.objtype == mujoco.mjtObj.mjOBJ_GEOM:
                drawn[geom.segid + 1] = geom.objid
        return drawn[code[..., 0] + (code[..., 1] << 8) + (code[..., 2] << 16)]

    def _drawn(self, width: int, height: int) -> Image:
        self._gl.make_current()
        where = mujoco.MjrRect(0, 0, width, height)
        mujoco.mjr_render(where, self._scene, self._context)
        image = np.empty((height, width, 3), np.uint8)
        mujoco.mjr_readPixels(image, None, where, self._context)
        return image[::-1]
