"""With launch_testing, as on a machine with ROS 2: the launch file brings the node up, active, and ends it.

`launch_test test/launch/test_gsva_launch.py`
"""

import unittest
from pathlib import Path

import pytest

pytest.importorskip(
    "launch_testing", reason="launch_testing is not on PyPI; it comes with a ROS 2 installation"
)

import launch_testing.actions
import launch_testing.asserts
import rclpy
from launch.actions import IncludeLaunchDescription
from launch.launch_description_sources import PythonLaunchDescriptionSource
from lifecycle_msgs.msg import State
from lifecycle_msgs.srv import GetState

from launch import LaunchDescription

FILE = Path(__file__).resolve().parent.parent.parent / "launch" / "gsva.launch.py"


@pytest.mark.launch_test
def generate_test_description():
    """The launch file, in a namespace."""
    arguments = {"namespace": "launched", "device": "cpu", "image": "/camera/image"}
    node = IncludeLaunchDescription(
        PythonLaunchDescriptionSource(str(FILE)), launch_arguments=arguments.items()
    )
    return LaunchDescription([node, launch_testing.actions.ReadyToTest()])


class TestUp(unittest.TestCase):
    """While it runs."""

    def test_active_and_subscribed(self):
        """Its lifecycle service says so, and the camera's topic has a subscriber."""
        rclpy.init()
        try:
            node = rclpy.create_node("looker")
            client = node.create_client(GetState, "/launched/gsva/get_state")
            assert client.wait_for_service(60.0)
            state = None
            for _ in range(600):
                future = client.call_async(GetState.Request())
                rclpy.spin_until_future_complete(node, future, timeout_sec=60.0)
                state = future.result().current_state.id
                if state == State.PRIMARY_STATE_ACTIVE:
                    break
                rclpy.spin_once(node, timeout_sec=0.1)
            assert state == State.PRIMARY_STATE_ACTIVE
            assert node.count_subscribers("/camera/image") == 1
        finally:
            rclpy.try_shutdown()


@launch_testing.post_shutdown_test()
class TestDown(unittest.TestCase):
    """After the end."""

    def test_ended_cleanly(self, proc_info):
        """SIGINT is no crash."""
        launch_testing.asserts.assertExitCodes(proc_info)
