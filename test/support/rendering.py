"""Import this to skip a test module if MuJoCo cannot render off-screen."""

from contextlib import suppress

import pytest

# Triton, which a CUDA build of torch brings, ends the process if Mesa has loaded its LLVM before.
with suppress(ModuleNotFoundError):
    import triton  # noqa: F401

try:
    from gsva_ros.sim.render import Renderer

    Renderer(64, 48)
except Exception as error:  # PyOpenGL and MuJoCo raise various exceptions without a driver
    pytest.skip(
        f"no off-screen OpenGL (Debian and Ubuntu: libegl1, libgl1-mesa-dri): {error}",
        allow_module_level=True,
    )
