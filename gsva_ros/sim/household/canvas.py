"""MuJoCo's renderer at several sizes and with or without shadows, for one compiled model."""

from __future__ import annotations

import os

os.environ.setdefault("MUJOCO_GL", "egl")

import mujoco
import numpy as np
import numpy.typing as npt

MAX_GEOMS = 1000
Image = npt.NDArray[np.uint8]


class Canvas:
    """Draws what one of the model's cameras sees. Close it; GL contexts are few."""

    def __init__(self, model: mujoco.MjModel, width: int, height: int) -> None:
        """Args: width, height: of the largest picture, pixels."""
        self._model = model
        self._gl = mujoco.GLContext(width, height)
        self._gl.make_current()
        # The smallest font: nothing is written, and larger ones take long to load.
        self._context = mujoco.MjrContext(model, mujoco.mjtFontScale.mjFONTSCALE_50)
        mujoco.mjr_setBuffer(mujoco.mjtFramebuffer.mjFB_OFFSCREEN, self._context)
        self._scene = mujoco.MjvScene(model, MAX_GEOMS)
        self._option, self._perturb = mujoco.MjvOption(), mujoco.MjvPerturb()
        self._camera = mujoco.MjvCamera()
        self._camera.type, self._camera.fixedcamid = mujoco.mjtCamera.mjCAMERA_FIXED, 0

    def close(self) -> None:
        """Give the GL context back."""
        self._gl.make_current()
        self._context.free()
        self._gl.free()

    def look(self, data: mujoco.MjData) -> None:
        """Take the world as it stands."""
        everything = mujoco.mjtCatBit.mjCAT_ALL
        mujoco.mjv_updateScene(
            self._model, data, self._option, self._perturb, self._camera, everything, self._scene
        )

    def picture(self, width: int, height: int, shadows: bool) -> Image:
        """RGB, uint8 [height, width, 3]."""
        self._scene.flags[mujoco.mjtRndFlag.mjRND_SHADOW] = shadows
        return self._drawn(width, height)

    def geoms(self, width: int, height: int) -> npt.NDArray[np.int32]:
        """The geom that each pixel shows, int32 [height, width]; the model's number of geoms for none."""
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
