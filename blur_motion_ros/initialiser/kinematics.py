"""Landmarks of a posed body and their derivatives: what registration needs of a body model, and no mesh.

A landmark is a point fixed to one joint's frame. Unknowns, in this order: transl [3] m, right tangents of the 24 local
rotations [72] rad (`R = R exp(delta)`), betas [10].
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numba import njit

from blur_motion_ros.body.joints import BLAZEPOSE33, LANDMARK_JOINT, SMPL24, side
from blur_motion_ros.body.model import BodyModel

UNKNOWNS = 85
BETAS = slice(75, 85)
# Where the network sees a joint, relative to the SMPL joint in the rest pose (m: x left, y up, z forward), and the
# joint that the point rides on. People who label pictures see the front of the hip and the top of the shoulder; SMPL's
# joints are the centres of rotation. Rounded from sharp frames of three bodies that agreed in direction.
_SEEN_AT = {"shoulder": ((0.0, 0.015, 0.0), "collar"), "hip": ((0.0, -0.015, 0.025), "pelvis")}


@dataclass(frozen=True)
class LandmarkBody:
    """joints [24, 3] and points [P, 3] of the mean shape in the rest pose, m, with their slopes by betas
    [24, 3, 10], [P, 3, 10]; point_joint [P]: the joint each point rides on; parents [24]; stature [11]: body height
    of the mean shape, m, and its slopes by betas."""

    joints: np.ndarray
    joints_by_beta: np.ndarray
    points: np.ndarray
    points_by_beta: np.ndarray
    point_joint: np.ndarray
    parents: np.ndarray
    stature: np.ndarray

    @staticmethod
    def of(body: BodyModel) -> LandmarkBody:
        """The skeleton and the 33 BlazePose landmarks of a body model."""
        basis, rides_on = body.landmark_basis[:len(BLAZEPOSE33)].copy(), np.array(LANDMARK_JOINT[:len(BLAZEPOSE33)])
        for i, name in enumerate(BLAZEPOSE33):
            part = name.removeprefix("left_").removeprefix("right_")
            if part in _SEEN_AT:
                offset, joint = _SEEN_AT[part]
                basis[i, :, 0] += offset
                rides_on[i] = SMPL24.index(joint if joint == "pelvis" else f"{side(name)}_{joint}")
        return LandmarkBody(body.joint_basis[..., 0].copy(), np.ascontiguousarray(body.joint_basis[..., 1:]),
                            np.ascontiguousarray(basis[..., 0]), np.ascontiguousarray(basis[..., 1:]), rides_on,
                            np.asarray(body.parents, np.int64), _stature(body))

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


def _stature(body: BodyModel) -> np.ndarray:
    """[11]: between the highest and the lowest vertex of the mean shape, linear in betas."""
    y = body.v_template[:, 1]
    top, bottom = int(np.argmax(y)), int(np.argmin(y))
    return np.append(y[top] - y[bottom], body.shapedirs[top, 1] - body.shapedirs[bottom, 1])


@njit(cache=True)
def _posed(transl, local, rest, points, rest_by_beta, points_by_beta, point_joint, parents, out, joints, globals_, jac):
    # Plain loops: with slices and matrix products this one kernel took 7 s to compile.
    joints_by_beta = np.zeros(rest_by_beta.shape)
    for a in range(3):
        joints[0, a] = rest[0, a] + transl[a]
        for b in range(3):
            globals_[0, a, b] = local[0, a, b]
        for n in range(rest_by_beta.shape[2]):
            joints_by_beta[0, a, n] = rest_by_beta[0, a, n]
    for j in range(1, 24):
        p = parents[j]
        for a in range(3):
            for b in range(3):
                total = 0.0
                for c in range(3):
                    total += globals_[p, a, c] * local[j, c, b]
                globals_[j, a, b] = total
        _carry(globals_[p], rest[j], rest[p], joints[p], joints[j])
        _carry_slopes(globals_[p], rest_by_beta[j], rest_by_beta[p], joints_by_beta[p], joints_by_beta[j], 0)
    for i in range(len(points)):
        j = point_joint[i]
        _carry(globals_[j], points[i], rest[j], joints[j], out[i])
        _carry_slopes(globals_[j], points_by_beta[i], rest_by_beta[j], joints_by_beta[j], jac[i], 75)
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


@njit(cache=True, nogil=True)
def _carry(turn, point, pivot, place, out):
    """out [3] = place + turn (point - pivot)."""
    for a in range(3):
        total = place[a]
        for b in range(3):
            total += turn[a, b] * (point[b] - pivot[b])
        out[a] = total


@njit(cache=True, nogil=True)
def _carry_slopes(turn, point, pivot, place, out, first):
    """`_carry` for the slopes by betas, each [3, n], into the columns of `out` from `first` on."""
    for a in range(3):
        for n in range(place.shape[1]):
            total = place[a, n]
            for b in range(3):
                total += turn[a, b] * (point[b, n] - pivot[b, n])
            out[a, first + n] = total
