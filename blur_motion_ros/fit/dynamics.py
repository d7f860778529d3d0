"""What is known of a motion before looking at the image: how bodies move, and where the last window left this one.

Each exposure's evidence must count once. Windows overlap by all but one exposure, so what a window hands on is its
information *without* the exposures that the next window will see again: a fixed-lag smoother. It is handed on as a
Gaussian of pose and velocity at one instant, because only those are continuous; the next window's polynomial is free
to bend otherwise, within the accelerations that mocap shows.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from numba import njit

from blur_motion_ros.fit import linear
from blur_motion_ros.fit.layout import FREE_COUNT, FREE_JOINTS, FREE_ROWS, WindowLayout
from blur_motion_ros.fit.priors import MotionStatistics
from blur_motion_ros.motion import rotations

ANYWHERE = 3.0  # m, rad: a pose nobody measured may be this far from where the fit began
FASTEST = 100.0  # m/s, rad/s: likewise a velocity that nothing is known of
NEXT_ORDER = 0.25  # scale of a coefficient of order 3 or more over that of the order before (docs/fit.md, "Degree")
STATE = 2 * 3 * FREE_COUNT  # pose and velocity of every free slot


@dataclass(frozen=True)
class MotionPrior:
    """Bodies are still most of the time and fast now and then: a Student-t on the odd and even bends of every joint.

    scale [21, K, 3]: t scales of the coefficients (order 0: hardly any), freedom [21, K]: degrees of freedom;
    the joint's three axes share one weight.
    """

    scale: np.ndarray
    freedom: np.ndarray

    @staticmethod
    def of(statistics: MotionStatistics, layout: WindowLayout, widening: float,
           carried: bool | np.ndarray) -> MotionPrior:
        """From mocap statistics, `widening` times as broad (the public clips are calmer than sport).

        carried, of all or of each slot [21]: the velocity's prior is in what the last window handed on already;
        counting it in every window again would slow every motion down.
        """
        slope, bend, slope_nu, bend_nu = _student(statistics, layout.end - layout.start)
        scale = np.full((FREE_COUNT, layout.degree + 1, 3), np.inf)
        freedom = np.full((FREE_COUNT, layout.degree + 1), 1e3)
        scale[:, 0] = ANYWHERE
        new = ~np.broadcast_to(carried, FREE_COUNT)
        scale[new, 1], freedom[new, 1] = slope[FREE_ROWS][new], slope_nu[FREE_ROWS][new]
        for order in range(2, layout.degree + 1):
            scale[:, order], freedom[:, order] = bend[FREE_ROWS] * NEXT_ORDER ** (order - 2), bend_nu[FREE_ROWS]
        scale[0] = scale[0].mean(-1, keepdims=True)  # mocap gives the pelvis' own axes
        scale[:, 1:] *= widening
        return MotionPrior(scale, freedom)

    def cost(self, free: np.ndarray) -> float:
        squared = ((free / self.scale) ** 2).sum(-1)
        return float(((self.freedom + 3) * np.log1p(squared / self.freedom)).sum())

    def normal(self, free: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        precision = self._precision(free)
        return np.diag(precision.reshape(-1)), -(precision * free).reshape(-1)

    def add_normal(self, free: np.ndarray, hessian: np.ndarray, gradient: np.ndarray) -> None:
        precision = self._precision(free)
        hessian.reshape(-1)[::len(hessian) + 1] += precision.reshape(-1)
        gradient -= (precision * free).reshape(-1)

    def _precision(self, free: np.ndarray) -> np.ndarray:
        """[21, K, 3] of the Gaussian that touches the Student-t at `free`."""
        squared = ((free / self.scale) ** 2).sum(-1)
        return ((self.freedom + 3) / (self.freedom + squared))[..., None] / self.scale**2


@dataclass(frozen=True)
class GaussianCoefficients:
    """Gaussian on all coefficients together: mean [21, K, 3], information [n, n]."""

    mean: np.ndarray
    information: np.ndarray

    def cost(self, free: np.ndarray) -> float:
        d = (free - self.mean).reshape(-1)
        return float(d @ self.information @ d)

    def normal(self, free: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return self.information, self.information @ (self.mean - free).reshape(-1)


@dataclass(frozen=True)
class Carry:
    """Pose and velocity at `time` as one window hands them to the next.

    reference [24, 3, 3], reference_transl [3]: the pose there; mean [2, 21, 3]: pose (relative to the reference) and
    velocity without the evidence that will be seen again; velocity [21, 3]: with all evidence (where to start);
    covariance [126, 126] of mean, ordered (pose, velocity) x slot x axis.
    """

    time: float
    reference: np.ndarray
    reference_transl: np.ndarray
    mean: np.ndarray
    velocity: np.ndarray
    covariance: np.ndarray

    def without(self, slots: np.ndarray) -> Carry:
        """The same with nothing known of some slots [21] bool."""
        gone = np.repeat(slots, 3)
        unknown = np.r_[gone, gone]
        covariance = np.where(unknown[:, None] | unknown, 0.0, self.covariance)
        covariance[unknown, unknown] = np.r_[np.full(gone.sum(), ANYWHERE**2), np.full(gone.sum(), FASTEST**2)]
        return replace(self, mean=np.where(slots[:, None], 0.0, self.mean), covariance=covariance)

    def term(self, layout: WindowLayout) -> GaussianCoefficients:
        """As a prior on a window's coefficients relative to this reference."""
        rows = np.stack([layout.values_at(self.time), layout.rates_at(self.time)])
        wide = _over_coefficients(self._information, rows)
        mean = np.zeros((FREE_COUNT, layout.degree + 1, 3))
        mean[:, :2] = np.einsum("ko,osa->ska", np.linalg.inv(rows[:, :2]), self.mean)
        return GaussianCoefficients(mean, wide)

    @cached_property
    def _information(self) -> np.ndarray:
        return linear.inverse(self.covariance)

    def start(self, layout: WindowLayout, damping: float) -> np.ndarray:
        """Coefficients [21, K, 3] that go on from here with `damping` times the velocity."""
        rows = np.stack([layout.values_at(self.time), layout.rates_at(self.time)])[:, :2]
        out = np.zeros((FREE_COUNT, layout.degree + 1, 3))
        out[:, :2] = np.einsum("k,sa->ska", np.linalg.inv(rows)[:, 1], damping * self.velocity)
        return out


