"""The ROS 2 side: node, message conversion, QoS, diagnostics. The only layer that imports rclpy."""
