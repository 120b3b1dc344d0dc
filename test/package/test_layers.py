"""No arrow runs upwards: every import in the package, read from the source."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest
from ros_packages import is_of_ros

import gsva_ros

PACKAGE = Path(gsva_ros.__file__).resolve().parent
#: What each layer may import of the package, besides itself and what stands in SHARED.
ALLOWED = {
    "model": set(),
    "answer": set(),
    "asking": {"answer"},
    "masking": {"model", "answer"},
    "engine": {"model", "answer", "asking", "masking"},
    "loading": {"model", "answer", "engine"},
    "sam3": {"model", "answer", "asking"},
    "flow": set(),
    "tracking": {"flow"},
    "serving": {"answer", "asking", "tracking"},
    "ros": {"loading", "serving", "answer", "overlay"},  # the node loads its engine
    "bags": set(),
    "datasets": {"phrasing"},
    "eval": {
        *("loading", "engine", "asking", "answer", "model", "serving", "bags", "datasets"),
        *("phrasing", "tracking", "overlay", "processes"),
    },
    "train": {"model", "bags", "datasets", "phrasing", "processes"},
    "phrasing": set(),
    "sim": {"phrasing"},
    "bench": {"loading", "engine", "model", "ros"},
    "ablations": {"engine", "model", "eval", "train", "sim"},
    "overlay": {"answer"},
    "processes": set(),
}
#: Small modules of the package's root that stand below all layers.
SHARED = {
    "arguments",
    "chance",
    "coco_masks",
    "errors",
    "files",
    "image_files",
    "scoring",
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
    "pages",
}
TOP = {"programs", "cli", "__main__", "__init__"}
#: Interfaces that the build generates.
GENERATED = {"msg", "srv", "action"}
#: What the package itself passes on, and the layer that it comes from.
PASSED_ON = {"load": "loading"}


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
        elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            # `import gsva_ros` hides what is used of it.
            found |= {("gsva_ros", node.attr)} if node.value.id == "gsva_ros" else set()
    return found


def layer_of(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def modules() -> list[Path]:
    return [p for p in PACKAGE.rglob("*.py") if layer_of(p) not in GENERATED]


def upwards() -> list[str]:
    """The imports that point from a layer to one that it may not know."""
    wrong = []
    for path in modules():
        layer = layer_of(path)
        if layer in TOP:
            continue
        allowed = {*ALLOWED.get(layer, set()), *SHARED, layer, "MAX_PIXELS", "__version__"}
        if layer == "ros":
            allowed |= GENERATED
        for name in (n for n in imports(path) if n[0] == "gsva_ros" and len(n) > 1):
            if PASSED_ON.get(name[1], name[1]) not in allowed:
                wrong.append(f"{path.relative_to(PACKAGE)} imports {'.'.join(name)}")
    return wrong


def of_ros() -> list[str]:
    """The imports of ROS's packages outside the layers that may need ROS."""
    return [
        f"{path.relative_to(PACKAGE)} imports {name[0]}"
        for path in modules()
        for name in imports(path)
        if is_of_ros(name[0]) and layer_of(path) not in ("ros", "programs")
        # It does without, where there is none.
        if (layer_of(path), name[0]) != ("conversions", "cv_bridge")
    ]


def test_no_layer_imports_upwards() -> None:
    assert upwards() == []


def test_ros_is_imported_by_ros_and_programs_only() -> None:
    assert of_ros() == []


@pytest.mark.parametrize(
    ("file", "line"),
    [
        ("serving/new.py", "from .. import load"),
        ("model/new.py", "from gsva_ros import load"),
        ("answer.py", "from .overlay import draw"),
        ("serving/new.py", "from ..ros import qos"),
        ("masks.py", "from .answer import Slot"),
        ("serving/new.py", "import gsva_ros\n\ngsva_ros.load('gsva-mini')"),
        ("serving/new.py", "from ..processes import processes"),
    ],
)
def test_an_import_upwards_is_found(
    file: str, line: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(globals(), "PACKAGE", tmp_path)
    path = tmp_path / file
    path.parent.mkdir(exist_ok=True)
    path.write_text(line)
    assert len(upwards()) == 1
    path.write_text("from gsva_ros import __version__")
    assert upwards() == []


@pytest.mark.parametrize("line", ["import tf2_ros", "from geometry_msgs.msg import Pose"])
def test_an_import_of_ros_is_found(
    line: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(globals(), "PACKAGE", tmp_path)
    (tmp_path / "eval.py").write_text(line)
    assert len(of_ros()) == 1


def test_serving_and_answer_need_no_torch() -> None:
    heavy = {"torch", "transformers", "segment_anything"}
    wrong = [
        f"{path.relative_to(PACKAGE)} imports {name[0]}"
        for path in modules()
        for name in imports(path)
        if name[0] in heavy
        and layer_of(path) in ("answer", "asking", "serving", "errors", "stamps")
    ]
    assert not wrong


def test_every_module_has_a_place() -> None:
    assert {layer_of(p) for p in modules()} <= {*ALLOWED, *SHARED, *TOP}
