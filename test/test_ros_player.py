"""The player: at another pace only the images come later, and nothing is played before all listen who should."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("rclpy", reason="needs rclpy and the message packages")

from ros_harness import Graph, interrupt, stamp_ns, start  # noqa: E402
from sensor_msgs.msg import CameraInfo, Image, TimeReference  # noqa: E402

from blur_motion_ros.camera.camera import Camera  # noqa: E402
from blur_motion_ros.data.sequence import write_sequence  # noqa: E402
from blur_motion_ros.types import Exposure  # noqa: E402

FRAMES, RATE = 10, 10.0
CAMERA = Camera(64, 48, np.array([[60.0, 0, 32], [0, 60.0, 24], [0, 0, 1]]))


@pytest.fixture(scope="module")
def recording(tmp_path_factory) -> Path:
    images = [np.full((48, 64, 3), 20 * i, np.uint8) for i in range(FRAMES)]
    exposures = [Exposure(i / RATE, i / RATE + 0.05) for i in range(FRAMES)]
    return write_sequence(tmp_path_factory.mktemp("played"), images, CAMERA, exposures, quality=0)


@pytest.fixture
def graph():
    graph = Graph()
    yield graph
    graph.close()


def play(recording: Path, log: Path, *parameters: str):
    words = [w for p in (f"input:={recording}", "reliability:=reliable", *parameters) for w in ("-p", p)]
    return start(["blur_motion_ros.nodes", "player", "--ros-args", *words], log)


def test_pace_delays_images_and_leaves_stamps_alone(graph, recording, tmp_path):
    for kind, topic in ((Image, "image"), (TimeReference, "exposure")):
        graph.listen(kind, topic, 30)
    player = play(recording, tmp_path / "log", "pace:=0.5")
    assert graph.spin(lambda: player.poll() is not None, 60) and player.returncode == 0
    graph.spin_for(0.3)
    stamps = np.array([stamp_ns(m.header) for m in graph.messages("image")])
    assert len(stamps) == FRAMES
    np.testing.assert_allclose(np.diff(stamps) / 1e9, 1 / RATE, atol=1e-6)
    lengths = [m.time_ref.sec * 10**9 + m.time_ref.nanosec - stamp_ns(m.header) for m in graph.messages("exposure")]
    np.testing.assert_allclose(lengths, 5e7, atol=2)
    arrived = [t for _, t in graph.heard["image"]]
    assert arrived[-1] - arrived[0] == pytest.approx((FRAMES - 1) / RATE / 0.5, rel=0.2)


def test_nothing_is_played_before_all_who_are_waited_for_listen(graph, recording, tmp_path):
    graph.listen(Image, "image", 30)
    graph.listen(CameraInfo, "camera_info", 30)
    player = play(recording, tmp_path / "log", "wait_for_info:=1", "settle:=0.0")
    try:
        assert graph.spin(lambda: graph.client.count_publishers("exposure") > 0, 60)
        graph.spin_for(1.0)
        assert not graph.heard["image"]
        before = time.monotonic()
        graph.listen(TimeReference, "exposure", 30)
        assert graph.spin(lambda: len(graph.heard["image"]) == FRAMES, 30)
        assert graph.heard["image"][0][1] > before
    finally:
        assert interrupt(player) == 0
