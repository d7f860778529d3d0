"""Sample a fitted motion: joints, velocities and covariances at any time, inside the window or past it."""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from blur_motion_ros.fit.kinematics import FitBody, Posed, pose
from blur_motion_ros.fit.layout import FREE_COUNT, FREE_JOINTS, FREE_ROWS
from blur_motion_ros.motion import polynomials
from blur_motion_ros.motion.pose import local_rotations
from blur_motion_ros.trajectory.settings import TrajectorySettings
from blur_motion_ros.types import JointTrajectory, MotionEstimate


def sample(estimate: MotionEstimate, body: FitBody, times: np.ndarray,
           settings: TrajectorySettings | None = None) -> JointTrajectory:
    """Joint trajectory of `estimate` at `times` [T] s (see `types.JointTrajectory` for shapes and frames).

    Outside the window the motion goes on with the velocity at its end, and the covariance grows with the unknown
    acceleration: a prediction that says how old it is. To the fit's own covariance come what it cannot know: how the
    body under the clothes differs from the model, and the scale of the scene (stature is unknown).
    """
    settings = settings or TrajectorySettings()
    times = np.atleast_1d(np.asarray(times, np.float64))
    basis, rate = _extended(estimate, times)
    posed = _pose(estimate, body, basis, skin=False)
    jacobian = joint_jacobian(posed, body.parents)
    motion = np.einsum("tk,jkc->tjc", rate, estimate.coefficients)[:, FREE_ROWS]
    velocity = np.einsum("tjasb,tsb->tja", jacobian, motion)
    age = np.abs(times - np.clip(times, estimate.start, estimate.end))
    position_cov, velocity_cov = _covariances(estimate, jacobian, basis, rate)
    position_cov *= settings.pose_inflation**2
    velocity_cov *= settings.inflation**2
    position_cov += _unmodelled(posed.joints, 0.5 * settings.acceleration_sigma * age**2, settings)
    velocity_cov += (settings.acceleration_sigma * age[:, None, None, None]) ** 2 * np.eye(3)
    velocity_cov += settings.scale_sigma**2 * velocity[..., :, None] * velocity[..., None, :]
    return JointTrajectory(times, posed.joints, posed.globals, velocity, _angular(posed, motion, body.parents),
                           position_cov, velocity_cov, estimate.exposures[-1], estimate.status)


def joints_at(estimate: MotionEstimate, body: FitBody, times: np.ndarray) -> np.ndarray:
    """Joint positions [T, 24, 3] m alone, at `times` [T] s."""
    return _pose(estimate, body, _extended(estimate, np.asarray(times, np.float64))[0], skin=False).joints


def pose_at(estimate: MotionEstimate, body: FitBody, times: np.ndarray) -> Posed:
    """The posed body, skin included, at `times` [T] s."""
    return _pose(estimate, body, _extended(estimate, np.asarray(times, np.float64))[0], skin=True)


def _pose(estimate: MotionEstimate, body: FitBody, basis: np.ndarray, skin: bool) -> Posed:
    at = estimate.reference
    return pose(body, local_rotations(at), at.transl, estimate.coefficients, basis, skin)


def joint_jacobian(posed: Posed, parents: np.ndarray) -> np.ndarray:
    """d joint / d free parameter: [T, 24, 3, 21, 3] (slot 0 = translation)."""
    out = np.zeros((len(posed.joints), 24, 3, FREE_COUNT, 3))
    out[:, :, :, 0] = np.eye(3)
    arm = posed.joints[:, :, None] - posed.joints[:, None, FREE_JOINTS]
    arm = arm * _moved_by(tuple(parents.tolist()))[None, :, :, None]
    turning = np.swapaxes(posed.lever[:, None, 1:], -1, -2)  # [T, 1, 20, parameter axis, xyz]
    out[:, :, :, 1:] = np.moveaxis(np.cross(turning, arm[..., None, :]), -1, 2)
    return out


@lru_cache(maxsize=4)
def _moved_by(parents: tuple[int, ...]) -> np.ndarray:
    """[24, 20] 1 where a free joint is a proper ancestor of a joint."""
    return np.array([[float(j in _ancestors(i, parents)[1:]) for j in FREE_JOINTS] for i in range(24)])


def _unmodelled(joints: np.ndarray, drift: np.ndarray, settings: TrajectorySettings) -> np.ndarray:
    """Position covariance [T, 24, 3, 3] beyond the fit's own; drift [T] m: of a prediction."""
    own = (settings.model_sigma**2 + drift**2)[:, None, None, None] * np.eye(3)
    return own + settings.scale_sigma**2 * joints[..., :, None] * joints[..., None, :]


def _extended(estimate: MotionEstimate, times: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Basis and rate [T, K] that continue linearly outside the window."""
    degree = estimate.coefficients.shape[1] - 1
    inside = np.clip(times, estimate.start, estimate.end)
    basis = polynomials.basis(inside, estimate.start, estimate.end, degree)
    rate = polynomials.basis_rate(inside, estimate.start, estimate.end, degree)
    return basis + rate * (times - inside)[:, None], rate


def _covariances(estimate: MotionEstimate, jacobian: np.ndarray, basis: np.ndarray, rate: np.ndarray
                 ) -> tuple[np.ndarray, np.ndarray]:
    """Joint position and velocity covariances [T, 24, 3, 3] of the fit itself (NaN without one)."""
    shape = jacobian.shape[:2] + (3, 3)
    if estimate.covariance is None:
        return np.full(shape, np.nan), np.full(shape, np.nan)
    orders = basis.shape[1]
    blocks = estimate.covariance.reshape(FREE_COUNT, orders, 3, FREE_COUNT, orders, 3)
    blocks = np.ascontiguousarray(np.transpose(blocks, (1, 4, 0, 2, 3, 5))).reshape(orders * orders, -1)
    return _project(jacobian, basis, blocks), _project(jacobian, rate, blocks)


def _project(jacobian: np.ndarray, basis: np.ndarray, blocks: np.ndarray) -> np.ndarray:
    """Covariance of the coefficients, blocks [K * K, 63 * 63] -> covariance of each joint [T, 24, 3, 3]."""
    count, unknowns = len(basis), FREE_COUNT * 3
    pairs = (basis[:, :, None] * basis[:, None, :]).reshape(count, -1)
    pose_cov = (pairs @ blocks).reshape(count, unknowns, unknowns)
    j = jacobian.reshape(count, 24, 3, unknowns)
    half = jacobian.reshape(count, 72, unknowns) @ pose_cov
    return half.reshape(j.shape) @ np.swapaxes(j, -1, -2)


def _angular(posed: Posed, motion: np.ndarray, parents: np.ndarray) -> np.ndarray:
    """World angular velocity [T, 24, 3]: the sum over each joint's ancestors and itself."""
    own = np.zeros((len(motion), 24, 3))
    own[:, FREE_JOINTS] = np.einsum("tsab,tsb->tsa", posed.lever[:, 1:], motion[:, 1:])
    total = own.copy()
    for j in range(1, 24):
        total[:, j] += total[:, parents[j]]
    return total


def _ancestors(joint: int, parents: tuple[int, ...]) -> list[int]:
    chain = [joint]
    while chain[-1] != 0:
        chain.append(parents[chain[-1]])
    return chain
