"""CPU sub-frame rasteriser: a z-buffer in numba, supersampled, for small images and small meshes.

Pixel centres lie at integers. All sub-frames of a window are drawn by one call into buffers that the caller owns
(`SubFrames`), so that nothing is allocated per frame. Triangles facing away are skipped: the mesh is closed.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numba import njit

FAR = np.float32(1e9)


@dataclass(frozen=True)
class SubFrames:
    """Rendered sub-frames, M of them, S pixels square.

    colour [M, S, S, 3] premultiplied by coverage (linear light), alpha [M, S, S] coverage, depth [M, S, S] m of the
    nearest sample (FAR where empty), vertex [M, S, S] the mesh vertex nearest to that sample (-1 where empty),
    face [M, S*ss, S*ss] triangle per sample (-1 empty), zbuffer [M, S*ss, S*ss] m, box [M, 4] int x0 y0 x1 y1
    (exclusive) of the covered pixels.
    """

    colour: np.ndarray
    alpha: np.ndarray
    depth: np.ndarray
    vertex: np.ndarray
    face: np.ndarray
    zbuffer: np.ndarray
    box: np.ndarray

    @staticmethod
    def allocate(count: int, size: int, supersample: int = 2) -> SubFrames:
        fine = size * supersample
        return SubFrames(
            np.zeros((count, size, size, 3), np.float32), np.zeros((count, size, size), np.float32),
            np.full((count, size, size), FAR, np.float32), np.full((count, size, size), -1, np.int32),
            np.full((count, fine, fine), -1, np.int32), np.full((count, fine, fine), FAR, np.float32),
            np.zeros((count, 4), np.int32))


def draw(vertices: np.ndarray, faces: np.ndarray, colours: np.ndarray, intrinsics: np.ndarray, out: SubFrames) -> None:
    """Draw meshes `vertices` [M, V, 3] (camera frame, m, float32) with per-vertex `colours` [V, 3] into `out`."""
    _draw(vertices, faces, colours, np.asarray(intrinsics, np.float32), out.colour, out.alpha, out.depth,
          out.vertex, out.face, out.zbuffer, out.box)


@njit(cache=True, nogil=True, fastmath=True)
def _draw(vertices, faces, colours, k, colour, alpha, depth, vertex, face, zbuffer, box):
    count, size = alpha.shape[0], alpha.shape[1]
    ss = face.shape[1] // size
    projected = np.empty((vertices.shape[1], 2), np.float32)
    for m in range(count):
        _clear(m, ss, colour, alpha, depth, vertex, face, zbuffer, box)
        _project(vertices[m], k, ss, projected)
        _fill(m, projected, vertices[m], faces, face, zbuffer, box)
        _pixel_box(m, ss, size, box)
        _resolve(m, ss, projected, faces, colours, colour, alpha, depth, vertex, face, zbuffer, box)


@njit(cache=True, nogil=True, fastmath=True)
def _clear(m, ss, colour, alpha, depth, vertex, face, zbuffer, box):
    x0, y0, x1, y1 = box[m, 0], box[m, 1], box[m, 2], box[m, 3]
    for y in range(y0, y1):
        for x in range(x0, x1):
            alpha[m, y, x] = 0
            depth[m, y, x] = FAR
            vertex[m, y, x] = -1
            colour[m, y, x, 0] = 0
            colour[m, y, x, 1] = 0
            colour[m, y, x, 2] = 0
    for y in range(y0 * ss, y1 * ss):
        for x in range(x0 * ss, x1 * ss):
            face[m, y, x] = -1
            zbuffer[m, y, x] = FAR


@njit(cache=True, nogil=True, fastmath=True)
def _project(vertices, k, ss, projected):
    """To the supersampled grid, whose sample (i, j) has its centre at integers."""
    for v in range(vertices.shape[0]):
        z = max(vertices[v, 2], np.float32(0.05))
        x = (k[0, 0] * vertices[v, 0] + k[0, 1] * vertices[v, 1]) / z + k[0, 2]
        y = k[1, 1] * vertices[v, 1] / z + k[1, 2]
        projected[v, 0] = (x + 0.5) * ss - 0.5
        projected[v, 1] = (y + 0.5) * ss - 0.5


@njit(cache=True, nogil=True, fastmath=True)
def _fill(m, projected, vertices, faces, face, zbuffer, box):
    fine = face.shape[1]
    box[m, 0], box[m, 1], box[m, 2], box[m, 3] = fine, fine, 0, 0
    for f in range(faces.shape[0]):
        a, b, c = faces[f, 0], faces[f, 1], faces[f, 2]
        ax, ay = projected[a, 0], projected[a, 1]
        bx, by = projected[b, 0], projected[b, 1]
        cx, cy = projected[c, 0], projected[c, 1]
        area = (bx - ax) * (cy - ay) - (by - ay) * (cx - ax)
        if area >= np.float32(-1e-6):  # image y points down: outward-wound triangles that face us are negative
            continue
        az, bz, cz = vertices[a, 2], vertices[b, 2], vertices[c, 2]
        if az < 0.1 or bz < 0.1 or cz < 0.1:
            continue
        x0 = max(0, int(np.ceil(min(ax, bx, cx))))
        x1 = min(fine - 1, int(np.floor(max(ax, bx, cx))))
        y0 = max(0, int(np.ceil(min(ay, by, cy))))
        y1 = min(fine - 1, int(np.floor(max(ay, by, cy))))
        if x0 > x1 or y0 > y1:
            continue
        inv = np.float32(1.0) / area
        ia, ib, ic = np.float32(1.0) / az, np.float32(1.0) / bz, np.float32(1.0) / cz
        hit = False
        for y in range(y0, y1 + 1):
            for x in range(x0, x1 + 1):
                wb = ((x - ax) * (cy - ay) - (y - ay) * (cx - ax)) * inv
                wc = ((bx - ax) * (y - ay) - (by - ay) * (x - ax)) * inv
                wa = np.float32(1.0) - wb - wc
                if wa >= 0 and wb >= 0 and wc >= 0:
                    z = np.float32(1.0) / (wa * ia + wb * ib + wc * ic)
                    hit = True
                    if z < zbuffer[m, y, x]:
                        zbuffer[m, y, x] = z
                        face[m, y, x] = f
        if hit:
            box[m, 0] = min(box[m, 0], x0)
            box[m, 1] = min(box[m, 1], y0)
            box[m, 2] = max(box[m, 2], x1 + 1)
            box[m, 3] = max(box[m, 3], y1 + 1)


@njit(cache=True, nogil=True)
def _pixel_box(m, ss, size, box):
    box[m, 0] //= ss
    box[m, 1] //= ss
    box[m, 2] = min(size, (box[m, 2] + ss - 1) // ss)
    box[m, 3] = min(size, (box[m, 3] + ss - 1) // ss)
    if box[m, 2] <= box[m, 0] or box[m, 3] <= box[m, 1]:
        box[m, 0], box[m, 1], box[m, 2], box[m, 3] = 0, 0, 0, 0


@njit(cache=True, nogil=True, fastmath=True)
def barycentric(projected, a, b, c, x, y):
    """Screen-space weights of sample (x, y) in triangle (a, b, c)."""
    ax, ay = projected[a, 0], projected[a, 1]
    bx, by = projected[b, 0], projected[b, 1]
    cx, cy = projected[c, 0], projected[c, 1]
    inv = np.float32(1.0) / ((bx - ax) * (cy - ay) - (by - ay) * (cx - ax))
    wb = ((x - ax) * (cy - ay) - (y - ay) * (cx - ax)) * inv
    wc = ((bx - ax) * (y - ay) - (by - ay) * (x - ax)) * inv
    return np.float32(1.0) - wb - wc, wb, wc


@njit(cache=True, nogil=True, fastmath=True)
def _resolve(m, ss, projected, faces, colours, colour, alpha, depth, vertex, face, zbuffer, box):
    share = np.float32(1.0 / (ss * ss))
    for y in range(box[m, 1], box[m, 3]):
        for x in range(box[m, 0], box[m, 2]):
            near = FAR
            for sy in range(y * ss, y * ss + ss):
                for sx in range(x * ss, x * ss + ss):
                    f = face[m, sy, sx]
                    if f < 0:
                        continue
                    a, b, c = faces[f, 0], faces[f, 1], faces[f, 2]
                    wa, wb, wc = barycentric(projected, a, b, c, np.float32(sx), np.float32(sy))
                    alpha[m, y, x] += share
                    for i in range(3):
                        colour[m, y, x, i] += share * (wa * colours[a, i] + wb * colours[b, i] + wc * colours[c, i])
                    if zbuffer[m, sy, sx] < near:
                        near = zbuffer[m, sy, sx]
                        nearest = a
                        if wb > wa and wb >= wc:
                            nearest = b
                        elif wc > wa and wc > wb:
                            nearest = c
                        vertex[m, y, x] = nearest
            depth[m, y, x] = near


@njit(cache=True, nogil=True, fastmath=True)
def colour_weights(vertices, faces, k, face, size, frame_of, share, rows, columns, values):
    """Sparse matrix of the blurred image in the vertex colours: entries (row, vertex, weight); returns the count.

    Row = frame * size^2 + y * size + x; `share` is the weight of one sub-frame in its frame's mean (1 / N).
    """
    n = 0
    ss = face.shape[1] // size
    part = np.float32(share / (ss * ss))
    projected = np.empty((vertices.shape[1], 2), np.float32)
    for m in range(face.shape[0]):
        _project(vertices[m], k, ss, projected)
        for sy in range(size * ss):
            for sx in range(size * ss):
                f = face[m, sy, sx]
                if f < 0:
                    continue
                a, b, c = faces[f, 0], faces[f, 1], faces[f, 2]
                wa, wb, wc = barycentric(projected, a, b, c, np.float32(sx), np.float32(sy))
                row = (frame_of[m] * size + sy // ss) * size + sx // ss
                for v, w in ((a, wa), (b, wb), (c, wc)):
                    rows[n] = row
                    columns[n] = v
                    values[n] = w * part
                    n += 1
    return n
