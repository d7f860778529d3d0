"""Bodies to render: any skinned mesh driven by the 24 SMPL joints.

The mesh may rest in any pose. `align[j]` is the constant rotation that takes joint j's bone in the mesh's rest pose to
its direction in the SMPL rest pose (arms sideways), so that motion made for the SMPL skeleton moves it as meant:
    x' = sum_j w_j (G_j A_j (x - h_j) + p_j)       G, p: forward kinematics of the aligned skeleton
Rest meshes: y up, facing +z, left is +x, metres.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from blur_motion_ros.body.joints import SMPL24
from blur_motion_ros.data.mocap import NOMINAL_REST, PARENTS, forward
from blur_motion_ros.motion import rotations

# Joints whose bones must point alike, and the child that ends the bone. Torso and feet keep their own rest axes.
_ALIGNED = {1: 4, 2: 5, 4: 7, 5: 8, 16: 18, 17: 19, 18: 20, 19: 21, 20: 22, 21: 23}


@dataclass(frozen=True)
class SkinnedBody:
    """vertices [V, 3] m and faces [F, 3] of the rest mesh; weights [V, 24]; heads [24, 3] joints in that rest pose;
    align [24, 3, 3]; rest [24, 3] joints of the same body in the SMPL rest pose.  name: where it comes from.
    offsets [24, 3] or None: from the point that a joint of the rig turns about to where SMPL has that joint, in the
    SMPL rest pose (a rig may turn the trunk about other points).
    fitted: the same body with the mesh that the fit has (level "fit"), None of bodies that are not fitted."""

    vertices: np.ndarray
    faces: np.ndarray
    weights: np.ndarray
    heads: np.ndarray
    align: np.ndarray
    rest: np.ndarray
    name: str
    fitted: SkinnedBody | None = None
    offsets: np.ndarray | None = None

    def pose(self, local: np.ndarray, pelvis: np.ndarray,
             vertices: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
        """Local rotations [T, 24, 3, 3] and the point that the pelvis turns about [T, 3] m -> vertices [T, V, 3]
        float32 and SMPL's joints [T, 24, 3].

        vertices: other rest vertices with the same weights (clothes), default the body's own.
        """
        turned, positions = forward(local, self.rest, PARENTS)
        positions = positions + (pelvis - positions[:, 0])[:, None]
        moved = turned @ self.align
        shift = positions - np.einsum("tjab,jb->tja", moved, self.heads)
        transforms = np.concatenate([moved, shift[..., None]], -1).reshape(len(local), 24, 12).astype(np.float32)
        rest = (self.vertices if vertices is None else vertices).astype(np.float32)
        blended = (self.weights.astype(np.float32) @ transforms).reshape(len(local), -1, 3, 4)
        joints = positions if self.offsets is None else positions + np.einsum("tjab,jb->tja", turned, self.offsets)
        return (blended[..., :3] @ rest[:, :, None])[..., 0] + blended[..., 3], joints


def skinned_body(vertices: np.ndarray, faces: np.ndarray, weights: np.ndarray, heads: np.ndarray,
                 name: str) -> SkinnedBody:
    """A body from its rest mesh and joints in any rest pose; works out `align` and the SMPL rest joints."""
    align = np.tile(np.eye(3), (24, 1, 1))
    for joint, child in _ALIGNED.items():
        align[joint] = _between(heads[child] - heads[joint], NOMINAL_REST[child] - NOMINAL_REST[joint])
    rest = np.zeros((24, 3))
    rest[0] = heads[0]
    for j, parent in enumerate(PARENTS):
        if parent >= 0:
            rest[j] = rest[parent] + align[parent] @ (heads[j] - heads[parent])
    if signed_volume(vertices, faces) < 0:
        faces = faces[:, ::-1]
    return SkinnedBody(vertices.astype(np.float64), np.ascontiguousarray(faces, np.int32), weights.astype(np.float64),
                       heads, align, rest, name)


def signed_volume(vertices: np.ndarray, faces: np.ndarray) -> float:
    """Volume enclosed by a closed mesh, positive when its faces are wound counter-clockwise seen from outside."""
    a, b, c = (vertices[faces[:, i]] for i in range(3))
    return float((a * np.cross(b, c)).sum() / 6)


def vertex_normals(vertices: np.ndarray, faces: np.ndarray) -> np.ndarray:
    """Area-weighted unit normals [V, 3]."""
    a, b, c = (vertices[faces[:, i]] for i in range(3))
    face = np.cross(b - a, c - a)
    out = np.zeros(vertices.shape)
    for corner in range(3):
        for axis in range(3):
            out[:, axis] += np.bincount(faces[:, corner], face[:, axis], len(vertices))
    return out / np.maximum(np.linalg.norm(out, axis=1, keepdims=True), 1e-12)


def _between(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    a, b = a / np.linalg.norm(a), b / np.linalg.norm(b)
    axis = np.cross(a, b)
    sine = np.linalg.norm(axis)
    return rotations.exp(axis / max(sine, 1e-12) * np.arctan2(sine, a @ b))


# ------------------------------------------------------------------------------------------------- sources


_ANNY_JOINTS = {
    "pelvis": "root", "spine1": "spine05", "spine2": "spine03", "spine3": "spine02", "neck": "neck01", "head": "head",
    "hip": "upperleg01", "knee": "lowerleg01", "ankle": "foot", "foot": "toe2-1", "collar": "clavicle",
    "shoulder": "upperarm01", "elbow": "lowerarm01", "wrist": "wrist", "hand": "finger3-1",
}
# Where SMPL has the trunk's joints: the means of these heads (within 1-3 cm, as on the development sequences; anny's
# root is 7 cm behind the hips, its first spine bone begins between them).
_ANNY_TRUNK = {
    "pelvis": ("spine05",), "spine1": ("spine04",), "spine2": ("spine02",), "spine3": ("spine01",),
    "left_collar": ("clavicle.L", "shoulder01.L"), "right_collar": ("clavicle.R", "shoulder01.R"),
}
_ANNY_ADULT = {"age": (0.55, 0.75), "gender": (0.0, 1.0), "height": (0.25, 0.8), "muscle": (0.3, 0.75),
               "weight": (0.3, 0.7), "proportions": (0.3, 0.7)}


def random_phenotype(rng: np.random.Generator) -> dict[str, float]:
    """An adult at random, in anny's units (0 to 1 each)."""
    return {name: float(rng.uniform(*span)) for name, span in _ANNY_ADULT.items()}


