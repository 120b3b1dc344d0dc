"""The builds that users make: linked into the source tree, the interfaces alone, the C++ example."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

pytestmark = pytest.mark.skipif(
    shutil.which("colcon") is None,
    reason="colcon builds the package: requirements-ros.txt brings it",
)


def build(folder: Path, *options: str, cmake: tuple[str, ...] = ()) -> Path:
    """Build into a folder; return the install folder."""
    command = ["colcon", "--log-base", str(folder / "log"), "build", "--merge-install"]
    command += ["--paths", str(ROOT), "--build-base", str(folder / "build")]
    command += ["--install-base", str(folder / "install"), *options, "--cmake-args"]
    command += ["-DBUILD_TESTING=OFF", f"-DPython3_EXECUTABLE={sys.executable}", *cmake]
    # Without what is installed here already: the build must find the same as on a new machine.
    clean = {k: v for k, v in os.environ.items() if k not in ("COLCON_PREFIX_PATH", "PYTHONPATH")}
    prefix = os.environ["AMENT_PREFIX_PATH"].split(os.pathsep)
    kept = os.pathsep.join(p for p in prefix if not (Path(p) / "share" / "gsva_ros").exists())
    clean |= {"AMENT_PREFIX_PATH": kept, "CMAKE_PREFIX_PATH": kept}
    done = subprocess.run(command, env=clean, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return folder / "install"


def sourced(install: Path, command: str, **options: object) -> subprocess.Popen[str]:
    """A command in the shell of a user who has sourced the build."""
    script = f"set -e; source {install}/setup.bash; exec {command}"
    clean = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    return subprocess.Popen(
        ["bash", "-c", script],
        env=clean,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        cwd="/",
        **options,
    )


@pytest.mark.skipif("AMENT_PREFIX_PATH" not in os.environ, reason="no ROS environment is sourced")
def test_symlink_install_starts_the_node(tmp_path: Path) -> None:
    install = build(tmp_path, "--symlink-install")
    program = install / "lib" / "gsva_ros" / "gsva_node"
    assert program.is_symlink(), "the build makes links, or this test shows nothing"
    node = sourced(install, f"{program} --ros-args -r __ns:=/linked -p device:=cpu")
    try:
        said = ""
        end = time.monotonic() + 600.0
        while "ready: gsva-mini" not in said:
            line = node.stdout.readline()
            assert line or node.poll() is None, said
            assert time.monotonic() < end, said
            said += line
        node.send_signal(signal.SIGINT)
        assert node.wait(120.0) == 0
    finally:
        node.kill()
        node.wait()


@pytest.mark.skipif("AMENT_PREFIX_PATH" not in os.environ, reason="no ROS environment is sourced")
def test_interfaces_alone(tmp_path: Path) -> None:
    """Messages, service and action can be used; nothing that needs torch is there."""
    install = build(tmp_path, cmake=("-DINTERFACES_ONLY=ON",))
    code = (
        "from gsva_ros.msg import Outcome, Segmentation; from gsva_ros.srv import Segment; "
        "from gsva_ros.action import Follow; import gsva_ros; from pathlib import Path; "
        "assert Outcome().outcome == Outcome.UNKNOWN; "
        "assert not (Path(gsva_ros.__path__[0]) / 'engine.py').exists(); print('fine')"
    )
    # Isolated from this tree, which is installed for development where the tests run.
    done = sourced(install, f'{sys.executable} -c "{code}"')
    assert done.communicate(timeout=600)[0].strip() == "fine"
    assert not (install / "lib" / "gsva_ros" / "gsva_node").exists()


@pytest.mark.skipif("AMENT_PREFIX_PATH" not in os.environ, reason="no ROS environment is sourced")
def test_cpp_example(tmp_path: Path) -> None:
    prefixes = os.environ["AMENT_PREFIX_PATH"].split(os.pathsep)
    if not any((Path(p) / "share" / "rclcpp").is_dir() for p in prefixes):
        pytest.skip("rclcpp is not on PyPI; it comes with a ROS 2 installation")
    import harness

    install = build(tmp_path, cmake=("-DINTERFACES_ONLY=ON", "-DGSVA_BUILD_EXAMPLES=ON"))
    harness.isolate()
    listener = sourced(install, f"{install}/lib/gsva_ros/gsva_listener --ros-args -r __ns:=/test")
    node = harness.NodeProcess(harness.FAKE)
    client = harness.Client()
    try:
        client.connect(node)
        rgb, _ = harness.blocks()
        client.frame(rgb)
        client.ask(["red", "blue"], id="look")
        client.answer("look")
        said = ""
        while "red: 400 pixels" not in said or "blue: outcome 2" not in said:
            line = listener.stdout.readline()
            assert line, said
            said += line
    finally:
        listener.kill()
        client.close()
        node.close()
