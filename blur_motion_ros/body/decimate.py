"""Fewer triangles for the same surface: quadric edge collapse that keeps UV seams, then a refit of what is left.

Used to make the free body's levels of detail and, at load time, those of an official SMPL file. Pure Python and
numpy: some seconds for a whole body, done once.
"""

from __future__ import annotations

import heapq
from dataclasses import dataclass

import numpy as np

from blur_motion_ros.body.mesh import face_normals, vertex_areas, vertex_normals


@dataclass(frozen=True)
class Decimated:
    """kept: [v] indices into the full vertices.  faces: [f,3] into `kept`.  uv_faces: [f,3] into the full UVs."""

    kept: np.ndarray
    faces: np.ndarray
    uv_faces: np.ndarray | None


def decimate(vertices: np.ndarray, faces: np.ndarray, target_faces: int, importance: np.ndarray | None = None,
             uv: np.ndarray | None = None, uv_faces: np.ndarray | None = None) -> Decimated:
    """Collapse edges of a closed manifold mesh until `target_faces` are left (Garland and Heckbert's quadrics).

    vertices [V,3]; faces [F,3]; importance [V] scales what an error at a vertex costs; uv [T,2] and uv_faces [F,3]
    texture coordinates of the corners: a seam is only shortened along itself and no face may turn over in the
    texture, so every face keeps a place of its own there.
    """
    if not 4 <= target_faces <= len(faces):
        raise ValueError(f"target_faces: {target_faces} is not between 4 and the mesh's {len(faces)} faces")
    work = _Collapser(vertices, faces, importance, uv, uv_faces)
    work.run(len(faces) - target_faces)
    alive = [i for i, face in enumerate(work.faces) if face is not None]
    kept, new = np.unique([work.faces[i] for i in alive], return_inverse=True)
    uv = None if uv_faces is None else np.array([work.uv[i] for i in alive])
    return Decimated(kept, new.reshape(-1, 3).astype(np.int32), uv)


