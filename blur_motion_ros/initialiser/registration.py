"""Fits the body to one frame's evidence: Levenberg-Marquardt over translation, 24 rotations and shape.

Cost = robust reprojection of the landmarks + robust bone directions + pose prior + shape prior. All residuals are in
standard deviations, so that the inverse of the final normal matrix is the covariance that the noise model implies.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numba import njit

from blur_motion_ros.body.joints import SMPL24
from blur_motion_ros.fit import linear
from blur_motion_ros.fit.priors import PosePrior
from blur_motion_ros.initialiser.evidence import BONES, Evidence
from blur_motion_ros.initialiser.kinematics import BETAS, UNKNOWNS, LandmarkBody, Posed
from blur_motion_ros.motion import rotations
from blur_motion_ros.motion.pose import body_state, local_rotations
from blur_motion_ros.types import BodyState

_NEAR = 0.2  # m: no landmark comes closer to the camera than this
_GAIN = 1e-3  # relative decrease of the cost under which the iteration stops


@dataclass(frozen=True)
class Pose:
    """transl: [3] m.  local: [24, 3, 3].  betas: [10]."""

    transl: np.ndarray
    local: np.ndarray
    betas: np.ndarray

    def moved(self, step: np.ndarray) -> Pose:
        """After a step of the unknowns [85] (see `kinematics`)."""
        return Pose(self.transl + step[:3], self.local @ rotations.exp(step[3:75].reshape(24, 3)),
                    self.betas + step[BETAS])

    @property
    def state(self) -> BodyState:
        """As SMPL parameters."""
        return body_state(self.local, self.betas.copy(), self.transl.copy())

    @staticmethod
    def of(state: BodyState) -> Pose:
        """From SMPL parameters."""
        return Pose(np.asarray(state.transl, float), local_rotations(state), np.asarray(state.betas, float))


@dataclass(frozen=True)
class ShapePrior:
    """Gaussian on betas.  mean [10], precision [10, 10]."""

    mean: np.ndarray
    precision: np.ndarray

    @staticmethod
    def people(body: LandmarkBody, stature: float, sigma: float) -> ShapePrior:
        """Standard normal betas, but for the direction that changes body height: there, as told (m)."""
        slope = np.linalg.norm(body.stature[1:])
        direction = body.stature[1:] / max(slope, 1e-9)
        along = np.outer(direction, direction)
        mean = direction * (stature - body.stature[0]) / max(slope, 1e-9)
        return ShapePrior(mean, np.eye(10) - along + along * (slope / sigma)**2)


@dataclass(frozen=True)
class Problem:
    """Everything that a registration is given.

    distance: m, roughly how far the person is: it turns landmark noise on the body into noise of rays (a constant, as
    noise that shrank with the estimate itself would pull every body towards the camera).
    outlier: sigmas beyond which evidence loses influence.
    """

    body: LandmarkBody
    evidence: Evidence
    prior: PosePrior
    shape: ShapePrior
    distance: float
    outlier: float = 3.0


@dataclass(frozen=True)
class Registration:
    """pose; cost; normal: [85, 85] Gauss-Newton matrix there; data: its part from the landmarks alone; posed."""

    pose: Pose
    cost: float
    normal: np.ndarray
    data: np.ndarray
    posed: Posed


def register(problem: Problem, start: Pose, iterations: int) -> Registration:
    """Levenberg-Marquardt from `start`."""
    best = _evaluate(problem, start)
    gradient, damping = best[1], 1e-2
    here = best[0]
    for _ in range(iterations):
        step = _damped_step(here.normal, gradient, damping)
        trial, trial_gradient = _evaluate(problem, here.pose.moved(step))
        if trial.cost < here.cost:
            done = trial.cost > here.cost * (1 - _GAIN)
            here, gradient, damping = trial, trial_gradient, damping / 4
            if done:
                break
        else:
            damping *= 8
    return here


def _damped_step(normal: np.ndarray, gradient: np.ndarray, damping: float) -> np.ndarray:
    damped = normal.copy()
    damped.reshape(-1)[::len(damped) + 1] += damping * np.diag(normal) + 1e-9
    step = linear.solve(damped, -gradient)
    return step if step is not None else np.zeros_like(gradient)


def covariance(normal: np.ndarray) -> np.ndarray:
    """[75, 75] over (transl, rotation tangents), for the shape as estimated: inverse normal matrix without betas."""
    return linear.inverse(normal[:75, :75])


def shape_information(data: np.ndarray, normal: np.ndarray) -> np.ndarray:
    """[10, 10]: what the landmarks of one frame say about betas when the pose is unknown (Schur complement)."""
    pose = np.s_[:75]
    return data[BETAS, BETAS] - data[BETAS, pose] @ np.linalg.solve(normal[pose, pose], data[pose, BETAS])


def cold_start(body: LandmarkBody, evidence: Evidence, mean_pose: np.ndarray, betas: np.ndarray) -> Pose:
    """A pose to iterate from, from directions alone: trunk axes, limbs swung onto their bones (mean_pose: [23, 3] gives
    the rest), and the translation that reprojects best."""
    local = np.concatenate([_trunk(evidence)[None], rotations.exp(mean_pose)])
    rest = body.joints + body.joints_by_beta @ betas
    for bone, joint, child in _LIMBS:
        parent = _global(local, body.parents, int(body.parents[joint]))
        local[joint] = _swing(rest[child] - rest[joint], parent.T @ evidence.directions[bone])
    return Pose(_translation(body.posed(np.zeros(3), local, betas).points, evidence), local, betas)


def _evaluate(problem: Problem, pose: Pose) -> tuple[Registration, np.ndarray]:
    """The registration at `pose` and the gradient [85]."""
    posed, seen = problem.body.posed(pose.transl, pose.local, pose.betas), problem.evidence
    rows, right = np.empty((2 * len(posed.points) + 3 * len(BONES), UNKNOWNS)), np.empty(
        2 * len(posed.points) + 3 * len(BONES))
    cost = _landmarks(posed.points, posed.jacobian, seen.rays, problem.distance * seen.whiten, problem.outlier, rows,
                      right)
    cost += _bones(posed.points, posed.jacobian, BONES, seen.directions, seen.bone_whiten, problem.outlier,
                   rows[2 * len(posed.points):], right[2 * len(posed.points):])
    gradient, data = rows.T @ right, rows.T @ rows
    r, j = pose_prior_terms(problem.prior, pose)
    away = pose.betas - problem.shape.mean
    normal = data.copy()
    normal[6:75, 6:75] += j.T @ j
    normal[BETAS, BETAS] += problem.shape.precision
    gradient[6:75] += j.T @ r
    gradient[BETAS] += problem.shape.precision @ away
    cost += float(r @ r + away @ problem.shape.precision @ away)
    return Registration(pose, cost, normal, data, posed), gradient


@njit(cache=True)
def _by_tangents(jacobian, inverse):
    """Jacobian [m, 69] by rotation vectors -> by right tangents; inverse [23, 3, 3]."""
    out = np.zeros(jacobian.shape)
    for i in range(len(jacobian)):
        for j in range(len(inverse)):
            for a in range(3):
                value = jacobian[i, 3 * j + a]
                if value != 0:
                    for b in range(3):
                        out[i, 3 * j + b] += value * inverse[j, a, b]
    return out


@njit(cache=True)
def _landmarks(points, jacobian, rays, whiten, outlier, rows, right):
    """Reprojection of points [33, 3]: rows [66, 85] and residuals [66], times the root of the robust weight. -> cost"""
    cost = 0.0
    for p in range(len(points)):
        z = max(points[p, 2], _NEAR)
        x, y = points[p, 0] / z, points[p, 1] / z
        dx, dy = x - rays[p, 0], y - rays[p, 1]
        for i in range(2):
            wx, wy = whiten[p, i, 0], whiten[p, i, 1]
            right[2 * p + i] = wx * dx + wy * dy
            for n in range(rows.shape[1]):
                depth = jacobian[p, 2, n]
                rows[2 * p + i, n] = (wx * (jacobian[p, 0, n] - x * depth) + wy * (jacobian[p, 1, n] - y * depth)) / z
        cost += _weigh(rows[2 * p:2 * p + 2], right[2 * p:2 * p + 2], outlier)
    return cost


@njit(cache=True)
def _bones(points, jacobian, bones, directions, whiten, outlier, rows, right):
    """Directions of bones [B, 2]: rows [3 B, 85] and residuals [3 B], times the root of the robust weight. -> cost"""
    cost = 0.0
    slope = np.empty((3, 3))
    for b in range(len(bones)):
        start, end = bones[b]
        d = points[end] - points[start]
        length = max(np.sqrt(d[0] * d[0] + d[1] * d[1] + d[2] * d[2]), 1e-6)
        unit = d / length
        for i in range(3):
            right[3 * b + i] = 0.0
            along = 0.0
            for j in range(3):
                right[3 * b + i] += whiten[b, i, j] * (unit[j] - directions[b, j])
                along += whiten[b, i, j] * unit[j]
            for j in range(3):
                slope[i, j] = (whiten[b, i, j] - along * unit[j]) / length
            for n in range(rows.shape[1]):
                total = 0.0
                for j in range(3):
                    total += slope[i, j] * (jacobian[end, j, n] - jacobian[start, j, n])
                rows[3 * b + i, n] = total
        cost += _weigh(rows[3 * b:3 * b + 3], right[3 * b:3 * b + 3], outlier)
    return cost


@njit(cache=True, nogil=True)
def _weigh(rows, right, outlier):
    """Geman-McClure on a residual vector: quadratic near zero, constant far beyond `outlier`. -> cost"""
    squared = 0.0
    for i in range(len(right)):
        squared += right[i] * right[i]
    root = 1 / (1 + squared / outlier**2)
    for i in range(len(right)):
        right[i] *= root
        for n in range(rows.shape[1]):
            rows[i, n] *= root
    return squared * root


def pose_prior_terms(prior: PosePrior, pose: Pose) -> tuple[np.ndarray, np.ndarray]:
    """Residual [m] and jacobian [m, 69] by the tangents of the 23 joints."""
    vectors = rotations.log(pose.local[1:])
    r, j = prior.residual(vectors)
    inverse = rotations.inverse_right_jacobian(vectors)
    return r, _by_tangents(np.ascontiguousarray(j), inverse)


def _bone(a: int, b: int) -> int:
    return int(np.flatnonzero((BONES == (a, b)).all(1))[0])


# Directions taken over at a cold start: (row of BONES, SMPL joint that swings, its child), parents first.
_LIMBS = tuple((_bone(a, b), SMPL24.index(joint), SMPL24.index(child)) for a, b, joint, child in (
    (23, 25, "left_hip", "left_knee"), (24, 26, "right_hip", "right_knee"), (25, 27, "left_knee", "left_ankle"),
    (26, 28, "right_knee", "right_ankle"), (11, 13, "left_shoulder", "left_elbow"),
    (12, 14, "right_shoulder", "right_elbow"), (13, 15, "left_elbow", "left_wrist"),
    (14, 16, "right_elbow", "right_wrist")))


def _trunk(evidence: Evidence) -> np.ndarray:
    """[3, 3] global orientation from the hips' and shoulders' line and the sides of the trunk (SMPL: x left, y up)."""
    d = evidence.directions
    up = d[_bone(23, 11)] + d[_bone(24, 12)]
    left = -d[_bone(23, 24)] - d[_bone(11, 12)]
    y = up / max(np.linalg.norm(up), 1e-9)
    x = left - (left @ y) * y
    x = x / max(np.linalg.norm(x), 1e-9)
    return np.stack([x, y, np.cross(x, y)], 1)


def _global(local: np.ndarray, parents: np.ndarray, joint: int) -> np.ndarray:
    out = np.eye(3)
    while joint >= 0:
        out = local[joint] @ out
        joint = int(parents[joint])
    return out


def _swing(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Smallest rotation that turns direction a to direction b."""
    a, b = a / np.linalg.norm(a), b / np.linalg.norm(b)
    axis = np.cross(a, b)
    sine = np.linalg.norm(axis)
    if sine < 1e-9:
        return np.eye(3)
    return rotations.exp(axis / sine * np.arctan2(sine, a @ b))


def _translation(points: np.ndarray, evidence: Evidence) -> np.ndarray:
    """[3] that brings points [33, 3] closest to their rays; weighted by how well each is seen."""
    rows = np.zeros((len(points), 2, 3))
    rows[:, 0, 0] = rows[:, 1, 1] = 1
    rows[:, :, 2] = -evidence.rays
    right = evidence.rays * points[:, 2:] - points[:, :2]
    rows, right = np.matmul(evidence.whiten, rows), np.einsum("pab,pb->pa", evidence.whiten, right)
    solution = np.linalg.lstsq(rows.reshape(-1, 3), right.ravel(), rcond=None)[0]
    return np.array([solution[0], solution[1], max(solution[2], 2 * _NEAR)])


def with_shape(pose: Pose, betas: np.ndarray) -> Pose:
    """The same pose with another shape."""
    return replace(pose, betas=betas)
