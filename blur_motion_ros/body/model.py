"""An SMPL-format body as plain numpy arrays: the free body of this package, or an official SMPL file by path.

Axes of the rest pose: x to the person's left, y up, z forward; metres; a T-pose. The meaning of the arrays is SMPL's:
    shaped = v_template + shapedirs @ betas;  rest joints = j_regressor @ shaped;
    posed  = linear blend skinning of (shaped + posedirs @ (local rotations 1..23 - I)).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from blur_motion_ros.body.error import BodyError
from blur_motion_ros.body.joints import LANDMARK_JOINT, LANDMARKS, SMPL24_PARENTS
from blur_motion_ros.body.official import landmark_regressor, read_arrays

BETAS = 10


@dataclass(frozen=True, eq=False)
class BodyModel:
    """Immutable arrays of one level of detail (V vertices, F faces); float64 unless said otherwise.

    v_template [V,3] m; shapedirs [V,3,10] m per beta; posedirs [V,3,207] or None (all zero); j_regressor [24,V];
    weights [V,24] rows sum to one, at most four non-zero in the free body; faces [F,3] int32, outside
    counter-clockwise; uv [T,2] in [0,1] (v up) and uv_faces [F,3] int32, or None where the file has none;
    landmark_regressor [P,V] for `joints.LANDMARKS`; joint_basis [24,3,11] and landmark_basis [P,3,11]: rest position
    (last index 0) and its slope by each beta, of the *full* body, so that every level of detail agrees.
    source: where it came from.
    """

    v_template: np.ndarray
    shapedirs: np.ndarray
    posedirs: np.ndarray | None
    j_regressor: np.ndarray
    weights: np.ndarray
    faces: np.ndarray
    uv: np.ndarray | None
    uv_faces: np.ndarray | None
    landmark_regressor: np.ndarray
    joint_basis: np.ndarray
    landmark_basis: np.ndarray
    source: str
    parents: np.ndarray = field(default_factory=lambda: np.array(SMPL24_PARENTS, np.int32))

    def rest_vertices(self, betas: np.ndarray | None = None) -> np.ndarray:
        """[V,3] m: the T-pose of a shape ([10] or fewer betas; None is the mean body)."""
        betas = _betas(betas)
        return self.v_template + self.shapedirs[..., : len(betas)] @ betas

    def rest_joints(self, betas: np.ndarray | None = None) -> np.ndarray:
        """[24,3] m."""
        betas = _betas(betas)
        return self.joint_basis[..., 0] + self.joint_basis[..., 1: len(betas) + 1] @ betas

    def rest_landmarks(self, betas: np.ndarray | None = None) -> np.ndarray:
        """[P,3] m, in the order of `joints.LANDMARKS`; landmark i rides on joint `joints.LANDMARK_JOINT[i]`."""
        betas = _betas(betas)
        return self.landmark_basis[..., 0] + self.landmark_basis[..., 1: len(betas) + 1] @ betas

    def stature(self, betas: np.ndarray | None = None) -> float:
        """Height in the T-pose, m."""
        return float(np.ptp(self.rest_vertices(betas)[:, 1]))

    @cached_property
    def landmark_joint(self) -> np.ndarray:
        """[P] int: SMPL joint that each landmark rides on."""
        return np.array(LANDMARK_JOINT, np.int64)

    @cached_property
    def edges(self) -> np.ndarray:
        """[E,2] int32 undirected mesh edges."""
        pairs = np.sort(np.concatenate([self.faces[:, [0, 1]], self.faces[:, [1, 2]], self.faces[:, [2, 0]]]), 1)
        return np.unique(pairs, axis=0).astype(np.int32)


def read_body(path: str | Path) -> BodyModel:
    """Read one file as it is (.npz or .pkl), checked. Raises BodyError."""
    return body_of(read_arrays(Path(path)), str(path))


def body_of(arrays: dict[str, np.ndarray], source: str) -> BodyModel:
    """A BodyModel from SMPL's arrays by their official names (`v_template`, `shapedirs`, ...), checked."""
    check = _Checker(arrays, source)
    template = check.get("v_template", (None, 3))
    count = len(template)
    shapes = check.get("shapedirs", (count, 3, None))
    if shapes.shape[2] < BETAS:
        raise BodyError(f"{source}: 'shapedirs' has {shapes.shape[2]} shape directions; {BETAS} are needed")
    shapes = shapes[..., :BETAS]
    regressor = check.get("J_regressor", (24, count))
    weights = _normalised(check.get("weights", (count, 24)), source)
    faces = check.get("f", (None, 3), integer=True, below=count)
    _check_tree(check.get("kintree_table", (2, 24), integer=True), source)
    posed = check.get("posedirs", (count, 3, 207)) if "posedirs" in arrays else None
    uv, uv_faces = None, None
    if "vt" in arrays and "ft" in arrays:
        uv = check.get("vt", (None, 2))
        uv_faces = check.get("ft", (len(faces), 3), integer=True, below=len(uv))
    full = np.concatenate([template[..., None], shapes], -1)
    landmarks = _landmarks(arrays, full, regressor, check)
    body = BodyModel(
        template, shapes, posed if posed is not None and posed.any() else None, regressor, weights, faces, uv, uv_faces,
        landmarks, _basis(arrays, "joint_basis", regressor, full), _basis(arrays, "landmark_basis", landmarks, full),
        source)
    for array in vars(body).values():
        if isinstance(array, np.ndarray):
            array.setflags(write=False)
    return body


