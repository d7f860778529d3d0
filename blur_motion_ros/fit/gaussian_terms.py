"""Quadratic terms of the joint loss, each with cost, Gauss-Newton matrix and right-hand side over the unknowns.

The unknowns are the flattened free coefficients (see `fit.layout`). Every term answers
`cost(state) -> float` and `normal(state) -> (H [n, n], g [n])`, where a Gauss-Newton step solves `sum(H) d = sum(g)`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np

from blur_motion_ros.fit.layout import FREE_COUNT, FREE_JOINTS
from blur_motion_ros.motion import rotations

# Which entries of a measurement's 75-vector (transl, then 24 joints) belong to the free slots, in slot order.
MEASURED = np.concatenate([np.arange(3), (3 + 3 * FREE_JOINTS[:, None] + np.arange(3)).reshape(-1)])


class Term(Protocol):
    """One summand of the joint loss. `free` is [21, K, 3]."""

    def cost(self, free: np.ndarray) -> float: ...

    def normal(self, free: np.ndarray) -> tuple[np.ndarray, np.ndarray]: ...


@dataclass(frozen=True)
class CoefficientPrior:
    """Gaussian on the coefficients: mean [21, K, 3], precision [21, K, 3] (1 / sigma^2).

    Serves as the warm-start prior (mean = extrapolated previous motion) and, with mean zero in the higher orders, as
    the polynomial regulariser of Human from Blur in its Frobenius form.
    """

    mean: np.ndarray
    precision: np.ndarray

    def cost(self, free: np.ndarray) -> float:
        return float((self.precision * (free - self.mean) ** 2).sum())

    def normal(self, free: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return np.diag(self.precision.reshape(-1)), (self.precision * (self.mean - free)).reshape(-1)


@dataclass(frozen=True)
class PoseGaussian:
    """A measured pose at one instant as a Gaussian with full covariance, robust against being plain wrong.

    reference [24, 3, 3], reference_transl [3]: what the coefficients are relative to; rotation [24, 3, 3], transl [3]:
    the measured pose; information [63, 63] over the free slots; basis [K] at its time; cutoff: of the Geman-McClure
    loss on the squared Mahalanobis distance: a measurement far outside its covariance (swapped sides, another person)
    costs at most this much, instead of pulling the fit away.
    """

    reference: np.ndarray
    reference_transl: np.ndarray
    rotation: np.ndarray
    transl: np.ndarray
    information: np.ndarray
    basis: np.ndarray
    cutoff: float = 252.0

    def cost(self, free: np.ndarray) -> float:
        squared = self.squared(free)
        return squared / (1 + squared / self.cutoff)

    def squared(self, free: np.ndarray) -> float:
        """Squared Mahalanobis distance of the motion from the measurement (63 where all is well)."""
        error = self._error(np.einsum("k,jkc->jc", self.basis, free))
        return float(error @ self.information @ error)

    def normal(self, free: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        value = np.einsum("k,jkc->jc", self.basis, free)
        error = self._error(value)
        pull = self.information @ error
        weight = 1 / (1 + float(error @ pull) / self.cutoff) ** 2
        blocks = np.tile(np.eye(3), (FREE_COUNT, 1, 1))
        delta = error.reshape(-1, 3)[1:]
        blocks[1:] = rotations.inverse_right_jacobian(delta) @ rotations.right_jacobian(value[1:])
        information = self.information.reshape(FREE_COUNT, 3, FREE_COUNT, 3)
        turned = np.swapaxes(blocks, -1, -2)[:, None] @ np.swapaxes(information, 1, 2) @ blocks[None]
        gradient = -weight * (np.swapaxes(blocks, -1, -2) @ pull.reshape(-1, 3, 1))[..., 0]
        return spread(weight * turned, self.basis), (gradient[:, None] * self.basis[:, None]).reshape(-1)

    def _error(self, value: np.ndarray) -> np.ndarray:
        """Estimate minus measurement [63], in the measurement's tangent; value [21, 3]: the pose at its time."""
        local = self.reference[FREE_JOINTS] @ rotations.exp(value[1:])
        delta = rotations.log(np.swapaxes(self.rotation[FREE_JOINTS], -1, -2) @ local)
        return np.concatenate([self.reference_transl + value[0] - self.transl, delta.reshape(-1)])


@dataclass(frozen=True)
class RotationVectorPrior:
    """A static pose prior (`fit.priors`) applied to the pose at one instant.

    prior.residual(body_pose [23, 3]) -> (r [m], J [m, 69]) in rotation vectors; weight multiplies the squared residual.
    """

    reference: np.ndarray
    prior: object
    basis: np.ndarray
    weight: float

    def cost(self, free: np.ndarray) -> float:
        r, _, _ = self._residual(free)
        return self.weight * float(r @ r)

    def normal(self, free: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        r, jacobian, blocks = self._residual(free)
        full = np.zeros((len(r), FREE_COUNT, 3))
        body = FREE_JOINTS[1:] - 1
        full[:, 2:] = jacobian.reshape(len(r), 23, 3)[:, body]
        full = np.einsum("msa,sab->msb", full, blocks)
        wide = np.einsum("msb,k->mskb", full, self.basis).reshape(len(r), -1)
        return self.weight * wide.T @ wide, -self.weight * (wide.T @ r)

    def _residual(self, free: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        value = np.einsum("k,jkc->jc", self.basis, free)
        local = self.reference.copy()
        local[FREE_JOINTS] = self.reference[FREE_JOINTS] @ rotations.exp(value[1:])
        pose = rotations.log(local[1:])
        r, jacobian = self.prior.residual(pose)
        blocks = np.zeros((FREE_COUNT, 3, 3))
        blocks[2:] = (rotations.inverse_right_jacobian(pose[FREE_JOINTS[1:] - 1])
                      @ rotations.right_jacobian(value[2:]))
        return r, jacobian, blocks


def spread(blocks: np.ndarray, basis: np.ndarray) -> np.ndarray:
    """A matrix over the pose at one instant, [21, 21, 3, 3] -> the same over all coefficients [n, n]."""
    count, orders = len(blocks), len(basis)
    wide = np.swapaxes(blocks, 1, 2)[:, None, :, :, None] * np.outer(basis, basis)[None, :, None, None, :, None]
    return wide.reshape(count * orders * 3, count * orders * 3)
