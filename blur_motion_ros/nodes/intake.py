"""Messages of one camera -> frames with exposure and intrinsics; every kind of bad input gets one clear sentence."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from blur_motion_ros.camera.camera import Camera
from blur_motion_ros.camera.exposure import ClockJump, ExposureModel
from blur_motion_ros.camera.load import load_camera
from blur_motion_ros.config import Settings
from blur_motion_ros.messages.camera_info import to_camera
from blur_motion_ros.messages.image import ImageError, to_rgb
from blur_motion_ros.messages.stamps import NANO, StreamClock, nanoseconds
from blur_motion_ros.types import Exposure, Frame

_KEPT_EXPOSURES = 64
_EXPOSURE_WAIT_S = 0.02  # an image may overtake its exposure message
_FIRST_EXPOSURE_WAIT_S = 0.1  # the first message of a topic takes longer
_SILENT_AFTER = 10  # images in a row without an exposure message: nobody tells them any more


@dataclass(frozen=True)
class Arrived:
    """A usable frame.  flush: forget everything measured before it.  clock: its seconds <-> ROS stamps."""

    frame: Frame
    flush: bool
    clock: StreamClock


class Intake:
    """Checks and converts the messages of one camera. Not thread-safe except `exposure`, which may be called anytime.

    problem(kind, sentence): told of everything that is wrong; a bad message is dropped and the stream goes on.
    exposure_told: whether somebody publishes exposures; the first image then waits for its own.
    """

    def __init__(self, settings: Settings, problem: Callable[[str, str], None],
                 exposure_told: Callable[[], bool] = lambda: False) -> None:
        self._settings, self._problem, self._exposure_told = settings, problem, exposure_told
        self._model = ExposureModel(settings.camera)
        self._camera: Camera | None = None
        self._fixed = load_camera(settings.ros.calibration) if settings.ros.calibration else None
        self._exposures: OrderedDict[int, int] = OrderedDict()
        self._exposure_came = threading.Condition()
        self._told_ns: int | None = None  # the last duration that was told
        self._untold = 0  # images since
        self._shape: tuple[int, int, str] | None = None
        self._clock: StreamClock | None = None
        self._index = 0

    @property
    def camera(self) -> Camera | None:
        return self._fixed or self._camera

    def camera_info(self, msg: Any) -> None:
        """Take over a CameraInfo; a broken one leaves the last good one in place."""
        try:
            self._camera = to_camera(msg)
        except ValueError as error:
            self._problem("camera_info", f"{error}; this CameraInfo is ignored")

    def exposure(self, msg: Any) -> None:
        """Note a TimeReference: header stamp = shutter opens (and the image's stamp), time_ref = shutter closes."""
        opened, closed = nanoseconds(msg.header.stamp), nanoseconds(msg.time_ref)
        if not 0 < closed - opened < 10 * NANO:
            self._problem("exposure", f"exposure closes {(closed - opened) / NANO:.3f} s after it opens; expected "
                          "0 to 10 s (header.stamp = open, time_ref = close); ignored")
            return
        with self._exposure_came:
            self._exposures[opened] = closed
            while len(self._exposures) > _KEPT_EXPOSURES:
                self._exposures.popitem(last=False)
            self._exposure_came.notify()

    def frame(self, msg: Any) -> Arrived | None:
        """Image -> frame, or None when it cannot be used (the reason has been told)."""
        try:
            image = to_rgb(msg)
            camera = self._camera_for(image)
        except ValueError as error:
            self._problem("image" if isinstance(error, ImageError) else "camera_info", f"{error}; frame dropped")
            return None
        changed = self._shape is not None and self._shape != (*image.shape[:2], msg.encoding)
        if changed:
            self._problem("format", f"image format changed from {_shape_text(self._shape)} to "
                          f"{_shape_text((*image.shape[:2], msg.encoding))}; motion window restarted")
        exposure, flush = self._interval(msg.header.stamp)
        if exposure is None:
            return None
        self._shape = (*image.shape[:2], msg.encoding)
        frame = Frame(image, exposure, replace(camera, frame_id=msg.header.frame_id or camera.frame_id), self._index)
        self._index += 1
        return Arrived(frame, flush or changed, self._clock)

    def _camera_for(self, image: Any) -> Camera:
        camera = self.camera
        if camera is None:
            raise ValueError("no CameraInfo has arrived yet; publish one beside the image, or set ros.calibration to a "
                             "calibration file")
        height, width = image.shape[:2]
        if (width, height) != (camera.width, camera.height):
            raise ValueError(f"image is {width}x{height} but the calibration is for {camera.width}x{camera.height}; "
                             "publish the CameraInfo of this resolution")
        return camera

    def _interval(self, stamp: Any) -> tuple[Exposure | None, bool]:
        """Exposure of the image stamped `stamp`, and whether what came before must be forgotten."""
        ns = nanoseconds(stamp)
        if ns == 0:
            self._problem("stamp", "image stamp is zero; the driver must stamp images; frame dropped")
            return None, False
        self._clock = self._clock or StreamClock(ns - ns % NANO)
        flush = False
        try:
            exposure = self._model.interval(self._clock.seconds(stamp))
        except ClockJump as jump:
            self._problem(f"stamp_{jump.kind.value}", str(jump))
            exposure, flush = jump.exposure, jump.flush
        duration = None if exposure is None else self._told_duration(ns)
        if duration is not None:
            opened = self._clock.seconds(stamp)
            exposure = Exposure(opened, opened + duration / NANO)
        return exposure, flush

    def _told_duration(self, opened: int) -> int | None:
        """Open-shutter time (ns) told by the exposure topic for the image stamped `opened`.

        Waits a little for it when that topic is in use. A message that got lost is made up for by the one before it:
        exposures change slowly, and the settings may be far off.
        """
        with self._exposure_came:
            if opened not in self._exposures and self._untold < _SILENT_AFTER:
                self._exposure_came.wait_for(lambda: opened in self._exposures, self._patience())
            closed = self._exposures.get(opened)
        if closed is not None:
            self._told_ns, self._untold = closed - opened, 0
            return self._told_ns
        self._untold += 1
        if self._told_ns is not None and self._untold == _SILENT_AFTER:
            self._problem("exposure", f"no exposure message for {_SILENT_AFTER} images; taking the exposure from the "
                          "settings again (camera.exposure_*); let the header.stamp of both be the same")
            self._told_ns = None
        return self._told_ns

    def _patience(self) -> float:
        """Seconds that an image waits for its exposure message."""
        if self._exposures:
            return _EXPOSURE_WAIT_S
        return _FIRST_EXPOSURE_WAIT_S if self._index == 0 and self._exposure_told() else 0.0


def _shape_text(shape: tuple[int, int, str]) -> str:
    return f"{shape[1]}x{shape[0]} {shape[2]}"
