"""Brightness drift between the plate and a frame: frame = gain * plate + offset, per colour, smooth over the image.

Auto exposure and white balance change the gain; stray light and tone mapping act like an offset. Both are fitted
robustly on a grid of samples outside the person, first for the whole image, then as small deviations per cell.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import cv2
import numpy as np
from numba import njit

CELLS = (6, 8)  # rows, columns
_ROUNDS = 4
_MEDIAN_SAMPLES = 2000
_CUT = 3.0  # residuals beyond this many noise sd (of the fit's own scale) hardly count
_OFFSET_SD = 0.05  # prior of the global offset, linear light
_CELL_GAIN_SD, _CELL_OFFSET_SD = 0.15, 0.02  # prior of a cell's deviation from the global fit
_CELL_SAMPLES = 40.0  # a cell's samples are not independent: they count as at most this many


@dataclass(frozen=True)
class Drift:
    """gain, offset: [6, 8, 3] at the cells' centres.  scale: [6, 8] residual / expected noise, at least 1.

    explained: share of the samples that the plate explains.  samples: how many there were.
    """

    gain: np.ndarray
    offset: np.ndarray
    scale: np.ndarray
    explained: float
    samples: int

    @staticmethod
    def none() -> Drift:
        cells = np.ones(CELLS + (3,), np.float32)
        return Drift(cells, 0.0 * cells, np.ones(CELLS, np.float32), 1.0, 0)

    def applied(self, plate: np.ndarray) -> np.ndarray:
        """gain * plate + offset, clipped to [0, 1]; [H, W, 3] float32."""
        out = np.empty_like(plate)
        height, width = plate.shape[:2]
        _apply(plate.reshape(height, -1), self.gain, self.offset, *columns_of(width), out.reshape(height, -1))
        return out


def spread(cells: np.ndarray, width: int, height: int) -> np.ndarray:
    """Cell values [6, 8] -> smooth image [height, width] float32, the interpolation of `applied`."""
    return cv2.resize(cells, (width, height), interpolation=cv2.INTER_LINEAR)


@lru_cache(maxsize=4)
def columns_of(width: int) -> tuple[np.ndarray, np.ndarray]:
    """For every image column: the cell column left of it, and how far it is towards the next."""
    u = np.clip((np.arange(width) + 0.5) * CELLS[1] / width - 0.5, 0.0, CELLS[1] - 1.0)
    left = np.minimum(u.astype(np.int64), CELLS[1] - 2)
    return left, (u - left).astype(np.float32)


@njit(cache=True, nogil=True, error_model="numpy")
def cell_row(cells, y, height, out):
    """Interpolate cells [6, 8, 3] to image row y of `height`: out [8, 3]."""
    v = min(max((y + 0.5) * cells.shape[0] / height - 0.5, 0.0), cells.shape[0] - 1.0)
    top = min(int(v), cells.shape[0] - 2)
    t = v - top
    for k in range(cells.shape[1]):
        for c in range(3):
            out[k, c] = cells[top, k, c] + t * (cells[top + 1, k, c] - cells[top, k, c])


@njit(cache=True, nogil=True, error_model="numpy", fastmath=True)
def _apply(plate, gain, offset, left, share, out):
    """out [H, 3 W] = gain * plate [H, 3 W] + offset, clipped; cells [6, 8, 3], left, share [W]: of `columns_of`."""
    h, w = plate.shape
    g, o = _over_columns(gain, left, share), _over_columns(offset, left, share)
    for y in range(h):
        v = min(max((y + 0.5) * gain.shape[0] / h - 0.5, 0.0), gain.shape[0] - 1.0)
        top = min(int(v), gain.shape[0] - 2)
        t = np.float32(v - top)
        g0, g1, o0, o1, row, to = g[top], g[top + 1], o[top], o[top + 1], plate[y], out[y]
        for i in range(w):
            value = row[i] * (g0[i] + t * (g1[i] - g0[i])) + o0[i] + t * (o1[i] - o0[i])
            to[i] = min(max(value, np.float32(0.0)), np.float32(1.0))


@njit(cache=True, nogil=True)
def _over_columns(cells, left, share):
    """Cells [6, 8, 3] interpolated to the image's columns: [6, 3 W]."""
    out = np.empty((cells.shape[0], 3 * left.size), np.float32)
    for k in range(cells.shape[0]):
        for x in range(left.size):
            for c in range(3):
                a, b = cells[k, left[x], c], cells[k, left[x] + 1, c]
                out[k, 3 * x + c] = a + share[x] * (b - a)
    return out


def fit_drift(frame: np.ndarray, plate: np.ndarray, sigma: np.ndarray, cell: np.ndarray, local: bool) -> Drift:
    """Drift from samples: frame, plate [N, 3] linear light (not saturated), sigma [N] noise, cell [N] index into 6 x 8.

    With fewer than 50 samples nothing can be said: the drift is none.
    """
    if len(frame) < 50:
        return Drift.none()
    few = np.s_[::_few(len(frame))]
    ratio = np.median(frame[few] / np.maximum(plate[few], 1e-3), axis=0)
    gain, offset, weight, level = _fit_global(frame, plate, sigma, ratio.astype(np.float64))
    cells = (CELLS[0] * CELLS[1])
    gains, offsets = np.tile(gain, (cells, 1)), np.tile(offset, (cells, 1))
    if local:
        _fit_cells(frame, plate, sigma * level, cell, weight, gains, offsets)
    scale, explained = _residual_scale(frame, plate, sigma, cell, gains, offsets)
    gains, offsets = (v.reshape(CELLS + (3,)).astype(np.float32) for v in (gains, offsets))
    return Drift(gains, offsets, np.sqrt(scale).reshape(CELLS).astype(np.float32), float(explained), len(frame))


