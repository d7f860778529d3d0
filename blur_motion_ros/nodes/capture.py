"""The capture_background service: collect the next images, make a plate of them, answer when it is done."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

import numpy as np
from rclpy.callback_groups import ReentrantCallbackGroup
from rclpy.node import Node
from rclpy.task import Future
from std_srvs.srv import Trigger

from blur_motion_ros import light
from blur_motion_ros.background.capture import CaptureError, capture_plate
from blur_motion_ros.config import Settings

_PATIENCE_S = 30.0


class PlateCapture:
    """Offers `~/capture_background`.  `offer` is called with every image, `tick` now and then; both thread-safe.

    take(image): receives the finished plate [H, W, 3] uint8 RGB.  obstacle(): why it is impossible now, or ''.
    """

    def __init__(self, node: Node, settings: Settings, take: Callable[[np.ndarray], None],
                 obstacle: Callable[[], str] = lambda: "") -> None:
        self._node, self._take, self._obstacle = node, take, obstacle
        self._frames, self._motion = settings.background.capture_frames, settings.background.capture_motion
        self._response = settings.camera.response
        self._lock = threading.Lock()
        self._images: list[np.ndarray] = []
        self._future: Future | None = None
        self._deadline = 0.0
        # An own callback group: waiting for the images must not hold up the subscription that brings them.
        node.create_service(Trigger, "~/capture_background", self._on_request, callback_group=ReentrantCallbackGroup())

    def offer(self, image: np.ndarray) -> None:
        """Collect `image` if a capture is under way; the last one completes it."""
        with self._lock:
            if self._future is None:
                return
            if self._images and self._images[0].shape != image.shape:
                self._images.clear()
            self._images.append(np.array(image))
            if len(self._images) < self._frames:
                return
            images, self._images = self._images, []
        self._finish(images)

    def tick(self) -> None:
        """Give up a capture for which no images come."""
        with self._lock:
            late = self._future is not None and time.monotonic() > self._deadline
        if late:
            self._answer(False, f"only {len(self._images)} images came in {_PATIENCE_S:g} s; is the camera running?")

    async def _on_request(self, _: Any, response: Any) -> Any:
        future, obstacle = None, self._obstacle()
        with self._lock:
            if self._future is not None:
                obstacle = "a capture is already under way"
            elif not obstacle:
                self._images.clear()
                self._deadline = time.monotonic() + _PATIENCE_S
                self._future = future = Future(executor=self._node.executor)
        response.success, response.message = (False, obstacle) if future is None else await future
        return response

    def _finish(self, images: list[np.ndarray]) -> None:
        try:
            plate, noise = capture_plate(images, self._response, self._motion)
        except CaptureError as error:
            self._answer(False, f"{error}; the old clean plate stays")
            return
        self._take(light.to_codes(plate, self._response))
        self._answer(True, f"clean plate made of {len(images)} images, noise {noise:.1f} code values")

    def _answer(self, success: bool, message: str) -> None:
        with self._lock:
            future, self._future, self._images = self._future, None, []
        if future is not None:
            future.set_result((success, message))
