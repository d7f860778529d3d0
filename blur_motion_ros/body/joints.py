"""Every joint and landmark table of the package, and the maps between them.

Sets, each a tuple of names; an array of points is `[..., len(SET), 3]` in that order:
  * `SMPL24`       the SMPL skeleton (what is fitted, published and stored in a body model);
  * `LSP14`        what sequences are judged by (12 of the SMPL joints, neck, head);
  * `BLAZEPOSE33`  landmarks of the pose network;
  * `SPIN49`       25 OpenPose + 24 dataset joints in which VIBE and SPIN are trained and evaluated;
  * `LANDMARKS`    points that a body model carries besides its joints: BLAZEPOSE33 and then `EXTRA_LANDMARKS`.

Left and right are the person's own. `*_MIRROR[i]` is the index of the same point on the other side.

LSP14 against SMPL24, measured on the development sequences' ground truth: the twelve limb points *are* the SMPL
joints (difference 0.0 mm); `neck` is the midpoint of the SMPL shoulders (0.0 mm; it is 8-11 cm from SMPL's `neck`
joint, which is the neck's base); `head` is fixed to the head joint, 2.1-2.8 cm beyond it in the direction neck -> head
(not the top of the head).
"""

from __future__ import annotations

import numpy as np

SMPL24 = (
    "pelvis", "left_hip", "right_hip", "spine1", "left_knee", "right_knee", "spine2", "left_ankle", "right_ankle",
    "spine3", "left_foot", "right_foot", "neck", "left_collar", "right_collar", "head", "left_shoulder",
    "right_shoulder", "left_elbow", "right_elbow", "left_wrist", "right_wrist", "left_hand", "right_hand",
)
SMPL24_PARENTS = (-1, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 9, 9, 12, 13, 14, 16, 17, 18, 19, 20, 21)

LSP14 = (
    "right_ankle", "right_knee", "right_hip", "left_hip", "left_knee", "left_ankle", "right_wrist", "right_elbow",
    "right_shoulder", "left_shoulder", "left_elbow", "left_wrist", "neck", "head",
)

BLAZEPOSE33 = (
    "nose", "left_eye_inner", "left_eye", "left_eye_outer", "right_eye_inner", "right_eye", "right_eye_outer",
    "left_ear", "right_ear", "left_mouth", "right_mouth", "left_shoulder", "right_shoulder", "left_elbow",
    "right_elbow", "left_wrist", "right_wrist", "left_pinky", "right_pinky", "left_index", "right_index",
    "left_thumb", "right_thumb", "left_hip", "right_hip", "left_knee", "right_knee", "left_ankle", "right_ankle",
    "left_heel", "right_heel", "left_foot_index", "right_foot_index",
)

OPENPOSE25 = (
    "nose", "neck", "right_shoulder", "right_elbow", "right_wrist", "left_shoulder", "left_elbow", "left_wrist",
    "mid_hip", "right_hip", "right_knee", "right_ankle", "left_hip", "left_knee", "left_ankle", "right_eye",
    "left_eye", "right_ear", "left_ear", "left_big_toe", "left_small_toe", "left_heel", "right_big_toe",
    "right_small_toe", "right_heel",
)
DATASET24 = (
    "right_ankle", "right_knee", "right_hip", "left_hip", "left_knee", "left_ankle", "right_wrist", "right_elbow",
    "right_shoulder", "left_shoulder", "left_elbow", "left_wrist", "neck_lsp", "head_top", "pelvis_mpii",
    "thorax_mpii", "spine_h36m", "jaw_h36m", "head_h36m", "nose", "left_eye", "right_eye", "left_ear", "right_ear",
)
SPIN49 = tuple(f"op_{name}" for name in OPENPOSE25) + DATASET24

# Points that VIBE and SPIN add to smplx's 45 outputs by a second regressor (their `J_regressor_extra`), in its order.
EXTRA9 = ("right_hip_lsp", "left_hip_lsp", "neck_lsp", "head_top", "pelvis_mpii", "thorax_mpii", "spine_h36m",
          "jaw_h36m", "head_h36m")
# smplx's 45 outputs: 24 joints, then 21 vertices, in this order.
SMPLX_VERTICES21 = (
    "nose", "right_eye", "left_eye", "right_ear", "left_ear", "left_big_toe", "left_small_toe", "left_heel",
    "right_big_toe", "right_small_toe", "right_heel", "left_thumb_tip", "left_index_tip", "left_middle_tip",
    "left_ring_tip", "left_pinky_tip", "right_thumb_tip", "right_index_tip", "right_middle_tip", "right_ring_tip",
    "right_pinky_tip",
)
# SPIN49[i] is point SPIN49_FROM_54[i] of smplx's 45 outputs followed by EXTRA9.
SPIN49_FROM_54 = (
    24, 12, 17, 19, 21, 16, 18, 20, 0, 2, 5, 8, 1, 4, 7, 25, 26, 27, 28, 29, 30, 31, 32, 33, 34,
    8, 5, 45, 46, 4, 7, 21, 19, 17, 16, 18, 20, 47, 48, 49, 50, 51, 52, 53, 24, 26, 25, 28, 27,
)
# LSP14-ordered evaluation joints out of the 17 that the H36M regressor gives (VIBE's 3DPW protocol).
H36M_TO_J14 = (6, 5, 4, 1, 2, 3, 16, 15, 14, 11, 12, 13, 8, 10)

