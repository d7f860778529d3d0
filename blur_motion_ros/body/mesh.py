"""Small facts about triangle meshes: normals and areas (faces wind counter-clockwise seen from outside)."""

from __future__ import annotations

import numpy as np


def face_normals(vertices: np.ndarray, faces: np.ndarray) -> np.ndarray:
    """Unit outward normals [..., F, 3] of vertices [..., V, 3]."""
    a, b, c = (vertices[..., faces[:, k], :] for k in range(3))
    n = np.cross(b - a, c - a)
    return n / np.maximum(np.linalg.norm(n, axis=-1, keepdims=True), 1e-20)


def vertex_normals(vertices: np.ndarray, faces: np.ndarray) -> np.ndarray:
    """Unit outward normals [V,3], area weighted, for shading."""
    a, b, c = (vertices[faces[:, k]] for k in range(3))
    n = np.cross(b - a, c - a)
    out = np.stack([sum(np.bincount(faces[:, k], n[:, i], len(vertices)) for k in range(3)) for i in range(3)], -1)
    return out / np.maximum(np.linalg.norm(out, axis=1, keepdims=True), 1e-20)


def vertex_areas(vertices: np.ndarray, faces: np.ndarray) -> np.ndarray:
    """[V] a third of the area of the faces around each vertex."""
    a, b, c = (vertices[faces[:, k]] for k in range(3))
    area = np.linalg.norm(np.cross(b - a, c - a), axis=1) / 6
    return sum(np.bincount(faces[:, k], area, len(vertices)) for k in range(3))
