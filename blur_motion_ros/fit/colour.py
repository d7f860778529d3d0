"""Colours of the surface: the blurred image is linear in them, so a few conjugate-gradient steps solve for them.

Here: what every colouring of the surface shares, and the online path's colours per vertex; `fit.texture` has texels.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numba import njit
from scipy import sparse

from blur_motion_ros.fit.image_terms import Target
from blur_motion_ros.fit.kinematics import FitBody
from blur_motion_ros.render import raster
from blur_motion_ros.render.raster import SubFrames

NEUTRAL = 0.2  # linear grey of a surface nobody has seen yet


def solve_colours(body: FitBody, vertices: np.ndarray, frames: SubFrames, target: Target, alpha: np.ndarray,
                  colours: np.ndarray, smoothness: float = 0.02, iterations: int = 12) -> np.ndarray:
    """Colours [V, 3] (linear light) that explain the images, starting from `colours`.

    vertices [M, V, 3] and `frames`: the rendered sub-frames; alpha [F, S, S]: their mean coverage. Minimises
    |mean(F_i) - (I - (1 - alpha) B)|^2 + smoothness |edge differences|^2; unseen vertices stay near where they were.
    """
    samples = 3 * int((frames.face >= 0).sum())
    rows = _blurred_rows(vertices, body.faces, np.asarray(target.intrinsics, np.float32), frames.face, frames.box,
                         len(alpha), target.size, samples)
    weight, start = agreement(target, alpha), np.asarray(colours, np.float64)
    right, diagonal = _right_side(*rows, weight, light_of_body(target, alpha), len(colours))
    keep = 1e-3 * float(diagonal.sum()) / len(colours)
    system = _System(*rows, weight, body.edges, smoothness, keep, diagonal)
    return np.clip(conjugate_gradient(system, right + keep * start, start, iterations), 0, 1).astype(np.float32)


@dataclass(frozen=True)
class _System:
    """A' W A + smoothness L + keep, as an operator on [V, 3]; A in compressed rows (see `_blurred_rows`)."""

    pixels: np.ndarray
    start: np.ndarray
    columns: np.ndarray
    values: np.ndarray
    weight: np.ndarray
    edges: np.ndarray
    smoothness: float
    keep: float
    data_diagonal: np.ndarray

    def __matmul__(self, x: np.ndarray) -> np.ndarray:
        out = np.empty(x.shape)
        _apply(self.pixels, self.start, self.columns, self.values, self.weight, self.edges, self.smoothness, self.keep,
               np.asarray(x, np.float64), out)
        return out

    def diagonal(self) -> np.ndarray:
        degree = np.bincount(self.edges.reshape(-1), minlength=len(self.data_diagonal))
        return self.data_diagonal + self.smoothness * degree + self.keep


def light_of_body(target: Target, alpha: np.ndarray) -> np.ndarray:
    """[F * S * S, 3]: what the body adds to the image, I - (1 - alpha) B, at rendered coverage alpha [F, S, S]."""
    return (target.value[..., :3] + alpha[..., None] * target.background).reshape(-1, 3)


def agreement(target: Target, alpha: np.ndarray) -> np.ndarray:
    """[F * S * S] in [0, 1]: pixels where observed and rendered alpha disagree are not the body's colour."""
    return np.exp(-0.5 * ((target.value[..., 3] - alpha) / 0.25) ** 2).reshape(-1)


def graph_laplacian(edges: np.ndarray, weights: np.ndarray, count: int):
    """[count, count] sparse L with x' L x = sum of weights [E] times squared differences over edges [E, 2]."""
    i, j = edges[:, 0], edges[:, 1]
    adjacency = sparse.coo_matrix((np.r_[weights, weights], (np.r_[i, j], np.r_[j, i])), (count, count)).tocsr()
    return sparse.diags(np.asarray(adjacency.sum(1)).ravel()) - adjacency


