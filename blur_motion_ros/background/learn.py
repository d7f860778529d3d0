"""Per-pixel learning of the plate (compiled): slow, gated, and never where the person is.

A pixel that agrees with the plate refines it. A pixel that disagrees starts a candidate; only a candidate that holds
still long enough, with nobody near it all the while, becomes the plate.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from blur_motion_ros.background.drift import cell_row

FREE, PERSON = 0, 1  # values of the mask given to `learn`
_GATE = 9.0  # squared distance in noise variances (mean over colours) within which two colours are the same
_SLOWEST = 1.0 / 64.0  # the plate follows lasting change at least this fast, share per frame
_SCATTER_RATE = 1.0 / 32.0
_MOST_SCATTER = 25.0
_LEAST_SIGHTINGS = 6


@njit(cache=True, nogil=True, error_model="numpy")
def learn(frame, table, noise, gain, offset, left, share, mask, sure, now, settle, replace, plate, age, scatter,
          candidate, since, sightings, first, step):
    """Update plate [H, W, 3] (linear), age [H, W] (0 = unknown), scatter [H, W] and the candidates in place.

    frame [H, W, 3] uint8; table [256] light of a code, noise [256] its sd; gain, offset [6, 8, 3], left, share [W]:
    the drift (drift.py), frame = gain plate + offset; mask [H, W]; sure: whether the mask is known to show everybody
    (else a known pixel is never replaced, and an unknown one waits as long as a known one would); now, settle,
    replace: seconds; candidate [H, W, 3], since, sightings [H, W]; of the rows only every `step`-th from `first`.
    """
    h, w = mask.shape
    f, g, o = np.empty(3), np.empty((gain.shape[1], 3)), np.empty((gain.shape[1], 3))
    for y in range(first, h, step):
        cell_row(gain, y, h, g)
        cell_row(offset, y, h, o)
        for x in range(w):
            if mask[y, x] == PERSON:
                sightings[y, x] = 0
                continue
            k, t = left[x], share[x]
            for c in range(3):
                seen = table[frame[y, x, c]] - o[k, c] - t * (o[k + 1, c] - o[k, c])
                f[c] = seen / (g[k, c] + t * (g[k + 1, c] - g[k, c]))
            brightest = max(frame[y, x, 0], frame[y, x, 1], frame[y, x, 2])
            variance = noise[brightest] ** 2 * scatter[y, x]
            known = age[y, x] > 0
            if known:
                d = _distance(f, plate[y, x], variance)
                if d < _GATE:
                    rate = max(1.0 / (age[y, x] + 1.0), _SLOWEST)
                    for c in range(3):
                        plate[y, x, c] += rate * (f[c] - plate[y, x, c])
                    age[y, x] = min(age[y, x] + 1, 1000)
                    scatter[y, x] += _SCATTER_RATE * (d * scatter[y, x] - scatter[y, x])
                    scatter[y, x] = min(max(scatter[y, x], 1.0), _MOST_SCATTER)
                    sightings[y, x] = 0
                    continue
                if not sure:
                    continue
            if sightings[y, x] == 0 or _distance(f, candidate[y, x], variance) >= _GATE:
                for c in range(3):
                    candidate[y, x, c] = f[c]
                since[y, x], sightings[y, x] = now, 1
                continue
            n = min(sightings[y, x] + 1, 1000)
            sightings[y, x] = n
            for c in range(3):
                candidate[y, x, c] += (f[c] - candidate[y, x, c]) / n
            if n >= _LEAST_SIGHTINGS and now - since[y, x] >= (settle if sure and not known else replace):
                for c in range(3):
                    plate[y, x, c] = candidate[y, x, c]
                age[y, x], scatter[y, x], sightings[y, x] = n, 1.0, 0


@njit(cache=True, nogil=True, inline="always", error_model="numpy")
def _distance(a, b, variance):
    """Mean squared difference of two colours in units of `variance`."""
    return ((a[0] - b[0]) ** 2 + (a[1] - b[1]) ** 2 + (a[2] - b[2]) ** 2) / (3.0 * variance)
