"""Surface texture of a fitted motion: one colour per texel of the body's UV layout, from the blurred images.

Human from Blur has a UV texture T among its unknowns. Given the motion, the blurred image is linear in the texels,
    I - (1 - alpha) B = A T,    A = mean over sub-frames of (coverage x bilinear weights of the texels seen there),
so T is the least-squares solution with the paper's surface-texture term: squared differences of neighbouring texels
(eight neighbours) among those seen in at least one sub-frame. Pixels that the body does not explain (wrong coverage,
a limb off its place) lose their weight (iteratively reweighted, Geman-McClure). Texels nobody saw are copied from the
other side of the body and, where that was not seen either, filled in smoothly. All light is linear.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import sparse
from scipy.sparse.linalg import splu
from scipy.spatial import cKDTree

from blur_motion_ros.body.mesh import face_normals
from blur_motion_ros.fit import colour
from blur_motion_ros.fit.image_terms import Target, predict
from blur_motion_ros.fit.kinematics import FitBody
from blur_motion_ros.fit.texels import TexelGrid, bilinear, neighbour_pairs, seam_pairs
from blur_motion_ros.render import raster
from blur_motion_ros.render.raster import SubFrames

OUTSIDE, FILLED, MIRRORED, SEEN = 0, 85, 170, 255  # where a texel's colour comes from (the values of visible.png)
SLIP = 2.0  # px: how far the fitted body may lie off the person
_CONTRAST = 5.0  # difference of person and background over colour noise: what an error of coverage costs
_SCARCE = 0.02  # of the mean evidence of a texel: less than that is not called seen
_MIRROR_REACH = 0.03  # m (or the same in units of 5 cm per unit of normal) to the mirrored point's nearest seen texel
_NORMAL_SCALE = 0.05  # m: how far apart opposite sides of a limb are taken to be, so that front stays front


@dataclass(frozen=True)
class TexelView:
    """One exposure as equations.  rows [P, n] sparse: A; light [P, 3]: what the body adds to the image;
    weight [P] in [0, 1]: how far rendered and observed coverage agree."""

    rows: sparse.csr_matrix
    light: np.ndarray
    weight: np.ndarray


@dataclass(frozen=True)
class Texture:
    """image [T, T, 3] float32 linear light, row 0 at v = 1; origin [T, T] uint8: SEEN, MIRRORED, FILLED or OUTSIDE."""

    image: np.ndarray
    origin: np.ndarray

    def sample(self, uv: np.ndarray) -> np.ndarray:
        """Bilinear colours [..., 3], linear light, at uv [..., 2]."""
        rows, columns, share = bilinear(np.asarray(uv, float), len(self.image))
        return (share[..., None] * self.image[rows, columns]).sum(-2)

    def vertex_colours(self, faces: np.ndarray, uv: np.ndarray, uv_faces: np.ndarray) -> np.ndarray:
        """[V, 3] linear light: the texture at every vertex, averaged over the charts that meet there."""
        pairs = np.unique(np.stack([np.ravel(faces), np.ravel(uv_faces)], 1), axis=0)
        colours, count = self.sample(uv[pairs[:, 1]]), np.bincount(pairs[:, 0])
        return np.stack([np.bincount(pairs[:, 0], c) / np.maximum(count, 1) for c in colours.T], -1)


def texel_matrix(grid: TexelGrid, body: FitBody, vertices: np.ndarray, frames: SubFrames, intrinsics: np.ndarray,
                 count: int) -> sparse.csr_matrix:
    """Sparse [count * S * S, n]: the blurred colour image (premultiplied) as a linear map of the texels.

    vertices [M, V, 3] and `frames`: the rendered sub-frames of `count` exposures; intrinsics [3, 3] of the crop.
    """
    size, subframes = frames.alpha.shape[1], len(vertices) // count
    entries = 4 * int((frames.face >= 0).sum())
    rows, columns, values = np.empty(entries, np.int32), np.empty(entries, np.int32), np.empty(entries, np.float32)
    frame_of = (np.arange(len(vertices)) // subframes).astype(np.int32)
    used = raster.texel_weights(vertices, body.faces, np.asarray(intrinsics, np.float32), frames.face, frames.box, size,
                                frame_of, np.float32(1.0 / subframes), *grid.layout, rows, columns, values)
    assert used == entries, "four texels per covered sample"
    return sparse.coo_matrix((values, (rows, columns)), (count * size * size, len(grid.at))).tocsr()


def view_of(grid: TexelGrid, body: FitBody, vertices: np.ndarray, target: Target, frames: SubFrames,
            slip: float = SLIP) -> TexelView:
    """Equations of one exposure (the only one of `target`) from its drawn sub-frames of vertices [M, V, 3].

    slip: px of mis-registration to reckon with: it changes coverage by slip * |grad alpha|, and such pixels count less.
    """
    alpha = predict(frames, 1, target.background)[..., 3]
    rows = texel_matrix(grid, body, vertices, frames, np.asarray(target.intrinsics, np.float32), 1)
    covered = np.flatnonzero(alpha.reshape(-1) > 0)
    weight = colour.agreement(target, alpha) * (target.weight[..., 0].reshape(-1) > 0)
    edge = np.hypot(*np.gradient(alpha[0])).reshape(-1)
    weight /= 1.0 + (_CONTRAST * slip * edge) ** 2
    return TexelView(rows[covered], colour.light_of_body(target, alpha)[covered], weight[covered])


def draw_view(grid: TexelGrid, body: FitBody, vertices: np.ndarray, target: Target, slip: float = SLIP,
              supersample: int = 2) -> TexelView:
    """`view_of`, drawing the sub-frames first."""
    frames = SubFrames.allocate(len(vertices), target.size, supersample)
    raster.draw(vertices, body.faces, np.zeros((len(body.rest_vertices), 3), np.float32), target.intrinsics, frames)
    return view_of(grid, body, vertices, target, frames, slip)


# ---------------------------------------------------------------- solving


def solve_texels(grid: TexelGrid, views: Sequence[TexelView], smooth: float = 0.1, cutoff: float = 0.24,
                 rounds: int = 4, iterations: int = 30) -> tuple[np.ndarray, np.ndarray]:
    """Colours of the unknowns [n, 3] (linear light, within [0, 1]) and which of them were seen well enough [n].

    smooth: weight of the surface-texture term, per pixel that the mean texel coloured: relative to the number of
    pixels and not to how sharply they saw it, so that what blur took away is smoothed more.  cutoff: linear light;
    residuals beyond it count less and less (Geman-McClure), in `rounds` of reweighting.
    """
    if not views:
        raise ValueError("views: a texture needs at least one exposure")
    weights = [v.weight for v in views]
    seen = _evidence(views, [np.ones_like(w) for w in weights]) > 0
    pairs, pair_weights = neighbour_pairs(grid, seen)
    laplacian = colour.graph_laplacian(pairs, pair_weights, len(seen))
    x = _back_projection(views, weights)
    for round_ in range(rounds):
        if round_:
            weights = [v.weight * _trust(v.rows @ x - v.light, cutoff) for v in views]
        system = _Normal.of(views, weights, laplacian, smooth * _evidence(views, weights)[seen].mean())
        right = sum(v.rows.T @ (w[:, None] * v.light) for v, w in zip(views, weights, strict=True)) + system.keep * x
        x = colour.conjugate_gradient(system, right, x, iterations)
    evidence = _evidence(views, weights)
    return np.clip(x, 0, 1), evidence > _SCARCE * evidence[seen].mean()


def solve_texture(grid: TexelGrid, body: FitBody, views: Sequence[TexelView], rest: np.ndarray | None = None,
                  smooth: float = 0.1) -> Texture:
    """The whole texture: seen texels solved, the others copied from the other side or filled in.

    rest [V, 3] m: the body in its T-pose, symmetric about x = 0 (default: of `body`).
    """
    rest = np.asarray(body.rest_vertices if rest is None else rest, np.float64)
    texels, seen = solve_texels(grid, views, smooth)
    texels, origin = fill_unseen(grid, rest, body.faces, texels, seen)
    picture = np.full((grid.size, grid.size), OUTSIDE, np.uint8)
    picture[tuple(grid.at[grid.inside].T)] = origin[grid.inside]
    return Texture(grid.picture(texels).astype(np.float32), picture)


@dataclass(frozen=True)
class _Normal:
    """Normal equations of all views, never multiplied out: A' W A + smoothness L + keep."""

    views: Sequence[TexelView]
    weights: Sequence[np.ndarray]
    smooth: sparse.csr_matrix
    keep: float
    own: np.ndarray

    @staticmethod
    def of(views, weights, laplacian, smooth: float) -> _Normal:
        own = sum(v.rows.multiply(v.rows).T @ w for v, w in zip(views, weights, strict=True))
        return _Normal(views, weights, (smooth * laplacian).tocsr(), 1e-3 * float(own.mean()), own)

    def __matmul__(self, x: np.ndarray) -> np.ndarray:
        out = self.smooth @ x + self.keep * x
        for view, weight in zip(self.views, self.weights, strict=True):
            out += view.rows.T @ (weight[:, None] * (view.rows @ x))
        return out

    def diagonal(self) -> np.ndarray:
        return self.own + self.smooth.diagonal() + self.keep


