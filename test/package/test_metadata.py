"""What package.xml, setup.py and entry_points.cfg say of the package is so."""

from __future__ import annotations

import ast
from configparser import ConfigParser
from pathlib import Path
from xml.etree import ElementTree

ROOT = Path(__file__).resolve().parents[2]
#: Packages of ROS that Python code imports, beside those of messages.
ROS = {"ament_index_python", "cv_bridge", "launch", "launch_ros", "rclpy", "tf2_ros"}


def imported(path: Path) -> set[str]:
    """Top-level names of what a file imports."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and not node.level:
            names.add(node.module or "")
    return {name.partition(".")[0] for name in names}


def test_every_imported_package_of_ros_is_declared() -> None:
    package = ElementTree.parse(ROOT / "package.xml").getroot()
    declared = {each.text for kind in ("depend", "exec_depend") for each in package.findall(kind)}
    files = [f for n in ("gsva_ros", "launch", "examples") for f in (ROOT / n).rglob("*.py")]
    found = set().union(*map(imported, files))
    of_ros = {n for n in found if n in ROS or n.endswith(("_msgs", "_interfaces"))}
    assert {"rclpy", "sensor_msgs"} <= of_ros
    assert of_ros <= declared


def test_every_pattern_of_package_data_finds_a_file() -> None:
    keywords = (
        keyword
        for node in ast.walk(ast.parse((ROOT / "setup.py").read_text()))
        if isinstance(node, ast.Call)
        for keyword in node.keywords
    )
    (data,) = [ast.literal_eval(k.value) for k in keywords if k.arg == "package_data"]
    for package, patterns in data.items():
        assert [p for p in patterns if not list((ROOT / package).glob(p))] == []


def test_every_program_is_documented() -> None:
    programs = ConfigParser()
    programs.read(ROOT / "entry_points.cfg")
    pages = [ROOT / "README.md", *(ROOT / "docs").glob("*.md")]
    text = "\n".join(page.read_text() for page in pages)
    names = [name for section in programs.sections() for name in programs[section]]
    assert len(names) >= 7
    assert [name for name in names if name not in text] == []