def carry(layout: WindowLayout, reference: np.ndarray, reference_transl: np.ndarray, free: np.ndarray,
          kept: np.ndarray, right: np.ndarray, time: float, noise: np.ndarray) -> Carry:
    """Hand a solved window on.

    kept [n, n]: Gauss-Newton matrix without the evidence that will be seen again; right [n]: that evidence's
    right-hand side at the solution (taking it out moves the optimum by -kept^-1 right); noise [2, 21, 3]: variance
    of what a polynomial cannot follow from one window to the next (pose, velocity).
    """
    rows = np.stack([layout.values_at(time), layout.rates_at(time)])
    value, rate = np.einsum("ok,ska->osa", rows, free)
    covariance = linear.inverse(kept)
    without = free - np.clip(covariance @ right, -0.5, 0.5).reshape(free.shape)
    blocks = np.tile(np.eye(3), (FREE_COUNT, 1, 1))
    blocks[1:] = rotations.right_jacobian(value[1:])
    turned = reference.copy()
    turned[FREE_JOINTS] = reference[FREE_JOINTS] @ rotations.exp(value[1:])
    moved = np.einsum("sab,osb->osa", blocks, np.einsum("ok,ska->osa", rows, without) - np.stack([value, 0 * rate]))
    state = _of_state(covariance, rows, blocks)
    state = 0.5 * (state + state.T) + np.diag(noise.reshape(-1))
    return Carry(time, turned, reference_transl + value[0], moved, np.einsum("sab,sb->sa", blocks, rate), state)


