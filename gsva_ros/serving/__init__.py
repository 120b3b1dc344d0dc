"""Requests in, results out: what is answered next, on which frame, by one thread. No ROS, no torch."""
