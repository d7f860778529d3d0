"""The node that fits, shared by the composed pipeline and the split fitting node.

Inputs  `image`, `camera_info`, optional `exposure` (TimeReference) and `background` (Image, latched).
Outputs `humans/bodies/<id>/...` (see `publisher`), `/diagnostics`.  Services `~/capture_background`, `~/reset`.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue
from rclpy.event_handler import SubscriptionEventCallbacks
from sensor_msgs.msg import CameraInfo, Image, TimeReference
from std_srvs.srv import Trigger

from blur_motion_ros import threads
from blur_motion_ros.config import Settings
from blur_motion_ros.messages import diagnostics
from blur_motion_ros.messages.image import to_rgb
from blur_motion_ros.nodes import engine
from blur_motion_ros.nodes.base import BaseNode, quality
from blur_motion_ros.nodes.capture import PlateCapture
from blur_motion_ros.nodes.engine import Engine
from blur_motion_ros.nodes.intake import Intake
from blur_motion_ros.nodes.publisher import EstimatePublisher
from blur_motion_ros.nodes.worker import FitWorker


class FitNode(BaseNode):
    """Image subscription -> mailbox -> worker thread -> publishers."""

    def __init__(self, name: str, make_engine: Callable[[Settings], Engine] | None = None, **kwargs: Any) -> None:
        super().__init__(name, **kwargs)
        self.intake = Intake(self.settings, self.problem, self._exposure_told)
        self.output = EstimatePublisher(self, self.settings)
        make = make_engine or engine.PipelineEngine
        self.worker = FitWorker(lambda: self._prepared(make), self.intake, self.output.publish, self.problem,
                                self.settings.ros.hurry_after)
        self._subscribe()
        self.create_service(Trigger, "~/reset", self._on_reset)
        self._capture = PlateCapture(self, self.settings, self._use_plate, lambda: self.worker.error)
        self.worker.watch = self._capture.offer
        self._diagnostics = self.create_publisher(DiagnosticArray, "/diagnostics", 10)
        self.create_timer(self.settings.ros.diagnostics_period, self._publish_diagnostics)
        self._started = self._last_image = time.monotonic()
        self._qos_mismatch = 0
        self.worker.start()

    def close(self, timeout: float) -> None:
        if not self.worker.stop(timeout):
            self.get_logger().warning("the fit is still busy; leaving it behind")

    def settings_changed(self) -> None:
        self.output.configure(self.settings)

    def _prepared(self, make_engine: Callable[[Settings], Engine]) -> Engine:
        made = make_engine(self.settings)
        threads.settle()
        self.get_logger().info("ready: waiting for images")
        return made

    def _subscribe(self) -> None:
        ros = self.settings.ros
        images = quality(ros.reliability, ros.queue_depth)
        events = SubscriptionEventCallbacks(incompatible_qos=self._on_incompatible)
        self.create_subscription(Image, "image", self._on_image, images, event_callbacks=events)
        # Best effort hears every publisher; these messages are small.
        self.create_subscription(CameraInfo, "camera_info", self.intake.camera_info, quality("best_effort", 10))
        self._exposure_input = self.create_subscription(TimeReference, "exposure", self.intake.exposure,
                                                   quality("best_effort", 50))
        self.create_subscription(Image, "background", self._on_background, quality("reliable", 1, latched=True))

    def _exposure_told(self) -> bool:
        return self.count_publishers(self._exposure_input.topic_name) > 0

    def _on_image(self, msg: Image) -> None:
        self._last_image = time.monotonic()
        self.worker.put(msg)

    def _on_background(self, msg: Image) -> None:
        try:
            image = to_rgb(msg)
        except ValueError as error:
            self.problem("background", f"background: {error}; the old clean plate stays")
            return
        self._use_plate(image)

    def _use_plate(self, image: Any) -> None:
        self.worker.request(lambda e: e.set_background(image))

    def _on_incompatible(self, event: Any) -> None:
        self._qos_mismatch = event.total_count
        self.problem("qos", f"{event.total_count} image publisher(s) offer a quality of service that this subscription "
                     f"('{self.settings.ros.reliability}') cannot hear; set ros.reliability to best_effort")

    def _on_reset(self, _: Any, response: Any) -> Any:
        self.worker.start_anew()
        response.success, response.message = True, "tracking starts anew with the next image"
        return response

    def _publish_diagnostics(self) -> None:
        self._capture.tick()
        msg = DiagnosticArray()
        msg.header.stamp = self.get_clock().now().to_msg()
        msg.status = [diagnostics.fill_status(DiagnosticStatus(), f"{self.get_name()}: {name}", level, text, values,
                                              KeyValue)
                      for name, level, text, values in (self._camera_status(), self._fit_status())]
        self._diagnostics.publish(msg)

    def _camera_status(self) -> tuple[str, bytes, str, dict[str, Any]]:
        age = time.monotonic() - self._last_image
        recent = self.problems.recent()
        values = {"input_rate_hz": self.worker.input_rate.value(), "image_age_s": age,
                  "images": self.worker.input_rate.total, "images_superseded": self.worker.mailbox.dropped,
                  "camera_info": "yes" if self.intake.camera else "missing", "qos_mismatches": self._qos_mismatch,
                  "camera_clock": "node clock" if self.output.clocks_agree else "differs from the node clock"}
        values |= {f"problems_{kind}": count for kind, count in self.problems.counts().items()}
        if age > self.settings.ros.stale_after:
            return "camera", diagnostics.STALE, f"no image for {age:.1f} s", values
        trouble = {k: m for k, m in recent.items() if k not in ("fit", "start", "request")}
        if trouble:
            return "camera", diagnostics.WARN, "; ".join(trouble.values()), values
        return "camera", diagnostics.OK, "images arrive", values

    def _fit_status(self) -> tuple[str, bytes, str, dict[str, Any]]:
        see50, see95, see99 = self.worker.see_ms.percentiles(50, 95, 99)
        fit50, fit95, fit99 = self.worker.fit_ms.percentiles(50, 95, 99)
        arrival50, arrival99 = self.output.latency_arrival_ms.percentiles(50, 99)
        stamp50, stamp99 = self.output.latency_stamp_ms.percentiles(50, 99)
        values = {"output_rate_hz": self.worker.output_rate.value(), "estimates": self.worker.output_rate.total,
                  "see_ms_p50": see50, "see_ms_p95": see95, "see_ms_p99": see99,
                  "fit_ms_p50": fit50, "fit_ms_p95": fit95, "fit_ms_p99": fit99,
                  "see_hurried_share": self.worker.seen_late.mean(),
                  "fit_hurried_share": self.worker.fitted_late.mean(),
                  "latency_since_arrival_ms_p50": arrival50, "latency_since_arrival_ms_p99": arrival99,
                  "latency_since_shutter_closed_ms_p50": stamp50, "latency_since_shutter_closed_ms_p99": stamp99}
        values |= {f"stage_{name}_ms": float(ms) for name, ms in self.worker.timings.items()}
        values |= self.worker.values
        values |= self.output.last_values
        if self.worker.error:
            return "fit", diagnostics.ERROR, self.worker.error, values
        recent = self.problems.recent()
        if "fit" in recent:
            return "fit", diagnostics.ERROR, recent["fit"], values
        status = self.output.last_status
        if status is None:
            text = "no estimate yet" if self.worker.ready.is_set() else "starting"
            return "fit", diagnostics.WARN, text, values
        return "fit", diagnostics.level(status), diagnostics.flag_names(status), values

