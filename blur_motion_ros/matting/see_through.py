"""Transparency seen directly: how much of the plate's texture shows through the person.

Where alpha < 1, I = a F + (1 - a) B carries the plate's texture with slope 1 - a, whatever F is. The regression of I
on B in a small window measures it. Nothing can be said over a plain wall (sd is then large); over texture it tells a
blurred limb from an opaque one even where the pose network calls both a person.
"""

from __future__ import annotations

import cv2
import numpy as np

UNSEEN = 9.0  # sd where nothing can be said
_MODEL_ERROR = 2.5  # the person's own texture and edges of the window make errors this much larger than noise would
_LEAST_SD = 0.2


def see_through(image: np.ndarray, plate: np.ndarray, sigma: np.ndarray, inside: np.ndarray,
                radius: float) -> tuple[np.ndarray, np.ndarray]:
    """Alpha and its sd [H, W] from the plate's texture in windows of `radius` px within `inside` [H, W] uint8."""
    alpha, sd = np.ones(inside.shape, np.float32), np.full(inside.shape, UNSEEN, np.float32)
    x, y, w, h = cv2.boundingRect(inside)
    if w < 3 or h < 3:
        return alpha, sd
    box = np.s_[y:y + h, x:x + w]
    alpha[box], sd[box] = _regress(image[box], plate[box], sigma[box], inside[box].astype(np.float32), radius)
    return alpha, sd


def channel_dot(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """[H, W] dot product over the channels of [H, W, C] (several times faster than a sum over a short axis)."""
    return np.einsum("ijk,ijk->ij", a, b)


def _regress(image: np.ndarray, plate: np.ndarray, sigma: np.ndarray, weight: np.ndarray,
             radius: float) -> tuple[np.ndarray, np.ndarray]:
    """Weighted regression of image on plate, channels pooled after each lost its own mean."""
    side = 2 * max(int(round(1.8 * radius)), 1) + 1

    def mean(v: np.ndarray) -> np.ndarray:
        return cv2.blur(v, (side, side), borderType=cv2.BORDER_CONSTANT)

    share = np.maximum(mean(weight), 1e-3)
    mean_i, mean_b = (mean(v * weight[..., None]) / share[..., None] for v in (image, plate))
    products = np.dstack([channel_dot(image, plate), channel_dot(plate, plate), channel_dot(image, image)])
    products = mean(products * weight[..., None]) / share[..., None]
    cross = products[..., 0] - channel_dot(mean_i, mean_b)
    power = np.maximum(products[..., 1] - channel_dot(mean_b, mean_b), 1e-7)
    slope = cross / power
    residual = np.maximum(products[..., 2] - channel_dot(mean_i, mean_i) - slope**2 * power, 0.0)
    count = side * side * share
    variance = (residual / np.maximum(count - 2.0, 1.0) + 3.0 * sigma**2 / count) / power
    return 1.0 - slope, np.sqrt(_MODEL_ERROR**2 * variance + _LEAST_SD**2)
