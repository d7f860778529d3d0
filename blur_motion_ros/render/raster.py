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
    (exclusive) of the covered pixels. Where a sample is covered: sample [M, S*ss, S*ss, 3] its colour, owner
    [M, S*ss, S*ss] the vertex nearest to it.
    """

    colour: np.ndarray
    alpha: np.ndarray
    depth: np.ndarray
    vertex: np.ndarray
    face: np.ndarray
    zbuffer: np.ndarray
    box: np.ndarray
    sample: np.ndarray
    owner: np.ndarray

    @staticmethod
    def allocate(count: int, size: int, supersample: int = 2) -> SubFrames:
        fine = size * supersample
        return SubFrames(
            np.zeros((count, size, size, 3), np.float32), np.zeros((count, size, size), np.float32),
            np.full((count, size, size), FAR, np.float32), np.full((count, size, size), -1, np.int32),
            np.full((count, fine, fine), -1, np.int32), np.full((count, fine, fine), FAR, np.float32),
            np.zeros((count, 4), np.int32), np.zeros((count, fine, fine, 3), np.float32),
            np.full((count, fine, fine), -1, np.int32))


def draw(vertices: np.ndarray, faces: np.ndarray, colours: np.ndarray, intrinsics: np.ndarray, out: SubFrames) -> None:
    """Draw meshes `vertices` [M, V, 3] (camera frame, m, float32) with per-vertex `colours` [V, 3] into `out`."""
    _draw(vertices, faces, colours, np.asarray(intrinsics, np.float32), out.colour, out.alpha, out.depth,
          out.vertex, out.face, out.zbuffer, out.box, out.sample, out.owner)


@njit(cache=True, nogil=True, fastmath=True)
def _draw(vertices, faces, colours, k, colour, alpha, depth, vertex, face, zbuffer, box, sample, owner):
    size = alpha.shape[1]
    ss = face.shape[1] // size
    projected = np.empty((vertices.shape[1], 2), np.float32)
    chosen = np.empty(faces.shape[0] + 1, np.int32)
    planes = np.empty((faces.shape[0], 6), np.float32)
    for m in range(alpha.shape[0]):
        _clear(ss, colour[m], alpha[m], depth[m], vertex[m], face[m], zbuffer[m], box[m])
        _project(vertices[m], k, ss, projected)
        count = _candidates(projected, vertices[m], faces, size * ss, chosen)
        _fill(projected, vertices[m], faces, chosen[:count], planes, face[m], zbuffer[m], box[m])
        _pixel_box(ss, size, box[m])
        _resolve(ss, planes, faces, colours, colour[m], alpha[m], depth[m], vertex[m], face[m], zbuffer[m], box[m],
                 sample[m], owner[m])


@njit(cache=True, nogil=True, fastmath=True)
def _clear(ss, colour, alpha, depth, vertex, face, zbuffer, box):
    x0, y0, x1, y1 = box[0], box[1], box[2], box[3]
    for y in range(y0, y1):
        alpha[y, x0:x1] = 0
        depth[y, x0:x1] = FAR
        vertex[y, x0:x1] = -1
        colour[y, x0:x1] = 0
    for y in range(y0 * ss, y1 * ss):
        face[y, x0 * ss:x1 * ss] = -1
        zbuffer[y, x0 * ss:x1 * ss] = FAR


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
def _candidates(projected, vertices, faces, fine, chosen):
    """Which triangles face us, lie before the camera and have samples in their bounds; returns their number.

    Without branches, here and in `_fill`: the processor guesses such coin tosses wrongly, which costs more than them.
    """
    count = 0
    for f in range(faces.shape[0]):
        a, b, c = faces[f, 0], faces[f, 1], faces[f, 2]
        ax, ay = projected[a, 0], projected[a, 1]
        bx, by = projected[b, 0], projected[b, 1]
        cx, cy = projected[c, 0], projected[c, 1]
        area = (bx - ax) * (cy - ay) - (by - ay) * (cx - ax)
        nearest = min(vertices[a, 2], vertices[b, 2], vertices[c, 2])
        left, right = np.ceil(min(ax, bx, cx)), np.floor(max(ax, bx, cx))
        top, bottom = np.ceil(min(ay, by, cy)), np.floor(max(ay, by, cy))
        # image y points down: outward-wound triangles that face us are negative
        seen = ((area < np.float32(-1e-6)) & (nearest >= np.float32(0.1)) & (left <= right) & (top <= bottom)
                & (right >= 0) & (bottom >= 0) & (left < fine) & (top < fine))
        chosen[count] = f
        count += np.int64(seen)
    return count


@njit(cache=True, nogil=True, fastmath=True)
def _fill(projected, vertices, faces, chosen, planes, face, zbuffer, box):
    """Z-buffer of one sub-frame. planes [F, 6]: of each triangle drawn, its first corner and the slopes of the
    screen-space weights of the other two: (ax, ay, dwb/dx, dwb/dy, dwc/dx, dwc/dy)."""
    fine = face.shape[0]
    left, top, right, bottom = fine, fine, 0, 0
    one = np.float32(1.0)
    for f in chosen:
        a, b, c = faces[f, 0], faces[f, 1], faces[f, 2]
        ax, ay = projected[a, 0], projected[a, 1]
        bx, by = projected[b, 0], projected[b, 1]
        cx, cy = projected[c, 0], projected[c, 1]
        x0 = max(0, int(np.ceil(min(ax, bx, cx))))
        x1 = min(fine - 1, int(np.floor(max(ax, bx, cx))))
        y0 = max(0, int(np.ceil(min(ay, by, cy))))
        y1 = min(fine - 1, int(np.floor(max(ay, by, cy))))
        inv = one / ((bx - ax) * (cy - ay) - (by - ay) * (cx - ax))
        bdx, bdy = (cy - ay) * inv, (ax - cx) * inv
        cdx, cdy = (ay - by) * inv, (bx - ax) * inv
        ia = one / vertices[a, 2]
        ib, ic = one / vertices[b, 2] - ia, one / vertices[c, 2] - ia
        hit = False
        for y in range(y0, y1 + 1):
            dy = np.float32(y) - ay
            wby, wcy = dy * bdy, dy * cdy
            for x in range(x0, x1 + 1):
                dx = np.float32(x) - ax
                wb = dx * bdx + wby
                wc = dx * cdx + wcy
                inside = (wb >= 0) & (wc >= 0) & (one - wb - wc >= 0)
                z = one / (ia + wb * ib + wc * ic)
                behind = zbuffer[y, x]
                nearer = inside & (z < behind)
                zbuffer[y, x] = z if nearer else behind
                face[y, x] = f if nearer else face[y, x]
                hit |= inside
        if hit:
            planes[f, 0], planes[f, 1], planes[f, 2] = ax, ay, bdx
            planes[f, 3], planes[f, 4], planes[f, 5] = bdy, cdx, cdy
            left, top, right, bottom = min(left, x0), min(top, y0), max(right, x1 + 1), max(bottom, y1 + 1)
    box[0], box[1], box[2], box[3] = left, top, right, bottom


@njit(cache=True, nogil=True)
def _pixel_box(ss, size, box):
    box[0] //= ss
    box[1] //= ss
    box[2] = min(size, (box[2] + ss - 1) // ss)
    box[3] = min(size, (box[3] + ss - 1) // ss)
    if box[2] <= box[0] or box[3] <= box[1]:
        box[:] = 0


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
def _resolve(ss, planes, faces, colours, colour, alpha, depth, vertex, face, zbuffer, box, sample, owner):
    """Average the samples of each pixel."""
    share = np.float32(1.0 / (ss * ss))
    for y in range(box[1], box[3]):
        for x in range(box[0], box[2]):
            near, nearest, covered = FAR, -1, 0
            red = green = blue = np.float32(0.0)
            for sy in range(y * ss, y * ss + ss):
                for sx in range(x * ss, x * ss + ss):
                    f = face[sy, sx]
                    if f < 0:
                        continue
                    dx, dy = np.float32(sx) - planes[f, 0], np.float32(sy) - planes[f, 1]
                    wb = dx * planes[f, 2] + dy * planes[f, 3]
                    wc = dx * planes[f, 4] + dy * planes[f, 5]
                    wa = np.float32(1.0) - wb - wc
                    a, b, c = faces[f, 0], faces[f, 1], faces[f, 2]
                    covered += 1
                    r = wa * colours[a, 0] + wb * colours[b, 0] + wc * colours[c, 0]
                    g = wa * colours[a, 1] + wb * colours[b, 1] + wc * colours[c, 1]
                    bl = wa * colours[a, 2] + wb * colours[b, 2] + wc * colours[c, 2]
                    red += r
                    green += g
                    blue += bl
                    closest = a
                    if wb > wa and wb >= wc:
                        closest = b
                    elif wc > wa and wc > wb:
                        closest = c
                    sample[sy, sx, 0], sample[sy, sx, 1], sample[sy, sx, 2] = r, g, bl
                    owner[sy, sx] = closest
                    if zbuffer[sy, sx] < near:
                        near = zbuffer[sy, sx]
                        nearest = closest
            if covered:
                alpha[y, x] = share * np.float32(covered)
                colour[y, x, 0], colour[y, x, 1], colour[y, x, 2] = share * red, share * green, share * blue
                depth[y, x] = near
                vertex[y, x] = nearest


@njit(cache=True, nogil=True, fastmath=True)
def texel_weights(vertices, faces, k, face, box, size, frame_of, share, uv, uv_faces, index, rows, columns, values):
    """Sparse matrix of the blurred image in the texels of a UV layout: entries (row, texel, weight); returns the count.

    Row = frame_of[m] * size^2 + y * size + x; `share` is the weight of one sub-frame in its frame's mean (1 / N). uv
    [K, 2], uv_faces [F, 3]; index [T, T]: number of each texel (row 0 is v = 1), -1 where there is none, whose share
    goes to the others of the four texels around a sample. Perspective-correct. Four entries per covered sample.
    """
    n, one, half = 0, np.float32(1.0), np.float32(0.5)
    ss, side = face.shape[1] // size, index.shape[0]
    part = np.float32(share / (ss * ss))
    projected = np.empty((vertices.shape[1], 2), np.float32)
    for m in range(face.shape[0]):
        _project(vertices[m], k, ss, projected)
        for sy in range(box[m, 1] * ss, box[m, 3] * ss):
            for sx in range(box[m, 0] * ss, box[m, 2] * ss):
                f = face[m, sy, sx]
                if f < 0:
                    continue
                a, b, c = faces[f, 0], faces[f, 1], faces[f, 2]
                wa, wb, wc = barycentric(projected, a, b, c, np.float32(sx), np.float32(sy))
                wa, wb, wc = wa / vertices[m, a, 2], wb / vertices[m, b, 2], wc / vertices[m, c, 2]
                whole = wa + wb + wc  # weights on the screen -> weights on the surface
                a, b, c = uv_faces[f, 0], uv_faces[f, 1], uv_faces[f, 2]
                u = (wa * uv[a, 0] + wb * uv[b, 0] + wc * uv[c, 0]) / whole
                v = (wa * uv[a, 1] + wb * uv[b, 1] + wc * uv[c, 1]) / whole
                x = min(max(u * side - half, np.float32(0.0)), np.float32(side - 1))
                y = min(max((one - v) * side - half, np.float32(0.0)), np.float32(side - 1))
                x0, y0 = min(int(x), side - 2), min(int(y), side - 2)
                fx, fy = x - np.float32(x0), y - np.float32(y0)
                row = (frame_of[m] * size + sy // ss) * size + sx // ss
                first, kept = n, np.float32(0.0)
                for dy, dx, w in ((0, 0, (one - fx) * (one - fy)), (0, 1, fx * (one - fy)), (1, 0, (one - fx) * fy),
                                  (1, 1, fx * fy)):
                    texel = index[y0 + dy, x0 + dx]
                    rows[n], columns[n], values[n] = row, max(texel, 0), w if texel >= 0 else np.float32(0.0)
                    kept += values[n]
                    n += 1
                for entry in range(first, n):
                    values[entry] *= part / max(kept, np.float32(1e-12))
    return n
