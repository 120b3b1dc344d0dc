"""Rendered tabletop scenes and expressions about them, with their truth. Knows neither models nor ROS."""
