"""Image formation and its derivative: what a small change of the motion does to the blurred image.

Prediction (Human from Blur, image formation model, in linear light): with sub-frame colour F_i (premultiplied by its
coverage S_i), `alpha = mean(S_i)`, `image = mean(F_i) + (1 - alpha) B`. Compared per pixel in four channels:
    predicted = [mean(F_i) - alpha B, alpha]        target = [I - B, alpha_observed]
Derivative: a rendered sub-frame moves with the surface, `P(x; c + d) ~ P(x - u d; c)`, so
    dP_i/dc ~ -(grad F_i - B grad S_i, grad S_i) . u_i,    u_i = image velocity of the surface seen at the pixel.
Just outside the silhouette and behind a depth edge, the nearer neighbouring surface is the one that moves in.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numba import njit

from blur_motion_ros.fit.kinematics import FitBody, Posed
from blur_motion_ros.fit.layout import FREE_COUNT, FREE_JOINTS, LIMB_OF_SLOT, LIMB_SLOTS, WindowLayout
from blur_motion_ros.render.raster import SubFrames

DEPTH_EDGE = np.float32(0.08)  # m; a neighbour nearer than this covers the pixel's own surface


@dataclass(frozen=True)
class Target:
    """What a window of F exposures should look like at one resolution.

    value [F, S, S, 4] = [I - B, alpha], weight [F, S, S, 4] = 1 / sigma (0 where nothing is known),
    background [F, S, S, 3] linear, intrinsics [3, 3] of the crop.
    """

    value: np.ndarray
    weight: np.ndarray
    background: np.ndarray
    intrinsics: np.ndarray

    @property
    def size(self) -> int:
        return self.value.shape[1]


@dataclass(frozen=True)
class Residual:
    """whitened [F, S, S, 4] = weight * (target - predicted); root_weight: robust weight, square root;
    cost: sum of Geman-McClure losses."""

    whitened: np.ndarray
    root_weight: np.ndarray
    cost: float


class Workspace:
    """Buffers of one window shape, reused from frame to frame: sub-frames and the rows of the Jacobian."""

    def __init__(self, count: int, size: int, supersample: int = 2):
        self.frames = SubFrames.allocate(count, size, supersample)
        self._jacobian = np.zeros((0, 4, 1), np.float32)
        self._right = np.zeros((0, 4), np.float32)

    def rows(self, count: int, width: int) -> tuple[np.ndarray, np.ndarray]:
        """Zeroed Jacobian [count, 4, width] and right-hand side [count, 4]."""
        if len(self._jacobian) < count or self._jacobian.shape[2] != width:
            self._jacobian = np.zeros((count + count // 4, 4, width), np.float32)
            self._right = np.zeros((len(self._jacobian), 4), np.float32)
        else:
            self._jacobian[:count] = 0
        return self._jacobian[:count], self._right[:count]


def predict(frames: SubFrames, count: int, background: np.ndarray) -> np.ndarray:
    """Average the sub-frames of each exposure: -> [F, S, S, 4] = [mean(F_i) - alpha B, alpha]."""
    size = frames.alpha.shape[1]
    out = np.zeros((count, size, size, 4), np.float32)
    _average(frames.colour, frames.alpha, frames.box, background, out)
    return out


def residual(target: Target, predicted: np.ndarray, cutoff: float) -> Residual:
    """Geman-McClure: rho(r) = r^2 / (1 + r^2 / cutoff^2), cutoff in sigmas."""
    whitened = target.weight * (target.value - predicted)
    ratio = 1.0 / (1.0 + whitened * whitened * np.float32(1.0 / cutoff**2))
    return Residual(whitened, ratio, float((whitened * whitened * ratio).sum()))


def normal_equations(body: FitBody, posed: Posed, workspace: Workspace, layout: WindowLayout, target: Target,
                     error: Residual) -> tuple[np.ndarray, np.ndarray]:
    """Gauss-Newton matrices [F, n, n] and right-hand sides [F, n] of the image terms, one per exposure."""
    frames = workspace.frames
    width = FREE_COUNT * (layout.degree + 1) * 3
    index, source, near, rows, groups = _plan(frames, body, layout.subframes, len(layout.exposures))
    count = len(layout.exposures)
    hessian, gradient = np.zeros((count, width, width)), np.zeros((count, width))
    if rows == 0:
        return hessian, gradient
    jacobian, right = workspace.rows(rows, width)
    scale = target.weight * error.root_weight
    _gather(index, error.whitened, error.root_weight, right)
    _jacobian(index, source, near, frames.colour, frames.alpha, frames.box, target.background, scale,
              np.asarray(target.intrinsics, np.float32), posed.joints[:, FREE_JOINTS].astype(np.float32),
              posed.lever.astype(np.float32), layout.basis.astype(np.float32), layout.subframes, body.chain_start,
              body.chain_slot, body.chain_share, jacobian)
    for first, last, exposure, limbs in groups:
        _accumulate(jacobian[first:last].reshape(-1, width), right[first:last].reshape(-1), limbs,
                    (layout.degree + 1) * 3, hessian[exposure], gradient[exposure])
    return hessian, gradient


def _accumulate(block: np.ndarray, right: np.ndarray, limbs: list[int], unit: int, hessian: np.ndarray,
                gradient: np.ndarray) -> None:
    slices = [slice(LIMB_SLOTS[i][0] * unit, LIMB_SLOTS[i][1] * unit) for i in limbs]
    for i, a in enumerate(slices):
        gradient[a] += block[:, a].T @ right
        for b in slices[: i + 1]:
            product = block[:, a].T @ block[:, b]
            hessian[a, b] += product
            if a is not b:
                hessian[b, a] += product.T


def _plan(frames: SubFrames, body: FitBody, subframes: int, count: int):
    """Choose the surface that moves at every pixel of every sub-frame; give rows to pixels by exposure and limbs."""
    size = frames.alpha.shape[1]
    source = np.full(frames.alpha.shape, -1, np.int32)
    near = np.empty(frames.alpha.shape, np.float32)
    limbs = np.zeros((count, size, size), np.int32)
    _sources(frames.depth, frames.vertex, frames.box, _limbs_of_vertices(body), subframes, source, near, limbs)
    limbs |= np.arange(count, dtype=np.int32)[:, None, None] << len(LIMB_SLOTS) if count > 1 else 0
    limbs *= (limbs & 1)  # the trunk's bit says whether anything moves at the pixel
    flat = limbs.reshape(-1)
    active = np.flatnonzero(flat)
    order = active[np.argsort(flat[active], kind="stable")]
    index = np.full(flat.shape, -1, np.int32)
    index[order] = np.arange(len(order))
    masks, firsts = np.unique(flat[order], return_index=True)
    lasts = np.append(firsts[1:], len(order))[:len(firsts)]  # no pixel moves: no group
    groups = [(int(a), int(b), int(mask) >> len(LIMB_SLOTS), [i for i in range(len(LIMB_SLOTS)) if mask >> i & 1])
              for mask, a, b in zip(masks, firsts, lasts, strict=True)]
    return index.reshape(limbs.shape), source, near, len(order), groups


def _limbs_of_vertices(body: FitBody) -> np.ndarray:
    """[V] bit mask of the limbs that move each vertex; the trunk (bit 0) always does."""
    mask = np.ones(len(body.rest_vertices), np.int32)
    owner = np.repeat(np.arange(len(mask)), np.diff(body.chain_start))
    np.bitwise_or.at(mask, owner, 1 << LIMB_OF_SLOT[body.chain_slot])
    return mask


@njit(cache=True, nogil=True, fastmath=True)
def _average(colour, alpha, box, background, out):
    subframes = alpha.shape[0] // out.shape[0]
    share = np.float32(1.0 / subframes)
    for m in range(alpha.shape[0]):
        f = m // subframes
        for y in range(box[m, 1], box[m, 3]):
            for x in range(box[m, 0], box[m, 2]):
                a = alpha[m, y, x]
                if a > 0:
                    out[f, y, x, 3] += share * a
                    for i in range(3):
                        out[f, y, x, i] += share * (colour[m, y, x, i] - a * background[f, y, x, i])


@njit(cache=True, nogil=True)
def _sources(depth, vertex, box, limbs_of_vertices, subframes, source, near, limbs):
    size = depth.shape[1]
    for m in range(depth.shape[0]):
        f = m // subframes
        if box[m, 2] == 0:
            continue
        for y in range(max(0, box[m, 1] - 1), min(size, box[m, 3] + 1)):
            for x in range(max(0, box[m, 0] - 1), min(size, box[m, 2] + 1)):
                best, own = depth[m, y, x], depth[m, y, x]
                chosen = vertex[m, y, x]
                for j in range(max(0, y - 1), min(size, y + 2)):
                    for i in range(max(0, x - 1), min(size, x + 2)):
                        d = depth[m, j, i]
                        if d < best and d < own - DEPTH_EDGE:
                            best = d
                            chosen = vertex[m, j, i]
                if chosen >= 0:
                    source[m, y, x] = chosen
                    near[m, y, x] = best
                    limbs[f, y, x] |= limbs_of_vertices[chosen]


@njit(cache=True, nogil=True)
def _gather(index, whitened, root_weight, right):
    for f in range(index.shape[0]):
        for y in range(index.shape[1]):
            for x in range(index.shape[2]):
                r = index[f, y, x]
                if r >= 0:
                    for c in range(4):
                        right[r, c] = whitened[f, y, x, c] * root_weight[f, y, x, c]


@njit(cache=True, nogil=True, fastmath=True)
def _jacobian(index, source, near, colour, alpha, box, background, scale, k, joints, lever, basis, subframes,
              chain_start, chain_slot, chain_share, jacobian):
    size = alpha.shape[1]
    share = np.float32(1.0 / subframes)
    ux, uy = np.empty(3, np.float32), np.empty(3, np.float32)
    gx, gy = np.empty(4, np.float32), np.empty(4, np.float32)
    half = np.float32(0.5)
    for m in range(alpha.shape[0]):
        f = m // subframes
        if box[m, 2] == 0:
            continue
        for y in range(max(0, box[m, 1] - 1), min(size, box[m, 3] + 1)):
            for x in range(max(0, box[m, 0] - 1), min(size, box[m, 2] + 1)):
                v = source[m, y, x]
                if v < 0:
                    continue
                x0, x1, y0, y1 = max(x - 1, 0), min(x + 1, size - 1), max(y - 1, 0), min(y + 1, size - 1)
                gx[3] = half * (alpha[m, y, x1] - alpha[m, y, x0])
                gy[3] = half * (alpha[m, y1, x] - alpha[m, y0, x])
                strength = abs(gx[3]) + abs(gy[3])
                for c in range(3):
                    b = background[f, y, x, c]
                    gx[c] = half * (colour[m, y, x1, c] - colour[m, y, x0, c]) - b * gx[3]
                    gy[c] = half * (colour[m, y1, x, c] - colour[m, y0, x, c]) - b * gy[3]
                    strength += abs(gx[c]) + abs(gy[c])
                if strength < np.float32(1e-3):
                    continue
                for c in range(4):
                    s = -share * scale[f, y, x, c]
                    gx[c] *= s
                    gy[c] *= s
                z = near[m, y, x]
                px = (x - k[0, 2]) / k[0, 0] * z
                py = (y - k[1, 2]) / k[1, 1] * z
                fx, fy = k[0, 0] / z, k[1, 1] / z
                row = jacobian[index[f, y, x]]
                for a in range(3):  # translation
                    ux[a] = fx if a == 0 else (-fx * px / z if a == 2 else np.float32(0.0))
                    uy[a] = fy if a == 1 else (-fy * py / z if a == 2 else np.float32(0.0))
                _add(row, 0, gx, gy, ux, uy, basis[m])
                for entry in range(chain_start[v], chain_start[v + 1]):
                    slot, weight = chain_slot[entry], chain_share[entry]
                    rx = px - joints[m, slot - 1, 0]
                    ry = py - joints[m, slot - 1, 1]
                    rz = z - joints[m, slot - 1, 2]
                    for a in range(3):
                        wx, wy, wz = lever[m, slot, 0, a], lever[m, slot, 1, a], lever[m, slot, 2, a]
                        dz = wx * ry - wy * rx
                        ux[a] = weight * fx * (wy * rz - wz * ry - px / z * dz)
                        uy[a] = weight * fy * (wz * rx - wx * rz - py / z * dz)
                    _add(row, slot, gx, gy, ux, uy, basis[m])


@njit(cache=True, nogil=True, fastmath=True, inline="always")
def _add(row, slot, gx, gy, ux, uy, basis):
    """row [4, n] += image gradient . velocity (x) basis, for one free slot."""
    orders = basis.shape[0]
    at = slot * orders * 3
    for c in range(4):
        d0 = gx[c] * ux[0] + gy[c] * uy[0]
        d1 = gx[c] * ux[1] + gy[c] * uy[1]
        d2 = gx[c] * ux[2] + gy[c] * uy[2]
        for o in range(orders):
            b = basis[o]
            row[c, at + 3 * o] += d0 * b
            row[c, at + 3 * o + 1] += d1 * b
            row[c, at + 3 * o + 2] += d2 * b
