"""Camera model, the only copy: pinhole or fisheye with OpenCV distortion, and square undistorted crops of it.

Pixel (0, 0) is the *centre* of the first pixel, as in OpenCV and ROS CameraInfo.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import cv2
import numpy as np

MODELS = ("pinhole", "fisheye")
_PINHOLE_COEFFICIENTS = (0, 4, 5, 8, 12, 14)
# undistortion is iterative: enough steps for strong lenses, and it stops early on weak ones
_ITERATE = (cv2.TERM_CRITERIA_COUNT | cv2.TERM_CRITERIA_EPS, 60, 1e-9)


@dataclass(frozen=True)
class Camera:
    """Static calibrated camera.

    K: [3, 3] px.  dist: OpenCV coefficients, [] = none; 'pinhole': 4, 5, 8, 12 or 14 of
    (k1 k2 p1 p2 k3 k4 k5 k6 s1.. tx ty), 'fisheye' (ROS: equidistant): 4.
    """

    width: int
    height: int
    K: np.ndarray
    dist: np.ndarray = field(default_factory=lambda: np.zeros(0))
    frame_id: str = "camera_optical_frame"
    model: str = "pinhole"

    @staticmethod
    def of_field(width: int, height: int, degrees: float) -> Camera:
        """A guess where there is no calibration: pinhole without distortion, its axis through the middle of the image,
        that sees `degrees` across the image's longer side. ValueError when those are not between 5 and 150."""
        if not 5 <= degrees <= 150:
            raise ValueError(f"field of view is {degrees:g} degrees; it must be between 5 and 150 (a phone sees about"
                             " 65 across the longer side, a webcam 60 to 80)")
        focal = 0.5 * max(width, height) / np.tan(np.radians(0.5 * degrees))
        return Camera(width, height, np.array([[focal, 0, (width - 1) / 2], [0, focal, (height - 1) / 2], [0, 0, 1]]))

    @property
    def distorted(self) -> bool:
        """Whether straight lines bend: a fisheye always, a pinhole when a coefficient is not zero."""
        return self.model == "fisheye" or bool(np.any(np.asarray(self.dist)))

    def project(self, points: np.ndarray) -> np.ndarray:
        """Camera-frame points [..., 3] m -> distorted pixels [..., 2]; NaN at or behind the camera plane."""
        points = np.asarray(points, np.float64)
        flat = points.reshape(-1, 1, 3)
        if not len(flat):
            return np.zeros(points.shape[:-1] + (2,))
        ahead = flat[:, 0, 2] > 1e-9
        safe = np.where(ahead[:, None, None], flat, np.array([0.0, 0.0, 1.0]))
        zero, k = np.zeros(3), np.asarray(self.K, np.float64)
        if self.model == "fisheye":
            pixels, _ = cv2.fisheye.projectPoints(safe, zero, zero, k, self._coefficients(4))
        else:
            pixels, _ = cv2.projectPoints(safe, zero, zero, k, self._coefficients())
        pixels = pixels.reshape(-1, 2)
        pixels[~ahead] = np.nan
        return pixels.reshape(points.shape[:-1] + (2,))

    def undistort(self, pixels: np.ndarray) -> np.ndarray:
        """Distorted pixels [..., 2] -> normalised rays [..., 2] (x/z, y/z)."""
        pixels = np.asarray(pixels, np.float64)
        flat = pixels.reshape(-1, 1, 2)
        if not len(flat):
            return np.zeros(pixels.shape)
        k = np.asarray(self.K, np.float64)
        if self.model == "fisheye":
            rays = cv2.fisheye.undistortPoints(flat, k, self._coefficients(4))
        elif hasattr(cv2, "undistortPointsIter"):  # OpenCV 4; OpenCV 5 merged it into undistortPoints
            rays = cv2.undistortPointsIter(flat, k, self._coefficients(), None, None, _ITERATE)
        else:
            rays = cv2.undistortPoints(flat, k, self._coefficients(), criteria=_ITERATE)
        return rays.reshape(pixels.shape)

    def undistorted_pixels(self, pixels: np.ndarray) -> np.ndarray:
        """Distorted pixels [..., 2] -> where they would be without distortion, same K (what `Crop.around` takes)."""
        if not self.distorted:
            return np.array(pixels, np.float64)
        rays = self.undistort(pixels)
        return rays @ np.asarray(self.K, np.float64)[:2, :2].T + np.asarray(self.K)[:2, 2]

    def scaled(self, width: int, height: int) -> Camera:
        """The camera of the same image resized to `width` x `height` (both axes may scale differently)."""
        sx, sy = width / self.width, height / self.height
        resize = np.array([[sx, 0, 0.5 * sx - 0.5], [0, sy, 0.5 * sy - 0.5], [0, 0, 1]])
        return replace(self, width=int(width), height=int(height), K=resize @ np.asarray(self.K, np.float64))

    def window(self, x: float, y: float, width: int, height: int) -> Camera:
        """The camera of the image cut to `width` x `height` from pixel (x, y)."""
        shift = np.array([[1.0, 0, -x], [0, 1, -y], [0, 0, 1]])
        return replace(self, width=int(width), height=int(height), K=shift @ np.asarray(self.K, np.float64))

    def _coefficients(self, at_least: int = 0) -> np.ndarray | None:
        dist = np.asarray(self.dist, np.float64).ravel()
        if len(dist) < at_least:
            dist = np.concatenate([dist, np.zeros(at_least - len(dist))])
        return dist if len(dist) else None


