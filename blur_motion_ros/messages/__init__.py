"""Dataclasses to ROS messages and back (no logic)."""
