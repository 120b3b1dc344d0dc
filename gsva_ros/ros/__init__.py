"""The ROS 2 side: node, message conversion, QoS, diagnostics. Only it and `programs` import rclpy."""