def checked_camera(width: int, height: int, K: object, dist: object = (), *, frame_id: str = "camera_optical_frame",
                   model: str = "pinhole", source: str = "camera") -> Camera:
    """Build a Camera from untrusted values. ValueError names the field of `source`, what is wrong, and the fix."""
    k, d = _numbers(K, f"{source}: K"), _numbers(dist, f"{source}: distortion").ravel()
    if not (width > 0 and height > 0):
        raise ValueError(f"{source}: size is {width} x {height}; width and height must be positive")
    if k.size != 9:
        raise ValueError(f"{source}: K has {k.size} values; it must hold 9 (a 3x3 matrix, row by row)")
    k = k.reshape(3, 3)
    if not np.any(k):
        raise ValueError(f"{source}: K is zero, so the camera is not calibrated; publish or load a calibration")
    if k[0, 0] <= 0 or k[1, 1] <= 0:
        raise ValueError(f"{source}: focal lengths K[0] and K[4] are {k[0, 0]:g}, {k[1, 1]:g}; they must be positive")
    if abs(k[1, 0]) + abs(k[2, 0]) + abs(k[2, 1]) > 1e-9 or abs(k[2, 2] - 1.0) > 1e-6:
        raise ValueError(f"{source}: K must be upper triangular with last row 0 0 1; is it transposed?")
    if not (-width < k[0, 2] < 2 * width and -height < k[1, 2] < 2 * height):
        raise ValueError(f"{source}: principal point {k[0, 2]:g}, {k[1, 2]:g} is far outside the {width} x {height}"
                         " image; K belongs to another resolution")
    if model not in MODELS:
        raise ValueError(f"{source}: model is '{model}'; choose one of {', '.join(MODELS)}")
    allowed = (0, 4) if model == "fisheye" else _PINHOLE_COEFFICIENTS
    if len(d) not in allowed:
        raise ValueError(f"{source}: {len(d)} distortion coefficients; {model} takes {' or '.join(map(str, allowed))}")
    return Camera(int(width), int(height), k, d, frame_id, model)


def _numbers(values: object, name: str) -> np.ndarray:
    try:
        numbers = np.asarray(values, np.float64)
    except (TypeError, ValueError):
        raise ValueError(f"{name} is not numeric: {values!r}") from None
    if not np.all(np.isfinite(numbers)):
        raise ValueError(f"{name} holds NaN or infinity; recalibrate")
    return numbers


@dataclass(frozen=True)
class Crop:
    """A square virtual pinhole view (same orientation, no distortion).  K: [3, 3], size: pixels per side."""

    K: np.ndarray
    size: int

    @staticmethod
    def around(camera: Camera, centre: np.ndarray, side: float, size: int) -> Crop:
        """Crop of `side` source pixels around `centre` [2] (undistorted pixels of `camera`), resampled to `size`."""
        s = size / side
        x, y = (s * (side / 2 - c) - 0.5 for c in centre)
        return Crop(np.array([[s, 0, x], [0, s, y], [0, 0, 1]]) @ np.asarray(camera.K, np.float64), size)

    @staticmethod
    def holding(camera: Camera, points: np.ndarray, scale: float, size: int) -> Crop:
        """Crop of `scale` times the box around camera-frame `points` [..., 3] m (in front of the camera)."""
        pixels = np.reshape(points, (-1, 3)) @ np.asarray(camera.K).T
        pixels = pixels[:, :2] / pixels[:, 2:]
        low, high = pixels.min(0), pixels.max(0)
        return Crop.around(camera, 0.5 * (low + high), scale * float((high - low).max()), size)

    def project(self, points: np.ndarray) -> np.ndarray:
        """Camera-frame points [..., 3] m -> crop pixels [..., 2]."""
        p = np.asarray(points) @ self.K.T
        return p[..., :2] / p[..., 2:]

    def resized(self, size: int) -> Crop:
        """The same view at another resolution."""
        s = size / self.size
        shift = np.array([[s, 0, 0.5 * s - 0.5], [0, s, 0.5 * s - 0.5], [0, 0, 1]])
        return Crop(shift @ self.K, size)
