"""Which imported packages are ROS's."""

#: Packages of ROS that Python code imports, beside those of messages.
ROS = {"ament_index_python", "cv_bridge", "launch", "launch_ros", "rclpy", "tf2_ros"}


def is_of_ros(name: str) -> bool:
    """Whether a package comes with ROS, by its name."""
    return name in ROS or name.endswith(("_msgs", "_interfaces"))
