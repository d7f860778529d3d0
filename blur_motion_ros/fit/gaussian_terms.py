"""Quadratic terms of the joint loss, each with cost, Gauss-Newton matrix and right-hand side over the unknowns.

The unknowns are the flattened free coefficients (see `fit.layout`). Every term answers
`cost(state) -> float` and `normal(state) -> (H [n, n], g [n])`, where a Gauss-Newton step solves `sum(H) d = sum(g)`.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

import numpy as np
from numba import njit

from blur_motion_ros.fit import linear
from blur_motion_ros.fit.layout import FREE_COUNT, FREE_JOINTS, LIMB_SLOTS
from blur_motion_ros.motion import rotations

_LIMBS = np.array(LIMB_SLOTS)
# Which entries of a measurement's 75-vector (transl, then 24 joints) belong to the free slots, in slot order.
MEASURED = np.concatenate([np.arange(3), (3 + 3 * FREE_JOINTS[:, None] + np.arange(3)).reshape(-1)])


class Term(Protocol):
    """One summand of the joint loss. `free` is [21, K, 3]."""

    def cost(self, free: np.ndarray) -> float: ...

    def normal(self, free: np.ndarray) -> tuple[np.ndarray, np.ndarray]: ...


def add_normal(term: Term, free: np.ndarray, hessian: np.ndarray, gradient: np.ndarray) -> None:
    """Add a term's `normal` to hessian [n, n] and gradient [n], without making its matrix where the term can
    (`add_normal(free, hessian, gradient)`)."""
    directly = getattr(term, "add_normal", None)
    if directly is not None:
        directly(free, hessian, gradient)
        return
    h, g = term.normal(free)
    hessian += h
    gradient += g


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

    def add_normal(self, free: np.ndarray, hessian: np.ndarray, gradient: np.ndarray) -> None:
        hessian.reshape(-1)[::len(hessian) + 1] += self.precision.reshape(-1)
        gradient += (self.precision * (self.mean - free)).reshape(-1)


@dataclass(frozen=True)
class PoseGaussian:
    """A measured pose at one instant as a Gaussian with full covariance, robust against being plain wrong.

    reference [24, 3, 3], reference_transl [3]: what the coefficients are relative to; rotation [24, 3, 3], transl [3]:
    the measured pose; information [63, 63] over the free slots; basis [K] at its time; cutoff: of the Geman-McClure
    loss on the squared Mahalanobis distance: a measurement far outside its covariance (swapped sides, another person)
    costs at most this much, instead of pulling the fit away.  covariance [63, 63]: inverse of the information, where
    it is known already.
    """

    reference: np.ndarray
    reference_transl: np.ndarray
    rotation: np.ndarray
    transl: np.ndarray
    information: np.ndarray
    basis: np.ndarray
    cutoff: float = 252.0
    covariance: np.ndarray | None = None

    def cost(self, free: np.ndarray) -> float:
        squared = self.squared(free)
        return squared / (1 + squared / self.cutoff)

    def squared(self, free: np.ndarray) -> float:
        """Squared Mahalanobis distance of the motion from the measurement (63 where all is well)."""
        return _pose_squared(free, self.basis, self.reference, self.reference_transl, self.rotation, self.transl,
                             self.information)

    def by_limb(self, free: np.ndarray) -> np.ndarray:
        """[6] squared Mahalanobis distance of each limb alone, over its number of angles; 0 with weight 0."""
        if not self.information.any():
            return np.zeros(len(LIMB_SLOTS))
        return _by_limb(free, self.basis, self.reference, self.reference_transl, self.rotation, self.transl,
                        self._spread, _LIMBS)

    @cached_property
    def _spread(self) -> np.ndarray:
        return linear.inverse(self.information) if self.covariance is None else self.covariance

    def normal(self, free: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        hessian, gradient = np.zeros((free.size, free.size)), np.zeros(free.size)
        self.add_normal(free, hessian, gradient)
        return hessian, gradient

    def add_normal(self, free: np.ndarray, hessian: np.ndarray, gradient: np.ndarray) -> None:
        _add_pose_normal(free, self.basis, self.reference, self.reference_transl, self.rotation, self.transl,
                         self.information, self.cutoff, hessian, gradient)


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


@njit(cache=True, nogil=True)
def _pose_error(free, basis, reference, reference_transl, rotation, transl):
    """Estimate minus measurement [21, 3], in the measurement's tangent, and the motion's value there [21, 3]."""
    value = np.zeros((FREE_COUNT, 3))
    for slot in range(FREE_COUNT):
        for k in range(len(basis)):
            for a in range(3):
                value[slot, a] += basis[k] * free[slot, k, a]
    turned = np.empty((FREE_COUNT, 3, 3))
    rotations.exp_into(value, turned)
    apart = np.empty((FREE_COUNT - 1, 3, 3))
    for slot in range(1, FREE_COUNT):
        joint = FREE_JOINTS[slot - 1]
        for a in range(3):
            for b in range(3):
                total = 0.0
                for c in range(3):
                    for d in range(3):
                        total += rotation[joint, c, a] * reference[joint, c, d] * turned[slot, d, b]
                apart[slot - 1, a, b] = total
    error = np.empty((FREE_COUNT, 3))
    for a in range(3):
        error[0, a] = reference_transl[a] + value[0, a] - transl[a]
    rotations.log_into(apart, error[1:])
    return error, value


@njit(cache=True)
def _pose_squared(free, basis, reference, reference_transl, rotation, transl, information):
    error, _ = _pose_error(free, basis, reference, reference_transl, rotation, transl)
    return _pull(information, error.reshape(-1))[1]


@njit(cache=True, nogil=True)
def _by_limb(free, basis, reference, reference_transl, rotation, transl, spread, limbs):
    """`PoseGaussian.by_limb`; spread [63, 63] symmetric, limbs [6, 2] first slot and the one after the last."""
    error, _ = _pose_error(free, basis, reference, reference_transl, rotation, transl)
    flat = error.reshape(-1)
    out = np.zeros(len(limbs))
    for i in range(len(limbs)):
        first, last = 3 * limbs[i, 0], 3 * limbs[i, 1]
        own = np.ascontiguousarray(spread[first:last, first:last])
        out[i] = (flat[first:last] * np.linalg.solve(own, flat[first:last])).sum() / (last - first)
    return out


@njit(cache=True, nogil=True, fastmath=True)
def _pull(information, error):
    """I e [63] and e' I e."""
    pull, squared = np.zeros(len(error)), 0.0
    for i in range(len(error)):
        for j in range(len(error)):
            pull[i] += information[i, j] * error[j]
        squared += error[i] * pull[i]
    return pull, squared


