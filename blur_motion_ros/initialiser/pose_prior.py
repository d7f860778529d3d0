"""The simplest pose prior (interface: `fit.priors.PosePrior`): one Gaussian per joint and limits of knees and elbows.

Means and spreads are those of walking, running, sports and signalling recordings (CMU), the spreads about doubled so
that rarer motions stay affordable. Registration uses the learned mixture where that is packaged, else this one.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from blur_motion_ros.body.joints import SMPL24

# joint: (mean rotation vector, spread) rad, of the left or middle joint; the right one is its mirror image.
# SMPL axes: x to the body's left, y up, z forward.
_LEFT = {
    "hip": ((-0.24, -0.07, 0.00), (0.60, 0.30, 0.30)),
    "spine1": ((0.05, 0.00, 0.00), (0.25, 0.15, 0.15)),
    "knee": ((0.45, 0.00, 0.03), (0.70, 0.10, 0.06)),
    "spine2": ((0.00, 0.00, 0.00), (0.12, 0.15, 0.10)),
    "ankle": ((-0.10, 0.05, 0.00), (0.35, 0.20, 0.20)),
    "spine3": ((0.00, 0.00, 0.00), (0.12, 0.12, 0.10)),
    "foot": ((0.00, 0.00, 0.00), (0.20, 0.08, 0.05)),
    "neck": ((0.10, 0.00, 0.00), (0.25, 0.35, 0.20)),
    "collar": ((0.00, 0.00, -0.05), (0.08, 0.15, 0.15)),
    "head": ((0.05, 0.00, 0.00), (0.25, 0.30, 0.20)),
    "shoulder": ((0.25, -0.40, -1.15), (0.60, 0.60, 0.70)),
    "elbow": ((0.00, -0.70, 0.10), (0.30, 0.70, 0.25)),
    "wrist": ((0.00, 0.00, 0.00), (0.40, 0.20, 0.30)),
    "hand": ((0.00, 0.00, 0.00), (0.05, 0.05, 0.05)),
}
# joint: (axis, sign, limit): sign * angle about the axis stays above -limit (rad), within about _LIMIT_SIGMA.
_LIMITS = {"left_knee": (0, 1, 0.05), "right_knee": (0, 1, 0.05), "left_elbow": (1, -1, 0.05),
           "right_elbow": (1, 1, 0.05)}
_LIMIT_SIGMA = 0.08


@dataclass(frozen=True)
class DiagonalPrior:
    """Independent Gaussians on the rotation vectors.  mean, sigma: [23, 3] rad."""

    mean: np.ndarray
    sigma: np.ndarray

    @staticmethod
    def default() -> DiagonalPrior:
        """The built-in means and spreads."""
        mean, sigma = zip(*(_mean_and_spread(name) for name in SMPL24[1:]), strict=True)
        return DiagonalPrior(np.array(mean), np.array(sigma))

    def energy(self, body_pose: np.ndarray) -> float:
        """Negative log density, zero at the mean."""
        r, _ = self.residual(body_pose)
        return 0.5 * float(r @ r)

    def residual(self, body_pose: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """body_pose [23, 3] rad -> r [73] in standard deviations, J [73, 69] by the rotation vectors."""
        r = ((body_pose - self.mean) / self.sigma).ravel()
        limits, slopes = _limits(body_pose)
        return np.concatenate([r, limits]), np.vstack([np.diag(1 / self.sigma.ravel()), slopes])


def _limits(body_pose: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    residual, jacobian = np.zeros(len(_LIMITS)), np.zeros((len(_LIMITS), 69))
    for i, (name, (axis, sign, limit)) in enumerate(_LIMITS.items()):
        joint = SMPL24.index(name) - 1
        beyond = -limit - sign * body_pose[joint, axis]
        if beyond > 0:
            residual[i] = beyond / _LIMIT_SIGMA
            jacobian[i, 3 * joint + axis] = -sign / _LIMIT_SIGMA
    return residual, jacobian


def _mean_and_spread(name: str) -> tuple[np.ndarray, np.ndarray]:
    mean, spread = _LEFT[name.removeprefix("left_").removeprefix("right_")]
    flip = np.array([1, -1, -1]) if name.startswith("right_") else 1
    return np.array(mean) * flip, np.array(spread)