def process_noise(statistics: MotionStatistics, period: float, widening: float) -> np.ndarray:
    """[2, 21, 3] variances: acceleration that changes from window to window, over one frame period."""
    acceleration = statistics.acceleration(2 * period)[FREE_ROWS] * widening
    acceleration[0] = acceleration[0].mean()
    return np.stack([(acceleration * period**2 / 4) ** 2 + 0.005**2, (acceleration * period / 2) ** 2])


def _student(statistics: MotionStatistics, duration: float) -> tuple[np.ndarray, ...]:
    """t scales and freedoms of slope and bend for a window of `duration` s."""
    clipped = float(np.clip(duration, statistics.windows[0], statistics.windows[-1]))
    at = np.log(statistics.windows)
    right = int(np.clip(np.searchsorted(at, np.log(clipped)), 1, len(at) - 1))
    share = (np.log(clipped) - at[right - 1]) / (at[right] - at[right - 1])

    def between(table: np.ndarray, scale=lambda x: x) -> np.ndarray:
        before, after = scale(table[right - 1]), scale(table[right])
        return before + share * (after - before)

    ratio = duration / clipped
    slope, bend = np.exp(between(statistics.slope_scale, np.log)), np.exp(between(statistics.bend_scale, np.log))
    return (np.maximum(slope * ratio, 1e-4), np.maximum(bend * ratio**2, 1e-4), between(statistics.slope_freedom),
            between(statistics.bend_freedom))


@njit(cache=True, nogil=True)
def _over_coefficients(information, rows):
    """R' I R [n, n]: a matrix over pose and velocity [126, 126] seen by the coefficients; rows [2, K]."""
    slots, orders = FREE_COUNT, rows.shape[1]
    out = np.empty((slots * orders * 3, slots * orders * 3))
    half = 3 * slots
    for s in range(slots):
        for a in range(3):
            i = 3 * s + a
            for u in range(slots):
                for b in range(3):
                    j = 3 * u + b
                    pp, pv = information[i, j], information[i, half + j]
                    vp, vv = information[half + i, j], information[half + i, half + j]
                    for k in range(orders):
                        to_pose = rows[0, k] * pp + rows[1, k] * vp
                        to_rate = rows[0, k] * pv + rows[1, k] * vv
                        for m in range(orders):
                            out[(s * orders + k) * 3 + a, (u * orders + m) * 3 + b] = (
                                to_pose * rows[0, m] + to_rate * rows[1, m])
    return out


@njit(cache=True, nogil=True)
def _of_state(covariance, rows, blocks):
    """Covariance [126, 126] of pose and velocity from that of the coefficients [n, n].

    rows [2, K]: basis and rate at the instant; blocks [21, 3, 3]: from a slot's parameters to its own tangent.
    """
    slots, orders = FREE_COUNT, rows.shape[1]
    out = np.empty((6 * slots, 6 * slots))
    middle, half = np.empty((2, 2, 3, 3)), np.empty((3, 3))
    for s in range(slots):
        for u in range(slots):
            middle[:] = 0
            for k in range(orders):
                for m in range(orders):
                    for o in range(2):
                        for p in range(2):
                            factor = rows[o, k] * rows[p, m]
                            for a in range(3):
                                for b in range(3):
                                    middle[o, p, a, b] += factor * covariance[(s * orders + k) * 3 + a,
                                                                              (u * orders + m) * 3 + b]
            for o in range(2):
                for p in range(2):
                    for a in range(3):
                        for b in range(3):
                            half[a, b] = 0.0
                            for c in range(3):
                                half[a, b] += blocks[s, a, c] * middle[o, p, c, b]
                    for a in range(3):
                        for b in range(3):
                            total = 0.0
                            for c in range(3):
                                total += half[a, c] * blocks[u, b, c]
                            out[(o * slots + s) * 3 + a, (p * slots + u) * 3 + b] = total
    return out
