"""Image formation and its derivative: what a small change of the motion does to the blurred image.

Prediction (Human from Blur, image formation model, in linear light): with sub-frame colour F_i (premultiplied by its
coverage S_i), `alpha = mean(S_i)`, `image = mean(F_i) + (1 - alpha) B`. Compared per pixel in four channels:
    predicted = [mean(F_i) - alpha B, alpha]        target = [I - B, alpha_observed]
Derivative: what is drawn changes where a line between two samples moves, and the surface nearer to us moves it:
    dP/dc = -sum over neighbouring samples (a, b):  [F_b - B S_b - F_a + B S_a, S_b - S_a] . u_nearer / samples per side
with u the image velocity of that surface (`movers`). Central differences of whole pixels are not that: an arm is two
pixels wide at 64 px, and they have half of its derivative, in the wrong pixels (docs/experiments/fit.md).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numba import njit

from blur_motion_ros.fit import movers
from blur_motion_ros.fit.kinematics import FitBody, Posed
from blur_motion_ros.fit.layout import FREE_COUNT, FREE_JOINTS, PART_OF_SLOT, PARTS, WindowLayout
from blur_motion_ros.fit.movers import MOVERS
from blur_motion_ros.render.raster import SubFrames

_FIRST_SLOTS = np.array([first for first, _ in PARTS])


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


class Plan:
    """Buffers of the linearisation of M sub-frames: which surfaces move in each pixel, and the Jacobian's blocks.

    Of up to MOVERS surfaces in a pixel: source [M, S, S, MOVERS] vertex (-1: no more), near [M, S, S, MOVERS] m, jump
    [M, S, S, MOVERS, 2, 4] change of colour and coverage across the lines that move with it, along x and y.
    parts [M, S, S]: bits of `layout.PARTS` seen, one image per exposure (F <= M), pixels: flat (exposure, y, x) sorted
    by group; group_*: of each group of pixels (see `_groups`).
    """

    def __init__(self, count: int, size: int, supersample: int):
        self.supersample, self.samples = supersample, movers.samples(size * supersample)
        groups = count << len(PARTS)
        self.source = np.full((count, size, size, MOVERS), -1, np.int32)
        self.near = np.empty((count, size, size, MOVERS), np.float32)
        self.jump = np.empty((count, size, size, MOVERS, 2, 4), np.float32)
        self.parts = np.zeros((count, size, size), np.uint8)
        self.pixels = np.empty(count * size * size, np.int64)
        self.group_exposure, self.group_parts, self.group_end, self.group_at, self.group_height = (
            np.zeros(groups + 1, np.int64) for _ in range(5))
        self._blocks = np.empty(0, np.float32)

    def blocks(self, count: int) -> np.ndarray:
        """Room for `count` numbers, not cleared."""
        if len(self._blocks) < count:
            self._blocks = np.empty(count + count // 4, np.float32)
        return self._blocks


class Workspace:
    """Buffers of one window shape, reused from frame to frame: sub-frames and their linearisation.

    wide: let the derivative reach a pixel further along its axis, with weights 1-2-1: less exact, but descent then
    finds its way from further off. For exposures that stand alone, which know no velocity to begin with."""

    def __init__(self, count: int, size: int, supersample: int = 2, wide: bool = False):
        self.wide = wide
        self.frames = SubFrames.allocate(count, size, supersample)
        self.plan = Plan(count, size, supersample)


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
    """Gauss-Newton matrices [F, n, n] and right-hand sides [F, n] of the image terms, one per exposure.

    Pixels are sorted by exposure and by the parts of the body that they see; each such group is one dense block whose
    product with itself (BLAS) lands in few rows and columns of the matrix. The residual is the block's last row,
    so that the same product also gives the right-hand side. Coefficients that the layout holds at zero have no rows.
    """
    frames, plan = workspace.frames, workspace.plan
    count, orders = len(layout.exposures), layout.degree + 1
    hessian, gradient = np.zeros((count, layout.size, layout.size)), np.zeros((count, layout.size))
    movers.find(frames.face, frames.zbuffer, frames.sample, frames.owner, frames.box, body.bone_of_vertices,
                body.parts_of_vertices, layout.subframes, workspace.wide, (0,) * plan.supersample, plan.samples,
                plan.source, plan.near, plan.jump, plan.parts[:count])
    widths = np.add.reduceat(3 * layout.active.sum(1), _FIRST_SLOTS)
    groups = _groups(plan.parts[:count], widths, plan.pixels, plan.group_exposure, plan.group_parts,
                     plan.group_end, plan.group_at, plan.group_height)
    blocks = plan.blocks(plan.group_at[groups])
    used = _blocks(plan.pixels, plan.group_parts[:groups], plan.group_end, plan.group_at, plan.source, plan.near,
                   plan.jump, target.background, target.weight, error.whitened, error.root_weight,
                   np.asarray(target.intrinsics, np.float32), posed.joints, posed.lever, layout.basis,
                   layout.subframes, body.chain_start, body.chain_slot, body.chain_share, (0,) * orders, layout.active,
                   blocks)
    _products(used, plan.group_at, plan.group_height, plan.group_parts, plan.group_exposure, blocks, layout.active,
              hessian, gradient)
    return hessian, gradient


@njit(cache=True, fastmath=True)
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


@njit(cache=True)
def _groups(parts, widths, pixels, group_exposure, group_parts, group_end, group_at, group_height):
    """Counting sort of the pixels by (exposure, parts). Group g: pixels up to group_end[g], its block of
    [group_height[g], 4 * pixels] from group_at[g]. Returns the number of groups."""
    groups, end, at = 0, 0, 0
    size = parts.shape[1]
    group_at[0] = 0
    for f in range(parts.shape[0]):
        histogram = np.zeros(1 << len(widths), np.int64)
        for y in range(size):
            for x in range(size):
                histogram[parts[f, y, x]] += 1
        first = np.zeros(len(histogram), np.int64)
        for mask in range(1, len(histogram)):
            if histogram[mask] == 0:
                continue
            first[mask] = end
            height = 1
            for i in range(len(widths)):
                height += widths[i] * (mask >> i & 1)
            end += histogram[mask]
            at += height * 4 * histogram[mask]
            group_exposure[groups], group_parts[groups], group_end[groups] = f, mask, end
            group_height[groups] = height
            groups += 1
            group_at[groups] = at
        for y in range(size):
            for x in range(size):
                mask = parts[f, y, x]
                if mask:
                    pixels[first[mask]] = (f * size + y) * size + x
                    first[mask] += 1
    return groups


@njit(cache=True, nogil=True)
def _rows_of_slots(parts, active, rows, kept):
    """Where each free slot's rows begin in a pixel's column of these parts; returns the row of the residual.

    A column has all orders; kept: those of its rows that are solved for, and the residual's. Also returns their number.
    """
    at, count = 0, 0
    for slot in range(rows.shape[0]):
        rows[slot] = at
        if parts >> PART_OF_SLOT[slot] & 1:
            for order in range(active.shape[1]):
                for _axis in range(3):
                    if active[slot, order]:
                        kept[count] = at
                        count += 1
                    at += 1
    kept[count] = at
    return at, count + 1


@njit(cache=True, nogil=True, fastmath=True)
def _blocks(pixels, group_parts, group_end, group_at, source, near, jump, background, weight, whitened,
            root_weight, k, joints, lever, basis, subframes, chain_start, chain_slot, chain_share, orders, active,
            blocks):
    """Fill the groups' blocks; returns how many pixels of each have a derivative at all.

    `orders`: a tuple as long as the polynomials have orders; its length is known when this is compiled. Indices of the
    inner loops are unsigned: numba then need not ask whether they count from the end, and can use vector registers.
    """
    size = np.uint64(source.shape[1])
    used = np.zeros(len(group_parts), np.int64)
    centres, levers, times = _as_single(joints, lever, basis)
    row_of = np.empty(FREE_COUNT, np.int64)
    kept = np.empty(FREE_COUNT * 3 * len(orders) + 1, np.uint64)
    column = np.empty(FREE_COUNT * 3 * len(orders) * 4 + 4, np.float32)  # of one pixel: [rows of the block, 4 channels]
    first = 0
    for g in range(len(group_parts)):
        last, rows = _rows_of_slots(group_parts[g], active, row_of, kept)
        pitch = 4 * (group_end[g] - first)
        for p in range(first, group_end[g]):
            pixel = np.uint64(pixels[p])
            x, y, f = pixel % size, pixel // size % size, np.int64(pixel // (size * size))
            column[:4 * last] = 0
            moved = False
            for m in range(f * subframes, (f + 1) * subframes):
                for mover in range(MOVERS):
                    v = source[m, y, x, mover]
                    if v < 0:
                        break
                    z = near[m, y, x, mover]
                    px = (np.float32(x) - k[0, 2]) / k[0, 0] * z
                    py = (np.float32(y) - k[1, 2]) / k[1, 1] * z
                    seen, qx, qy, qz = _pull(px / z, py / z, k[0, 0] / z, k[1, 1] / z, jump[m, y, x, mover],
                                             background[f, y, x], weight[f, y, x], root_weight[f, y, x], subframes)
                    if not seen:
                        continue
                    moved = True
                    time, centre, lever_now = times[m], centres[m], levers[m]
                    _add(column, np.uint64(0), 0, qx, time, orders)
                    _add(column, np.uint64(0), 1, qy, time, orders)
                    _add(column, np.uint64(0), 2, qz, time, orders)
                    for entry in range(np.uint64(chain_start[v]), np.uint64(chain_start[v + 1])):
                        slot, share = np.uint64(chain_slot[entry]), chain_share[entry]
                        rx = share * (px - centre[slot, 0])
                        ry = share * (py - centre[slot, 1])
                        rz = share * (z - centre[slot, 2])
                        row = np.uint64(4 * row_of[slot])
                        for a in range(3):
                            wx, wy, wz = lever_now[slot, 0, a], lever_now[slot, 1, a], lever_now[slot, 2, a]
                            d = _along(wy * rz - wz * ry, wz * rx - wx * rz, wx * ry - wy * rx, qx, qy, qz)
                            _add(column, row, a, d, time, orders)
            if moved:
                for c in range(4):
                    column[4 * last + c] = whitened[f, y, x, c] * root_weight[f, y, x, c]
                to, step = np.uint64(group_at[g] + 4 * used[g]), np.uint64(pitch)
                for row in range(np.uint64(rows)):
                    at = np.uint64(4) * kept[row]
                    for c in range(np.uint64(4)):
                        blocks[to + c] = column[at + c]
                    to += step
                used[g] += 1
        first = group_end[g]
    return used


@njit(cache=True, nogil=True, fastmath=True, inline="always")
def _along(vx, vy, vz, qx, qy, qz):
    """Velocity . pull for each of the four channels."""
    return (vx * qx[0] + vy * qy[0] + vz * qz[0], vx * qx[1] + vy * qy[1] + vz * qz[1],
            vx * qx[2] + vy * qy[2] + vz * qz[2], vx * qx[3] + vy * qy[3] + vz * qz[3])


@njit(cache=True, nogil=True, fastmath=True, inline="always")
def _add(column, row, axis, d, times, orders):
    """column += derivative (x) basis, for one axis of the slot whose numbers begin at `row`."""
    for o in range(len(orders)):
        to, t = row + np.uint64(12 * o + 4 * axis), times[o]
        column[to] += t * d[0]
        column[to + np.uint64(1)] += t * d[1]
        column[to + np.uint64(2)] += t * d[2]
        column[to + np.uint64(3)] += t * d[3]


@njit(cache=True, nogil=True)
def _as_single(joints, lever, basis):
    """Joint centres [M, 21, 3] and levers [M, 21, 3, 3] of the free slots, and the basis, in single precision."""
    centres = np.zeros((len(joints), FREE_COUNT, 3), np.float32)
    for slot in range(1, FREE_COUNT):
        for m in range(len(joints)):
            for a in range(3):
                centres[m, slot, a] = joints[m, FREE_JOINTS[slot - 1], a]
    return centres, lever.astype(np.float32), basis.astype(np.float32)


@njit(cache=True, nogil=True, fastmath=True, inline="always")
def _pull(tx, ty, fx, fy, jump, background, weight, root_weight, subframes):
    """Whitened change of the pixel's four channels per metre of the surface point along x, y, z; False: there is none.

    tx, ty: x / z and y / z of the point; fx, fy: pixels per metre there.
    """
    b0, b1, b2 = background[0], background[1], background[2]
    ax, ay = jump[0, 3], jump[1, 3]
    gx = (jump[0, 0] - b0 * ax, jump[0, 1] - b1 * ax, jump[0, 2] - b2 * ax, ax)
    gy = (jump[1, 0] - b0 * ay, jump[1, 1] - b1 * ay, jump[1, 2] - b2 * ay, ay)
    strength = (abs(gx[0]) + abs(gx[1]) + abs(gx[2]) + abs(gx[3]) + abs(gy[0]) + abs(gy[1]) + abs(gy[2]) + abs(gy[3]))
    share = np.float32(-1.0) / np.float32(subframes)
    s = (share * weight[0] * root_weight[0], share * weight[1] * root_weight[1],
         share * weight[2] * root_weight[2], share * weight[3] * root_weight[3])
    qx = (s[0] * fx * gx[0], s[1] * fx * gx[1], s[2] * fx * gx[2], s[3] * fx * gx[3])
    qy = (s[0] * fy * gy[0], s[1] * fy * gy[1], s[2] * fy * gy[2], s[3] * fy * gy[3])
    qz = (-tx * qx[0] - ty * qy[0], -tx * qx[1] - ty * qy[1], -tx * qx[2] - ty * qy[2], -tx * qx[3] - ty * qy[3])
    return strength >= np.float32(1e-3), qx, qy, qz


@njit(cache=True, nogil=True)
def _products(used, at, height, parts, exposure, blocks, active, hessian, gradient):
    """Each group's block times itself, added where it belongs. All in one call: every return to Python in between would
    wait for the interpreter, which the other thread may hold."""
    for g in range(len(used)):
        if used[g] == 0:
            continue
        block = blocks[at[g]:at[g + 1]].reshape(height[g], (at[g + 1] - at[g]) // height[g])
        if 4 * used[g] < block.shape[1]:
            block = np.ascontiguousarray(block[:, :4 * used[g]])
        _scatter(np.dot(block, block.T), parts[g], active, hessian, gradient, exposure[g])


@njit(cache=True, nogil=True)
def _scatter(product, parts, active, hessian, gradient, exposure):
    """Add a block's product with itself to the rows and columns that it stands for."""
    column = np.empty(product.shape[0] - 1, np.int64)
    at = 0
    for slot in range(FREE_COUNT):
        if parts >> PART_OF_SLOT[slot] & 1:
            for order in range(active.shape[1]):
                for axis in range(3):
                    if active[slot, order]:
                        column[at] = 3 * (slot * active.shape[1] + order) + axis
                        at += 1
    for i in range(at):
        row = hessian[exposure, column[i]]
        for j in range(i):  # of the product only the lower triangle: rounding makes the two differ
            row[column[j]] += product[i, j]
            hessian[exposure, column[j], column[i]] += product[i, j]
        row[column[i]] += product[i, i]
        gradient[exposure, column[i]] += product[at, i]
