"""Tests import the installed package where it is installed, and this tree elsewhere."""

import os
import sys
from importlib.util import find_spec
from pathlib import Path

ROOT = str(Path(__file__).resolve().parent.parent)
sys.path[:] = [p for p in sys.path if p not in ("", ROOT)] + [ROOT]
sys.path.insert(0, str(Path(__file__).resolve().parent / "support"))

# Message fields of the wrong Python type raise, as in Humble; read when messages are imported, here and in
# the nodes that tests start.
os.environ["ROS_PYTHON_CHECK_FIELDS"] = "1"

# Its test runs inside a launch: `launch_test` starts it (CMakeLists.txt).
collect_ignore = ["launch"] if find_spec("launch_testing") else []


def pytest_collection_modifyitems(items):
    """Mark each test with its folder, and what starts nodes with `dds`."""
    for item in items:
        # Ubuntu 22.04's pytest 6.2 has no item.path.
        layer = Path(item.module.__file__).relative_to(Path(ROOT) / "test").parts[0]
        item.add_marker(layer)
        if "harness" in item.module.__dict__:
            item.add_marker("dds")