class _Collapser:
    """The state of a decimation: plain Python lists, because it is all single scalars."""

    def __init__(self, vertices, faces, importance, uv, uv_faces):
        self.x = np.asarray(vertices, float).tolist()
        self.faces = [tuple(f) for f in np.asarray(faces).tolist()]
        self.uv = [tuple(f) for f in np.asarray(faces if uv_faces is None else uv_faces).tolist()]
        self.uv_points = None if uv is None or uv_faces is None else np.asarray(uv, float).tolist()
        self.around = [set() for _ in self.x]  # faces of each vertex
        for i, face in enumerate(self.faces):
            for v in face:
                self.around[v].add(i)
        scale = np.ones(len(vertices)) if importance is None else np.asarray(importance, float)
        self.quadrics = _quadrics(np.asarray(vertices, float), np.asarray(faces), scale).tolist()
        self.stamp = [0] * len(self.x)
        self.heap: list[tuple[float, int, int, int, int]] = []

    def run(self, remove: int) -> None:
        for u in range(len(self.x)):
            for v in self.neighbours(u):
                self.push(u, v)
        while remove > 0 and self.heap:
            _, u, v, su, sv = heapq.heappop(self.heap)
            if self.stamp[u] != su or self.stamp[v] != sv or not self.allowed(u, v):
                continue
            remove -= 2
            self.collapse(u, v)

    def neighbours(self, u: int) -> set[int]:
        out = {v for i in self.around[u] for v in self.faces[i]}
        out.discard(u)
        return out

    def push(self, u: int, v: int) -> None:
        """Queue moving u onto v."""
        x, y, z = self.x[v]
        q = [a + b for a, b in zip(self.quadrics[u], self.quadrics[v], strict=True)]
        cost = (q[0] * x * x + q[4] * y * y + q[7] * z * z + q[9]
                + 2 * (q[1] * x * y + q[2] * x * z + q[3] * x + q[5] * y * z + q[6] * y + q[8] * z))
        heapq.heappush(self.heap, (cost, u, v, self.stamp[u], self.stamp[v]))

    def allowed(self, u: int, v: int) -> bool:
        shared = self.around[u] & self.around[v]
        if len(shared) != 2 or len(self.neighbours(u) & self.neighbours(v)) != 2:
            return False  # the result would not be a closed surface
        moved = self.texture_map(u, v, shared)
        if len(self.around[u]) <= 3 or len(self.around[v]) <= 3 or not moved:
            return False
        return not any(self.flips(i, u, v) or self.flips_in_texture(i, moved) for i in self.around[u] - shared)

    def texture_map(self, u: int, v: int, shared: set[int]) -> dict[int, int]:
        """UV index at u -> UV index at v over the two faces that vanish; empty if a seam would be torn."""
        moved = {}
        for i in shared:
            moved[self.corner(i, u)] = self.corner(i, v)
        there = {self.corner(i, u) for i in self.around[u]}
        if there != set(moved):
            return {}  # u is on a seam that does not run to v, or where seams meet
        if len(there) == 1 and len({self.corner(i, v) for i in shared}) != 1:
            return {}
        return moved

    def corner(self, face: int, v: int) -> int:
        return self.uv[face][self.faces[face].index(v)]

    def flips(self, face: int, u: int, v: int) -> bool:
        points = [self.x[w] for w in self.faces[face]]
        before = _normal(*points)
        after = _normal(*[self.x[v] if w == u else p for w, p in zip(self.faces[face], points, strict=True)])
        dot = sum(a * b for a, b in zip(before, after, strict=True))
        lengths = sum(a * a for a in before) * sum(a * a for a in after)
        return dot <= 0 or dot * dot < 0.04 * lengths

    def flips_in_texture(self, face: int, moved: dict[int, int]) -> bool:
        if self.uv_points is None:
            return False
        before = _area2([self.uv_points[t] for t in self.uv[face]])
        after = _area2([self.uv_points[moved.get(t, t)] for t in self.uv[face]])
        return before * after <= 0

    def collapse(self, u: int, v: int) -> None:
        shared = self.around[u] & self.around[v]
        moved = self.texture_map(u, v, shared)
        for i in shared:
            for w in self.faces[i]:
                self.around[w].discard(i)
            self.faces[i] = None
        for i in self.around[u]:
            face = self.faces[i]
            self.uv[i] = tuple(moved[t] if w == u else t for w, t in zip(face, self.uv[i], strict=True))
            self.faces[i] = tuple(v if w == u else w for w in face)
            self.around[v].add(i)
        self.around[u] = set()
        self.quadrics[v] = [a + b for a, b in zip(self.quadrics[u], self.quadrics[v], strict=True)]
        self.stamp[u] += 1
        self.stamp[v] += 1
        for w in self.neighbours(v):
            self.push(v, w)
            self.push(w, v)


def _normal(a, b, c) -> tuple[float, float, float]:
    ux, uy, uz = b[0] - a[0], b[1] - a[1], b[2] - a[2]
    vx, vy, vz = c[0] - a[0], c[1] - a[1], c[2] - a[2]
    return uy * vz - uz * vy, uz * vx - ux * vz, ux * vy - uy * vx


def _area2(corners: list[list[float]]) -> float:
    (ax, ay), (bx, by), (cx, cy) = corners
    return (bx - ax) * (cy - ay) - (cx - ax) * (by - ay)


def _quadrics(vertices: np.ndarray, faces: np.ndarray, scale: np.ndarray) -> np.ndarray:
    """[V,10] upper triangles of the area-weighted plane quadrics, plus a little of the distance to the vertex itself
    (keeps triangles well shaped on flat skin)."""
    a, b, c = (vertices[faces[:, k]] for k in range(3))
    n = np.cross(b - a, c - a)
    length = np.linalg.norm(n, axis=1, keepdims=True)
    n = n / np.maximum(length, 1e-20)
    area = 0.5 * length[:, 0]
    plane = np.concatenate([n, -(n * a).sum(1, keepdims=True)], 1)
    rows, columns = np.triu_indices(4)
    per_face = area[:, None] * plane[:, rows] * plane[:, columns]
    out, own = np.zeros((len(vertices), 10)), np.zeros(len(vertices))
    for k in range(3):
        np.add.at(out, faces[:, k], per_face)
        np.add.at(own, faces[:, k], area / 3)
    point = np.concatenate([-vertices, (vertices**2).sum(1, keepdims=True)], 1)
    small = 3e-3 * own
    for i in range(3):
        out[:, [0, 4, 7][i]] += small
        out[:, [3, 6, 8][i]] += small * point[:, i]
    out[:, 9] += small * point[:, 3]
    return out * scale[:, None]


