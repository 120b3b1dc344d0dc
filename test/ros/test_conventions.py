"""Files that describe the node say what the node has."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import harness
import pytest
import yaml
from patience import wait

ROOT = Path(__file__).resolve().parents[2]
# Where vision_msgs is installed the node has these too; depth is whatever topic a parameter names.
OPTIONAL = {"/test/detections", "/test/label_info", "/test/depth", "/test/image/compressed"}
OPTIONAL |= {"/test/camera_info", "/clock", "/tf", "/tf_static", "/test/detections_3d"}
#: Topics of every node, and those that the table has under another name: those of a camera.
UNLISTED = {"~/transition_event", "/parameter_events", "/rosout", "/clock", "/tf", "/tf_static"}
UNLISTED |= {"depth", "image/compressed"}

harness.isolate()


def test_the_interface_page_is_up_to_date():
    check = [sys.executable, ROOT / "docs" / "interfaces.py", "--check"]
    subprocess.run(check, check=True)


@pytest.mark.parametrize("script", ["interfaces.py", "training_fields.py"])
def test_pages_are_generated_from_this_tree_where_another_build_is_installed(script, tmp_path):
    code = f"import runpy, sys; runpy.run_path({str(ROOT / 'docs' / script)!r}); "
    code += "print(sys.modules['gsva_ros'].__file__)"
    run = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, stdout=subprocess.PIPE, text=True, check=True
    )
    assert Path(run.stdout.strip()) == ROOT / "gsva_ros" / "__init__.py"


def test_both_pages_have_the_same_topics():
    lines = (ROOT / "README.md").read_text().splitlines()
    start = lines.index("| direction | name | type | notes |")
    table = "\n".join(lines[start : lines.index("", start)])
    assert table.count("\n") > 10
    assert table in (ROOT / "docs" / "ros2.md").read_text()


def test_the_table_has_every_topic_of_the_policy():
    rows = [r for r in (ROOT / "README.md").read_text().splitlines() if r.startswith("| ")]
    policy = ElementTree.parse(ROOT / "config" / "gsva.policy.xml")
    for rule, direction in (("publish", "out"), ("subscribe", "in")):
        topics = policy.findall(f".//topics[@{rule}]/topic")
        cells = [r.split("|")[2] for r in rows if r.startswith(f"| {direction} |")]
        named = set(re.findall(r"`([\w/~]+)`", " ".join(cells)))
        assert {t.text for t in topics} - named <= UNLISTED, rule


@pytest.mark.parametrize("name", ["gsva", "gsva_pictures"])
def test_the_policy_allows_what_the_node_does_and_nothing_else(start, name):
    policy = ElementTree.parse(ROOT / "config" / "gsva.policy.xml")
    profile = policy.find(f".//profile[@node='{name}']")
    own, base = f"/test/{name}/", "/test/"

    def allowed(kind, **attributes):
        entries = profile.findall(kind)
        found = [e for e in entries if attributes.items() <= e.attrib.items()]
        names = {child.text for entry in found for child in entry}
        return {
            n if n.startswith("/") else own + n[2:] if n.startswith("~/") else base + n
            for n in names
        }

    _, client = start()
    graph = client.node
    client.wait(
        lambda: (name, "/test") in graph.get_node_names_and_namespaces(), what="its discovery"
    )
    find = {
        "publish": graph.get_publisher_names_and_types_by_node,
        "subscribe": graph.get_subscriber_names_and_types_by_node,
    }

    def topics(rule):
        return {topic for topic, _ in find[rule](name, "/test")}

    def actions():
        return {t.split("/_action/")[0] for t in topics("publish") if "/_action/" in t}

    def services():
        found = graph.get_service_names_and_types_by_node(name, "/test")
        return {service for service, _ in found if "/_action/" not in service}

    def missing():
        found = allowed("actions", execute="ALLOW") - actions()
        found |= allowed("services", reply="ALLOW") - services()
        return found.union(*(allowed("topics", **{r: "ALLOW"}) - topics(r) for r in find))

    ignored = OPTIONAL | {"/parameter_events", own + "get_type_description"}
    # A node's endpoints are discovered one by one, after its name.
    wait(lambda: missing() <= ignored, lambda: f"allowed, but not there: {missing() - ignored}")
    assert actions() <= allowed("actions", execute="ALLOW")
    assert services() <= allowed("services", reply="ALLOW")
    for rule in find:
        plain = {topic for topic in topics(rule) if "/_action/" not in topic}
        assert plain <= allowed("topics", **{rule: "ALLOW"}), rule


def test_views_show_topics_that_exist():
    topics = set(re.findall(r"`([\w/~]+)`", (ROOT / "README.md").read_text()))
    layout = json.loads((ROOT / "config" / "foxglove.json").read_text())
    named = set(re.findall(r'"(?:/([a-z][a-z_]*))[."]', json.dumps(layout)))
    named |= set(re.findall(r"Value: /(\S+)", (ROOT / "config" / "gsva.rviz").read_text()))
    assert {"overlay", "segmentation", "label_image"} <= named
    assert named <= {t.strip("/") for t in topics}
    assert yaml.safe_load((ROOT / "config" / "gsva.rviz").read_text())["Visualization Manager"]
