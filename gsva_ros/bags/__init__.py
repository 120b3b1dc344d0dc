"""Rosbags read straight from disk, also damaged ones."""
