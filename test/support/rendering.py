"""Import this to skip a test module if MuJoCo cannot render off-screen."""

import pytest

try:
    from gsva_ros.sim.render import Renderer

    Renderer(64, 48)
except Exception as error:  # PyOpenGL and MuJoCo raise various exceptions without a driver
    pytest.skip(
        f"no off-screen OpenGL (Debian and Ubuntu: libegl1, libgl1-mesa-dri): {error}",
        allow_module_level=True,
    )
