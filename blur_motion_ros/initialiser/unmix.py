"""Makes blurred limbs visible to a network trained on sharp people.

A limb that covers a pixel for a third of the exposure shows at a third of its contrast: I = (1 - a) B + a F. With the
clean plate B the mixture can be undone, F = B + (I - B) / a, and the plate replaced by plain grey. The coverage `a`
is only a guess here (contrast against a typical opaque one): it feeds the pose network, not the fit.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numba import njit

from blur_motion_ros import light
from blur_motion_ros.types import UNKNOWN_BACKGROUND

GREY = 0.3  # linear light of the replaced background
_CONTRAST = (0.04, 0.15)  # of an opaque body against a plate of brightness B (linear): 0.04 + 0.15 B
_FLOOR = 0.1  # least contrast ratio taken for the body; also the least coverage divided by
_NOISE = 1.0  # plate sigmas of difference ignored
_VISIBLE = 3.0  # coverage is multiplied by this (clipped to 1) before the body is put over grey


def unmix(crop: np.ndarray, plate: np.ndarray, sigma: np.ndarray | None = None) -> np.ndarray:
    """The person over grey, opaque where they were transparent with blur.

    crop: [S, S, 3] uint8 sRGB.  plate: [S, S, 3] float32 linear light.  sigma: [S, S] float32, its noise (linear).
    Returns [S, S, 3] float32 sRGB in [0, 1]. A plate that does not fit at all (say, another exposure) gives the crop
    back almost unchanged, and so does one that knows nothing of a pixel (`types.UNKNOWN_BACKGROUND`).
    """
    import cv2

    linear = light.to_linear(crop)
    noise = np.zeros(crop.shape[:2], np.float32) if sigma is None else np.asarray(sigma, np.float32)
    ratio = _contrast(linear, np.ascontiguousarray(plate, np.float32), noise)
    return _over_grey(linear, plate, cv2.GaussianBlur(ratio, (0, 0), 1.5), _encoding())


@lru_cache(maxsize=1)
def _encoding(steps: int = 4096) -> np.ndarray:
    """Table of sRGB values in [0, 1] for linear light in equal steps."""
    x = np.linspace(0, 1, steps + 1)
    return np.where(x <= 0.0031308, 12.92 * x, 1.055 * x ** (1 / 2.4) - 0.055).astype(np.float32)


@njit(cache=True, nogil=True, fastmath=True)
def _contrast(image, plate, noise):
    out = np.empty(image.shape[:2], np.float32)
    for y in range(out.shape[0]):
        for x in range(out.shape[1]):
            if noise[y, x] > np.float32(UNKNOWN_BACKGROUND):
                out[y, x] = np.float32(1 + _FLOOR)  # opaque: whoever stands there must not be taken away
                continue
            difference = np.float32(0)
            bright = np.float32(0)
            for c in range(3):
                difference = max(difference, abs(image[y, x, c] - plate[y, x, c]))
                bright = max(bright, plate[y, x, c])
            difference = max(difference - np.float32(_NOISE) * noise[y, x], np.float32(0))
            out[y, x] = difference / np.float32(_CONTRAST[0] + _CONTRAST[1] * bright)
    return out


@njit(cache=True, nogil=True, fastmath=True)
def _over_grey(image, plate, ratio, encoding):
    out = np.empty(image.shape, np.float32)
    last = len(encoding) - 1
    for y in range(out.shape[0]):
        for x in range(out.shape[1]):
            a = min(max(ratio[y, x] - np.float32(_FLOOR), np.float32(0)), np.float32(1))
            m = min(np.float32(_VISIBLE) * a, np.float32(1))
            m = m * m * (np.float32(3) - np.float32(2) * m)
            gain = np.float32(1) / max(a, np.float32(_FLOOR))
            for c in range(3):
                body = plate[y, x, c] + (image[y, x, c] - plate[y, x, c]) * gain
                value = m * min(max(body, np.float32(0)), np.float32(1)) + (np.float32(1) - m) * np.float32(GREY)
                out[y, x, c] = encoding[int(value * last + np.float32(0.5))]
    return out