def _evidence(views: Sequence[TexelView], weights: Sequence[np.ndarray]) -> np.ndarray:
    """[n] share of pixels, summed, that each texel coloured."""
    return sum(v.rows.T @ w for v, w in zip(views, weights, strict=True))


def _trust(error: np.ndarray, cutoff: float) -> np.ndarray:
    """Geman-McClure weights [P] of residuals [P, 3]."""
    return (1.0 / (1.0 + (error * error).sum(1) / cutoff**2)) ** 2


def _back_projection(views: Sequence[TexelView], weights: Sequence[np.ndarray]) -> np.ndarray:
    """[n, 3]: every texel gets the mean colour of the pixels it took part in; a start close to the answer."""
    count = views[0].rows.shape[1]
    light, share = np.zeros((count, 3)), np.zeros(count)
    for view, weight in zip(views, weights, strict=True):
        light += view.rows.T @ (weight[:, None] * view.light)
        share += view.rows.T @ (weight * np.asarray(view.rows.sum(1)).ravel())
    known = share > 1e-6
    mean = light[known].sum(0) / max(share[known].sum(), 1e-12) if known.any() else np.full(3, colour.NEUTRAL)
    return np.clip(np.where(known[:, None], light / np.maximum(share, 1e-6)[:, None], mean), 0, 1)


