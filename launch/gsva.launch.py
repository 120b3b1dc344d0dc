"""Start the node: `ros2 launch gsva_ros gsva.launch.py image:=/camera/image_raw`."""

from pathlib import Path

from launch.actions import DeclareLaunchArgument
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import Node
from launch_ros.parameter_descriptions import ParameterValue

from launch import LaunchDescription

CONFIG = Path(__file__).resolve().parent.parent / "config" / "gsva.yaml"

#: name, default, description
ARGUMENTS = (
    ("model", "gsva-mini", "bundled model name, or a converted directory"),
    ("device", "auto", "auto, cpu, cuda or cuda:N"),
    ("dtype", "auto", "auto, float32, bfloat16 or float16"),
    ("image", "image", "image topic (its base name also for compressed transport)"),
    ("image_transport", "raw", "raw or compressed"),
    ("image_reliability", "best_effort", "best_effort, or reliable where the camera is"),
    ("max_rate", "0.0", "frames a second answered for a repeated instruction; 0: all"),
    ("depth", "", "depth registered to the image, for points in space; '': none"),
    ("autostart", "true", "configure and activate at start; false: a lifecycle manager does"),
    ("use_sim_time", "false", "take the time from /clock, as when a bag is played"),
    ("namespace", "", "namespace of the node and its topics"),
    ("params_file", str(CONFIG), "parameter file; the arguments above go before it"),
)
#: Parameters that stay strings whatever they look like (`device:=0` is no number here).
STRINGS = ("model", "device", "dtype", "image_transport", "image_reliability")


def generate_launch_description() -> LaunchDescription:
    """Declare the arguments and the node."""
    value = {name: LaunchConfiguration(name) for name, _, _ in ARGUMENTS}
    node = Node(
        package="gsva_ros",
        executable="gsva_node",
        name="gsva",
        namespace=value["namespace"],
        output="screen",
        parameters=[
            value["params_file"],
            {
                **{name: ParameterValue(value[name], value_type=str) for name in STRINGS},
                "max_rate": ParameterValue(value["max_rate"], value_type=float),
                "depth_topics": ParameterValue(["['", value["depth"], "']"], value_type=list[str]),
                "autostart": ParameterValue(value["autostart"], value_type=bool),
                "use_sim_time": ParameterValue(value["use_sim_time"], value_type=bool),
            },
        ],
        remappings=[
            ("image", value["image"]),
            ("image/compressed", [value["image"], "/compressed"]),
        ],
    )
    arguments = [
        DeclareLaunchArgument(name, default_value=default, description=description)
        for name, default, description in ARGUMENTS
    ]
    return LaunchDescription([*arguments, node])
