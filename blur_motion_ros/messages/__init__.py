"""Dataclasses <-> ROS messages. Copies and checks, computes nothing, imports no ROS (message objects are passed in)."""
