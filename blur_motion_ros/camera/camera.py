"""Camera model, the only copy: pinhole with OpenCV distortion, and square undistorted crops of it."""

from __future__ import annotations

from dataclasses import dataclass, field

import cv2
import numpy as np


@dataclass(frozen=True)
class Camera:
    """Static calibrated camera.  K: [3, 3] px (pixel centres at integers), dist: OpenCV coefficients ([] = none)."""

    width: int
    height: int
    K: np.ndarray
    dist: np.ndarray = field(default_factory=lambda: np.zeros(0))
    frame_id: str = "camera_optical_frame"

    def project(self, points: np.ndarray) -> np.ndarray:
        """Camera-frame points [..., 3] m -> distorted pixels [..., 2]."""
        points = np.asarray(points, np.float64)
        flat = points.reshape(-1, 1, 3)
        dist = self.dist if len(self.dist) else None
        pixels, _ = cv2.projectPoints(flat, np.zeros(3), np.zeros(3), np.asarray(self.K, np.float64), dist)
        return pixels.reshape(points.shape[:-1] + (2,))

    def undistort(self, pixels: np.ndarray) -> np.ndarray:
        """Distorted pixels [..., 2] -> normalised rays [..., 2] (x/z, y/z)."""
        pixels = np.asarray(pixels, np.float64)
        dist = self.dist if len(self.dist) else None
        rays = cv2.undistortPoints(pixels.reshape(-1, 1, 2), np.asarray(self.K, np.float64), dist)
        return rays.reshape(pixels.shape)


@dataclass(frozen=True)
class Crop:
    """A square virtual pinhole view (same orientation, no distortion).  K: [3, 3], size: pixels per side."""

    K: np.ndarray
    size: int

    @staticmethod
    def around(camera: Camera, centre: np.ndarray, side: float, size: int) -> "Crop":
        """Crop of `side` source pixels around `centre` [2] (undistorted pixels of `camera`), resampled to `size`."""
        s = size / side
        k = np.array(camera.K, np.float64)
        shift = np.array([[s, 0, s * (side / 2 - centre[0]) - 0.5], [0, s, s * (side / 2 - centre[1]) - 0.5], [0, 0, 1]])
        return Crop(shift @ k, size)

    def project(self, points: np.ndarray) -> np.ndarray:
        """Camera-frame points [..., 3] m -> crop pixels [..., 2]."""
        p = np.asarray(points) @ self.K.T
        return p[..., :2] / p[..., 2:]

    def resized(self, size: int) -> "Crop":
        """The same view at another resolution."""
        s = size / self.size
        shift = np.array([[s, 0, 0.5 * s - 0.5], [0, s, 0.5 * s - 0.5], [0, 0, 1]])
        return Crop(shift @ self.K, size)
