"""Start the node: `ros2 launch gsva_ros gsva.launch.py image:=/camera/image_raw`."""

import os
from pathlib import Path

from launch.actions import DeclareLaunchArgument, OpaqueFunction
from launch.launch_context import LaunchContext
from launch_ros.actions import Node

from gsva_ros.ros import transport
from gsva_ros.ros.launch_arguments import OTHERS, PARAMETERS, is_true, overrides
from launch import LaunchDescription

CONFIG = Path(__file__).resolve().parent.parent / "config"
#: Seconds from Ctrl-C to SIGTERM: 10 for the answer under way, 5 for the last results.
STOPPING = "15"


def nodes(context: LaunchContext) -> list[Node]:
    """The node with the given arguments, and RViz if requested."""
    value = context.launch_configurations
    image = value["image"]
    found = [
        Node(
            package="gsva_ros",
            executable="gsva_node",
            name="gsva",
            namespace=value["namespace"],
            output="screen",
            # Of two sections (`/**`, or a node's name), the one whose name first occurs later wins, in
            # whichever file. Arguments are in one of the node's name: gsva.yaml has `/**` occur before.
            parameters=[str(CONFIG / "gsva.yaml"), value["params_file"], overrides(value)],
            remappings=[("image", image), ("image/compressed", f"{image}/compressed")],
            additional_env=transport.environment(CONFIG / "fastdds.xml", os.environ),
            sigterm_timeout=STOPPING,
        )
    ]
    if is_true("rviz", value["rviz"]):
        view = str(CONFIG / "gsva.rviz")
        found.append(
            Node(
                package="rviz2",
                executable="rviz2",
                namespace=value["namespace"],
                arguments=["-d", view],
            )
        )
    return found


def generate_launch_description() -> LaunchDescription:
    """Declare the arguments; the nodes are created once their values are known."""
    own = "; if omitted: the value in params_file, or else the node's default"
    arguments = [
        DeclareLaunchArgument(name, default_value="", description=description + own)
        for name, (_, description) in PARAMETERS.items()
    ]
    arguments += [
        DeclareLaunchArgument(name, default_value=default, description=description)
        for name, (default, description) in OTHERS.items()
    ]
    params_file = DeclareLaunchArgument(
        "params_file",
        default_value=str(CONFIG / "gsva.yaml"),
        description="parameter file; launch arguments take precedence over it",
    )
    return LaunchDescription([*arguments, params_file, OpaqueFunction(function=nodes)])
