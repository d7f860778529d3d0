"""`camera_node`: the camera side of the split pipeline: checks, converts and times images, captures the clean plate.

Inputs `image`, `camera_info`, optional `exposure`. Outputs, reliable, one each per good image, all stamped with the
shutter opening: `frame/exposure` (TimeReference, time_ref = shutter closes), `frame/camera_info`, `frame/image` (rgb8);
and `background` (Image rgb8, latched) after the service `~/capture_background`.
"""

from __future__ import annotations

import threading
import time
from typing import Any

import numpy as np
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue
from rclpy.event_handler import SubscriptionEventCallbacks
from sensor_msgs.msg import CameraInfo, Image, TimeReference

from blur_motion_ros.background.buffer import FrameBuffer
from blur_motion_ros.messages import diagnostics
from blur_motion_ros.messages.camera_info import fill_camera_info
from blur_motion_ros.messages.diagnostics import Rate
from blur_motion_ros.messages.image import fill_image
from blur_motion_ros.nodes import specs
from blur_motion_ros.nodes.base import BaseNode, quality
from blur_motion_ros.nodes.capture import PlateCapture
from blur_motion_ros.nodes.intake import Arrived, Intake


class CameraNode(BaseNode):
    """Image subscription -> newest-wins buffer -> thread that checks and republishes."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(specs.CAMERA.name, **kwargs)
        self.intake = Intake(self.settings, self.problem, self._exposure_told)
        self._image = self.create_publisher(Image, "frame/image", quality("reliable", 2))
        self._info = self.create_publisher(CameraInfo, "frame/camera_info", quality("reliable", 5))
        self._exposure = self.create_publisher(TimeReference, "frame/exposure", quality("reliable", 50))
        self._plate = self.create_publisher(Image, "background", quality("reliable", 1, latched=True))
        self._capture = PlateCapture(self, self.settings, self._publish_plate)
        self._diagnostics = self.create_publisher(DiagnosticArray, "/diagnostics", 10)
        self._buffer: FrameBuffer[Image] = FrameBuffer()
        self._rate, self._last_image = Rate(), time.monotonic()
        self._stop = threading.Event()
        self._subscribe()
        self.create_timer(self.settings.ros.diagnostics_period, self._publish_diagnostics)
        self._thread = threading.Thread(target=self._run, name="camera", daemon=True)
        self._thread.start()

    def close(self, timeout: float) -> None:
        self._stop.set()
        self._buffer.close()
        self._thread.join(timeout)

    def _subscribe(self) -> None:
        ros = self.settings.ros
        events = SubscriptionEventCallbacks(incompatible_qos=self._on_incompatible)
        self.create_subscription(Image, "image", self._on_image, quality(ros.reliability, ros.queue_depth),
                                 event_callbacks=events)
        self.create_subscription(CameraInfo, "camera_info", self.intake.camera_info, quality("best_effort", 10))
        self._exposure_input = self.create_subscription(TimeReference, "exposure", self.intake.exposure,
                                                   quality("best_effort", 50))

    def _exposure_told(self) -> bool:
        return self.count_publishers(self._exposure_input.topic_name) > 0

    def _on_image(self, msg: Image) -> None:
        self._last_image = time.monotonic()
        self._rate.tick()
        self._buffer.put(msg)

    def _on_incompatible(self, event: Any) -> None:
        self.problem("qos", f"{event.total_count} image publisher(s) offer a quality of service that this subscription "
                     f"('{self.settings.ros.reliability}') cannot hear; set ros.reliability to best_effort")

    def _run(self) -> None:
        while not self._stop.is_set():
            msg = self._buffer.get(0.2)
            if msg is None:
                continue
            try:
                taken = self.intake.frame(msg)
                if taken is not None:
                    self._capture.offer(taken.frame.image)
                    self._republish(taken)
            except Exception as error:  # one bad image must not end the camera
                self.problem("image", f"image skipped: {type(error).__name__}: {error}")

    def _republish(self, taken: Arrived) -> None:
        frame, clock = taken.frame, taken.clock
        reference = TimeReference(source="shutter closes")
        info = fill_camera_info(CameraInfo(), frame.camera)
        image = fill_image(Image(), frame.image, "rgb8")
        for msg in (reference, info, image):
            clock.fill(msg.header.stamp, frame.exposure.open)
            msg.header.frame_id = frame.camera.frame_id
        clock.fill(reference.time_ref, frame.exposure.close)
        self._exposure.publish(reference)
        self._info.publish(info)
        self._image.publish(image)

    def _publish_plate(self, plate: np.ndarray) -> None:
        msg = fill_image(Image(), plate, "rgb8")
        msg.header.stamp = self.get_clock().now().to_msg()
        self._plate.publish(msg)

    def _publish_diagnostics(self) -> None:
        self._capture.tick()
        age = time.monotonic() - self._last_image
        stale = age > self.settings.ros.stale_after
        recent = self.problems.recent()
        level = diagnostics.STALE if stale else diagnostics.WARN if recent else diagnostics.OK
        text = f"no image for {age:.1f} s" if stale else "; ".join(recent.values()) or "images arrive"
        values = {"input_rate_hz": self._rate.value(), "image_age_s": age, "images": self._rate.total,
                  "images_superseded": self._buffer.dropped, "camera_info": "yes" if self.intake.camera else "missing"}
        values |= {f"problems_{kind}": count for kind, count in self.problems.counts().items()}
        msg = DiagnosticArray()
        msg.header.stamp = self.get_clock().now().to_msg()
        msg.status = [diagnostics.fill_status(DiagnosticStatus(), f"{self.get_name()}: camera", level, text, values,
                                              KeyValue)]
        self._diagnostics.publish(msg)