EXTRA_LANDMARKS = ("head_top", "jaw", "left_big_toe", "right_big_toe", "left_small_toe", "right_small_toe",
                   "left_middle_tip", "right_middle_tip")
LANDMARKS = BLAZEPOSE33 + EXTRA_LANDMARKS

# The SMPL joint that each landmark is fixed to (skin landmarks ride on it rigidly; limb landmarks are the joint).
_LANDMARK_JOINTS = {
    "nose": "head", "eye_inner": "head", "eye": "head", "eye_outer": "head", "ear": "head", "mouth": "head",
    "head_top": "head", "jaw": "head", "shoulder": "shoulder", "elbow": "elbow", "wrist": "wrist", "pinky": "wrist",
    "index": "wrist", "thumb": "wrist", "middle_tip": "hand", "hip": "hip", "knee": "knee", "ankle": "ankle",
    "heel": "ankle", "foot_index": "foot", "big_toe": "foot", "small_toe": "foot",
}


def side(name: str) -> str:
    """'left', 'right' or '' (on the middle plane)."""
    head = name.removeprefix("op_").split("_")[0]
    return head if head in ("left", "right") else ""


def other_side(name: str) -> str:
    """The same point on the other side; points of the middle plane are their own mirror image."""
    swap = {"left": "right", "right": "left"}
    return name.replace(side(name), swap[side(name)], 1) if side(name) else name


def mirror(names: tuple[str, ...]) -> tuple[int, ...]:
    """Index of every point's mirror image within `names`."""
    return tuple(names.index(other_side(name)) for name in names)


SMPL24_MIRROR = mirror(SMPL24)
LSP14_MIRROR = mirror(LSP14)
BLAZEPOSE33_MIRROR = mirror(BLAZEPOSE33)
SPIN49_MIRROR = mirror(SPIN49)


def _landmark_joint(name: str) -> int:
    part = name.removeprefix(side(name)).removeprefix("_")
    joint = _LANDMARK_JOINTS[part]
    return SMPL24.index(joint if joint == "head" else f"{side(name)}_{joint}")


LANDMARK_JOINT = tuple(_landmark_joint(name) for name in LANDMARKS)

# Limb points that two sets share by name: (BlazePose index, SMPL index).
BLAZEPOSE33_IS_SMPL24 = tuple((i, SMPL24.index(n)) for i, n in enumerate(BLAZEPOSE33) if n in SMPL24)
# The twelve limb points of LSP14 as SMPL joints.
LSP12_IN_SMPL24 = tuple(SMPL24.index(n) for n in LSP14[:12])

# Bones to draw: (parent, child) index pairs.
SMPL24_BONES = tuple((p, j) for j, p in enumerate(SMPL24_PARENTS) if p >= 0)
LSP14_BONES = ((0, 1), (1, 2), (2, 12), (5, 4), (4, 3), (3, 12), (2, 3), (6, 7), (7, 8), (8, 12), (11, 10), (10, 9),
               (9, 12), (12, 13))
BLAZEPOSE33_BONES = (
    (8, 6), (6, 5), (5, 4), (4, 0), (0, 1), (1, 2), (2, 3), (3, 7), (9, 10), (11, 12), (11, 13), (13, 15), (15, 17),
    (15, 19), (15, 21), (17, 19), (12, 14), (14, 16), (16, 18), (16, 20), (16, 22), (18, 20), (11, 23), (12, 24),
    (23, 24), (23, 25), (25, 27), (27, 29), (27, 31), (29, 31), (24, 26), (26, 28), (28, 30), (28, 32), (30, 32),
)


def _lsp14_map(names: tuple[str, ...], head: dict[str, float]) -> np.ndarray:
    """[14, len(names)] weights: limbs by name, neck = mid-shoulders, head = the given combination."""
    out = np.zeros((14, len(names)))
    for i, name in enumerate(LSP14[:12]):
        out[i, names.index(name)] = 1
    out[12, [names.index("left_shoulder"), names.index("right_shoulder")]] = 0.5
    for name, weight in head.items():
        out[13, names.index(name)] = weight
    out.setflags(write=False)
    return out


# [14, 24] and [14, 33]: LSP14 points as fixed combinations. Head: the joint and a fifth of the neck bone beyond it;
# for BlazePose, which has no such joint, the midpoint of the ears.
LSP14_FROM_SMPL24 = _lsp14_map(SMPL24, {"head": 1.2, "neck": -0.2})
LSP14_FROM_BLAZEPOSE33 = _lsp14_map(BLAZEPOSE33, {"left_ear": 0.5, "right_ear": 0.5})


def lsp14(points: np.ndarray) -> np.ndarray:
    """[..., 24, 3] SMPL joints or [..., 33, 3] BlazePose landmarks (or [..., 33, 2]) -> [..., 14, 3] in LSP order."""
    points = np.asarray(points)
    maps = {24: LSP14_FROM_SMPL24, 33: LSP14_FROM_BLAZEPOSE33}
    if points.ndim < 2 or points.shape[-2] not in maps:
        raise ValueError(f"points: expected [..., 24 or 33, 3], got {points.shape}; pass SMPL24 or BLAZEPOSE33 order")
    return maps[points.shape[-2]].astype(points.dtype) @ points


def descendants(joint: int) -> tuple[int, ...]:
    """The joint itself and every SMPL joint below it."""
    out = [joint]
    for j, parent in enumerate(SMPL24_PARENTS):
        if parent in out:
            out.append(j)
    return tuple(out)
