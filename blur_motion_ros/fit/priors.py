"""What a body is likely to do: densities of SMPL body poses, and statistics of short motions. No training here.

Poses are `body_pose` [23, 3] rotation vectors (SMPL order, without the global orientation). Every prior answers

    energy(body_pose) -> float                         negative log density above its lower bound, >= 0
    residual(body_pose) -> (r [m], J [m, 69])          r @ r == 2 energy and J.T @ r == d energy / d body_pose, exactly;
                                                       J.T @ J is the Gauss-Newton Hessian (positive semi-definite)

so that a least-squares solver and a line search on the energy agree with each other.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

import numpy as np
from numba import njit

BODY_JOINTS = 23
DIMENSIONS = 3 * BODY_JOINTS
_NEGLIGIBLE = 1e-6  # responsibility under which a mixture component is left out of the Gauss-Newton matrix


class PriorError(ValueError):
    """A prior file or a pose is unusable. The message names the field and the fix."""


class PosePrior(Protocol):
    """What the fit asks of a static pose prior (see the module's docstring)."""

    def energy(self, body_pose: np.ndarray) -> float: ...

    def residual(self, body_pose: np.ndarray) -> tuple[np.ndarray, np.ndarray]: ...


# --------------------------------------------------------------------------------------------- mixtures


@dataclass(frozen=True)
class MixturePrior:
    """Mixture of Gaussians (freedom = inf) or of multivariate Student-t distributions over the 69 pose numbers.

    means [K, 69]; factors [K, 69, 69] with precision_k = factors_k.T @ factors_k; weights [K], summing to one;
    freedom: degrees of freedom of the tails.  low, high [69] (or None): joint limits in rad, beyond which a quadratic
    penalty with `limit_sigma` rad sets in.
    """

    means: np.ndarray
    factors: np.ndarray
    weights: np.ndarray
    freedom: float = np.inf
    low: np.ndarray | None = None
    high: np.ndarray | None = None
    limit_sigma: float = 0.1

    def __post_init__(self) -> None:
        k = len(self.means)
        for name, want in (("means", (k, DIMENSIONS)), ("factors", (k, DIMENSIONS, DIMENSIONS)), ("weights", (k,))):
            if getattr(self, name).shape != want:
                raise PriorError(f"pose prior: {name} has shape {getattr(self, name).shape}; {want} wanted")
        if not (self.weights > 0).all() or abs(self.weights.sum() - 1) > 1e-3:
            raise PriorError("pose prior: weights must be positive and sum to one")

    @staticmethod
    def from_covariances(means: np.ndarray, covariances: np.ndarray, weights: np.ndarray,
                         freedom: float = np.inf, **limits: object) -> MixturePrior:
        """Build from covariances [K, 69, 69] (scale matrices where freedom is finite)."""
        try:
            lower = np.linalg.cholesky(np.asarray(covariances, np.float64))
        except np.linalg.LinAlgError as error:
            raise PriorError("pose prior: a covariance is not positive definite") from error
        weights = np.asarray(weights, np.float64).reshape(-1)
        return MixturePrior(np.asarray(means, np.float64), np.linalg.inv(lower), weights / weights.sum(), freedom,
                            **limits)

    def energy(self, body_pose: np.ndarray) -> float:
        """-log p(body_pose), up to a constant that makes its lower bound zero; plus the limits' penalty."""
        x = _flat(body_pose)
        cost, _, _ = self._components(x)
        beyond = self._beyond(x)
        return float(-_log_sum(self._log_mass - cost) + 0.5 * beyond @ beyond)

    def log_density(self, body_pose: np.ndarray) -> float:
        """The normalised log density of the mixture (without joint limits)."""
        cost, _, _ = self._components(_flat(body_pose))
        return float(_log_sum(self._log_mass - cost) + self._log_total)

    def residual(self, body_pose: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """r [70 + p], J [70 + p, 69], p joint angles being beyond their limits; see the module's docstring."""
        x = _flat(body_pose)
        r, jacobian, total = _gauss_newton(x, self.means, self.factors, self._precisions, self._log_mass, self.freedom)
        rest = np.sqrt(max(-2.0 * total - r @ r, 0.0))  # the part of the energy that has no slope of its own
        if self.low is None:
            return np.append(r, rest), np.vstack([jacobian, np.zeros(DIMENSIONS)])
        beyond = self._beyond(x)
        passed = np.flatnonzero(beyond)
        out = np.zeros((DIMENSIONS + 1 + len(passed), DIMENSIONS))
        out[:DIMENSIONS] = jacobian
        out[DIMENSIONS + 1 + np.arange(len(passed)), passed] = 1 / self.limit_sigma
        return np.concatenate([r, [rest], beyond[passed]]), out

    def _components(self, x: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Per component: cost [K] (zero at its mean), whitened difference [K, 69], its square [K]."""
        whitened = (self.factors @ (x - self.means)[:, :, None])[:, :, 0]
        squared = np.einsum("ki,ki->k", whitened, whitened)
        if np.isinf(self.freedom):
            return 0.5 * squared, whitened, squared
        return 0.5 * (self.freedom + DIMENSIONS) * np.log1p(squared / self.freedom), whitened, squared

    def _beyond(self, x: np.ndarray) -> np.ndarray:
        if self.low is None:
            return np.zeros(0)
        return (np.maximum(x - self.high, 0.0) + np.minimum(x - self.low, 0.0)) / self.limit_sigma

    @cached_property
    def _precisions(self) -> np.ndarray:
        return np.swapaxes(self.factors, 1, 2) @ self.factors

    @cached_property
    def _log_peaks(self) -> np.ndarray:
        from scipy.special import gammaln
        log_det = np.linalg.slogdet(self.factors)[1]
        d, nu = DIMENSIONS, self.freedom
        if np.isinf(nu):
            normal = -0.5 * d * np.log(2 * np.pi)
        else:
            normal = gammaln(0.5 * (nu + d)) - gammaln(0.5 * nu) - 0.5 * d * np.log(nu * np.pi)
        return np.log(self.weights) + log_det + normal

    @cached_property
    def _log_total(self) -> float:
        return _log_sum(self._log_peaks)

    @cached_property
    def _log_mass(self) -> np.ndarray:
        return self._log_peaks - self._log_total


def _flat(body_pose: np.ndarray) -> np.ndarray:
    x = np.asarray(body_pose, np.float64).reshape(-1)
    if x.shape != (DIMENSIONS,):
        raise PriorError(f"body_pose has shape {np.shape(body_pose)}; [23, 3] rotation vectors wanted")
    return x


@njit(cache=True, nogil=True)
def _gauss_newton(x, means, factors, precisions, log_mass, freedom):
    """r [69], J [69, 69] of a mixture at x [69], and the logarithm of its components' sum (zero at a peak)."""
    count, size = means.shape
    whitened, squared = np.zeros((count, size)), np.zeros(count)
    log_terms = np.empty(count)
    for k in range(count):
        for i in range(size):
            for j in range(size):
                whitened[k, i] += factors[k, i, j] * (x[j] - means[k, j])
            squared[k] += whitened[k, i] ** 2
        cost = 0.5 * squared[k]
        if np.isfinite(freedom):
            cost = 0.5 * (freedom + size) * np.log1p(squared[k] / freedom)
        log_terms[k] = log_mass[k] - cost
    top = log_terms.max()
    total = top + np.log(np.exp(log_terms - top).sum())
    share = np.exp(log_terms - total)
    if np.isfinite(freedom):
        share *= (freedom + size) / (freedom + squared)
    active = np.flatnonzero(share > _NEGLIGIBLE * share.max())
    if len(active) == 1:
        scale = np.sqrt(share[active[0]])
        return scale * whitened[active[0]], scale * factors[active[0]], total
    gradient, hessian = np.zeros(size), np.zeros((size, size))
    for k in active:
        gradient += share[k] * (factors[k].T @ whitened[k])
        hessian += share[k] * precisions[k]
    lower = np.linalg.cholesky(hessian)
    return np.linalg.solve(lower, gradient), np.ascontiguousarray(lower.T), total


def _log_sum(values: np.ndarray) -> float:
    top = values.max()
    return float(top + np.log(np.exp(values - top).sum()))


# --------------------------------------------------------------------------------------------- short motions


@dataclass(frozen=True)
class MotionStatistics:
    """How joints move over short windows, measured on motion capture.

    windows [W] s.  slope, bend [W, 25, 3]: standard deviations of the Legendre coefficients c_1 and c_2 of a degree-2
    fit (row 0 = pelvis translation in m in the pelvis' axes, rows 1.. = joints in rad, right tangent).
    slope_scale, bend_scale [W, 25, 3] and slope_freedom, bend_freedom [W, 25]: the Student-t that fits them (bodies
    are still most of the time and fast now and then: tails are heavy).
    slope_precision, bend_precision [W, 75, 75]: inverse covariances over all rows together.
    """

    windows: np.ndarray
    slope: np.ndarray
    bend: np.ndarray
    slope_scale: np.ndarray
    bend_scale: np.ndarray
    slope_freedom: np.ndarray
    bend_freedom: np.ndarray
    slope_precision: np.ndarray
    bend_precision: np.ndarray

    def sigmas(self, duration: float) -> tuple[np.ndarray, np.ndarray]:
        """(slope [25, 3], bend [25, 3]) for a window of `duration` s; extrapolated as t and t^2 outside the table."""
        clipped = float(np.clip(duration, self.windows[0], self.windows[-1]))
        slope = np.exp(_interpolate(np.log(clipped), np.log(self.windows), np.log(self.slope)))
        bend = np.exp(_interpolate(np.log(clipped), np.log(self.windows), np.log(self.bend)))
        ratio = duration / clipped
        return slope * ratio, bend * ratio**2

    def angular_velocity(self, duration: float) -> np.ndarray:
        """Standard deviations [25, 3] of mean velocity over a window, rad/s (row 0: m/s)."""
        return self.sigmas(duration)[0] * 2.0 / duration

    def acceleration(self, duration: float) -> np.ndarray:
        """Standard deviations [25, 3] of acceleration over a window, rad/s^2 (row 0: m/s^2)."""
        return self.sigmas(duration)[1] * 12.0 / duration**2


def _interpolate(x: float, grid: np.ndarray, values: np.ndarray) -> np.ndarray:
    i = int(np.clip(np.searchsorted(grid, x) - 1, 0, len(grid) - 2))
    w = (x - grid[i]) / (grid[i + 1] - grid[i])
    return (1 - w) * values[i] + w * values[i + 1]
