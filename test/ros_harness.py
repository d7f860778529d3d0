"""A ROS graph for tests: an own DDS domain on this machine only, nodes in this process or in others, and a client
that keeps every message it hears."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
DOMAIN = str(random.Random(os.getpid()).randint(20, 100))
ENVIRONMENT = {"ROS_DOMAIN_ID": DOMAIN, "ROS_AUTOMATIC_DISCOVERY_RANGE": "LOCALHOST", "OMP_NUM_THREADS": "1",
               "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1",
               "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "test"), os.environ.get("PYTHONPATH", "")])}


def prepare() -> None:
    """Set the environment of this process; call before rclpy.init."""
    from blur_motion_ros.nodes import specs

    os.environ.update(ENVIRONMENT | specs.environment())


def start(module: list[str], log: Path) -> subprocess.Popen:
    """`python -m module` in the test's domain, output to `log`."""
    with open(log, "w") as out:
        return subprocess.Popen([sys.executable, "-m", *module], env=os.environ | ENVIRONMENT, stdout=out,
                                stderr=subprocess.STDOUT)


def interrupt(process: subprocess.Popen, times: int = 1, timeout: float = 20.0) -> int:
    """Send SIGINT `times` times and return the exit status."""
    for _ in range(times):
        if process.poll() is None:
            process.send_signal(signal.SIGINT)
        time.sleep(0.05)
    try:
        return process.wait(timeout)
    except subprocess.TimeoutExpired:
        process.kill()
        raise


class Graph:
    """An executor in this process with a client node. `heard[topic]` lists (message, monotonic seconds)."""

    def __init__(self) -> None:
        prepare()
        import rclpy

        from blur_motion_ros.nodes.entry import executor

        rclpy.init()
        self.client = rclpy.create_node("test_client")
        self._executor = executor()
        self._executor.add_node(self.client)
        self.nodes: list[Any] = []
        self.heard: dict[str, list[tuple[Any, float]]] = {}

    def add(self, node: Any) -> Any:
        self.nodes.append(node)
        self._executor.add_node(node)
        return node

    def listen(self, kind: type, topic: str, qos: Any = 10) -> None:
        self.heard[topic] = []
        self.client.create_subscription(kind, topic, lambda m: self.heard[topic].append((m, time.monotonic())), qos)

    def messages(self, topic: str) -> list[Any]:
        return [m for m, _ in self.heard[topic]]

    def spin(self, until: Callable[[], bool], seconds: float = 20.0) -> bool:
        """Spin until the condition holds; False when it does not within `seconds`."""
        end = time.monotonic() + seconds
        while not until():
            if time.monotonic() > end:
                return False
            self._executor.spin_once(timeout_sec=0.02)
        return True

    def spin_for(self, seconds: float) -> None:
        self.spin(lambda: False, seconds)

    def call(self, kind: type, service: str, seconds: float = 20.0) -> Any:
        client = self.client.create_client(kind, service)
        assert self.spin(client.service_is_ready, seconds), f"service {service} is not there"
        future = client.call_async(kind.Request())
        assert self.spin(future.done, seconds), f"service {service} does not answer"
        return future.result()

    def close(self) -> None:
        import rclpy

        self._executor.shutdown()
        for node in self.nodes:
            node.close(5.0)
            node.destroy_node()
        self.client.destroy_node()
        rclpy.shutdown()


class FakeCamera:
    """Publishes images and calibration from the client node of a graph, good or bad as told."""

    def __init__(self, graph: Graph, reliability: str = "reliable", width: int = 64, height: int = 48) -> None:
        from sensor_msgs.msg import CameraInfo, Image, TimeReference

        from blur_motion_ros.nodes.base import quality

        self.width, self.height = width, height
        self._image = graph.client.create_publisher(Image, "image", quality(reliability, 10))
        self._info = graph.client.create_publisher(CameraInfo, "camera_info", 10)
        self._exposure = graph.client.create_publisher(TimeReference, "exposure", 10)
        self._graph = graph
        self.time = time.time_ns()

    def ready(self) -> bool:
        return self._image.get_subscription_count() > 0 and self._info.get_subscription_count() > 0

    def info(self, **changes: Any) -> None:
        from sensor_msgs.msg import CameraInfo

        k = [100.0, 0.0, self.width / 2, 0.0, 100.0, self.height / 2, 0.0, 0.0, 1.0]
        msg = CameraInfo(width=self.width, height=self.height, k=k, d=[0.0] * 5, distortion_model="plumb_bob")
        for name, value in changes.items():
            setattr(msg, name, value)
        self._info.publish(msg)

    def image(self, value: int = 100, step_s: float = 1 / 30, stamp: int | None = None, **changes: Any) -> int:
        """Publish an image of one colour; returns its stamp in ns."""
        from sensor_msgs.msg import Image

        from blur_motion_ros.messages.image import fill_image

        self.time = self.time + round(step_s * 1e9) if stamp is None else stamp
        msg = fill_image(Image(), np.full((self.height, self.width, 3), value, np.uint8))
        msg.header.frame_id = "cam_optical"
        msg.header.stamp.sec, msg.header.stamp.nanosec = divmod(self.time, 10**9)
        for name, change in changes.items():
            setattr(msg, name, change)
        self._image.publish(msg)
        return self.time

    def exposure(self, opened: int, closed: int) -> None:
        from sensor_msgs.msg import TimeReference

        msg = TimeReference()
        msg.header.stamp.sec, msg.header.stamp.nanosec = divmod(opened, 10**9)
        msg.time_ref.sec, msg.time_ref.nanosec = divmod(closed, 10**9)
        self._exposure.publish(msg)


def stamp_ns(header: Any) -> int:
    return header.stamp.sec * 10**9 + header.stamp.nanosec