def anny_body(phenotype: dict[str, float]) -> SkinnedBody:
    """A body of the package `anny` (Apache-2.0, CC0 assets): another mesh and skeleton than the one that is fitted."""
    try:
        import anny
    except ImportError as error:
        raise ValueError("body 'anny' needs the package anny (pip install anny); or use --body free") from error
    model = anny.Anny(rig="makehuman", topology="anny-noeyes-notongue", facial_actions="none", phenotypes="all")
    data = model.to_model_data()
    result = model(phenotype_kwargs=phenotype)
    names = list(data.metadata.bone_labels)
    vertices, bones = (_from_anny(result[k][0].detach().numpy()) for k in ("rest_vertices", "rest_bone_heads"))
    heads = np.stack([bones[names.index(_anny_bone(joint))] for joint in SMPL24])
    driver = _anny_drivers(names, list(data.metadata.bone_parents))
    indices, values = data.vertex_bone_indices.numpy(), data.vertex_bone_weights.numpy()
    weights = np.zeros((len(vertices), 24))
    np.add.at(weights, (np.arange(len(vertices))[:, None], driver[indices]), values)
    weights /= weights.sum(1, keepdims=True)
    offsets = np.zeros((24, 3))
    for joint, parts in _ANNY_TRUNK.items():  # the trunk rests alike in both poses (`_ALIGNED`)
        j = SMPL24.index(joint)
        offsets[j] = bones[[names.index(part) for part in parts]].mean(0) - heads[j]
    return replace(skinned_body(vertices, data.faces.numpy(), weights, heads, "anny"), offsets=offsets)


def smpl_body(betas: np.ndarray, path: str | None = None) -> SkinnedBody:
    """The package's own body model (or the SMPL file at `path`) with shape `betas` [10]."""
    from blur_motion_ros.body import load_body

    model, coarse = load_body(path, lod="full"), load_body(path, lod="fit")
    body = skinned_body(model.rest_vertices(betas), model.faces, model.weights, model.rest_joints(betas), "free")
    return replace(body, fitted=replace(body, vertices=coarse.rest_vertices(betas), faces=coarse.faces,
                                        weights=coarse.weights))


def _from_anny(points: np.ndarray) -> np.ndarray:
    """z up, facing -y -> y up, facing +z."""
    return np.stack([points[:, 0], points[:, 2], -points[:, 1]], 1)


def _anny_bone(joint: str) -> str:
    side, _, part = joint.rpartition("_")
    return _ANNY_JOINTS[part] + (f".{side[0].upper()}" if side else "")


def _anny_drivers(names: list[str], parents: list[int]) -> np.ndarray:
    """SMPL joint that each anny bone follows: its own, or that of the nearest ancestor that has one."""
    own = {_anny_bone(joint): j for j, joint in enumerate(SMPL24)}
    own |= {f"{bone}.{s}": SMPL24.index(f"{side}_{joint}") for s, side in (("L", "left"), ("R", "right"))
            for bone, joint in [(f"toe{i}-1", "foot") for i in range(1, 6)]
            + [(f"finger{i}-1", "hand") for i in range(1, 6)]}
    out = np.zeros(len(names), int)
    for i, (name, parent) in enumerate(zip(names, parents, strict=True)):
        out[i] = own.get(name, out[parent] if parent >= 0 else 0)
    return out
