"""sensor_msgs/CameraInfo <-> Camera; the checks are those of `camera.load`."""

from __future__ import annotations

from typing import Any

import numpy as np

from blur_motion_ros.camera.camera import Camera
from blur_motion_ros.camera.load import camera_from_info


def to_camera(msg: Any) -> Camera:
    """CameraInfo -> Camera of the published image (roi and binning applied). ValueError names the field."""
    roi = (msg.roi.x_offset, msg.roi.y_offset, msg.roi.width, msg.roi.height)
    return camera_from_info(msg.width, msg.height, list(msg.k), list(msg.d), msg.distortion_model,
                            msg.header.frame_id, (msg.binning_x, msg.binning_y), roi)


def fill_camera_info(msg: Any, camera: Camera) -> Any:
    """Write `camera` into a CameraInfo message and return it; the stamp is left alone."""
    d = np.asarray(camera.dist, np.float64).ravel().tolist()
    fisheye = camera.model == "fisheye"
    msg.width, msg.height = int(camera.width), int(camera.height)
    msg.distortion_model = "equidistant" if fisheye else "rational_polynomial" if len(d) > 5 else "plumb_bob"
    msg.d = d or [0.0] * (4 if fisheye else 5)
    msg.k = np.asarray(camera.K, np.float64).ravel()
    msg.r = np.eye(3).ravel()
    msg.p = np.hstack([camera.K, np.zeros((3, 1))]).ravel()
    msg.header.frame_id = camera.frame_id
    return msg
