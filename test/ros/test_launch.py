"""The launch file: its arguments always, its description where `launch` is installed."""

import ast
import importlib.util
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
FILE = ROOT / "launch" / "gsva.launch.py"
PROMISED = {"model", "device", "dtype", "image", "image_transport", "image_reliability"}
PROMISED |= {"max_rate", "depth", "autostart", "use_sim_time", "namespace", "params_file"}


def test_compiles_and_declares_its_arguments():
    tree = ast.parse(FILE.read_text(), str(FILE))
    table = next(
        node.value
        for node in tree.body
        if isinstance(node, ast.Assign) and node.targets[0].id == "ARGUMENTS"
    )
    assert {ast.literal_eval(row.elts[0]) for row in table.elts} >= PROMISED
    assert any(
        isinstance(node, ast.FunctionDef) and node.name == "generate_launch_description"
        for node in tree.body
    )


def test_parameter_file_names_parameters_that_exist():
    from gsva_ros.ros.parameters import TABLE

    given = yaml.safe_load((ROOT / "config" / "gsva.yaml").read_text())
    values = given["/**"]["ros__parameters"]
    assert set(values) <= set(TABLE)
    for name, value in values.items():
        assert type(value) is type(TABLE[name][0]), name
    assert all(descriptor.description for _, descriptor in TABLE.values())


def test_description_can_be_generated():
    reason = "launch and launch_ros are not on PyPI; they come with a ROS 2 installation"
    pytest.importorskip(
        "launch.actions", reason=reason
    )  # not "launch": our own folder is called so
    pytest.importorskip("launch_ros.actions", reason=reason)
    from launch.actions import DeclareLaunchArgument
    from launch_ros.actions import Node

    spec = importlib.util.spec_from_file_location("gsva_launch", FILE)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    entities = module.generate_launch_description().entities
    declared = {e.name for e in entities if isinstance(e, DeclareLaunchArgument)}
    assert declared >= PROMISED
    assert sum(isinstance(e, Node) for e in entities) == 1
