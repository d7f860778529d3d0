"""The demo: a real person through a slow shutter, live over ROS 2, with pictures and a report."""