def closest_on_mesh(points: np.ndarray, vertices: np.ndarray, faces: np.ndarray, candidates: int = 16
                    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Nearest surface point of each of points [N,3]: face [N], barycentric [N,3], distance [N]."""
    from scipy.spatial import cKDTree

    corners = vertices[faces]
    _, near = cKDTree(corners.mean(1)).query(points, k=min(candidates, len(faces)))
    bary = _project(points[:, None], corners[near])
    offset = np.einsum("nkc,nkcx->nkx", bary, corners[near]) - points[:, None]
    distance = np.linalg.norm(offset, axis=-1)
    best = distance.argmin(1)
    pick = np.arange(len(points))
    return near[pick, best], bary[pick, best], distance[pick, best]


def _project(p: np.ndarray, corners: np.ndarray) -> np.ndarray:
    """Barycentric coordinates [...,3] of the point of each triangle corners [...,3,3] that is nearest to p [...,3]."""
    a, ab, ac = corners[..., 0, :], corners[..., 1, :] - corners[..., 0, :], corners[..., 2, :] - corners[..., 0, :]
    ap = p - a
    d00, d01, d11 = (ab * ab).sum(-1), (ab * ac).sum(-1), (ac * ac).sum(-1)
    d20, d21 = (ap * ab).sum(-1), (ap * ac).sum(-1)
    det = np.maximum(d00 * d11 - d01**2, 1e-30)
    v, w = (d11 * d20 - d01 * d21) / det, (d00 * d21 - d01 * d20) / det
    inside = np.stack([1 - v - w, v, w], -1)
    best, found = inside, np.where((inside >= 0).all(-1), 0.0, np.inf)
    for i, j in ((0, 1), (1, 2), (2, 0)):
        start, edge = corners[..., i, :], corners[..., j, :] - corners[..., i, :]
        t = np.clip(((p - start) * edge).sum(-1) / np.maximum((edge * edge).sum(-1), 1e-30), 0, 1)
        on_edge = np.zeros(inside.shape)
        on_edge[..., i], on_edge[..., j] = 1 - t, t
        off = ((p - start - t[..., None] * edge) ** 2).sum(-1)
        better = off < found
        found, best = np.where(better, off, found), np.where(better[..., None], on_edge, best)
    return best


class Lift:
    """Carries attributes of the full mesh's vertices to the small mesh so that its *surface* fits them best.

    Taking the attributes of the kept vertices would make every convex part thinner (a coarse mesh inscribed in the
    body); least squares over the whole surface does not.
    """

    def __init__(self, vertices: np.ndarray, faces: np.ndarray, mesh: Decimated, keep: float = 0.05):
        from scipy import sparse
        from scipy.sparse.linalg import splu

        small = vertices[mesh.kept]
        face, bary, distance = closest_on_mesh(vertices, small, mesh.faces)
        normal, small_normal = vertex_normals(vertices, faces), face_normals(small, mesh.faces)
        weight = vertex_areas(vertices, faces)
        weight[(np.einsum("vi,vi->v", normal, small_normal[face]) < 0.3) | (distance > 0.02)] = 0
        rows = np.repeat(np.arange(len(vertices)), 3)
        surface = sparse.csr_matrix((bary.ravel(), (rows, mesh.faces[face].ravel())), (len(vertices), len(small)))
        self._right = surface.T @ sparse.diags(weight)
        own = np.asarray(self._right.sum(1)).ravel()
        self._pull = keep * own + 1e-3 * own.mean()
        self._kept = mesh.kept
        for _ in range(6):
            self._solve = splu((self._right @ surface + sparse.diags(self._pull)).tocsc()).solve
            turned = (face_normals(self(vertices), mesh.faces) * small_normal).sum(1) < 0.3
            if not turned.any():
                break
            self._pull[np.unique(mesh.faces[turned])] *= 10  # keep small folds from turning inside out

    def __call__(self, attributes: np.ndarray) -> np.ndarray:
        """[V, ...] -> [v, ...]."""
        flat = np.asarray(attributes, float).reshape(len(attributes), -1)
        out = self._solve(self._right @ flat + self._pull[:, None] * flat[self._kept])
        return out.reshape((len(self._kept),) + attributes.shape[1:])
