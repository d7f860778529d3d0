"""Posing a body of fixed shape, in numpy: smplx's meaning of every parameter, leading batch dimensions everywhere.

`rotations[..., j, :, :]` is joint j's rotation relative to its parent (joint 0: to the camera). The root turns about
the pelvis joint, and `transl` is added after posing, so the pelvis ends up at `rest_joints[0] + transl`.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from blur_motion_ros.body.joints import SMPL24_PARENTS
from blur_motion_ros.body.model import BodyModel
from blur_motion_ros.motion.pose import local_rotations
from blur_motion_ros.types import BodyState


@dataclass(frozen=True, eq=False)
class Skeleton:
    """A body with its shape applied.  betas [10]; rest_joints [24,3], rest_vertices [V,3], rest_landmarks [P,3] m;
    bone_weights [V,4] and bone_index [V,4]: the skinning weights in compact form."""

    body: BodyModel
    betas: np.ndarray
    rest_joints: np.ndarray
    rest_vertices: np.ndarray
    rest_landmarks: np.ndarray
    bone_weights: np.ndarray
    bone_index: np.ndarray

    @staticmethod
    def of(body: BodyModel, betas: np.ndarray | None = None) -> Skeleton:
        betas = np.zeros(10) if betas is None else np.asarray(betas, float)
        width = max(4, int((body.weights > 0).sum(1).max()))
        index = np.argsort(-body.weights, axis=1, kind="stable")[:, :width].astype(np.int32)
        return Skeleton(body, betas, body.rest_joints(betas), body.rest_vertices(betas), body.rest_landmarks(betas),
                        np.take_along_axis(body.weights, index.astype(np.int64), 1), index)

    def forward_kinematics(self, rotations: np.ndarray, transl: np.ndarray | float = 0.0
                           ) -> tuple[np.ndarray, np.ndarray]:
        """rotations [..., 24, 3, 3], transl [..., 3] m -> joints [..., 24, 3] m and rotations to the camera
        [..., 24, 3, 3]."""
        rotations = _checked(rotations)
        world = np.empty(rotations.shape, np.float64)
        joints = np.empty(rotations.shape[:-1], np.float64)
        world[..., 0, :, :] = rotations[..., 0, :, :]
        joints[..., 0, :] = self.rest_joints[0] + transl
        for j in range(1, 24):
            parent = SMPL24_PARENTS[j]
            world[..., j, :, :] = world[..., parent, :, :] @ rotations[..., j, :, :]
            bone = self.rest_joints[j] - self.rest_joints[parent]
            joints[..., j, :] = joints[..., parent, :] + world[..., parent, :, :] @ bone
        return joints, world

    def pose_vertices(self, rotations: np.ndarray, transl: np.ndarray | float = 0.0) -> np.ndarray:
        """rotations [..., 24, 3, 3], transl [..., 3] m -> skin [..., V, 3] m."""
        joints, world = self.forward_kinematics(rotations, transl)
        offset = joints - np.einsum("...jab,jb->...ja", world, self.rest_joints)
        rest = self.rest_vertices
        if self.body.posedirs is not None:
            rest = rest + self._corrections(np.asarray(rotations, float))
        weights = self.body.weights
        out = weights @ offset
        for a in range(3):  # one [V,24] x [24,3] product per row is far cheaper than blending matrices per vertex
            out[..., a] += np.einsum("...vb,...vb->...v", weights @ world[..., a, :], rest)
        return out

    def pose_landmarks(self, rotations: np.ndarray, transl: np.ndarray | float = 0.0) -> np.ndarray:
        """[..., P, 3] m, in the order of `joints.LANDMARKS`, each fixed to its joint."""
        joints, world = self.forward_kinematics(rotations, transl)
        index = self.body.landmark_joint
        arm = self.rest_landmarks - self.rest_joints[index]
        return joints[..., index, :] + np.einsum("...pab,pb->...pa", world[..., index, :, :], arm)

    def pose_state(self, state: BodyState) -> np.ndarray:
        """Skin [V,3] of one BodyState (its betas are not looked at: this skeleton has its shape)."""
        return self.pose_vertices(local_rotations(state), state.transl)

    def _corrections(self, rotations: np.ndarray) -> np.ndarray:
        feature = (rotations[..., 1:, :, :] - np.eye(3)).reshape(rotations.shape[:-3] + (207,))
        flat = self.body.posedirs.reshape(-1, 207)
        return (feature @ flat.T).reshape(rotations.shape[:-3] + self.rest_vertices.shape)


def _checked(rotations: np.ndarray) -> np.ndarray:
    rotations = np.asarray(rotations, float)
    if rotations.shape[-3:] != (24, 3, 3):
        raise ValueError(f"rotations: expected [..., 24, 3, 3], got {rotations.shape}")
    return rotations
