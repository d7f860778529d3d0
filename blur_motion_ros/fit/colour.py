"""Colours of the surface: the blurred image is linear in them, so a few conjugate-gradient steps solve for them.

Here: what every colouring of the surface shares, and the online path's colours per vertex; `fit.texture` has texels.
"""

from __future__ import annotations

import numpy as np
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
    a = colour_matrix(body, vertices, frames, target, len(alpha))
    wanted, agree = light_of_body(target, alpha), agreement(target, alpha)
    weighted = a.multiply(agree[:, None]).tocsr()
    laplacian = edge_laplacian(body, len(colours))
    keep = 1e-3 * float(weighted.multiply(a).sum()) / len(colours)
    system = (weighted.T @ a + smoothness * laplacian + keep * sparse.identity(len(colours))).tocsr()
    right = weighted.T @ wanted + keep * colours
    return np.clip(conjugate_gradient(system, right, colours, iterations), 0, 1).astype(np.float32)


def light_of_body(target: Target, alpha: np.ndarray) -> np.ndarray:
    """[F * S * S, 3]: what the body adds to the image, I - (1 - alpha) B, at rendered coverage alpha [F, S, S]."""
    return (target.value[..., :3] + alpha[..., None] * target.background).reshape(-1, 3)


def agreement(target: Target, alpha: np.ndarray) -> np.ndarray:
    """[F * S * S] in [0, 1]: pixels where observed and rendered alpha disagree are not the body's colour."""
    return np.exp(-0.5 * ((target.value[..., 3] - alpha) / 0.25) ** 2).reshape(-1)


def colour_matrix(body: FitBody, vertices: np.ndarray, frames: SubFrames, target: Target, count: int):
    """Sparse [F * S * S, V]: the blurred colour image (premultiplied) as a linear map of the vertex colours."""
    samples = int((frames.face >= 0).sum()) * 3
    rows, columns = np.empty(samples, np.int32), np.empty(samples, np.int32)
    values = np.empty(samples, np.float32)
    subframes = len(vertices) // count
    frame_of = (np.arange(len(vertices)) // subframes).astype(np.int32)
    used = raster.colour_weights(vertices, body.faces, np.asarray(target.intrinsics, np.float32), frames.face,
                                 target.size, frame_of, np.float32(1.0 / subframes), rows, columns, values)
    shape = (count * target.size**2, len(body.rest_vertices))
    return sparse.csr_matrix((values[:used], (rows[:used], columns[:used])), shape)


def edge_laplacian(body: FitBody, count: int):
    """Graph Laplacian of the mesh, [V, V] sparse."""
    return graph_laplacian(body.edges, np.ones(len(body.edges), np.float32), count)


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
