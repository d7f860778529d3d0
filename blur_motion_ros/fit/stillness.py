"""What did not change between two exposures did not move.

The image terms must allow for everything that the body model cannot explain (clothes, hair, light), so they measure
small speeds badly. The difference of two exposures is free of that: it needs no model, only the camera's noise. Where
the pixels of the trunk stay the same within noise, the trunk is still; a limb is, where its own pixels do so too. A
limb that is hidden is taken to be still, with less certainty, where all that is seen of the body is: who moves an arm
behind their back moves a shoulder.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from blur_motion_ros.fit.gaussian_terms import CoefficientPrior
from blur_motion_ros.fit.image_terms import Target
from blur_motion_ros.fit.kinematics import FitBody
from blur_motion_ros.fit.layout import FREE_COUNT, LIMB_OF_SLOT, LIMB_SLOTS, WindowLayout
from blur_motion_ros.render.raster import SubFrames

STILL, MOVING = 1.5, 3.0  # ratio of a limb's change to the background's: certainly still below, not still above
STILL_SPEED = (0.01, 0.05)  # one sigma of what "still" leaves open: m/s of the root, rad/s of a joint
_HIDDEN = 4.0  # times as much for a limb that is not seen
_LEAST_NOISE = 0.002  # linear light: quantisation
_LEAST_PIXELS = 12
_LEAST_EMPTY = 50


def still_prior(body: FitBody, layout: WindowLayout, target: Target, frames: SubFrames) -> CoefficientPrior | None:
    """A prior that holds what is seen to be still, or None when nothing is. `frames`: the window as rendered."""
    if len(layout.exposures) < 2:
        return None
    ratio = change_by_limb(body, target, frames, layout.subframes)
    hidden = np.isnan(ratio)
    if hidden[0]:
        return None
    share = np.clip((MOVING - ratio) / (MOVING - STILL), 0.0, 1.0)
    share[hidden] = share[~hidden].min() / _HIDDEN**2
    share *= share[0]  # a limb at rest on a moving trunk turns; it is not still
    if not share.any():
        return None
    speed = np.full(FREE_COUNT, STILL_SPEED[1])
    speed[0] = STILL_SPEED[0]
    sigma = speed * (layout.end - layout.start) / 2
    precision = np.zeros((FREE_COUNT, layout.degree + 1, 3))
    precision[:, 1:] = (share[LIMB_OF_SLOT] / sigma**2)[:, None, None]
    return CoefficientPrior(np.zeros_like(precision), precision)


def change_by_limb(body: FitBody, target: Target, frames: SubFrames, subframes: int) -> np.ndarray:
    """[6] largest change between consecutive exposures of each limb (trunk first), in units of the background's; NaN of
    a limb that shows too few pixels to tell, and of all where there is too little background to compare with."""
    pairs = len(target.value) - 1
    total, pixels = np.zeros((pairs, len(LIMB_SLOTS))), np.zeros((pairs, len(LIMB_SLOTS)))
    quiet = np.empty((pairs, target.size**2))
    empty = _changes(target.value, target.background, frames.vertex, body.limbs_of_vertices, subframes, total, pixels,
                     quiet)
    if empty < _LEAST_EMPTY:
        return np.full(len(LIMB_SLOTS), np.nan)
    noise = np.maximum(np.median(quiet[:, :empty], axis=1), _LEAST_NOISE)[:, None]
    return np.where(pixels >= _LEAST_PIXELS, total / np.maximum(pixels, 1) / noise, np.nan).max(0)


@njit(cache=True, nogil=True)
def _changes(value, background, vertex, limbs_of_vertices, subframes, total, pixels, quiet):
    """Add up, for each pair of exposures, every limb's change and pixels [P, 6]; list the change where nobody is ever
    seen, quiet [P, ...]. Returns how many such pixels there are."""
    size = value.shape[1]
    seen = np.zeros((len(value), size, size), np.uint8)  # bits of the limbs that a pixel shows at some instant
    for m in range(len(vertex)):
        for y in range(size):
            for x in range(size):
                if vertex[m, y, x] >= 0:
                    seen[m // subframes, y, x] |= limbs_of_vertices[vertex[m, y, x]]
    empty = 0
    for y in range(size):
        for x in range(size):
            nobody = _nobody(seen, value, y, x)
            for pair in range(len(value) - 1):
                change = 0.0
                for c in range(3):
                    change += abs(value[pair + 1, y, x, c] + background[pair + 1, y, x, c]
                                  - value[pair, y, x, c] - background[pair, y, x, c]) / 3
                for limb in range(total.shape[1]):
                    if (seen[pair, y, x] | seen[pair + 1, y, x]) >> limb & 1:
                        total[pair, limb] += change
                        pixels[pair, limb] += 1
                if nobody:
                    quiet[pair, empty] = change
            empty += nobody
    return empty


@njit(cache=True, nogil=True)
def _nobody(seen, value, y, x):
    """Whether no exposure shows the body at a pixel."""
    for f in range(len(seen)):
        if seen[f, y, x] or value[f, y, x, 3] >= 0.05:
            return False
    return True
