"""What is installed is what a script imports, wherever the script lies."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest


def imported(folder: Path) -> bool:
    """Whether a script in a folder can use the package, without the workspace's path."""
    outside = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    command = [sys.executable, "-c", "import gsva_ros; gsva_ros.load"]
    done = subprocess.run(command, cwd=folder, env=outside, capture_output=True, check=False)
    return done.returncode == 0


def test_a_script_beside_the_clone_imports_the_package(tmp_path: Path) -> None:
    """Python takes a folder of the package's name for the package, unless the path has a real one."""
    if not imported(tmp_path):
        pytest.skip("not installed as by `make setup`: only the workspace's path has the package")
    (tmp_path / "gsva_ros").mkdir()
    assert imported(tmp_path)
