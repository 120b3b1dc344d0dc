"""The layouts for Foxglove and RViz: well formed, and about topics that a running node has."""

from __future__ import annotations

import importlib
import json
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import harness
import pytest
import yaml
from harness import FAKE, Client, NodeProcess

CONFIG = Path(__file__).resolve().parents[2] / "config"
DEMO_CAMERA = "/camera/image"
#: What a panel's configuration must hold, by panel type. Source: LayoutData and the types of the panels'
#: configurations in Foxglove Studio 1.87, the last version whose source is open.
PANELS: dict[str, dict[str, type]] = {
    "Image": {"imageMode": dict, "cameraState": dict, "title": str},
    "RawMessages": {
        "topicPath": str,
        "diffEnabled": bool,
        "diffMethod": str,
        "diffTopicPath": str,
        "showFullMessageForDiff": bool,
    },
    "Plot": {"paths": list, "showXAxisLabels": bool, "showYAxisLabels": bool, "xAxisVal": str},
    "DiagnosticSummary": {
        "minLevel": int,
        "pinnedIds": list,
        "hardwareIdFilter": str,
        "topicToRender": str,
        "sortByLevel": bool,
    },
    "Publish": {
        "topicName": str,
        "datatype": str,
        "buttonText": str,
        "advancedView": bool,
        "value": str,
    },
    "Tab": {"activeTabIdx": int, "tabs": list},
}


@pytest.fixture(scope="module")
def layout() -> dict[str, Any]:
    data: dict[str, Any] = json.loads((CONFIG / "foxglove.json").read_text())
    return data


@pytest.fixture(scope="module")
def topics() -> Iterator[dict[str, set[str]]]:
    """Type names of a running node's topics; those it subscribes to under their names too."""
    harness.isolate()
    with closing(NodeProcess(FAKE)) as node, closing(Client()) as client:
        client.connect(node)
        found: dict[str, set[str]] = {}
        end = time.monotonic() + harness.PATIENCE
        while not {"/image", "/label_image"} <= found.keys() and time.monotonic() < end:
            graph = client.node
            named = [
                topic
                for node_name, namespace in graph.get_node_names_and_namespaces()
                if node_name.startswith("gsva")
                for topics_of in (
                    graph.get_publisher_names_and_types_by_node,
                    graph.get_subscriber_names_and_types_by_node,
                )
                for topic in topics_of(node_name, namespace)
            ]
            found = {name.removeprefix("/test"): set(kinds) for name, kinds in named}
            time.sleep(0.1)
        yield found


def leaves(node: Any) -> list[str]:
    """Panel ids of a mosaic, each half checked."""
    if isinstance(node, str):
        return [node]
    assert set(node) <= {"direction", "first", "second", "splitPercentage"}
    assert node["direction"] in ("row", "column")
    assert 0 < node.get("splitPercentage", 50) < 100
    return leaves(node["first"]) + leaves(node["second"])


def test_foxglove_layout_is_well_formed(layout: dict[str, Any]) -> None:
    assert set(layout) <= {"configById", "globalVariables", "userNodes", "playbackConfig", "layout"}
    shown = leaves(layout["layout"])
    for name in list(shown):
        for tab in layout["configById"][name].get("tabs", []):
            assert isinstance(tab["title"], str)
            shown += leaves(tab["layout"])
    assert sorted(shown) == sorted(layout["configById"]), "each panel is shown once"
    for name, config in layout["configById"].items():
        kind = name.partition("!")[0]
        assert kind in PANELS, name
        for key, expected in PANELS[kind].items():
            assert isinstance(config.get(key), expected), f"{name}: {key}"


def field(message: Any, path: str) -> Any:
    """Follow a message path's fields; raises AttributeError where one is not there."""
    for name in path.split("."):
        message = getattr(message, name.partition("[")[0])
    return message


def message(kind: str) -> Any:
    package, _, name = kind.split("/")
    return getattr(importlib.import_module(f"{package}.msg"), name)()


def test_foxglove_names_what_a_running_node_has(
    layout: dict[str, Any], topics: dict[str, set[str]]
) -> None:
    configs = layout["configById"]
    images = {c["imageMode"]["imageTopic"] for n, c in configs.items() if n.startswith("Image!")}
    assert DEMO_CAMERA in images
    for topic in images - {DEMO_CAMERA}:
        assert "sensor_msgs/msg/Image" in topics[topic]
    paths = [c["topicPath"] for n, c in configs.items() if n.startswith("RawMessages!")]
    paths += [p["value"] for n, c in configs.items() if n.startswith("Plot!") for p in c["paths"]]
    for path in paths:
        topic, _, rest = path.partition(".")
        (kind,) = topics[topic]
        if rest:
            field(message(kind), rest)
    health = configs["DiagnosticSummary!health"]["topicToRender"]
    assert topics[health] == {"diagnostic_msgs/msg/DiagnosticArray"}
    ask = configs["Publish!ask"]
    assert topics[ask["topicName"]] == {ask["datatype"]}
    for key in json.loads(ask["value"]):
        field(message(ask["datatype"]), key)


def test_the_demos_camera_is_the_demos() -> None:
    script = yaml.safe_load((CONFIG / "demo.yaml").read_text())
    assert script["image_topic"] == DEMO_CAMERA


def test_rviz_shows_what_a_running_node_has(topics: dict[str, set[str]]) -> None:
    config = yaml.safe_load((CONFIG / "gsva.rviz").read_text())
    displays = config["Visualization Manager"]["Displays"]
    shown = {display["Topic"]["Value"]: display for display in displays}
    for topic, display in shown.items():
        assert "sensor_msgs/msg/Image" in topics[topic]
        assert display["Class"] == "rviz_default_plugins/Image"
        # The node offers reliable, volatile: only these match what RViz would ask for.
        assert display["Topic"]["Durability Policy"] == "Volatile"
        assert display["Topic"]["Reliability Policy"] in ("Reliable", "Best Effort")
    assert set(shown) == {"/overlay", "/label_image"}
