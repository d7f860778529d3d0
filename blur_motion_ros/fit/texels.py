"""A body's UV layout as a grid of texels: which surface point each colours, its neighbours, and across which seams."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from scipy import ndimage, sparse
from scipy.sparse.csgraph import connected_components
from scipy.spatial import cKDTree

GUTTER = 2.0  # texels around a chart that bilinear sampling at its border touches


@dataclass(frozen=True, eq=False)
class TexelGrid:
    """A body's UV layout on a grid of T x T texels; row 0 is v = 1, as in image files.

    uv [K, 2] in [0, 1], uv_faces [F, 3]: the layout.  index [T, T]: number of the unknown, -1 where there is no skin.
    at [n, 2]: row and column of every unknown.  face [n], bary [n, 3]: the surface point it colours (of a gutter
    texel: the nearest one).  chart [n]: connected piece of the layout.  inside [n]: its centre lies in a face.
    """

    size: int
    uv: np.ndarray
    uv_faces: np.ndarray
    index: np.ndarray
    at: np.ndarray
    face: np.ndarray
    bary: np.ndarray
    chart: np.ndarray
    inside: np.ndarray

    @staticmethod
    def of(uv: np.ndarray, uv_faces: np.ndarray, size: int) -> TexelGrid:
        """Lay `size` x `size` texels over a layout. ValueError for coordinates outside [0, 1]."""
        if uv.min() < 0 or uv.max() > 1:
            raise ValueError(f"uv: coordinates from {uv.min():g} to {uv.max():g}; they must lie in [0, 1]")
        points = grid_points(uv, size)
        face, bary = _paint_faces(points[uv_faces], size)
        inside = face >= 0
        distance, nearest = ndimage.distance_transform_edt(~inside, return_indices=True)
        used = distance <= GUTTER
        at = np.argwhere(used)
        index = np.full((size, size), -1, np.int32)
        index[used] = np.arange(len(at))
        source = tuple(nearest[:, used])
        charts = _charts(uv_faces, len(uv))
        return TexelGrid(size, uv, uv_faces, index, at, face[source], bary[source], charts[face[source]], inside[used])

    @cached_property
    def layout(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """uv, uv_faces and index in the types of the rasteriser (`raster.texel_weights`)."""
        return (np.ascontiguousarray(self.uv, np.float32), np.ascontiguousarray(self.uv_faces, np.int32),
                np.ascontiguousarray(self.index, np.int32))

    def at_vertices(self, faces: np.ndarray, count: int) -> sparse.csr_matrix:
        """Sparse [count, n]: the texture at every vertex of faces [F, 3], averaged over the charts that meet there."""
        pairs = np.unique(np.stack([np.ravel(faces), np.ravel(self.uv_faces)], 1), axis=0)
        rows, columns, share = bilinear(self.uv[pairs[:, 1]], self.size)
        texel = self.index[rows, columns]
        share = np.where(texel >= 0, share, 0)
        share /= share.sum(1, keepdims=True) * np.bincount(pairs[:, 0], minlength=count)[pairs[:, :1]]
        entries = share.ravel(), (np.repeat(pairs[:, 0], 4), np.maximum(texel, 0).ravel())
        return sparse.coo_matrix(entries, (count, len(self.at))).tocsr()

    def points_of(self, vertices: np.ndarray, faces: np.ndarray) -> np.ndarray:
        """[n, 3]: where each texel lies on a body of vertices [V, 3]."""
        return np.einsum("nk,nkx->nx", self.bary, vertices[faces[self.face]])

    def picture(self, values: np.ndarray) -> np.ndarray:
        """Values of the unknowns [n, C] -> [T, T, C]; texels without skin get the nearest value (for mip-maps)."""
        nearest = ndimage.distance_transform_edt(self.index < 0, return_distances=False, return_indices=True)
        return values[self.index[tuple(nearest)]]


def grid_points(uv: np.ndarray, size: int) -> np.ndarray:
    """uv [..., 2] -> column and row [..., 2] on a grid whose texel centres lie at integers."""
    return np.stack([uv[..., 0] * size - 0.5, (1.0 - uv[..., 1]) * size - 0.5], -1)


def bilinear(uv: np.ndarray, size: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Rows, columns and shares [..., 4] of the texels around uv [..., 2]."""
    x, y = np.moveaxis(np.clip(grid_points(uv, size), 0, size - 1), -1, 0)
    x0, y0 = np.minimum(x.astype(np.int64), size - 2), np.minimum(y.astype(np.int64), size - 2)
    fx, fy = x - x0, y - y0
    rows = np.stack([y0, y0, y0 + 1, y0 + 1], -1)
    columns = np.stack([x0, x0 + 1, x0, x0 + 1], -1)
    return rows, columns, np.stack([(1 - fx) * (1 - fy), fx * (1 - fy), (1 - fx) * fy, fx * fy], -1)


