"""Velocity in the picture: what blur shows directly, without depth and without alignment.

A joint's image velocity (px/s) is the central difference of its projection (`metrics.project`, no distortion) at the
interior sub-frames of an exposure. Errors are lengths of velocity differences.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from blur_motion_ros.evaluation import metrics


@dataclass(frozen=True)
class ImageMotion:
    """Per exposure [F], mean over sub-frames and joints, px/s: error of the image velocity, true image speed. NaN
    where nothing is predicted."""

    error: np.ndarray
    speed: np.ndarray

    @property
    def share(self) -> float:
        """Summed error over summed true speed of the predicted exposures: 1 is what predicting no motion gives."""
        return ratio(self.error, self.speed)


def image_velocity(joints: np.ndarray, times: np.ndarray, K: np.ndarray) -> np.ndarray:
    """[F, S - 2, J, 2] px/s of camera-frame joints [F, S, J, 3] m at times [F, S] s."""
    return metrics.velocity(metrics.project(joints, K), times)


def image_motion(joints: np.ndarray, truth: np.ndarray, times: np.ndarray, K: np.ndarray) -> ImageMotion:
    """Joints and truth [F, S, J, 3] m at the same times [F, S] s (see `metrics.resample`); S >= 3."""
    if joints.shape != truth.shape or times.shape != joints.shape[:2] or times.shape[1] < 3:
        raise ValueError(f"joints {joints.shape}, truth {truth.shape}, times {times.shape}; expected twice"
                         " [F, S, J, 3] and [F, S] with S of at least 3")
    known = np.isfinite(joints).all((1, 2, 3))
    true = image_velocity(truth, times, K)
    error = np.linalg.norm(image_velocity(joints, times, K) - true, axis=-1).mean((1, 2))
    speed = np.linalg.norm(true, axis=-1).mean((1, 2))
    return ImageMotion(np.where(known, error, np.nan), np.where(known, speed, np.nan))


def ratio(part: np.ndarray, whole: np.ndarray) -> float:
    """Sum of `part` over sum of `whole`, both where both are finite; NaN if nothing is left."""
    known = np.isfinite(part) & np.isfinite(whole)
    total = whole[known].sum()
    return float(part[known].sum() / total) if total > 0 else float("nan")
