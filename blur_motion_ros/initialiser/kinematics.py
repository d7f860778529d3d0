"""Landmarks of a posed body and their derivatives: what registration needs of a body model, and no mesh.

A landmark is a point fixed to one joint's frame. Unknowns, in this order: transl [3] m, right tangents of the 24 local
rotations [72] rad (`R = R exp(delta)`), betas [10].
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numba import njit

UNKNOWNS = 85
BETAS = slice(75, 85)


@dataclass(frozen=True)
class LandmarkBody:
    """joints [24, 3] and points [P, 3] of the mean shape in the rest pose, m, with their slopes by betas
    [24, 3, 10], [P, 3, 10]; point_joint [P]: the joint each point rides on; parents [24]."""

    joints: np.ndarray
    joints_by_beta: np.ndarray
    points: np.ndarray
    points_by_beta: np.ndarray
    point_joint: np.ndarray
    parents: np.ndarray

    def posed(self, transl: np.ndarray, local: np.ndarray, betas: np.ndarray) -> Posed:
        """transl [3], local [24, 3, 3], betas [10] -> points, joints and the points' Jacobian."""
        rest = self.joints + self.joints_by_beta @ betas
        points = self.points + self.points_by_beta @ betas
        out = Posed(np.empty((len(points), 3)), np.empty((24, 3)), np.empty((24, 3, 3)),
                    np.zeros((len(points), 3, UNKNOWNS)))
        _posed(transl, local, rest, points, self.joints_by_beta, self.points_by_beta, self.point_joint, self.parents,
               out.points, out.joints, out.globals, out.jacobian)
        return out


@dataclass(frozen=True)
class Posed:
    """points [P, 3] and joints [24, 3] m; globals [24, 3, 3]; jacobian [P, 3, UNKNOWNS] of the points."""

    points: np.ndarray
    joints: np.ndarray
    globals: np.ndarray
    jacobian: np.ndarray


@njit(cache=True, nogil=True)
def _posed(transl, local, rest, points, rest_by_beta, points_by_beta, point_joint, parents, out, joints, globals_, jac):
    n_beta = rest_by_beta.shape[2]
    joints_by_beta = np.zeros((24, 3, n_beta))
    joints[0] = rest[0] + transl
    globals_[0] = local[0]
    joints_by_beta[0] = rest_by_beta[0]
    for j in range(1, 24):
        p = parents[j]
        globals_[j] = globals_[p] @ local[j]
        joints[j] = joints[p] + globals_[p] @ (rest[j] - rest[p])
        joints_by_beta[j] = joints_by_beta[p] + globals_[p] @ (rest_by_beta[j] - rest_by_beta[p])
    for i in range(len(points)):
        j = point_joint[i]
        out[i] = joints[j] + globals_[j] @ (points[i] - rest[j])
        jac[i, :, 75:] = joints_by_beta[j] + globals_[j] @ (points_by_beta[i] - rest_by_beta[j])
        for a in range(3):
            jac[i, a, a] = 1.0
        while j >= 0:
            x, y, z = out[i, 0] - joints[j, 0], out[i, 1] - joints[j, 1], out[i, 2] - joints[j, 2]
            for k in range(3):  # d = (G e_k) x lever
                gx, gy, gz = globals_[j, 0, k], globals_[j, 1, k], globals_[j, 2, k]
                column = 3 + 3 * j + k
                jac[i, 0, column] = gy * z - gz * y
                jac[i, 1, column] = gz * x - gx * z
                jac[i, 2, column] = gx * y - gy * x
            j = parents[j]
