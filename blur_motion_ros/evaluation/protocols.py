"""The field's published protocol (3DPW as VIBE and SPIN run it), for those who hold the licensed data.

Joints are the 14 of LSP taken out of the 17 that the Human3.6M regressor gives (`H36M_TO_J14`), metres, camera frame.
  root 'hip_midpoint': VIBE aligns at the middle of the two hips;  'h36m_root': SPIN aligns at joint 0 of the 17.
The two differ by some millimetres of MPJPE, so a table must say which. PA-MPJPE does not depend on it.
  mpjpe, pa_mpjpe  mm, mean over frames and joints
  pve              mm, vertices of both bodies without translation, not aligned otherwise (VIBE)
  accel            mm/frame^2, difference of second differences; frames whose neighbours are invalid do not count
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from blur_motion_ros.body.joints import H36M_TO_J14
from blur_motion_ros.evaluation.metrics import procrustes_error

Root = Literal["hip_midpoint", "h36m_root"]
J14_HIPS = (2, 3)


@dataclass(frozen=True)
class Scores:
    """mm and mm/frame^2; NaN where vertices were not given. frames: how many counted."""

    mpjpe: float
    pa_mpjpe: float
    pve: float
    accel: float
    frames: int


@dataclass(frozen=True)
class Actor:
    """One person of a 3DPW file, camera frame: pose [T, 24, 3] rotation vectors (joint 0 turned into the camera),
    betas [10], transl [T, 3] m (as smplx takes it), valid [T] bool, K [3, 3]."""

    pose: np.ndarray
    betas: np.ndarray
    transl: np.ndarray
    valid: np.ndarray
    K: np.ndarray


def evaluate_14(predicted: np.ndarray, truth: np.ndarray, valid: np.ndarray | None = None, root: Root = "hip_midpoint",
                vertices: np.ndarray | None = None, true_vertices: np.ndarray | None = None) -> Scores:
    """Scores of one sequence. predicted, truth: [T, 17, 3] of the Human3.6M regressor, or [T, 14, 3] (then the root
    must be the hip midpoint). valid: [T] frames that count. vertices: [T, V, 3] without translation, for PVE."""
    if predicted.shape != truth.shape or predicted.shape[1:] not in ((17, 3), (14, 3)):
        raise ValueError(f"joints: prediction {predicted.shape}, truth {truth.shape}; both must be [T, 17 or 14, 3]")
    valid = np.ones(len(truth), bool) if valid is None else np.asarray(valid, bool)
    p, g = aligned_14(predicted, root), aligned_14(truth, root)
    error = np.linalg.norm(p - g, axis=-1).mean(1)[valid]
    pa = procrustes_error(p, g).mean(1)[valid]
    surface = float("nan")
    if vertices is not None and true_vertices is not None:
        surface = 1e3 * float(np.linalg.norm(vertices - true_vertices, axis=-1).mean(1)[valid].mean())
    return Scores(1e3 * float(error.mean()), 1e3 * float(pa.mean()), surface, acceleration_error(p, g, valid),
                  int(valid.sum()))


def aligned_14(joints: np.ndarray, root: Root) -> np.ndarray:
    """[T, 17 or 14, 3] -> [T, 14, 3] with the root at the origin."""
    if root == "h36m_root":
        if joints.shape[1] != 17:
            raise ValueError("root 'h36m_root' is joint 0 of the 17 Human3.6M joints; pass all 17, not 14")
        return joints[:, H36M_TO_J14] - joints[:, :1]
    if root != "hip_midpoint":
        raise ValueError(f"root is '{root}'; choose hip_midpoint (VIBE) or h36m_root (SPIN)")
    points = joints[:, H36M_TO_J14] if joints.shape[1] == 17 else joints
    return points - points[:, J14_HIPS].mean(1, keepdims=True)


def acceleration_error(predicted: np.ndarray, truth: np.ndarray, valid: np.ndarray) -> float:
    """mm/frame^2 over frames that are valid together with both neighbours; NaN if there is none."""
    second = np.diff(predicted - truth, 2, axis=0)
    good = valid[:-2] & valid[1:-1] & valid[2:]
    return 1e3 * float(np.linalg.norm(second, axis=-1).mean(1)[good].mean()) if good.any() else float("nan")


def read_3dpw_actors(path: str | Path, rest_pelvis: np.ndarray) -> list[Actor]:
    """The people of a 3DPW sequenceFiles/*/*.pkl with SMPL parameters taken into the camera frame.

    rest_pelvis [3] m: pelvis joint of the body at rest, about which smplx turns (it depends on betas a little).
    ValueError names a missing field; the pickle may hold nothing but arrays.
    """
    from blur_motion_ros.data.mocap import load_pickle
    from blur_motion_ros.motion import rotations

    data = load_pickle(path)
    missing = [k for k in ("poses", "trans", "betas", "cam_poses", "cam_intrinsics", "campose_valid") if k not in data]
    if missing:
        raise ValueError(f"{path}: no field '{missing[0]}'; expected a 3DPW sequence file")
    world = np.asarray(data["cam_poses"], np.float64)
    R, T = world[:, :3, :3], world[:, :3, 3]
    actors = []
    for poses, trans, betas, valid in zip(data["poses"], data["trans"], data["betas"], data["campose_valid"],
                                          strict=True):
        count = min(len(poses), len(R))
        pose = np.asarray(poses, np.float64)[:count].reshape(count, 24, 3).copy()
        pose[:, 0] = rotations.log(R[:count] @ rotations.exp(pose[:, 0]))
        pelvis = np.asarray(trans, np.float64)[:count] + rest_pelvis
        moved = np.einsum("tab,tb->ta", R[:count], pelvis) + T[:count] - rest_pelvis
        actors.append(Actor(pose, np.asarray(betas, np.float64)[:10], moved, np.asarray(valid[:count], bool),
                            np.asarray(data["cam_intrinsics"], np.float64)))
    return actors