def arrays_of(body: BodyModel) -> dict[str, np.ndarray]:
    """The inverse of `body_of`: SMPL's names, plus ours for UVs, landmarks and exact joints."""
    zeros = np.zeros(body.v_template.shape + (207,))
    out = {
        "v_template": body.v_template, "shapedirs": body.shapedirs,
        "posedirs": zeros if body.posedirs is None else body.posedirs, "J_regressor": body.j_regressor,
        "weights": body.weights, "kintree_table": np.stack([body.parents, np.arange(24)]), "f": body.faces,
        "landmark_regressor": body.landmark_regressor, "landmark_names": np.array(LANDMARKS),
        "joint_basis": body.joint_basis, "landmark_basis": body.landmark_basis,
    }
    if body.uv is not None and body.uv_faces is not None:
        out |= {"vt": body.uv, "ft": body.uv_faces}
    return out


def save_body(path: str | Path, body: BodyModel) -> None:
    """Write an SMPL-format npz (float32; byte for byte the same for the same body)."""
    kinds = {"f": np.uint32, "ft": np.uint32, "kintree_table": np.int64, "joint_basis": np.float64,
             "landmark_basis": np.float64, "J_regressor": np.float64, "landmark_regressor": np.float64}
    np.savez_compressed(path, **{k: v if v.dtype.kind in "US" else v.astype(kinds.get(k, np.float32))
                                 for k, v in arrays_of(body).items()})


def smplx_layer(body: BodyModel, batch_size: int = 1, dtype: Any = None) -> Any:
    """An `smplx.SMPL` torch module over the same arrays (gradients, reference). `dtype` defaults to torch.float32."""
    import smplx
    import torch
    from smplx.utils import Struct

    dtype = dtype or torch.float32
    arrays = {k: np.array(v) for k, v in arrays_of(body).items() if k != "landmark_names"}
    return smplx.SMPL(model_path="", data_struct=Struct(**arrays), vertex_ids=_vertex_ids(body), dtype=dtype,
                      batch_size=batch_size)


