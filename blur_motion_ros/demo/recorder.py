"""`python -m blur_motion_ros.demo.recorder BAG [TOPIC ...]`: writes output topics into an MCAP bag until SIGINT.

Without TOPIC it records all of `TOPICS`; what nobody subscribes to is not computed by the pipeline.
Subscriptions are raw: messages go to the file as the bytes they came in. A file `BAG.ready` appears when the pipeline
says that it is waiting for images, so that a player can start.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from pathlib import Path

TOPICS = {
    "camera_info": "sensor_msgs/msg/CameraInfo",
    "exposure": "sensor_msgs/msg/TimeReference",
    "humans/bodies/b0/trajectory": "trajectory_msgs/msg/MultiDOFJointTrajectory",
    "humans/bodies/b0/joint_states_3d": "sensor_msgs/msg/PointCloud2",
    "humans/bodies/b0/poses": "geometry_msgs/msg/PoseArray",
    "humans/bodies/b0/status": "diagnostic_msgs/msg/DiagnosticArray",
    "humans/bodies/b0/skeleton": "visualization_msgs/msg/MarkerArray",
    "humans/bodies/b0/mesh": "visualization_msgs/msg/MarkerArray",
    "/diagnostics": "diagnostic_msgs/msg/DiagnosticArray",
}


def main(bag: str, *topics: str) -> int:
    """Record until SIGINT or SIGTERM; exit status."""
    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    from blur_motion_ros.nodes import entry, specs

    os.environ.update(specs.environment())
    import rclpy
    from rclpy.signals import SignalHandlerOptions
    from rosbags.rosbag2 import StoragePlugin, Writer

    rclpy.init(signal_handler_options=SignalHandlerOptions.NO)
    node = rclpy.create_node("blur_motion_recorder")
    with Writer(Path(bag), version=9, storage_plugin=StoragePlugin.MCAP) as writer:
        for topic in topics or TOPICS:
            _record(node, writer, topic, TOPICS[topic], Path(bag + ".ready"))
        while not stop.is_set():
            rclpy.spin_once(node, timeout_sec=0.1)
    node.destroy_node()
    rclpy.shutdown()
    entry.ignore_signals()
    return 0


def _record(node, writer, topic: str, kind: str, ready: Path) -> None:
    """Subscribe raw to one topic and write what comes."""
    import importlib

    from rosbags.typesys import Stores, get_typestore

    package, _, name = kind.split("/")
    message = getattr(importlib.import_module(f"{package}.msg"), name)
    connection = writer.add_connection(topic if topic.startswith("/") else "/" + topic, kind,
                                       typestore=get_typestore(Stores.ROS2_KILTED))

    def keep(data: bytes) -> None:
        writer.write(connection, node.get_clock().now().nanoseconds, data)
        if topic == "/diagnostics" and not ready.exists() and b"no estimate yet" in data:
            ready.touch()

    node.create_subscription(message, topic, keep, 1000, raw=True)


if __name__ == "__main__":
    raise SystemExit(main(*sys.argv[1:]))
