"""Joints and velocities of a fitted motion with their stated covariance, absolute and relative to the pelvis, against
the truth: what `calibration` judges.

Relative to the pelvis, most of the common errors (distance, scale) cancel: the covariance of the difference needs the
correlation between the joints, which a `JointTrajectory` no longer has, so it is propagated anew from the coefficients.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from blur_motion_ros.body.joints import SMPL24
from blur_motion_ros.fit.kinematics import FitBody
from blur_motion_ros.motion import polynomials
from blur_motion_ros.trajectory.sampling import joint_jacobian, pose_at, sample
from blur_motion_ros.trajectory.settings import TrajectorySettings
from blur_motion_ros.types import MotionEstimate

_PARTS = {"trunk, head": ("pelvis", "spine1", "spine2", "spine3", "neck", "head"),
          "hips, shoulders": ("left_hip", "right_hip", "left_collar", "right_collar", "left_shoulder",
                              "right_shoulder"),
          "knees, elbows": ("left_knee", "right_knee", "left_elbow", "right_elbow"),
          "ankles, feet": ("left_ankle", "right_ankle", "left_foot", "right_foot"),
          "wrists, hands": ("left_wrist", "right_wrist", "left_hand", "right_hand")}
GROUPS = {name: tuple(SMPL24.index(joint) for joint in joints) for name, joints in _PARTS.items()}
QUANTITIES = ("pose", "pose, root-relative", "velocity", "velocity, root-relative")


@dataclass(frozen=True)
class Stated:
    """Values [T, 24, 3] and covariances [T, 24, 3, 3], camera frame, SI units."""

    value: np.ndarray
    covariance: np.ndarray


def stated(estimate: MotionEstimate, body: FitBody, times: np.ndarray, settings: TrajectorySettings
           ) -> dict[str, Stated]:
    """What an estimate with covariance says at `times` [T] s inside its window, by QUANTITIES."""
    s = sample(estimate, body, times, settings)
    position, velocity = relative(estimate, body, times, settings)
    both = (Stated(s.positions, s.position_covariance), position, Stated(s.linear_velocity, s.velocity_covariance),
            velocity)
    return dict(zip(QUANTITIES, both, strict=True))


def relative(estimate: MotionEstimate, body: FitBody, times: np.ndarray, settings: TrajectorySettings
             ) -> tuple[Stated, Stated]:
    """Position and velocity relative to the pelvis. What the fit cannot know is added as `trajectory.sample` does:
    the model's error of both joints, independent, and the scale."""
    degree = estimate.coefficients.shape[1] - 1
    span = estimate.start, estimate.end, degree
    basis, rate = polynomials.basis(times, *span), polynomials.basis_rate(times, *span)
    s = sample(estimate, body, times, settings)
    moved = joint_jacobian(pose_at(estimate, body, times), body.parents)
    moved = moved - moved[:, :1]
    place, velocity = (v - v[:, :1] for v in (s.positions, s.linear_velocity))
    own = estimate.covariance
    place_cov = settings.pose_inflation**2 * propagated(moved, basis, own) + 2 * settings.model_sigma**2 * np.eye(3)
    velocity_cov = settings.inflation**2 * propagated(moved, rate, own)
    scale = settings.scale_sigma**2
    return (Stated(place, place_cov + scale * place[..., :, None] * place[..., None, :]),
            Stated(velocity, velocity_cov + scale * velocity[..., :, None] * velocity[..., None, :]))


def propagated(jacobian: np.ndarray, basis: np.ndarray, covariance: np.ndarray) -> np.ndarray:
    """Covariance [T, 24, 3, 3] of points with d point / d parameter [T, 24, 3, 21, 3], parameters being polynomials
    with `basis` [T, K] and covariance [21 K 3, 21 K 3] of their coefficients."""
    count, orders = basis.shape
    blocks = covariance.reshape(-1, orders, 3, jacobian.shape[3], orders, 3)
    now = np.einsum("tk,akbcld,tl->tabcd", basis, blocks, basis, optimize=True)
    now = now.reshape(count, 1, jacobian.shape[3] * 3, -1)
    j = jacobian.reshape(*jacobian.shape[:3], -1)
    return j @ now @ np.swapaxes(j, -1, -2)


def true_values(joints: np.ndarray, times: np.ndarray) -> dict[str, np.ndarray]:
    """The same of true joints [S, 24, 3] m at times [S] s, at the interior instants: [S - 2, 24, 3] each."""
    velocity = (joints[2:] - joints[:-2]) / (times[2:] - times[:-2])[:, None, None]
    place = joints[1:-1]
    found = (place, place - place[:, :1], velocity, velocity - velocity[:, :1])
    return dict(zip(QUANTITIES, found, strict=True))
