"""SMPL poses between rotation vectors (`BodyState`) and the rotation matrices that everything computes with."""

from __future__ import annotations

import numpy as np

from blur_motion_ros.motion import rotations
from blur_motion_ros.types import BodyState


def local_rotations(state: BodyState) -> np.ndarray:
    """[24, 3, 3] float64: global orientation, then each joint relative to its parent."""
    root, body = np.reshape(state.global_orient, (1, 3)), np.reshape(state.body_pose, (23, 3))
    return rotations.exp(np.concatenate([root, body]).astype(float))


def body_state(local: np.ndarray, betas: np.ndarray, transl: np.ndarray) -> BodyState:
    """The inverse: rotations [24, 3, 3], shape [10] and translation [3] m as SMPL parameters."""
    vectors = rotations.log(local)
    return BodyState(vectors[0], vectors[1:], betas, transl)
