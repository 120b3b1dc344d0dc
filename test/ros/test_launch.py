"""The launch file: its arguments always, what it starts where `launch` is installed."""

import importlib.util
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from gsva_ros.ros import transport
from gsva_ros.ros.launch_arguments import (
    OTHERS,
    PARAMETERS,
    RENAMED,
    ArgumentError,
    is_true,
    overrides,
)
from gsva_ros.ros.parameters import TABLE

ROOT = Path(__file__).resolve().parents[2]
FILE = ROOT / "launch" / "gsva.launch.py"
#: For each argument: a text, and the parameter's value that it makes.
GIVEN = {
    "model": ("my-model", "my-model"),
    "device": ("0", "0"),
    "dtype": ("bfloat16", "bfloat16"),
    "image_transport": ("compressed", "compressed"),
    "image_reliability": ("reliable", "reliable"),
    "max_rate": ("2.5", 2.5),
    "depth": ("/depth", ["/depth"]),
    "track": ("off", "off"),
    "rejection_threshold": ("0.9", 0.9),
    "target_frame": ("base_link", "base_link"),
    "autostart": ("false", False),
    "use_sim_time": ("true", True),
}


def test_every_argument_sets_its_parameter_and_no_other():
    assert GIVEN.keys() == PARAMETERS.keys()
    for name, (text, value) in GIVEN.items():
        parameter = RENAMED.get(name, name)
        assert overrides({name: text}) == {parameter: value}
        assert type(overrides({name: text})[parameter]) is type(value)
    assert {RENAMED.get(name, name) for name in PARAMETERS} - set(TABLE) == {"use_sim_time"}


def test_what_was_not_given_is_left_to_the_file():
    assert overrides(dict.fromkeys(PARAMETERS, "")) == {}
    assert overrides({}) == {}


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("max_rate", "fast"),
        ("rejection_threshold", "high"),
        ("autostart", "perhaps"),
        ("use_sim_time", "2"),
    ],
)
def test_an_argument_of_the_wrong_type_names_itself(name, text):
    with pytest.raises(ArgumentError, match=f"launch argument {name}: '{text}'"):
        overrides({name: text})
    with pytest.raises(ArgumentError, match="rviz"):
        is_true("rviz", text)


def test_parameter_file_is_the_nodes_defaults():
    given = yaml.safe_load((ROOT / "config" / "gsva.yaml").read_text())
    values = given["/**"]["ros__parameters"]
    defaults = {name: default for name, (default, _) in TABLE.items()}
    assert values == defaults
    assert all(type(value) is type(defaults[name]) for name, value in values.items())
    assert all(descriptor.description for _, descriptor in TABLE.values())


def test_shared_memory_holds_images_unless_the_user_chose_transports():
    file = Path("/somewhere/fastdds.xml")
    new, old = transport.PROFILES
    assert transport.environment(file, {"PATH": "/bin"}) == {new: str(file)}
    assert transport.environment(file, {"ROS_DISTRO": "kilted"}) == {new: str(file)}
    assert transport.environment(file, {"ROS_DISTRO": "humble"}) == {old: str(file)}
    for name in (*transport.PROFILES, "FASTDDS_BUILTIN_TRANSPORTS"):
        assert transport.environment(file, {name: "mine"}) == {}
    # Beside the transports that rmw_fastrtps adds for these, the profile's would reach the network.
    for name, value in (
        ("ROS_LOCALHOST_ONLY", "1"),
        ("ROS_AUTOMATIC_DISCOVERY_RANGE", "LOCALHOST"),
    ):
        assert transport.environment(file, {name: value}) == {}
    assert transport.environment(file, {"ROS_LOCALHOST_ONLY": "0"})


