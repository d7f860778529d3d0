"""The square crop of VIBE, and its weak-perspective camera lifted to metres with the real intrinsics.

Upstream cuts `1.1 * max(w, h)` around the person but lifts with the *unscaled* box, so its bodies are 9 % too near.
`SquareCrop` is the crop that was cut; there is no other box to confuse it with.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from blur_motion_ros.camera.camera import Camera

CROP_SCALE = 1.1
CROP_PIXELS = 224


@dataclass(frozen=True)
class SquareCrop:
    """What the network saw.  centre: [2] px of the full image; side: true side of the crop in full-image pixels."""

    centre: np.ndarray
    side: float

    @staticmethod
    def around(box: np.ndarray, scale: float = CROP_SCALE) -> SquareCrop:
        """Crop for a person box [4] x0, y0, x1, y1 px. Raises ValueError for an empty or non-finite box."""
        x0, y0, x1, y1 = (float(v) for v in box)
        side = scale * max(x1 - x0, y1 - y0)
        if not np.isfinite(side) or min(x1 - x0, y1 - y0) <= 0:
            raise ValueError(f"box is {[x0, y0, x1, y1]}; it must be x0 < x1 and y0 < y1, finite, in pixels")
        return SquareCrop(np.array([0.5 * (x0 + x1), 0.5 * (y0 + y1)]), side)

    def cut(self, image: np.ndarray, size: int = CROP_PIXELS) -> np.ndarray:
        """uint8 [H, W, 3] -> [size, size, 3], bilinear, black outside; the centre lands on pixel size / 2."""
        s = size / self.side
        matrix = np.array([[s, 0, size / 2 - s * self.centre[0]], [0, s, size / 2 - s * self.centre[1]]])
        return cv2.warpAffine(image, matrix, (size, size), flags=cv2.INTER_LINEAR)


def weak_perspective_project(points: np.ndarray, cam: np.ndarray, crop: SquareCrop) -> np.ndarray:
    """What (s, tx, ty) means: body points [..., J, 3] m -> full-image pixels [..., J, 2], depth ignored.

    cam: [..., 3]; the crop spans -1 .. 1, so u = centre + side / 2 * s * (x + t).
    """
    cam = np.asarray(cam)
    normalised = cam[..., None, :1] * (np.asarray(points)[..., :2] + cam[..., None, 1:])
    return crop.centre + 0.5 * crop.side * normalised


def weak_perspective_to_translation(cam: np.ndarray, crop: SquareCrop, camera: Camera) -> np.ndarray:
    """(s, tx, ty) [..., 3] -> translation [..., 3] m in the camera frame.

    tz = 2 f / (side s); the crop's offset from the principal point is undone at that depth. A point at the body's
    origin depth lands on the same pixel as under weak perspective. Raises ValueError where s is not positive.
    """
    cam = np.asarray(cam, np.float64)
    if not (np.isfinite(cam).all() and (cam[..., 0] > 0).all()):
        raise ValueError("cam has a scale that is not a positive number; the body cannot be placed in metres")
    f = np.sqrt(camera.K[0, 0] * camera.K[1, 1])
    depth = 2 * f / (crop.side * cam[..., 0])
    ray = camera.undistort(crop.centre[None])[0]
    # f and the pixel aspect: t is in metres for square pixels; fx != fy stretches it by f / fx, f / fy
    aspect = np.array([f / camera.K[0, 0], f / camera.K[1, 1]])
    xy = aspect * cam[..., 1:] + ray * depth[..., None]
    return np.concatenate([xy, depth[..., None]], -1)
