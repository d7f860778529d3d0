"""A few representative colours of a weighted set of pixels (deterministic k-means, compiled)."""

from __future__ import annotations

import numpy as np
from numba import njit

_SAMPLES = 600
_ROUNDS = 5


def palette_of(image: np.ndarray, weight: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Colours [count, 3], their spread (one-channel sd) [count] and share [count] of pixels with `weight` [H, W] > 0.

    Shares add up to less than 1 and are 0 for unused colours.
    """
    chosen = np.flatnonzero(weight.ravel() > 0.3)
    colours, share = np.zeros((count, 3), np.float32), np.zeros(count, np.float32)
    spread = np.full(count, 0.02, np.float32)
    if len(chosen) < count:
        return colours, spread, share
    chosen = chosen[:: max(len(chosen) // _SAMPLES, 1)]
    # distances in square-root light: dark colours count as much as bright ones
    pixels = np.sqrt(np.maximum(image.reshape(-1, 3)[chosen], 0.0))
    label = _kmeans(pixels, count, _ROUNDS)
    _describe(pixels, label, colours, spread, share)
    return colours, spread, 0.3 * (0.5 * share + 0.5 * (share > 0) / count).astype(np.float32)


@njit(cache=True, nogil=True, fastmath=True, error_model="numpy")
def _kmeans(pixels, count, rounds):
    """Farthest-point start, then Lloyd iterations. Returns label [N]."""
    n = pixels.shape[0]
    centres = np.zeros((count, 3), np.float32)
    label = np.zeros(n, np.int64)
    nearest = np.full(n, 1e9)
    pick = n // 2
    for k in range(count):
        for c in range(3):  # not as a slice: that would bring seconds of numba's own code to compile
            centres[k, c] = pixels[pick, c]
        far = -1.0
        for i in range(n):
            d = 0.0
            for c in range(3):
                d += (pixels[i, c] - centres[k, c]) ** 2
            nearest[i] = min(nearest[i], d)
            if nearest[i] > far:
                far, pick = nearest[i], i
    for _ in range(rounds):
        sums = np.zeros((count, 4))
        for i in range(n):
            best = 1e9
            for k in range(count):
                d = 0.0
                for c in range(3):
                    d += (pixels[i, c] - centres[k, c]) ** 2
                if d < best:
                    best, label[i] = d, k
            for c in range(3):
                sums[label[i], c] += pixels[i, c]
            sums[label[i], 3] += 1.0
        for k in range(count):
            if sums[k, 3] > 0.0:
                for c in range(3):
                    centres[k, c] = sums[k, c] / sums[k, 3]
    return label


@njit(cache=True, fastmath=True, error_model="numpy")
def _describe(roots, label, colours, spread, share):
    """Fill mean light, its one-channel sd (with a floor for shading) and share of pixels (given as roots of light)."""
    for k in range(colours.shape[0]):
        total, power, n = np.zeros(3), 0.0, 0
        for i in range(label.shape[0]):
            if label[i] == k:
                n += 1
                for c in range(3):
                    light = roots[i, c] ** 2
                    total[c] += light
                    power += light**2
        if n > 0:
            squares = 0.0
            for c in range(3):
                mean = total[c] / n
                squares += mean * mean
                colours[k, c] = mean
            variance = (power / n - squares) / 3.0
            share[k], spread[k] = n / label.shape[0], np.sqrt(max(variance, 0.0) + 1e-4)
