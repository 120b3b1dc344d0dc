"""Reads rosbags directly from disk, including damaged ones."""
