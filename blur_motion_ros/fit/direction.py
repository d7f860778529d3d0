"""Which way time runs inside an exposure, limb by limb, decided from the exposures before and after it.

An average does not change when time runs backwards inside the exposure (t -> open + close - t), and limbs that do not
cover each other flip independently (Human from Blur; DESIGN of this package, "time reversal"). What one image leaves
open, a sequence tells: where the shutter was closed, a body cannot jump. For every exposure and limb the fitted motion
is kept or reversed such that pose and velocity go on across the gaps:

    cost = sum_n image(n, s_n) + sum_n gap(n, s_n, n + 1, s_n+1)          s_n in {keep, reverse}^6

minimised exactly (Viterbi); the marginals of the same chain (forward-backward) say how sure each limb's direction is.
Costs are negative log-likelihoods. Limbs are those of `fit.layout`: trunk with translation, head, arms, legs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from itertools import product

import numpy as np

from blur_motion_ros.fit.dynamics import process_noise
from blur_motion_ros.fit.layout import FREE_COUNT, FREE_JOINTS, FREE_ROWS, LIMB_SLOTS
from blur_motion_ros.fit.priors import MotionStatistics
from blur_motion_ros.motion import polynomials, rotations
from blur_motion_ros.motion.pose import local_rotations
from blur_motion_ros.types import Exposure, MotionEstimate

LIMB_COUNT = len(LIMB_SLOTS)
LIMB_NAMES = ("trunk", "head", "left_arm", "right_arm", "left_leg", "right_leg")
STATES = np.array(list(product((0, 1), repeat=LIMB_COUNT)))  # [64, 6]: which limbs are reversed; 0 = none
LEAST_TRAVEL = 0.01  # m: a limb that moves less has no direction worth a word
_REACH = 0.5  # m
_WEIGHT = 3.0  # of a gap: neighbouring fits share most of their error, so the difference is known better than they say
_CUTOFF = 4.0  # Geman-McClure cut-off of a gap's squared distance, as a multiple of its dimension


@dataclass(frozen=True)
class ExposureMotion:
    """One exposure's motion as it was fitted, reduced to its two ends: [0] shutter opens, [1] shutter closes.

    rotation [2, 21, 3, 3]: local rotations of the free slots (slot 0: identity); transl [2, 3] m;
    velocity [2, 21, 3]: m/s of slot 0, rad/s of the others in the joint's own axes (`R(t + dt) = R(t) exp(w dt)`);
    covariance: for each limb [2, m, m] of (pose, velocity) x slot x axis, one fit's own, without any ambiguity;
    image [64]: what the image says of every combination in `STATES`, negative log-likelihood.
    """

    exposure: Exposure
    rotation: np.ndarray
    transl: np.ndarray
    velocity: np.ndarray
    covariance: tuple[np.ndarray, ...]
    image: np.ndarray = field(default_factory=lambda: np.zeros(len(STATES)))

    @staticmethod
    def of(estimate: MotionEstimate, image: np.ndarray | None = None) -> ExposureMotion:
        """Of the newest exposure of an estimate with a covariance."""
        exposure = estimate.exposures[-1]
        if estimate.covariance is None:
            raise ValueError("the estimate has no covariance; directions are weighed by it")
        ends = np.array([exposure.open, exposure.close])
        degree = estimate.coefficients.shape[1] - 1
        rows = np.stack([polynomials.basis(ends, estimate.start, estimate.end, degree),
                         polynomials.basis_rate(ends, estimate.start, estimate.end, degree)])  # [2, ends, K]
        value, rate = np.einsum("oek,jkc->oejc", rows, estimate.coefficients[FREE_ROWS])
        turning = np.tile(np.eye(3), (2, FREE_COUNT, 1, 1))
        turning[:, 1:] = rotations.right_jacobian(value[:, 1:])
        rotation = np.tile(np.eye(3), (2, FREE_COUNT, 1, 1))
        rotation[:, 1:] = local_rotations(estimate.reference)[FREE_JOINTS] @ rotations.exp(value[:, 1:])
        velocity = np.einsum("ejab,ejb->eja", turning, rate)
        covariance = tuple(_limb_covariance(estimate.covariance, rows, turning, *slots) for slots in LIMB_SLOTS)
        return ExposureMotion(exposure, rotation, estimate.reference.transl + value[:, 0], velocity, covariance,
                              np.zeros(len(STATES)) if image is None else image)


@dataclass(frozen=True)
class Directions:
    """The decision for F exposures, oldest first.

    reverse [F, 6] bool: limbs whose motion must be run backwards.  log_odds [F, 6]: of each limb's decision against
    its reverse (0: no idea).  wrong [F, 6, 6]: probability that the decisions for two limbs are *both* wrong
    (diagonal: for this one).
    """

    reverse: np.ndarray
    log_odds: np.ndarray
    wrong: np.ndarray


# --------------------------------------------------------------------------------------------- deciding


def decide(motions: Sequence[ExposureMotion], statistics: MotionStatistics, widening: float = 3.0,
           gaps: Sequence[np.ndarray] | None = None) -> Directions:
    """Keep or reverse every limb of every exposure. gaps: `gap_costs` of consecutive motions, where already known."""
    if gaps is None:
        gaps = [gap_costs(a, b, statistics, widening) for a, b in zip(motions, motions[1:], strict=False)]
    unary = np.stack([m.image for m in motions])
    steps = [_joint(g) for g in gaps]
    path = _viterbi(unary, steps)
    marginal = _marginals(unary, steps)
    reverse = STATES[path].astype(bool)
    differs = (STATES[None] != STATES[path][:, None]).astype(float)  # [F, 64, 6]
    wrong = np.einsum("fs,fsl,fsm->flm", marginal, differs, differs)
    against = np.diagonal(wrong, axis1=1, axis2=2)
    floor = 1e-12
    log_odds = np.log(np.maximum(1 - against, floor)) - np.log(np.maximum(against, floor))
    return Directions(reverse, log_odds, wrong)


def gap_costs(a: ExposureMotion, b: ExposureMotion, statistics: MotionStatistics, widening: float = 3.0) -> np.ndarray:
    """[6, 2, 2] negative log-likelihood, per limb, of going from `a` (kept, reversed) to `b` (kept, reversed).

    Position: what the mean velocity of the two ends leaves unexplained of the step across the gap; velocity: its
    change. Both against the fits' own covariances and the acceleration that bodies show between two exposures.
    """
    gap = b.exposure.open - a.exposure.close
    noise = process_noise(statistics, b.exposure.middle - a.exposure.middle, widening)
    out = np.zeros((LIMB_COUNT, 2, 2))
    for limb, (first, last) in enumerate(LIMB_SLOTS):
        extra = np.diag(noise[:, first:last].reshape(-1))
        for i, j in product((0, 1), (0, 1)):
            left, right = _End.of(a, limb, 1 - i, bool(i)), _End.of(b, limb, j, bool(j))
            out[limb, i, j] = _mismatch(left, right, gap, extra)
    return out


@dataclass(frozen=True)
class _End:
    """One limb at one end of an exposure: rotation [n, 3, 3], transl [3], velocity [n, 3], covariance [6 n, 6 n]."""

    rotation: np.ndarray
    transl: np.ndarray
    velocity: np.ndarray
    covariance: np.ndarray
    has_root: bool

    @staticmethod
    def of(motion: ExposureMotion, limb: int, end: int, backwards: bool) -> _End:
        first, last = LIMB_SLOTS[limb]
        count = 3 * (last - first)
        sign = np.repeat([1.0, -1.0 if backwards else 1.0], count)
        return _End(motion.rotation[end, first:last], motion.transl[end],
                    motion.velocity[end, first:last] * sign[-1],
                    motion.covariance[limb][end] * np.outer(sign, sign), first == 0)


def _mismatch(a: _End, b: _End, gap: float, extra: np.ndarray) -> float:
    """Robust negative log-likelihood that the motion goes on from `a` to `b`."""
    across = np.swapaxes(a.rotation, -1, -2) @ b.rotation
    later = np.einsum("jab,jb->ja", across, b.velocity)  # in a's axes
    step = rotations.log(across)
    if a.has_root:
        step[0] = b.transl - a.transl
    residual = np.concatenate([(step - 0.5 * gap * (a.velocity + later)).reshape(-1),
                               (later - a.velocity).reshape(-1)])
    half, one = residual.size // 2, np.eye(residual.size // 2)
    carry = np.block([[one, 0.5 * gap * one], [np.zeros((half, half)), one]])
    back = np.block([[one, -0.5 * gap * one], [np.zeros((half, half)), one]])
    total = carry @ a.covariance @ carry.T + back @ b.covariance @ back.T + extra
    sign, log_det = np.linalg.slogdet(total)
    squared = float(residual @ np.linalg.solve(total, residual)) if sign > 0 else np.inf
    limit = _CUTOFF * residual.size
    robust = squared / (1 + squared / limit) if np.isfinite(squared) else limit
    return 0.5 * _WEIGHT * (robust + log_det)


def _joint(gap: np.ndarray) -> np.ndarray:
    """[6, 2, 2] per limb -> [64, 64] over all combinations; the smallest is 0."""
    total = sum(gap[limb][np.ix_(STATES[:, limb], STATES[:, limb])] for limb in range(LIMB_COUNT))
    return total - total.min()


def _viterbi(unary: np.ndarray, steps: Sequence[np.ndarray]) -> list[int]:
    """States of least cost. Of equal ones the first is taken, so that nothing is reversed without a reason."""
    cost, origins = unary[0], []
    for step, image in zip(steps, unary[1:], strict=True):
        through = cost[:, None] + step
        origins.append(through.argmin(0))
        cost = through.min(0) + image
    path = [int(cost.argmin())]
    for origin in reversed(origins):
        path.append(int(origin[path[-1]]))
    return path[::-1]


def _marginals(unary: np.ndarray, steps: Sequence[np.ndarray]) -> np.ndarray:
    """[F, 64] probabilities of every combination given all exposures (forward-backward, logarithms)."""
    ahead, behind = [-unary[0]], [np.zeros(len(STATES))]
    for step, image in zip(steps, unary[1:], strict=True):
        ahead.append(np.logaddexp.reduce(ahead[-1][:, None] - step, axis=0) - image)
    for step, image in zip(reversed(steps), unary[:0:-1], strict=True):
        behind.append(np.logaddexp.reduce(behind[-1][None] - image[None] - step, axis=1))
    log = np.stack(ahead) + np.stack(behind[::-1])
    probability = np.exp(log - log.max(1, keepdims=True))
    return probability / probability.sum(1, keepdims=True)


# --------------------------------------------------------------------------------------------- reversing


def within(estimate: MotionEstimate) -> MotionEstimate:
    """The same motion as a polynomial over the newest exposure alone (exact; the covariance goes along)."""
    exposure = estimate.exposures[-1]
    interval = (exposure.open, exposure.close)
    if interval == (estimate.start, estimate.end):
        return estimate
    move = polynomials.shift_matrix((estimate.start, estimate.end), interval, estimate.coefficients.shape[1] - 1)
    covariance = estimate.covariance
    if covariance is not None:
        wide = np.kron(np.eye(FREE_COUNT), np.kron(move, np.eye(3)))
        covariance = wide @ covariance @ wide.T
    return replace(estimate, start=exposure.open, end=exposure.close, exposures=(exposure,), covariance=covariance,
                   coefficients=np.einsum("kl,jlc->jkc", move, estimate.coefficients))


def reverse_limbs(estimate: MotionEstimate, limbs: np.ndarray) -> MotionEstimate:
    """The motion over its newest exposure with some limbs [6] bool run backwards; unchanged when there are none."""
    limbs = np.asarray(limbs, bool)
    if not limbs.any():
        return estimate
    estimate = within(estimate)
    rows = slots_of(limbs)
    coefficients = estimate.coefficients.copy()
    chosen = FREE_ROWS[rows]
    coefficients[chosen] = polynomials.reverse(coefficients[chosen])
    covariance = estimate.covariance
    if covariance is not None:
        sign = np.ones((FREE_COUNT, coefficients.shape[1], 3))
        sign[rows, 1::2] = -1.0
        covariance = covariance * np.outer(sign, sign)
    return replace(estimate, coefficients=coefficients, covariance=covariance)


def reverse_free(free: np.ndarray, limbs: np.ndarray) -> np.ndarray:
    """Free coefficients [21, K, 3] over one exposure with some limbs [6] run backwards."""
    out = np.array(free, np.float64)
    rows = slots_of(limbs)
    out[rows] = polynomials.reverse(out[rows])
    return out


def slots_of(limbs: np.ndarray) -> np.ndarray:
    """[21] bool: the free slots that belong to the limbs [6] chosen."""
    return np.repeat(np.asarray(limbs, bool), [last - first for first, last in LIMB_SLOTS])


def travel(free: np.ndarray) -> np.ndarray:
    """[6] m: how far each limb gets from shutter opening to closing (coefficients [21, K, 3] over one exposure).

    The largest of its joints; an angle counts as the path at half a metre of reach.
    """
    each = 2 * np.linalg.norm(_odd(free), axis=(1, 2))
    each[1:] *= _REACH
    return np.array([each[first:last].max() for first, last in LIMB_SLOTS])


def moving(free: np.ndarray) -> np.ndarray:
    """[6] bool: limbs whose motion and its reverse differ noticeably."""
    return travel(free) > LEAST_TRAVEL


def doubt(free: np.ndarray, wrong: np.ndarray) -> float:
    """Expected share of the motion (squared travel) that runs the wrong way; 0 where nothing moves. wrong: [6, 6]."""
    weight = np.where(moving(free), travel(free) ** 2, 0.0)
    return float(weight @ np.diagonal(wrong) / weight.sum()) if weight.any() else 0.0


def reversal_covariance(free: np.ndarray, wrong: np.ndarray) -> np.ndarray:
    """What not knowing the direction adds to the covariance [n, n]: mean squared distance from the motion given.

    free [21, K, 3]: coefficients over one exposure.  wrong [6, 6]: probability that two limbs are both reversed.
    A reversed limb is off by twice its odd part, so this is sum_lm 4 wrong_lm odd_l odd_m'.
    """
    odd = np.zeros((LIMB_COUNT,) + free.shape)
    part = _odd(free)
    for limb, (first, last) in enumerate(LIMB_SLOTS):
        odd[limb, first:last] = part[first:last]
    flat = odd.reshape(LIMB_COUNT, -1)
    return 4.0 * flat.T @ wrong @ flat


UNKNOWN = 0.25 * (np.ones((LIMB_COUNT, LIMB_COUNT)) + np.eye(LIMB_COUNT))  # `wrong` of six independent fair coins


def _odd(free: np.ndarray) -> np.ndarray:
    return 0.5 * (free - polynomials.reverse(free))



def _limb_covariance(full: np.ndarray, rows: np.ndarray, turning: np.ndarray, first: int, last: int) -> np.ndarray:
    """[2, m, m] of (pose, velocity) x slot x axis at both ends. rows [2, ends, K], turning [ends, 21, 3, 3]."""
    orders, count = rows.shape[2], last - first
    block = full.reshape(FREE_COUNT, orders, 3, FREE_COUNT, orders, 3)[first:last, :, :, first:last]
    out = np.empty((2, 6 * count, 6 * count))
    for end in range(2):
        spread = np.einsum("ok,sab->osakb", rows[:, end], turning[end, first:last])
        state = np.einsum("osakb,skbulc->osaulc", spread, block, optimize=True)
        state = np.einsum("osaulc,pudlc->osapud", state, spread, optimize=True).reshape(6 * count, 6 * count)
        out[end] = 0.5 * (state + state.T)
    return out
