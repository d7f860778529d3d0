"""Sample a fitted motion: joints, velocities and covariances at any time, inside the window or past it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from blur_motion_ros.fit.kinematics import FitBody, Posed, pose
from blur_motion_ros.fit.layout import FREE_COUNT, FREE_JOINTS, FREE_ROWS
from blur_motion_ros.motion import polynomials, rotations
from blur_motion_ros.trajectory.settings import TrajectorySettings
from blur_motion_ros.types import JointTrajectory, MotionEstimate


@dataclass(frozen=True)
class _Chain:
    """The kinematic part of a body, as `fit.kinematics.pose` needs it when nothing is skinned."""

    rest_joints: np.ndarray
    parents: np.ndarray


def sample(estimate: MotionEstimate, body: FitBody | _Chain, times: np.ndarray,
           acceleration_sigma: float = TrajectorySettings().acceleration_sigma) -> JointTrajectory:
    """Joint trajectory of `estimate` at `times` [T] s (see `types.JointTrajectory` for shapes and frames).

    Outside the window the motion goes on with the velocity at its end, and the covariance grows with the unknown
    acceleration: a prediction that says how old it is.
    """
    times = np.atleast_1d(np.asarray(times, np.float64))
    basis, rate = _extended(estimate, times)
    posed = _pose(estimate, body, basis, skin=False)
    jacobian = joint_jacobian(posed, body.parents)
    motion = np.einsum("tk,jkc->tjc", rate, estimate.coefficients)[:, FREE_ROWS]
    velocity = np.einsum("tjasb,tsb->tja", jacobian, motion)
    position_cov, velocity_cov = _covariances(estimate, jacobian, basis, rate, times, acceleration_sigma)
    return JointTrajectory(times, posed.joints, posed.globals, velocity, _angular(posed, motion, body.parents),
                           position_cov, velocity_cov, estimate.exposures[-1], estimate.status)


def joints_at(estimate: MotionEstimate, body: FitBody, times: np.ndarray) -> np.ndarray:
    """Joint positions [T, 24, 3] m alone, at `times` [T] s."""
    return _pose(estimate, body, _extended(estimate, np.asarray(times, np.float64))[0], skin=False).joints


def pose_at(estimate: MotionEstimate, body: FitBody, times: np.ndarray) -> Posed:
    """The posed body, skin included, at `times` [T] s."""
    return _pose(estimate, body, _extended(estimate, np.asarray(times, np.float64))[0], skin=True)


def _pose(estimate: MotionEstimate, body: FitBody | _Chain, basis: np.ndarray, skin: bool) -> Posed:
    reference = rotations.exp(np.concatenate([estimate.reference.global_orient[None], estimate.reference.body_pose]))
    return pose(body, reference, estimate.reference.transl, estimate.coefficients, basis, skin)


def joint_jacobian(posed: Posed, parents: np.ndarray) -> np.ndarray:
    """d joint / d free parameter: [T, 24, 3, 21, 3] (slot 0 = translation)."""
    count = len(posed.joints)
    out = np.zeros((count, 24, 3, FREE_COUNT, 3))
    out[:, :, :, 0] = np.eye(3)
    for j in range(24):
        for ancestor in _ancestors(j, parents)[1:]:
            slot = np.flatnonzero(FREE_JOINTS == ancestor)
            if len(slot):
                arm = posed.joints[:, j] - posed.joints[:, ancestor]
                out[:, j, :, 1 + slot[0]] = -rotations.skew(arm) @ posed.lever[:, 1 + slot[0]]
    return out


def _extended(estimate: MotionEstimate, times: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Basis and rate [T, K] that continue linearly outside the window."""
    degree = estimate.coefficients.shape[1] - 1
    inside = np.clip(times, estimate.start, estimate.end)
    basis = polynomials.basis(inside, estimate.start, estimate.end, degree)
    rate = polynomials.basis_rate(inside, estimate.start, estimate.end, degree)
    return basis + rate * (times - inside)[:, None], rate


def _covariances(estimate, jacobian, basis, rate, times, acceleration_sigma):
    shape = jacobian.shape[:2] + (3, 3)
    if estimate.covariance is None:
        return np.full(shape, np.nan), np.full(shape, np.nan)
    age = np.maximum(0.0, np.abs(times - np.clip(times, estimate.start, estimate.end)))[:, None, None, None]
    eye = np.eye(3)
    position = _project(jacobian, basis, estimate.covariance) + (0.5 * acceleration_sigma * age**2) ** 2 * eye
    velocity = _project(jacobian, rate, estimate.covariance) + (acceleration_sigma * age) ** 2 * eye
    return position, velocity


def _project(jacobian: np.ndarray, basis: np.ndarray, covariance: np.ndarray) -> np.ndarray:
    """Covariance of the coefficients [n, n] -> covariance of each joint [T, 24, 3, 3]."""
    count, orders = basis.shape
    blocks = covariance.reshape(FREE_COUNT, orders, 3, FREE_COUNT, orders, 3)
    out = np.empty((count,) + jacobian.shape[1:3] + (3,))
    for t in range(count):
        pose_cov = np.einsum("k,skaulb,l->saub", basis[t], blocks, basis[t], optimize=True)
        pose_cov = pose_cov.reshape(FREE_COUNT * 3, FREE_COUNT * 3)
        j = jacobian[t].reshape(24, 3, FREE_COUNT * 3)
        out[t] = (j @ pose_cov) @ np.swapaxes(j, -1, -2)
    return out


def _angular(posed: Posed, motion: np.ndarray, parents: np.ndarray) -> np.ndarray:
    """World angular velocity [T, 24, 3]: the sum over each joint's ancestors and itself."""
    own = np.zeros((len(motion), 24, 3))
    own[:, FREE_JOINTS] = np.einsum("tsab,tsb->tsa", posed.lever[:, 1:], motion[:, 1:])
    total = own.copy()
    for j in range(1, 24):
        total[:, j] += total[:, parents[j]]
    return total


def _ancestors(joint: int, parents: np.ndarray) -> list[int]:
    chain = [joint]
    while chain[-1] != 0:
        chain.append(int(parents[chain[-1]]))
    return chain




