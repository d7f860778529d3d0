"""Levels of detail of a body: the same joints, landmarks and shape space on fewer vertices."""

from __future__ import annotations

import dataclasses
import hashlib
import os
import tempfile
from pathlib import Path

import numpy as np

from blur_motion_ros.assets import cache_dir
from blur_motion_ros.body import decimate
from blur_motion_ros.body.error import BodyError
from blur_motion_ros.body.joints import SMPL24
from blur_motion_ros.body.model import BodyModel, read_body, save_body
from blur_motion_ros.body.texture_layout import with_layout

LEVEL_FACES = {"fit": 1500, "display": 4000}
VERSION = 1  # of the algorithm: part of the cache file's name


def level_of_detail(body: BodyModel, faces: int) -> BodyModel:
    """`body` with about `faces` faces. Joints and landmarks agree with the full body for every shape (1e-9 m)."""
    mesh = decimate.decimate(body.v_template, body.faces, faces, importance(body.weights), body.uv, body.uv_faces)
    lift = decimate.Lift(body.v_template, body.faces, mesh)
    template, shapes = lift(body.v_template), lift(body.shapedirs)
    small = np.concatenate([template[..., None], shapes], -1)
    nearest = decimate.closest_on_mesh(body.v_template, template, mesh.faces)
    rows = _exact_rows(body.j_regressor, body.joint_basis, small, mesh.faces, nearest)
    points = _exact_rows(body.landmark_regressor, body.landmark_basis, small, mesh.faces, nearest)
    uv, uv_faces = body.uv, None
    if body.uv is not None and mesh.uv_faces is not None:
        used, index = np.unique(mesh.uv_faces, return_inverse=True)
        uv, uv_faces = body.uv[used], index.reshape(-1, 3).astype(np.int32)
    return dataclasses.replace(
        body, v_template=template, shapedirs=shapes, faces=mesh.faces, uv=uv, uv_faces=uv_faces,
        posedirs=None if body.posedirs is None else lift(body.posedirs), weights=strongest(lift(body.weights)),
        j_regressor=rows, landmark_regressor=points)


def importance(weights: np.ndarray) -> np.ndarray:
    """[V] how much a vertex's shape matters: less on fingers, toes and the face, which are small in a picture."""
    part = {name: weights[:, j] for j, name in enumerate(SMPL24)}
    fine = sum(part[f"{side}_{name}"] for side in ("left", "right") for name in ("hand", "foot"))
    medium = sum(part[f"{side}_{name}"] for side in ("left", "right") for name in ("wrist", "ankle"))
    return np.clip(1.0 - 0.93 * fine - 0.75 * medium - 0.55 * part["head"], 0.05, 1.0)


def strongest(weights: np.ndarray, count: int = 4) -> np.ndarray:
    """[V,24] non-negative, at most `count` non-zero per vertex, rows summing to one."""
    rank = np.argsort(np.argsort(-weights, 1, kind="stable"), 1, kind="stable")
    kept = np.where((rank < count) & (weights > 1e-3), weights, 0)
    return kept / kept.sum(1, keepdims=True)


def _exact_rows(rows: np.ndarray, basis: np.ndarray, small: np.ndarray, faces: np.ndarray,
                nearest: tuple[np.ndarray, np.ndarray, np.ndarray], near: int = 64) -> np.ndarray:
    """Regressor rows [K,v] that give `basis` [K,3,11] from small [v,3,11] exactly.

    Start from `rows` [K,V] spread over the nearest small faces, then the smallest change that meets the 33
    coordinates and the sum of one.
    """
    face, bary, _ = nearest
    out = np.zeros((len(rows), len(small)))
    for k, row in enumerate(rows):
        start = np.zeros(len(small))
        for c in range(3):
            np.add.at(start, faces[face, c], row * bary[:, c])
        order = np.argsort(np.linalg.norm(small[:, :, 0] - basis[k, :, 0], axis=1), kind="stable")[:near]
        index = np.union1d(order, np.flatnonzero(start))
        equations = np.vstack([small[index].reshape(len(index), -1).T, np.ones(len(index))])
        want = np.append(basis[k].ravel(), 1.0)
        change = np.linalg.lstsq(equations, want - equations @ start[index], rcond=1e-12)[0]
        out[k, index] = start[index] + change
    return out


def cached_level(path: Path, lod: str, uv: Path | None = None) -> BodyModel:
    """A level of detail of the SMPL file at `path`, made once and kept in the cache folder (if that can be written).

    uv: an .obj with the mesh's texture coordinates; the level keeps their seams.
    """
    content = path.read_bytes() + (uv.read_bytes() if uv else b"")
    digest = hashlib.sha256(content).hexdigest()[:16]
    kept = cache_dir() / f"body_{digest}_{LEVEL_FACES[lod]}_v{VERSION}.npz"
    if kept.is_file():
        try:
            return dataclasses.replace(read_body(kept), source=str(path))
        except BodyError:
            kept.unlink(missing_ok=True)  # cut off by an earlier crash: make it again
    full = with_layout(read_body(path), uv) if uv else read_body(path)
    body = level_of_detail(full, LEVEL_FACES[lod]) if len(full.faces) > LEVEL_FACES[lod] else full
    try:
        kept.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=kept.parent, suffix=".npz", delete=False) as file:
            save_body(file, body)
        os.replace(file.name, kept)
    except OSError:
        return body  # a read-only home costs the same seconds next time
    return body