def conjugate_gradient(system, right: np.ndarray, start: np.ndarray, iterations: int) -> np.ndarray:
    """`iterations` steps towards system @ x = right from `start` [n, 3]: all channels at once, Jacobi-preconditioned.

    system: symmetric positive definite; a sparse matrix or anything with `@` and `diagonal()`.
    """
    inverse = 1.0 / np.maximum(system.diagonal(), 1e-12)[:, None]
    x = np.array(start, np.float64)
    r = right - system @ x
    z = inverse * r
    p = z
    old = (r * z).sum(0)
    for _ in range(iterations):
        q = system @ p
        step = old / np.maximum((p * q).sum(0), 1e-20)
        x += step * p
        r -= step * q
        z = inverse * r
        new = (r * z).sum(0)
        p = z + (new / np.maximum(old, 1e-20)) * p
        old = new
    return x


@njit(cache=True, nogil=True)
def _blurred_rows(vertices, faces, k, face, box, count, size, samples):
    """The blurred colour image (premultiplied) as a linear map of the vertex colours, in compressed rows.

    Returns pixels [P] (flat index of exposure, y, x), start [P + 1], columns and values [start[P]] of their entries.
    """
    subframes, fine = len(vertices) // count, face.shape[1] // size
    share = np.float32(1.0 / (subframes * fine * fine))
    projected = np.empty((len(vertices), vertices.shape[1], 2), np.float32)
    for m in range(len(vertices)):
        raster._project(vertices[m], k, fine, projected[m])
    pixels, start = np.empty(samples, np.int64), np.zeros(samples + 1, np.int64)
    columns, values = np.empty(samples, np.int64), np.empty(samples, np.float64)
    place = np.full(vertices.shape[1], -1, np.int64)  # of each vertex among the entries of the current pixel
    n, end = 0, 0
    for f in range(count):
        for y in range(size):
            for x in range(size):
                begin = end
                for m in range(f * subframes, (f + 1) * subframes):
                    if x < box[m, 0] or x >= box[m, 2] or y < box[m, 1] or y >= box[m, 3]:
                        continue
                    for sy in range(y * fine, y * fine + fine):
                        for sx in range(x * fine, x * fine + fine):
                            t = face[m, sy, sx]
                            if t < 0:
                                continue
                            corners = faces[t, 0], faces[t, 1], faces[t, 2]
                            weights = raster.barycentric(projected[m], corners[0], corners[1], corners[2],
                                                         np.float32(sx), np.float32(sy))
                            for i in range(3):
                                if place[corners[i]] < 0:
                                    place[corners[i]] = end
                                    columns[end], values[end] = corners[i], 0.0
                                    end += 1
                                values[place[corners[i]]] += share * weights[i]
                for entry in range(begin, end):
                    place[columns[entry]] = -1
                if end > begin:
                    pixels[n] = (f * size + y) * size + x
                    n += 1
                    start[n] = end
    return pixels[:n], start[:n + 1], columns[:end], values[:end]


@njit(cache=True, nogil=True)
def _right_side(pixels, start, columns, values, weight, wanted, count):
    """A' W wanted [V, 3] and the diagonal of A' W A [V]."""
    right, diagonal = np.zeros((count, 3)), np.zeros(count)
    for r in range(len(pixels)):
        w = weight[pixels[r]]
        for e in range(start[r], start[r + 1]):
            diagonal[columns[e]] += w * values[e] * values[e]
            for c in range(3):
                right[columns[e], c] += w * values[e] * wanted[pixels[r], c]
    return right, diagonal


@njit(cache=True, fastmath=True)
def _apply(pixels, start, columns, values, weight, edges, smoothness, keep, x, out):
    """out = (A' W A + smoothness L + keep) x, without forming the product."""
    for v in range(x.shape[0]):
        for c in range(3):
            out[v, c] = keep * x[v, c]
    for e in range(len(edges)):
        i, j = edges[e, 0], edges[e, 1]
        for c in range(3):
            d = smoothness * (x[i, c] - x[j, c])
            out[i, c] += d
            out[j, c] -= d
    for r in range(len(pixels)):
        red = green = blue = 0.0
        for e in range(start[r], start[r + 1]):
            v, w = columns[e], values[e]
            red += w * x[v, 0]
            green += w * x[v, 1]
            blue += w * x[v, 2]
        light = weight[pixels[r]]
        red, green, blue = light * red, light * green, light * blue
        for e in range(start[r], start[r + 1]):
            v, w = columns[e], values[e]
            out[v, 0] += w * red
            out[v, 1] += w * green
            out[v, 2] += w * blue
