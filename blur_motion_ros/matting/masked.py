"""Alpha where the background is not known: the pose network's mask.

It is coarse and knows no transparency, so it tells where the body is and hardly how it moved; but without it the fit
would have landmarks only.
"""

from __future__ import annotations

import numpy as np

from blur_motion_ros.types import Matte

MASK_SIGMA = np.float32(0.25)  # of the mask as an alpha


def masked(mask: np.ndarray) -> Matte:
    """The matte of a frame without any background; mask [H, W] soft, in [0, 1]."""
    alpha = np.clip(mask, 0, 1).astype(np.float32)
    return Matte(alpha, np.full(alpha.shape, MASK_SIGMA), np.zeros(alpha.shape, np.float32))


def completed(matte: Matte, unknown: np.ndarray, sigma: np.float32 = MASK_SIGMA) -> Matte:
    """A matte that was made with a mask, where the background is unknown [H, W] bool in places: `sigma` there."""
    if not unknown.any():
        return matte
    return Matte(matte.alpha, np.where(unknown, sigma, matte.sigma), 1.0 - unknown.astype(np.float32))
