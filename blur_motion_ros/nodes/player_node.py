"""`camera_player`: publishes a recording as a camera would: Image, CameraInfo and exposure, at its true rate.

Every image is published when its exposure would have ended; its stamp is the shutter opening.
"""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass
from typing import Any

import numpy as np
import rclpy
from rcl_interfaces.msg import ParameterDescriptor
from rclpy.node import Node
from rclpy.parameter import Parameter
from sensor_msgs.msg import CameraInfo, Image, TimeReference

from blur_motion_ros import settings as setting_tools
from blur_motion_ros.data import sequence
from blur_motion_ros.messages import stamps
from blur_motion_ros.messages.camera_info import fill_camera_info
from blur_motion_ros.messages.diagnostics import Problems
from blur_motion_ros.messages.image import fill_image
from blur_motion_ros.nodes import specs
from blur_motion_ros.nodes.base import descriptor, quality
from blur_motion_ros.settings import setting
from blur_motion_ros.types import Exposure


@dataclass(frozen=True)
class PlayerSettings:
    """What to play and how."""

    input: str = setting("", "sequence folder or video file")
    camera: str = setting("", "calibration file (needed for a video)")
    background: str = setting("", "clean plate to publish on `background`; empty: the folder's background.png")
    publish_background: bool = setting(True, "publish the clean plate once, latched")
    exposure: float = setting(0.0, "time the shutter is open in each frame of a video; 0: 0.9 of the period", unit="s",
                              low=0.0, high=1.0)
    rate: float = setting(1.0, "speed of playing; stamps follow it", low=0.01, high=100.0)
    pace: float = setting(1.0, "speed of publishing alone, for machines that cannot keep up: stamps stay those of "
                          "`rate`, so motions are measured as at pace 1, only later", low=0.01, high=100.0)
    loop: bool = setting(False, "start again at the end, with stamps that go on")
    reliability: str = setting("best_effort", "quality of service of the images", choices=("best_effort", "reliable"))
    wait_for: int = setting(1, "image subscribers to wait for before the first frame", low=0, high=16)
    wait_for_info: int = setting(0, "the same of camera_info and of exposure: the node, and who records them", low=0,
                                 high=16)
    settle: float = setting(0.5, "pause between the last subscriber's arrival and the first frame", unit="s", low=0.0,
                            high=600.0)
    encoding: str = setting("rgb8", "encoding of the published images", choices=("rgb8", "bgr8"))


class PlayerNode(Node):
    """Publishes from a thread of its own; the executor only serves parameters."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(specs.PLAYER.name, **kwargs)
        self.finished, self.exit_code = False, 0
        self.settings = _declare(self)
        self._problems = Problems()
        s = self.settings
        if not s.input:
            raise ValueError("parameter 'input' is empty; give a sequence folder or a video, e.g. -p input:=FOLDER")
        self.recording = sequence.read(s.input, s.camera or None, s.background or None, s.exposure or None)
        self._image = self.create_publisher(Image, "image", quality(s.reliability, 5))
        self._info = self.create_publisher(CameraInfo, "camera_info", quality("reliable", 5))
        self._exposure = self.create_publisher(TimeReference, "exposure", quality("reliable", 50))
        self._plate = self.create_publisher(Image, "background", quality("reliable", 1, latched=True))
        self.published = 0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="player", daemon=True)
        self._thread.start()

    def problem(self, kind: str, message: str) -> None:
        if self._problems.report(kind, message):
            self.get_logger().warning(message)

    def close(self, timeout: float) -> None:
        self._stop.set()
        self._thread.join(timeout)

    def _run(self) -> None:
        try:
            self._publish_plate()
            if self._wait_for_subscribers():
                self._play()
        except Exception as error:
            self.get_logger().error(f"playing ended: {error}")
            self.exit_code = 1
        self.finished = True

    def _wait_for_subscribers(self) -> bool:
        s = self.settings
        wanted = ((self._image, s.wait_for), (self._info, s.wait_for_info), (self._exposure, s.wait_for_info))
        while any(publisher.get_subscription_count() < least for publisher, least in wanted):
            if self._stop.wait(0.05):
                return False
        return not self._stop.wait(s.settle)

    def _publish_plate(self) -> None:
        if self.recording.plate is not None and self.settings.publish_background:
            msg = fill_image(Image(), self.recording.plate, "rgb8")
            msg.header.frame_id = self.recording.camera.frame_id
            msg.header.stamp = self.get_clock().now().to_msg()
            self._plate.publish(msg)

    def _play(self) -> None:
        """Publish every pass of the recording; the wall clock is that of the shutter (at pace 1)."""
        recording, speed, pace = self.recording, self.settings.rate, self.settings.pace
        start = time.monotonic() - recording.exposures[0].open / speed / pace
        epoch = self.get_clock().now().nanoseconds - round(recording.exposures[0].open / speed * stamps.NANO)
        opens = [e.open for e in recording.exposures]
        length = opens[-1] - opens[0] + (float(np.median(np.diff(opens))) if len(opens) > 1 else 1 / 30)
        shift = 0.0
        while rclpy.ok():
            for frame in recording:
                shown = Exposure((frame.exposure.open + shift) / speed, (frame.exposure.close + shift) / speed)
                if self._stop.wait(max(0.0, start + shown.close / pace - time.monotonic())):
                    return
                self._publish(frame.image, shown, epoch)
            shift += length
            if not self.settings.loop:
                break
        self.get_logger().info(f"played {self.published} frames")
        self._stop.wait(0.5)  # let the last messages leave

    def _publish(self, image: Any, exposure: Exposure, epoch: int) -> None:
        clock = stamps.StreamClock(epoch)
        frame_id = self.recording.camera.frame_id
        reference = TimeReference(source="shutter closes")
        info = fill_camera_info(CameraInfo(), self.recording.camera)
        pixels = image if self.settings.encoding == "rgb8" else image[..., ::-1]
        msg = fill_image(Image(), pixels, self.settings.encoding)
        msg.header.frame_id = frame_id
        for header in (reference.header, info.header, msg.header):
            clock.fill(header.stamp, exposure.open)
        clock.fill(reference.time_ref, exposure.close)
        self._exposure.publish(reference)
        self._info.publish(info)
        self._image.publish(msg)
        self.published += 1


def _declare(node: Node) -> PlayerSettings:
    """Declare the player's settings as parameters and return their values, checked."""
    tree = PlayerSettings()
    loose = ParameterDescriptor(dynamic_typing=True)
    given = {leaf.name: node.declare_parameter(leaf.name, leaf.value, loose).value
             for leaf in setting_tools.leaves(tree)}
    tree = setting_tools.replace(tree, given)
    node.set_parameters([Parameter(leaf.name, value=leaf.value) for leaf in setting_tools.leaves(tree)])
    for leaf in setting_tools.leaves(tree):
        node.undeclare_parameter(leaf.name)
        node.declare_parameter(leaf.name, leaf.value, descriptor(leaf), ignore_override=True)
    return tree
