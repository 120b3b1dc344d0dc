"""Starts `gsva_pick_planner`, or names the missing package: a robot's requirements omit the simulation."""

from __future__ import annotations

import sys


def main() -> int:
    """Entry point of `ros2 run gsva_ros gsva_pick_planner`."""
    try:
        from gsva_ros.programs import pick_planner
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in ("mujoco", "trimesh"):
            raise
        print(
            f"gsva_pick_planner: needs the package {error.name}: pip install mujoco trimesh",
            file=sys.stderr,
        )
        return 1
    return pick_planner.main()