def test_the_profile_is_what_fast_dds_uses():
    """A participant's segment of shared memory, as it is mapped."""
    rclpy = pytest.importorskip("rclpy")
    if "fastrtps" not in rclpy.get_rmw_implementation_identifier():
        pytest.skip("the profile is Fast DDS's")
    code = "import rclpy; rclpy.init(); n = rclpy.create_node('n'); print(open('/proc/self/maps').read())"
    distribution = {"ROS_DISTRO": os.environ.get("ROS_DISTRO", "")}
    own = transport.environment(ROOT / "config" / "fastdds.xml", distribution)
    how = {**os.environ, **own, "ROS_AUTOMATIC_DISCOVERY_RANGE": "SYSTEM_DEFAULT"}
    command = [sys.executable, "-c", code]
    maps = subprocess.run(command, env=how, capture_output=True, text=True, check=True)
    segments = re.findall(r"(?m)^(\w+)-(\w+) .*/dev/shm/fastdds_[0-9a-f]{16}$", maps.stdout)
    assert max(int(end, 16) - int(start, 16) for start, end in segments) >= 16 << 20


@pytest.fixture
def launched():
    """The launch file as a module, where launch and launch_ros are installed."""
    reason = "launch and launch_ros are not on PyPI; they come with a ROS 2 installation"
    # Not "launch": our own folder is called so.
    pytest.importorskip("launch.actions", reason=reason)
    pytest.importorskip("launch_ros.actions", reason=reason)
    spec = importlib.util.spec_from_file_location("gsva_launch", FILE)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def parameters_of(launched, tmp_path, file, **arguments):
    """The node's parameters, as rclpy reads the files that it would be started with."""
    import rclpy
    from launch.actions import DeclareLaunchArgument

    from launch import LaunchContext

    path = tmp_path / "mine.yaml"
    path.write_text(yaml.safe_dump(file, sort_keys=False))
    context = LaunchContext()
    context.launch_configurations.update({"params_file": str(path), **arguments})
    for entity in launched.generate_launch_description().entities:
        if isinstance(entity, DeclareLaunchArgument):
            entity.execute(context)
    node = launched.nodes(context)[0]
    node._perform_substitutions(context)
    files = [each for each, _ in node._Node__expanded_parameter_arguments]
    started = rclpy.Context()
    options = [part for each in files for part in ("--params-file", each)]
    rclpy.init(args=["--ros-args", *options], context=started)
    try:
        reader = rclpy.create_node("gsva", context=started)
        return {name: each.value for name, each in reader._parameter_overrides.items()}
    finally:
        rclpy.shutdown(context=started)


@pytest.mark.parametrize("name", PARAMETERS)
def test_argument_before_file_before_default(launched, tmp_path, name):
    text, value = GIVEN[name]
    parameter = RENAMED.get(name, name)
    others = {"max_rate": 7.0, "depth": ["/file"], "rejection_threshold": 0.5}
    in_file = (others | {"autostart": True, "use_sim_time": False}).get(name, "file")
    default = dict(TABLE).get(parameter, (None,))[0]
    section = {"ros__parameters": {parameter: in_file}}
    unrelated = {"ros__parameters": {"hysteresis": 0.25}}
    assert parameters_of(launched, tmp_path, {"/**": unrelated}).get(parameter, default) == default
    for file in ({"/**": section}, {"/gsva": unrelated, "/**": section}, {"gsva": section}):
        assert parameters_of(launched, tmp_path, file)[parameter] == in_file
        assert parameters_of(launched, tmp_path, file, **{name: text})[parameter] == value


def test_every_argument_is_declared_and_described(launched):
    from launch.actions import DeclareLaunchArgument

    entities = launched.generate_launch_description().entities
    declared = {e.name for e in entities if isinstance(e, DeclareLaunchArgument)}
    assert declared == {*PARAMETERS, *OTHERS, "params_file"}
    assert all(e.description for e in entities if isinstance(e, DeclareLaunchArgument))


def test_ros2_launch_starts_it(launched, tmp_path):
    """With a model that is not there: the node says so, in one line, and nothing else."""
    ros2 = shutil.which("ros2")
    if ros2 is None:
        pytest.skip("ros2cli is not on PyPI; it comes with a ROS 2 installation")
    command = [sys.executable, ros2, "launch", str(FILE), "model:=nothing-like-it"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    said = done.stdout + done.stderr
    assert re.search(r"no model 'nothing-like-it'", said), said