def _vertex_ids(body: BodyModel) -> dict[str, int]:
    """The 21 vertices that smplx appends to the joints: the nearest ones to our landmarks, by smplx's names."""
    points = dict(zip(LANDMARKS, body.rest_landmarks(), strict=True))
    wanted = {"nose": points["nose"]}
    for letter, side in (("l", "left"), ("r", "right")):
        wrist = body.rest_joints()[20 if side == "left" else 21]
        wanted |= {f"{letter}eye": points[f"{side}_eye"], f"{letter}ear": points[f"{side}_ear"],
                   f"{letter.upper()}BigToe": points[f"{side}_big_toe"],
                   f"{letter.upper()}SmallToe": points[f"{side}_small_toe"],
                   f"{letter.upper()}Heel": points[f"{side}_heel"], f"{letter}middle": points[f"{side}_middle_tip"],
                   f"{letter}ring": points[f"{side}_middle_tip"]}
        for finger in ("thumb", "index", "pinky"):  # tips lie about as far beyond the knuckle as the wrist before it
            wanted[f"{letter}{finger}"] = 1.9 * points[f"{side}_{finger}"] - 0.9 * wrist
    return {name: int(np.linalg.norm(body.v_template - p, axis=1).argmin()) for name, p in wanted.items()}


class _Checker:
    """Fetches arrays by name and says in one sentence what is missing or has the wrong shape."""

    def __init__(self, arrays: dict[str, Any], source: str):
        self.arrays, self.source = arrays, source

    def get(self, key: str, shape: tuple[int | None, ...], integer: bool = False, below: int | None = None
            ) -> np.ndarray:
        if key not in self.arrays:
            raise BodyError(f"{self.source}: key '{key}' is missing; this is not an SMPL body (it has: "
                            f"{', '.join(sorted(self.arrays)) or 'nothing'})")
        value = np.asarray(self.arrays[key])
        if value.dtype.kind not in ("iu" if integer else "iuf"):
            kind = "integers" if integer else "numbers"
            raise BodyError(f"{self.source}: '{key}' holds {value.dtype}, expected {kind}")
        if value.ndim != len(shape) or any(w is not None and w != g for w, g in zip(shape, value.shape, strict=True)):
            want = " x ".join("any" if n is None else str(n) for n in shape)
            raise BodyError(f"{self.source}: '{key}' has shape {value.shape}, expected {want}")
        if integer:
            if below is not None and value.size and (int(value.max()) >= below or int(value.min()) < 0):
                raise BodyError(f"{self.source}: '{key}' has indices outside 0..{below - 1}")
            return value.astype(np.int64 if key == "kintree_table" else np.int32)
        value = value.astype(np.float64)
        if not np.isfinite(value).all():
            raise BodyError(f"{self.source}: '{key}' contains NaN or infinity")
        return value


def _normalised(weights: np.ndarray, source: str) -> np.ndarray:
    total = weights.sum(1, keepdims=True)
    if weights.min() < -1e-6 or np.abs(total - 1).max() > 1e-2:
        raise BodyError(f"{source}: 'weights' must be non-negative with rows that sum to one")
    return weights / total


def _check_tree(table: np.ndarray, source: str) -> None:
    if not np.array_equal(table[0, 1:], SMPL24_PARENTS[1:]):
        raise BodyError(f"{source}: 'kintree_table' is not the 24-joint SMPL skeleton; use an SMPL (not SMPL-H/X) file")


def _basis(arrays: dict, key: str, regressor: np.ndarray, full: np.ndarray) -> np.ndarray:
    if key in arrays:
        return np.asarray(arrays[key], np.float64)
    return np.einsum("kv,vcb->kcb", regressor, full)


def _landmarks(arrays: dict, full: np.ndarray, regressor: np.ndarray, check: _Checker) -> np.ndarray:
    if "landmark_regressor" in arrays:
        return check.get("landmark_regressor", (len(LANDMARKS), len(full)))
    return landmark_regressor(full[:, :, 0], regressor)


def _betas(betas: np.ndarray | None) -> np.ndarray:
    betas = np.zeros(0) if betas is None else np.asarray(betas, float)
    if betas.ndim != 1 or len(betas) > BETAS:
        raise ValueError(f"betas: expected at most {BETAS} numbers, got shape {betas.shape}")
    return betas