def _fit_global(frame: np.ndarray, plate: np.ndarray, sigma: np.ndarray,
                ratio: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, float]:
    """Robust gain, offset [3]; weight [N] of the samples; level: their residual in units of sigma."""
    gain, offset, level = ratio.copy(), np.zeros(3), 1.0
    misfit, weight = np.empty(len(frame)), np.empty(len(frame))
    for _ in range(_ROUNDS):
        _misfit(frame, plate, sigma, gain, offset, misfit)
        level = max(float(np.sqrt(np.median(misfit[::_few(len(misfit))]) / 0.79)), 1.0)
        _reweighted(frame, plate, sigma, misfit, level, gain, offset, weight)
    return gain, offset, weight, level


def _few(samples: int) -> int:
    """Step that leaves enough of the samples for a median."""
    return max(samples // _MEDIAN_SAMPLES, 1)


@njit(cache=True, nogil=True, error_model="numpy")
def _misfit(frame, plate, sigma, gain, offset, misfit):
    for i in range(frame.shape[0]):
        r = 0.0
        for c in range(3):
            r += (frame[i, c] - gain[c] * plate[i, c] - offset[c]) ** 2
        misfit[i] = r / (3.0 * sigma[i] ** 2)


@njit(cache=True, nogil=True, error_model="numpy")
def _reweighted(frame, plate, sigma, misfit, level, gain, offset, weight):
    """One round of reweighted least squares: weight [N] by misfit; gain, offset [3], each colour by itself."""
    n = frame.shape[0]
    for i in range(n):
        weight[i] = 1.0 / (1.0 + misfit[i] / (level * _CUT) ** 2) ** 2
    for c in range(3):
        s0, s1, s2, t0, t1 = (level / _OFFSET_SD) ** 2, 0.0, 1e-9, 0.0, 0.0
        for i in range(n):
            w, b, f = weight[i] / sigma[i] ** 2, plate[i, c], frame[i, c]
            s0 += w
            s1 += w * b
            s2 += w * b * b
            t0 += w * f
            t1 += w * f * b
        determinant = s0 * s2 - s1 * s1
        if determinant > 1e-9 * s0 * s2:
            gain[c] = (s0 * t1 - s1 * t0) / determinant
            offset[c] = (s2 * t0 - s1 * t1) / determinant


@njit(cache=True, nogil=True, error_model="numpy")
def _fit_cells(frame, plate, sigma, cell, weight, gains, offsets):
    """Add to gains, offsets [cells, 3] what each cell and its neighbours ask for, shrunk towards the global fit."""
    rows, columns = CELLS
    cells = rows * columns
    sums = np.zeros((cells, 3, 6))
    for i in range(frame.shape[0]):
        k = cell[i]
        for c in range(3):
            b = plate[i, c]
            e = frame[i, c] - gains[k, c] * b - offsets[k, c]
            w = weight[i] / sigma[i] ** 2
            s = sums[k, c]
            s[0] += w
            s[1] += w * b
            s[2] += w * b * b
            s[3] += w * e
            s[4] += w * e * b
            s[5] += 1.0
    for k in range(cells):
        y, x = k // columns, k % columns
        for c in range(3):
            s = np.zeros(6)
            for j in range(cells):
                d2 = (j // columns - y) ** 2 + (j % columns - x) ** 2
                if d2 <= 2:
                    s += sums[j, c] * (1.0 if d2 == 0 else 0.35)
            if s[5] < 5.0:
                continue
            s *= min(1.0, _CELL_SAMPLES / s[5])
            a, b, d = s[2] + 1.0 / _CELL_GAIN_SD**2, s[1], s[0] + 1.0 / _CELL_OFFSET_SD**2
            determinant = a * d - b * b
            gains[k, c] += (d * s[4] - b * s[3]) / determinant
            offsets[k, c] += (a * s[3] - b * s[4]) / determinant


@njit(cache=True, nogil=True, error_model="numpy")
def _residual_scale(frame, plate, sigma, cell, gains, offsets):
    """Mean squared residual / noise of each cell [cells] (outliers clipped, at least 1), share within 3 sd."""
    cells = CELLS[0] * CELLS[1]
    total, count = np.zeros(cells), np.zeros(cells)
    good = 0
    for i in range(frame.shape[0]):
        k, r = cell[i], 0.0
        for c in range(3):
            r += (frame[i, c] - gains[k, c] * plate[i, c] - offsets[k, c]) ** 2
        r /= 3.0 * sigma[i] ** 2
        good += r < 9.0
        total[k] += min(r, 25.0)
        count[k] += 1.0
    for k in range(cells):
        total[k] = max(total[k] / count[k], 1.0) if count[k] > 3.0 else 1.0
    return total, good / max(frame.shape[0], 1)
