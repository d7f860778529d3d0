"""Two fits of one recording, forwards and backwards in time, made into one.

What a fit hands on from window to window keeps its mistakes alive: a limb that was lost stays lost for a while, always
*after* the moment that it could not see. Run backwards the same recording has its mistakes elsewhere, so each limb's
motion is taken from both, weighted by how sure each fit is of it; where they differ, the covariance says so.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from blur_motion_ros.fit.direction import reverse_limbs, within
from blur_motion_ros.fit.layout import FREE_COUNT, FREE_JOINTS, LIMB_OF_SLOT, LIMBS, free_indices
from blur_motion_ros.motion import polynomials, rotations
from blur_motion_ros.motion.pose import body_state, local_rotations
from blur_motion_ros.types import BEGINNINGS, Exposure, MotionEstimate, Status


def mirrored(estimate: MotionEstimate, total: float) -> MotionEstimate:
    """The motion over the exposure that it is about, run backwards: what was at time t is at `total` - t."""
    turned = reverse_limbs(estimate, np.ones(len(LIMBS), bool))
    start, end = total - turned.end, total - turned.start
    return replace(turned, start=start, end=end, exposures=(Exposure(start, end),))


def agreed(a: MotionEstimate, b: MotionEstimate) -> MotionEstimate:
    """Both motions over the exposure that they are about (the last of each, the same), as one.

    Each limb between the two, nearer to the one that is surer of it (its variance at mid-exposure). Covariance: the
    weighted mean of both, as they rest on the same images, and the square of what each is away from the mean.
    """
    if a.status & Status.LOST or b.status & Status.LOST:
        return b if a.status & Status.LOST else a
    a, b = within(a), within(b)
    share = _share_of_second(a, b)
    degree = a.coefficients.shape[1] - 1
    times = polynomials.nodes(a.start, a.end, degree)
    first, second = _motion(a, times), _motion(b, times)
    slots = np.zeros(25)
    slots[0], slots[1 + FREE_JOINTS] = share[0], share[1:]
    rotmats = rotations.slerp(first[0], second[0], np.broadcast_to(slots[1:], first[0].shape[:2]))
    transl = first[1] + slots[0] * (second[1] - first[1])
    reference, middle, coefficients = polynomials.fit_motion(rotmats, transl, times, a.start, a.end, degree)
    away = _tangents(second, reference, middle) - _tangents(first, reference, middle)
    apart = polynomials.fit(away, times, a.start, a.end, degree).reshape(-1)
    free, weight = free_indices(degree), np.repeat(share, 3 * (degree + 1))
    covariance = None
    if a.covariance is not None and b.covariance is not None:
        root_a, root_b = np.sqrt(1 - weight), np.sqrt(weight)
        off = np.sqrt(weight * (1 - weight)) * apart[free]
        covariance = (root_a[:, None] * a.covariance * root_a + root_b[:, None] * b.covariance * root_b
                      + np.outer(off, off))
    status = (a.status | b.status) & ~BEGINNINGS | (a.status & b.status)  # one of the two had a past there
    state = body_state(reference, a.reference.betas, middle)
    return replace(a, reference=state, coefficients=coefficients, free=free, covariance=covariance, status=status,
                   rms=0.5 * (a.rms + b.rms))


def _share_of_second(a: MotionEstimate, b: MotionEstimate) -> np.ndarray:
    """[21] weight of b for each free slot, the same within a limb; a half where there is no covariance."""
    if a.covariance is None or b.covariance is None:
        return np.full(FREE_COUNT, 0.5)
    variance = np.stack([np.diagonal(e.covariance).reshape(FREE_COUNT, -1, 3)[:, 0].sum(-1) for e in (a, b)])
    limbs = np.stack([[v[LIMB_OF_SLOT == limb].mean() for limb in range(len(LIMBS))] for v in variance])
    return (limbs[0] / np.maximum(limbs.sum(0), 1e-12))[LIMB_OF_SLOT]


def _motion(estimate: MotionEstimate, times: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Local rotations [T, 24, 3, 3] and translation [T, 3] at `times`."""
    basis = polynomials.basis(times, estimate.start, estimate.end, estimate.coefficients.shape[1] - 1)
    value = np.einsum("tk,jkc->tjc", basis, estimate.coefficients)
    return local_rotations(estimate.reference) @ rotations.exp(value[:, 1:]), estimate.reference.transl + value[:, 0]


def _tangents(motion: tuple[np.ndarray, np.ndarray], reference: np.ndarray, transl: np.ndarray) -> np.ndarray:
    """[T, 25, 3] a motion relative to a reference: translation m, rotation vectors rad."""
    logs = rotations.log(np.swapaxes(reference, -1, -2) @ motion[0])
    return np.concatenate([(motion[1] - transl)[:, None], logs], 1)