# ---------------------------------------------------------------- what nobody saw


def fill_unseen(grid: TexelGrid, rest: np.ndarray, faces: np.ndarray, texels: np.ndarray, seen: np.ndarray
                ) -> tuple[np.ndarray, np.ndarray]:
    """Colours [n, 3] for all unknowns and their origin [n] (SEEN, MIRRORED, FILLED).

    rest [V, 3] m, faces [F, 3]: the T-pose, left and right mirrored in x. An unseen texel takes the colour of the seen
    one opposite; the rest is the smoothest continuation over the skin, across the layout's seams.
    """
    texels, origin = np.array(texels), np.where(seen, SEEN, FILLED)
    if seen.all() or not seen.any():
        return texels, origin
    points = grid.points_of(rest, faces)
    place = np.concatenate([points, _NORMAL_SCALE * face_normals(rest, faces)[grid.face]], 1)
    other = place[~seen] * [-1, 1, 1, -1, 1, 1]
    distance, nearest = cKDTree(place[seen]).query(other, distance_upper_bound=_MIRROR_REACH)
    found = np.flatnonzero(~seen)[np.isfinite(distance)]
    texels[found] = texels[np.flatnonzero(seen)[nearest[np.isfinite(distance)]]]
    origin[found] = MIRRORED
    known = origin != FILLED
    texels[~known] = _continued(grid, points, texels, known)
    return texels, origin


def _continued(grid: TexelGrid, points: np.ndarray, texels: np.ndarray, known: np.ndarray) -> np.ndarray:
    """Harmonic colours of the unknown texels; pieces of skin that touch nothing known get the mean."""
    pairs, weights = neighbour_pairs(grid, np.ones(len(known), bool))
    seams = seam_pairs(grid, points)
    edges = np.concatenate([pairs, seams])
    laplacian = colour.graph_laplacian(edges, np.r_[weights, np.ones(len(seams), np.float32)], len(known)).tocsr()
    mean = texels[known].mean(0)
    system = laplacian[~known][:, ~known] + 1e-6 * sparse.identity(int((~known).sum()))
    right = -laplacian[~known][:, known] @ texels[known] + 1e-6 * mean
    return np.clip(splu(system.tocsc()).solve(right), 0, 1)