@njit(cache=True, nogil=True)
def _add_pose_normal(free, basis, reference, reference_transl, rotation, transl, information, cutoff, hessian,
                     gradient):
    """H += w B' I B (x) b b', g -= w B' I e (x) b: B maps changes of the coefficients' value to changes of e."""
    error, value = _pose_error(free, basis, reference, reference_transl, rotation, transl)
    pull, squared = _pull(information, error.reshape(-1))
    weight = 1 / (1 + squared / cutoff) ** 2
    inverse, forward = np.empty((FREE_COUNT, 3, 3)), np.empty((FREE_COUNT, 3, 3))
    rotations.right_jacobian_into(error, True, inverse)
    rotations.right_jacobian_into(value, False, forward)
    blocks = np.zeros((FREE_COUNT, 3, 3))
    for a in range(3):
        blocks[0, a, a] = 1
    for slot in range(1, FREE_COUNT):
        for a in range(3):
            for b in range(3):
                for c in range(3):
                    blocks[slot, a, b] += inverse[slot, a, c] * forward[slot, c, b]
    _add_spread(_sandwich(blocks, information), weight, basis, hessian)
    orders = len(basis)
    for slot in range(FREE_COUNT):
        for b in range(3):
            total = 0.0
            for a in range(3):
                total += blocks[slot, a, b] * pull[3 * slot + a]
            for k in range(orders):
                gradient[(slot * orders + k) * 3 + b] -= weight * total * basis[k]


@njit(cache=True, nogil=True)
def _sandwich(blocks, matrix):
    """B' M B for B block-diagonal, blocks [21, 3, 3]; M [63, 63] symmetric."""
    half, out = np.zeros(matrix.shape), np.zeros(matrix.shape)
    for i in range(len(matrix)):
        for slot in range(len(blocks)):
            for b in range(3):
                for c in range(3):
                    half[i, 3 * slot + b] += matrix[i, 3 * slot + c] * blocks[slot, c, b]
    for slot in range(len(blocks)):
        for b in range(3):
            for c in range(3):
                factor = blocks[slot, c, b]
                for j in range(len(matrix)):
                    out[3 * slot + b, j] += factor * half[3 * slot + c, j]
    return out


@njit(cache=True, nogil=True)
def _add_spread(matrix, weight, basis, hessian):
    """hessian [n, n] += weight * (matrix [63, 63] over the pose at one instant, spread over the coefficients)."""
    slots, orders = len(matrix) // 3, len(basis)
    for s in range(slots):
        for k in range(orders):
            for a in range(3):
                row = hessian[(s * orders + k) * 3 + a]
                for u in range(slots):
                    for m in range(orders):
                        factor = weight * basis[k] * basis[m]
                        for b in range(3):
                            row[(u * orders + m) * 3 + b] += factor * matrix[3 * s + a, 3 * u + b]
