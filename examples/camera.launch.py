"""Start a camera driver and the node: `ros2 launch gsva_ros camera.launch.py driver:=realsense2_camera`."""

import os
from pathlib import Path

from ament_index_python.packages import get_package_share_directory
from launch.actions import DeclareLaunchArgument, IncludeLaunchDescription, OpaqueFunction
from launch.launch_context import LaunchContext
from launch.launch_description_sources import PythonLaunchDescriptionSource
from launch_ros.actions import Node

from gsva_ros.ros import transport
from launch import LaunchDescription

#: driver -> its executable, its parameters, and the node's image and depth topics
DRIVERS = {
    "usb_cam": ("usb_cam_node_exe", {"pixel_format": "mjpeg2rgb"}, "/camera/image_raw", ""),
    "realsense2_camera": (
        "realsense2_camera_node",
        {"enable_color": True, "enable_depth": True, "align_depth.enable": True},
        "/camera/color/image_raw",
        "/camera/aligned_depth_to_color/image_raw",
    ),
}


def start(context: LaunchContext) -> list[object]:
    """The driver in the namespace /camera, and the node subscribed to its topics."""
    driver = context.launch_configurations["driver"]
    if driver not in DRIVERS:
        raise ValueError(f"launch argument driver: {driver!r} is none of {', '.join(DRIVERS)}")
    executable, parameters, image, depth = DRIVERS[driver]
    share = Path(get_package_share_directory("gsva_ros"))
    camera = Node(
        package=driver,
        executable=executable,
        name="camera",
        namespace="" if driver == "realsense2_camera" else "camera",
        parameters=[parameters],
        output="screen",
        additional_env=transport.environment(share / "config" / "fastdds.xml", os.environ),
    )
    gsva = IncludeLaunchDescription(
        PythonLaunchDescriptionSource(str(share / "launch" / "gsva.launch.py")),
        launch_arguments={"image": image, "depth": depth}.items(),
    )
    return [camera, gsva]


def generate_launch_description() -> LaunchDescription:
    """Declare the argument; the driver is chosen once its value is known."""
    described = f"camera driver: {', '.join(DRIVERS)}"
    argument = DeclareLaunchArgument("driver", default_value="usb_cam", description=described)
    return LaunchDescription([argument, OpaqueFunction(function=start)])