def neighbour_pairs(grid: TexelGrid, visible: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Pairs [E, 2] of 8-neighbouring unknowns of one chart, both `visible` [n]; weights [E]: 1 / squared distance."""
    pairs, weights = [], []
    size = grid.size
    for dy, dx in ((0, 1), (1, 0), (1, 1), (1, -1)):
        left, right = max(0, -dx), size - max(0, dx)
        a = grid.index[:size - dy, left:right].ravel()
        b = grid.index[dy:, left + dx:right + dx].ravel()
        both = (a >= 0) & (b >= 0)
        a, b = a[both], b[both]
        kept = visible[a] & visible[b] & (grid.chart[a] == grid.chart[b])
        pairs.append(np.stack([a[kept], b[kept]], 1))
        weights.append(np.full(int(kept.sum()), 1.0 / (dy * dy + dx * dx), np.float32))
    return np.concatenate(pairs), np.concatenate(weights)


def seam_pairs(grid: TexelGrid, points: np.ndarray) -> np.ndarray:
    """[E, 2] pairs of texels at chart borders that touch on the body though not in the layout."""
    skin = np.zeros((grid.size, grid.size), bool)
    skin[tuple(grid.at[grid.inside].T)] = True
    border = skin & ~ndimage.binary_erosion(skin)
    ids = grid.index[border]
    distance, near = cKDTree(points[ids]).query(points[ids], k=min(8, len(ids)))
    a, b = np.repeat(ids, near.shape[1]), ids[near.ravel()]
    apart = np.abs(grid.at[a] - grid.at[b]).max(1) > 3
    close = distance.ravel() < 2 * np.median(_spacing(grid, points))
    return np.stack([a, b], 1)[apart & close]


def _spacing(grid: TexelGrid, points: np.ndarray) -> np.ndarray:
    """Distance on the body between texels that are neighbours in a row, m."""
    a, b = grid.index[:, :-1].ravel(), grid.index[:, 1:].ravel()
    both = (a >= 0) & (b >= 0)
    a, b = a[both], b[both]
    both = grid.inside[a] & grid.inside[b] & (grid.chart[a] == grid.chart[b])
    return np.linalg.norm(points[a[both]] - points[b[both]], axis=1)


def _paint_faces(triangles: np.ndarray, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Face [T, T] (-1: none) and barycentric weights [T, T, 3] at every texel centre; triangles [F, 3, 2] on the grid.

    A face too small to hold a centre gets the texel at its middle, if that is free.
    """
    face, bary = np.full((size, size), -1, np.int32), np.zeros((size, size, 3))
    for f, corners in enumerate(triangles):
        low = np.maximum(np.ceil(corners.min(0)).astype(int), 0)
        high = np.minimum(np.floor(corners.max(0)).astype(int), size - 1)
        x, y = np.meshgrid(np.arange(low[0], high[0] + 1), np.arange(low[1], high[1] + 1))
        ab, ac = corners[1] - corners[0], corners[2] - corners[0]
        area = ab[0] * ac[1] - ab[1] * ac[0]
        if x.size == 0 or area == 0:
            continue
        px, py = x - corners[0, 0], y - corners[0, 1]
        b, c = (px * ac[1] - py * ac[0]) / area, (ab[0] * py - ab[1] * px) / area
        hit = (b >= -1e-9) & (c >= -1e-9) & (b + c <= 1 + 1e-9) & (face[y, x] < 0)
        face[y[hit], x[hit]] = f
        bary[y[hit], x[hit]] = np.stack([1 - b - c, b, c], -1)[hit]
    middle = np.clip(np.rint(triangles.mean(1)).astype(int), 0, size - 1)
    for f in np.setdiff1d(np.arange(len(triangles)), face):
        x, y = middle[f]
        if face[y, x] < 0:
            face[y, x], bary[y, x] = f, 1 / 3
    return face, bary


def _charts(uv_faces: np.ndarray, count: int) -> np.ndarray:
    """[F] number of the connected piece of the layout that each face belongs to."""
    i, j = uv_faces[:, [0, 1, 2]].ravel(), uv_faces[:, [1, 2, 0]].ravel()
    graph = sparse.coo_matrix((np.ones(len(i)), (i, j)), (count, count))
    return connected_components(graph, directed=False)[1][uv_faces[:, 0]]
