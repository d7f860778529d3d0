"""Fits the body to one frame's evidence: Levenberg-Marquardt over translation, 24 rotations and shape.

Cost = robust reprojection of the landmarks + robust bone directions + pose prior + shape prior. All residuals are in
standard deviations, so that the inverse of the final normal matrix is the covariance that the noise model implies.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from blur_motion_ros.body.joints import SMPL24
from blur_motion_ros.fit.priors import PosePrior
from blur_motion_ros.initialiser.evidence import BONES, Evidence
from blur_motion_ros.initialiser.kinematics import BETAS, UNKNOWNS, LandmarkBody, Posed
from blur_motion_ros.motion import rotations
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
        vectors = rotations.log(self.local)
        return BodyState(vectors[0], vectors[1:], self.betas.copy(), self.transl.copy())

    @staticmethod
    def of(state: BodyState) -> Pose:
        """From SMPL parameters."""
        vectors = np.concatenate([np.reshape(state.global_orient, (1, 3)), np.reshape(state.body_pose, (23, 3))])
        return Pose(np.asarray(state.transl, float), rotations.exp(vectors.astype(float)),
                    np.asarray(state.betas, float))


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
        diagonal = np.diag(here.normal)
        step = np.linalg.solve(here.normal + np.diag(damping * diagonal + 1e-9), -gradient)
        trial, trial_gradient = _evaluate(problem, here.pose.moved(step))
        if trial.cost < here.cost:
            done = trial.cost > here.cost * (1 - _GAIN)
            here, gradient, damping = trial, trial_gradient, damping / 4
            if done:
                break
        else:
            damping *= 8
    return here


def covariance(normal: np.ndarray) -> np.ndarray:
    """[75, 75] over (transl, rotation tangents), for the shape as estimated: inverse normal matrix without betas."""
    return np.linalg.inv(normal[:75, :75])


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
    posed = problem.body.posed(pose.transl, pose.local, pose.betas)
    cost, gradient, data = 0.0, np.zeros(UNKNOWNS), np.zeros((UNKNOWNS, UNKNOWNS))
    for residual, jacobian in (_reprojection(problem, posed), _directions(problem.evidence, posed)):
        term, weight = _robust((residual**2).sum(1), problem.outlier)
        flat = (jacobian * weight[:, None, None]).reshape(-1, UNKNOWNS)
        cost += term
        gradient += flat.T @ residual.ravel()
        data += flat.T @ jacobian.reshape(-1, UNKNOWNS)
    r, j = _pose_prior(problem.prior, pose)
    away = pose.betas - problem.shape.mean
    normal = data.copy()
    normal[6:75, 6:75] += j.T @ j
    normal[BETAS, BETAS] += problem.shape.precision
    gradient[6:75] += j.T @ r
    gradient[BETAS] += problem.shape.precision @ away
    cost += float(r @ r + away @ problem.shape.precision @ away)
    return Registration(pose, cost, normal, data, posed), gradient


def _reprojection(problem: Problem, posed: Posed) -> tuple[np.ndarray, np.ndarray]:
    """Residual [33, 2] and jacobian [33, 2, 85]."""
    z = np.maximum(posed.points[:, 2:], _NEAR)
    rays = posed.points[:, :2] / z
    slope = (posed.jacobian[:, :2] - rays[:, :, None] * posed.jacobian[:, 2:]) / z[:, :, None]
    whiten = problem.evidence.whiten * problem.distance
    return np.einsum("pab,pb->pa", whiten, rays - problem.evidence.rays), np.matmul(whiten, slope)


def _directions(evidence: Evidence, posed: Posed) -> tuple[np.ndarray, np.ndarray]:
    """Residual [B, 3] and jacobian [B, 3, 85]."""
    d = posed.points[BONES[:, 1]] - posed.points[BONES[:, 0]]
    length = np.maximum(np.linalg.norm(d, axis=1), 1e-6)[:, None]
    unit = d / length
    across = (np.eye(3) - unit[:, :, None] * unit[:, None, :]) / length[:, :, None]
    whiten = evidence.bone_whiten
    slope = np.matmul(np.matmul(whiten, across), posed.jacobian[BONES[:, 1]] - posed.jacobian[BONES[:, 0]])
    return np.einsum("bij,bj->bi", whiten, unit - evidence.directions), slope


def _pose_prior(prior: PosePrior, pose: Pose) -> tuple[np.ndarray, np.ndarray]:
    """Residual [m] and jacobian [m, 69] by the tangents of the 23 joints."""
    vectors = rotations.log(pose.local[1:])
    r, j = prior.residual(vectors)
    inverse = rotations.inverse_right_jacobian(vectors)
    return r, np.einsum("mja,jab->mjb", j.reshape(len(r), 23, 3), inverse).reshape(len(r), 69)


def _robust(squared: np.ndarray, outlier: float) -> tuple[float, np.ndarray]:
    """Geman-McClure: total cost and weights; quadratic near zero, constant far beyond `outlier`."""
    c = outlier**2
    return float((squared / (1 + squared / c)).sum()), 1 / (1 + squared / c) ** 2


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
