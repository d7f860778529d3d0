"""What did not change between two exposures did not move.

The image terms must allow for everything that the body model cannot explain (clothes, hair, light), so they measure
small speeds badly. The difference of two exposures is free of that: it needs no model, only the camera's noise. Where
the pixels of the trunk stay the same within noise, the trunk is still; a limb is, where its own pixels do so too.
"""

from __future__ import annotations

import numpy as np

from blur_motion_ros.fit.gaussian_terms import CoefficientPrior
from blur_motion_ros.fit.image_terms import Target
from blur_motion_ros.fit.kinematics import FitBody
from blur_motion_ros.fit.layout import FREE_COUNT, LIMB_OF_SLOT, LIMB_SLOTS, SLOT_OF_JOINT, WindowLayout
from blur_motion_ros.render.raster import SubFrames

STILL, MOVING = 1.5, 3.0  # ratio of a limb's change to the background's: certainly still below, not still above
STILL_SPEED = (0.01, 0.05)  # one sigma of what "still" leaves open: m/s of the root, rad/s of a joint
_LEAST_NOISE = 0.002  # linear light: quantisation
_LEAST_PIXELS = 12


def still_prior(body: FitBody, layout: WindowLayout, target: Target, frames: SubFrames) -> CoefficientPrior | None:
    """A prior that holds what is seen to be still, or None when nothing is. `frames`: the window as rendered."""
    if len(layout.exposures) < 2:
        return None
    ratio = change_by_limb(body, target, frames, layout.subframes)
    share = np.clip((MOVING - ratio) / (MOVING - STILL), 0.0, 1.0)
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
    """[6] largest change between consecutive exposures of each limb (trunk first), in units of the background's.

    A limb that shows too few pixels to tell counts as moving.
    """
    image = target.value[..., :3] + target.background
    difference = np.abs(np.diff(image, axis=0)).mean(-1)
    limbs = _limbs_seen(body, frames, subframes)
    empty = (limbs == 0).all(0) & (target.value[..., 3] < 0.05).all(0)
    if empty.sum() < 50:
        return np.full(len(LIMB_SLOTS), np.inf)
    noise = np.maximum(np.median(difference[:, empty], axis=1), _LEAST_NOISE)
    out = np.zeros(len(LIMB_SLOTS))
    for limb in range(len(LIMB_SLOTS)):
        for pair in range(len(difference)):
            mine = ((limbs[pair] | limbs[pair + 1]) >> limb & 1) > 0
            enough = mine.sum() >= _LEAST_PIXELS
            out[limb] = max(out[limb], difference[pair][mine].mean() / noise[pair] if enough else np.inf)
    return out


def _limbs_seen(body: FitBody, frames: SubFrames, subframes: int) -> np.ndarray:
    """[F, S, S] bits of the limbs that a pixel shows at some instant of the exposure."""
    owner = np.append(1 << LIMB_OF_SLOT[_nearest_slot(body)], 0)  # the last entry serves empty pixels (vertex -1)
    bits = owner[frames.vertex].reshape((-1, subframes) + frames.vertex.shape[1:])
    return np.bitwise_or.reduce(bits, axis=1)


def _nearest_slot(body: FitBody) -> np.ndarray:
    """[V] the slot of the joint with the largest skin weight (hands and feet: of the joint above them)."""
    joint = body.weight_joints[:, 0]
    slot = SLOT_OF_JOINT[joint]
    return np.where(slot >= 0, slot, SLOT_OF_JOINT[body.parents[joint]])
