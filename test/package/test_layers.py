"""No arrow runs upwards: every import in the package, read from the source."""

from __future__ import annotations

import ast
from pathlib import Path

import gsva_ros

PACKAGE = Path(gsva_ros.__file__).resolve().parent
#: What each layer may import of the package, besides itself and what stands in SHARED.
ALLOWED = {
    "model": set(),
    "answer": set(),
    "engine": {"model", "answer"},
    "sam3": {"model", "answer"},
    "tracking": {"answer"},
    "serving": {"answer", "tracking"},
    "ros": {"serving", "engine", "answer", "tracking"},
    "bags": set(),
    "datasets": {"phrasing"},
    "eval": {"engine", "answer", "model", "serving", "bags", "datasets", "phrasing", "tracking"},
    "train": {"model", "bags", "datasets", "phrasing"},
    "phrasing": set(),
    "sim": {"phrasing"},
    "bench": {"engine", "model", "ros"},
    "ablations": {"engine", "model", "eval", "train", "sim"},
    "overlay": {"answer"},
}
#: Small modules of the package's root that stand below all layers.
SHARED = {
    "arguments",
    "chance",
    "errors",
    "settings",
    "stamps",
    "truth",
    "scenes",
    "conversions",
    "interfaces",
    "geometry",
    "instances",
    "instructions",
    "masks",
    "overlay",
    "processes",
}
TOP = {"programs", "cli", "__main__", "__init__"}
#: Interfaces that the build generates.
GENERATED = {"msg", "srv", "action"}
ROS = {"rclpy", "sensor_msgs", "std_msgs", "diagnostic_msgs", "lifecycle_msgs"}


def imports(path: Path) -> set[tuple[str, ...]]:
    """Absolute names of what a module imports, also inside functions."""
    package = ("gsva_ros", *path.relative_to(PACKAGE).parent.parts)
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {tuple(alias.name.split(".")) for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else ()
            base += tuple(node.module.split(".")) if node.module else ()
            found |= {(*base, alias.name) for alias in node.names}
    return found


def layer_of(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def modules() -> list[Path]:
    return [p for p in PACKAGE.rglob("*.py") if layer_of(p) not in GENERATED]


def test_no_layer_imports_upwards() -> None:
    wrong = []
    for path in modules():
        layer = layer_of(path)
        if layer in TOP:
            continue
        allowed = ALLOWED.get(layer, set()) | SHARED | {layer}
        if layer == "ros":
            allowed |= GENERATED
        for name in imports(path):
            if (
                name[0] == "gsva_ros"
                and len(name) > 1
                and name[1] not in {*allowed, "__version__", "load"}
            ):
                wrong.append(f"{path.relative_to(PACKAGE)} imports {'.'.join(name)}")
    assert not wrong


def test_ros_is_imported_by_ros_and_programs_only() -> None:
    wrong = [
        f"{path.relative_to(PACKAGE)} imports {name[0]}"
        for path in modules()
        for name in imports(path)
        if name[0] in ROS and layer_of(path) not in ("ros", "programs")
    ]
    assert not wrong


def test_serving_and_answer_need_no_torch() -> None:
    heavy = {"torch", "transformers", "segment_anything"}
    wrong = [
        f"{path.relative_to(PACKAGE)} imports {name[0]}"
        for path in modules()
        for name in imports(path)
        if name[0] in heavy and layer_of(path) in ("answer", "serving", "errors", "stamps")
    ]
    assert not wrong


def test_every_module_has_a_place() -> None:
    assert {layer_of(p) for p in modules()} <= {*ALLOWED, *SHARED, *TOP}
