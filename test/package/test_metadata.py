"""What package.xml, setup.py and entry_points.cfg say of the package is so."""

from __future__ import annotations

import ast
import re
import shutil
import subprocess
import sys
from configparser import ConfigParser
from pathlib import Path
from xml.etree import ElementTree

from packaging.requirements import Requirement
from ros_packages import is_of_ros

ROOT = Path(__file__).resolve().parents[2]
#: Those that are called otherwise than their module.
PACKAGES = {"tf2_ros": "tf2_ros_py"}
#: What the standard library has got since Python 3.10, as far as it tempts; "": the whole module.
NEWER = {
    "asyncio": {"Barrier", "Runner", "TaskGroup", "timeout"},
    "contextlib": {"chdir"},
    "datetime": {"UTC"},
    "enum": {"EnumCheck", "ReprEnum", "StrEnum", "member", "nonmember", "verify"},
    "hashlib": {"file_digest"},
    "itertools": {"batched"},
    "math": {"cbrt", "exp2", "fma", "sumprod"},
    "operator": {"call"},
    "tomllib": {""},
    "typing": {
        *("LiteralString", "Never", "NotRequired", "ReadOnly", "Required", "Self", "TypeAliasType"),
        *("TypeIs", "TypeVarTuple", "Unpack", "assert_never", "assert_type", "override"),
    },
    "warnings": {"deprecated"},
}
#: The modules of rclpy that Humble's does not have.
SINCE_HUMBLE = {
    *("rclpy.clock_type", "rclpy.event_handler", "rclpy.logging_service", "rclpy.parameter_client"),
    *("rclpy.parameter_event_handler", "rclpy.service_introspection", "rclpy.type_hash"),
}


def imported(path: Path) -> set[str]:
    """The modules that a file imports, or imports from."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and not node.level:
            names.add(node.module or "")
    return names


def test_every_imported_package_of_ros_is_declared() -> None:
    package = ElementTree.parse(ROOT / "package.xml").getroot()
    declared = {each.text for kind in ("depend", "exec_depend") for each in package.findall(kind)}
    files = [f for n in ("gsva_ros", "launch", "examples") for f in (ROOT / n).rglob("*.py")]
    found = {name.partition(".")[0] for file in files for name in imported(file)}
    of_ros = {name for name in found if is_of_ros(name)}
    assert {"rclpy", "sensor_msgs"} <= of_ros
    assert {PACKAGES.get(name, name) for name in of_ros} <= declared


def newer(node: ast.AST) -> list[str]:
    """What a node of a program takes of the standard library that Python 3.10 does not have."""
    if isinstance(node, ast.ImportFrom) and not node.level:
        here = NEWER.get(node.module or "", set())
        return [f"{node.module}.{a.name}" for a in node.names if here & {a.name, ""}]
    if isinstance(node, ast.Import):
        return [a.name for a in node.names if "" in NEWER.get(a.name, ())]
    if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
        known = NEWER.get(node.value.id, ())
        return [f"{node.value.id}.{node.attr}"] if node.attr in known else []
    return []


def test_python_3_10_has_all_that_is_used() -> None:
    wrong = []
    folders = ("gsva_ros", "launch", "examples", "demo", "test")
    for path in (p for folder in folders for p in (ROOT / folder).rglob("*.py")):
        tree = ast.parse(path.read_text(), feature_version=(3, 10))  # its grammar, too
        found = [what for node in ast.walk(tree) for what in newer(node)]
        wrong += [f"{path.relative_to(ROOT)}: {what}" for what in found]
    assert not wrong


def test_no_module_of_rclpy_is_used_that_humble_lacks() -> None:
    files = [
        f for n in ("gsva_ros", "launch", "examples", "test") for f in (ROOT / n).rglob("*.py")
    ]
    used = {name for file in files for name in imported(file)}
    # Where it is missing, the same is imported from rclpy.qos_event.
    assert used & SINCE_HUMBLE == {"rclpy.event_handler"}


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


def test_a_source_archive_can_be_built_from(tmp_path: Path) -> None:
    """`python -m build` makes the wheel of the archive, not of the clone."""
    for file in ROOT.iterdir():
        if file.is_file():
            shutil.copy(file, tmp_path)
    setup = [sys.executable, "setup.py", "--quiet"]
    subprocess.run([*setup, "sdist"], cwd=tmp_path, check=True)
    (archive,) = (tmp_path / "dist").iterdir()
    shutil.unpack_archive(archive, tmp_path / "unpacked")
    (unpacked,) = (tmp_path / "unpacked").iterdir()
    said = subprocess.run(
        [*setup, "--version"], cwd=unpacked, capture_output=True, text=True, check=False
    )
    version = ElementTree.parse(ROOT / "package.xml").getroot().findtext("version")
    assert said.stdout.strip() == version, said.stderr


def test_cmake_installs_every_program_also_with_digits_in_its_name() -> None:
    patterns = re.findall(
        r'REGEX (?:MATCH )?"(\^\S+ = [^"]*)"', (ROOT / "CMakeLists.txt").read_text()
    )
    assert len(patterns) == 2
    programs = ConfigParser()
    programs.read(ROOT / "entry_points.cfg")
    lines = [f"{n} = {what}" for s in programs.sections() for n, what in programs[s].items()]
    for line in [*lines, "gsva_pick2 = gsva_ros.programs.pick2:main2"]:
        assert all(re.match(pattern, line) for pattern in patterns), line


def test_every_program_is_documented() -> None:
    programs = ConfigParser()
    programs.read(ROOT / "entry_points.cfg")
    pages = [ROOT / "README.md", *(ROOT / "docs").glob("*.md")]
    text = "\n".join(page.read_text() for page in pages)
    names = [name for section in programs.sections() for name in programs[section]]
    assert len(names) >= 7
    assert [n for n in names if n not in text] == [], "name it in README.md or on a page of docs/"


def test_what_a_robot_gets_alone_is_what_pip_would_install() -> None:
    pages = "\n".join(page.read_text() for page in (ROOT / "docs").glob("*.md"))
    alone = re.findall(r"~/gsva_env/bin/pip install '([^']+)'", pages)
    assert sorted(Requirement(each).name for each in alone) == ["gradio", "torchao"]
    assert [each for each in alone if f'"{each}"' not in (ROOT / "setup.py").read_text()] == []


def test_a_robot_gets_no_older_packages_than_pip_would() -> None:
    asked = [
        Requirement(node.value)
        for node in ast.walk(ast.parse((ROOT / "setup.py").read_text()))
        if isinstance(node, ast.Constant) and str(node.value).count(">=") == 1
        if str(node.value)[0].isalpha()
    ]
    lines = (ROOT / "requirements-robot.txt").read_text().splitlines()
    robot = [
        Requirement(line) for line in (each.partition("#")[0].strip() for each in lines) if line
    ]
    ranges = {each.name.lower(): set(map(str, each.specifier)) for each in robot}
    compared = {each.name: each.specifier for each in asked if each.name in ranges}
    assert {"pillow", "torch", "transformers"} <= compared.keys()
    wrong = [n for n, wanted in compared.items() if not set(map(str, wanted)) <= ranges[n]]
    assert not wrong
    assert ">=9.1" in ranges["pillow"]  # Image.Resampling; Ubuntu 22.04 has Pillow 9.0
