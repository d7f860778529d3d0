"""What moves in each pixel of the sub-frames, and what the pixel wins or loses by it.

A small motion changes what is drawn only where a line between two neighbouring samples moves, and the surface nearer to
us moves that line. So a pixel keeps, for each surface ("mover") in it, the sum of the changes of colour and coverage
from sample to sample across the lines that move with this surface, along x and y apart; a line between two pixels
counts half in each. Drawn with many samples this is the derivative of the area under each pixel (test_fit.py).

How fast the surface moves is asked of one of its samples in the pixel: the farthest one, as most changes at the
outline, where a surface turns away from us. Where the jumps are spread, which overshoots the outline, the nearest.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from blur_motion_ros.render.raster import FAR

MOVERS = 3  # most surfaces that move in one pixel of one sub-frame; of further ones all are taken for one
_UNIFORM = np.float32(2e-3)  # what changes a pixel by less does not move
_NONE = np.int32(1 << 30)


def samples(fine: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Room for the samples of one sub-frame with a margin of one all round: bone [fine+2, fine+2] of the surface (one
    more than `bone_of_vertices`; 0: empty), depth m, colour [fine+2, fine+2, 4] linear RGB and coverage."""
    shape = fine + 2, fine + 2
    return np.zeros(shape, np.int32), np.zeros(shape, np.float32), np.zeros((*shape, 4), np.float32)


@njit(cache=True, nogil=True)
def find(face, zbuffer, sample, owner, box, bone_of_vertices, parts_of_vertices, subframes, wide, cells, room, source,
         near, jump, parts):
    """Fill `image_terms.Plan`'s source, near and jump from M sub-frames, and per exposure the parts of the body that
    each pixel sees. wide: spread the jumps along their axis to the pixels beside, 1-2-1. room: of `samples`. cells: a
    tuple as long as a pixel has samples along each side; its length is known when this is compiled."""
    bone, depth, colour = room
    outwards = np.float32(-1 if wide else 1)
    source[:] = -1
    parts[:] = 0
    for m in range(face.shape[0]):
        if box[m, 2]:
            _movers(face[m], zbuffer[m], sample[m], owner[m], box[m], bone_of_vertices, outwards, cells, bone, depth,
                    colour, source[m], near[m], jump[m])
            if wide:
                _spread(bone_of_vertices, source[m], near[m], jump[m])
            _note_parts(parts_of_vertices, source[m], parts[m // subframes])


@njit(cache=True, nogil=True, fastmath=True)
def _movers(face, zbuffer, sample, owner, box, bone_of_vertices, outwards, cells, bone, depth, colour, source, near,
            jump):
    """`find` of one sub-frame, in the pixels of its box and those around it."""
    size = source.shape[0]
    ss = np.uint64(len(cells))
    x0, y0 = np.uint64(max(0, box[0] - 1)), np.uint64(max(0, box[1] - 1))
    x1, y1 = np.uint64(min(size, box[2] + 1)), np.uint64(min(size, box[3] + 1))
    _take(face, zbuffer, sample, owner, bone_of_vertices, x0 * ss, y0 * ss, x1 * ss, y1 * ss, bone, depth, colour)
    for y in range(y0, y1):
        for x in range(x0, x1):
            top, left = y * ss + np.uint64(1), x * ss + np.uint64(1)
            first, last = _bones(bone, top, left, cells)
            if last == 0:
                continue
            whole = _all_lines(colour, top, left, cells)
            k = 0
            if first != last:
                moved = _lines_of(first, bone, depth, colour, top, left, cells)
                whole = _less(whole, moved)
                at = _sample_of(first, first, bone, depth, outwards, top, left, cells)
                k = _keep(moved, at, depth, owner, source, near, jump, y, x, k)
                at = _sample_of(first + np.int32(1), last - np.int32(1), bone, depth, outwards, top, left, cells)
                if at[0] > 0:
                    moved = _lines_of(last, bone, depth, colour, top, left, cells)
                    k = _keep(_less(whole, moved), at, depth, owner, source, near, jump, y, x, k)
                    whole = moved
            at = _sample_of(last, last, bone, depth, outwards, top, left, cells)
            _keep(whole, at, depth, owner, source, near, jump, y, x, k)


@njit(cache=True, nogil=True, fastmath=True)
def _take(face, zbuffer, sample, owner, bone_of_vertices, x0, y0, x1, y1, bone, depth, colour):
    """Copy the samples x0 to x1, y0 to y1 and their neighbours. Beyond the edge of the image nothing changes."""
    last = face.shape[0] - 1
    for to_y in range(y0, y1 + np.uint64(2)):
        y = np.uint64(min(max(np.int64(to_y) - 1, 0), last))
        for to_x in range(x0, x1 + np.uint64(2)):
            x = np.uint64(min(max(np.int64(to_x) - 1, 0), last))
            here = face[y, x] >= 0
            bone[to_y, to_x] = bone_of_vertices[owner[y, x]] + 1 if here else 0
            depth[to_y, to_x] = zbuffer[y, x] if here else FAR
            for c in range(3):
                colour[to_y, to_x, c] = sample[y, x, c] if here else np.float32(0)
            colour[to_y, to_x, 3] = np.float32(here)


@njit(cache=True, nogil=True, fastmath=True)
def _bones(bone, top, left, cells):
    """Lowest and highest bone among the samples of a pixel and those next to it; highest 0: all are empty."""
    ss, one = np.uint64(len(cells)), np.uint64(1)
    first, last = _NONE, np.int32(0)
    for y in range(top, top + ss):
        for x in range(left - one, left + ss + one):
            first, last = min(first, bone[y, x] if bone[y, x] > 0 else _NONE), max(last, bone[y, x])
    for x in range(left, left + ss):
        first, last = min(first, bone[top - one, x] if bone[top - one, x] > 0 else _NONE), max(last, bone[top - one, x])
        first, last = min(first, bone[top + ss, x] if bone[top + ss, x] > 0 else _NONE), max(last, bone[top + ss, x])
    return first, last


@njit(cache=True, nogil=True, fastmath=True)
def _sample_of(first, last, bone, depth, outwards, top, left, cells):
    """Of a pixel's samples that belong to these bones, else of those next to it: the farthest if `outwards` is 1, the
    nearest if it is -1; (0, 0): there is none."""
    ss, one = np.uint64(len(cells)), np.uint64(1)
    at_y, at_x, best = np.uint64(0), np.uint64(0), -FAR
    for y in range(top, top + ss):
        for x in range(left, left + ss):
            z = outwards * depth[y, x]
            better = (bone[y, x] >= first) & (bone[y, x] <= last) & (z > best)
            at_y, at_x, best = y if better else at_y, x if better else at_x, z if better else best
    if at_y == 0:
        for along in range(ss):
            for y, x in ((top - one, left + along), (top + ss, left + along), (top + along, left - one),
                         (top + along, left + ss)):
                z = outwards * depth[y, x]
                if (bone[y, x] >= first) & (bone[y, x] <= last) & (z > best):
                    at_y, at_x, best = y, x, z
    return at_y, at_x


@njit(cache=True, nogil=True, fastmath=True, inline="always")
def _all_lines(colour, top, left, cells):
    """Sum of the changes across all lines of a pixel, [4] along x and [4] along y: that over its sides is the same."""
    ss, one, half = np.uint64(len(cells)), np.uint64(1), np.float32(0.5) / np.float32(len(cells))
    bottom, right = top + ss, left + ss
    a = b = c = d = e = f = g = h = np.float32(0)
    for y in range(top, bottom):
        a += colour[y, right, 0] + colour[y, right - one, 0] - colour[y, left, 0] - colour[y, left - one, 0]
        b += colour[y, right, 1] + colour[y, right - one, 1] - colour[y, left, 1] - colour[y, left - one, 1]
        c += colour[y, right, 2] + colour[y, right - one, 2] - colour[y, left, 2] - colour[y, left - one, 2]
        d += colour[y, right, 3] + colour[y, right - one, 3] - colour[y, left, 3] - colour[y, left - one, 3]
    for x in range(left, right):
        e += colour[bottom, x, 0] + colour[bottom - one, x, 0] - colour[top, x, 0] - colour[top - one, x, 0]
        f += colour[bottom, x, 1] + colour[bottom - one, x, 1] - colour[top, x, 1] - colour[top - one, x, 1]
        g += colour[bottom, x, 2] + colour[bottom - one, x, 2] - colour[top, x, 2] - colour[top - one, x, 2]
        h += colour[bottom, x, 3] + colour[bottom - one, x, 3] - colour[top, x, 3] - colour[top - one, x, 3]
    return half * a, half * b, half * c, half * d, half * e, half * f, half * g, half * h


@njit(cache=True, nogil=True, fastmath=True)
def _lines_of(mover, bone, depth, colour, top, left, cells):
    """`_all_lines` of those lines that move with one bone: it is the nearer one of the two samples."""
    ss, one = np.uint64(len(cells)), np.uint64(1)
    bottom, right = top + ss, left + ss
    a = b = c = d = e = f = g = h = np.float32(0)
    for y in range(top, bottom):
        for x in range(left - one, right):
            outer = (x < left) | (x + one == right)
            r, s, t, u = _line_of(mover, bone, depth, colour, y, x, y, x + one, outer, cells)
            a, b, c, d = a + r, b + s, c + t, d + u
    for y in range(top - one, bottom):
        for x in range(left, right):
            outer = (y < top) | (y + one == bottom)
            r, s, t, u = _line_of(mover, bone, depth, colour, y, x, y + one, x, outer, cells)
            e, f, g, h = e + r, f + s, g + t, h + u
    return a, b, c, d, e, f, g, h


@njit(cache=True, nogil=True, fastmath=True)
def _line_of(mover, bone, depth, colour, y, x, y1, x1, outer, cells):
    """The change from a sample to the next if it moves with this bone, else 0; outer: half of it is another pixel's."""
    nearer = bone[y, x] if depth[y, x] <= depth[y1, x1] else bone[y1, x1]
    full = np.float32(1) / np.float32(len(cells))
    weight = np.float32(0.5) * full if outer else full
    weight = weight if nearer == mover else np.float32(0)
    return (weight * (colour[y1, x1, 0] - colour[y, x, 0]), weight * (colour[y1, x1, 1] - colour[y, x, 1]),
            weight * (colour[y1, x1, 2] - colour[y, x, 2]), weight * (colour[y1, x1, 3] - colour[y, x, 3]))


@njit(cache=True, nogil=True, inline="always")
def _less(p, q):
    return p[0] - q[0], p[1] - q[1], p[2] - q[2], p[3] - q[3], p[4] - q[4], p[5] - q[5], p[6] - q[6], p[7] - q[7]


@njit(cache=True, nogil=True, fastmath=True)
def _keep(moved, at, depth, owner, source, near, jump, y, x, k):
    """Note as the pixel's k-th mover what moves with the sample `at`; returns the number of movers."""
    if (abs(moved[0]) + abs(moved[1]) + abs(moved[2]) + abs(moved[3]) + abs(moved[4]) + abs(moved[5]) + abs(moved[6])
            + abs(moved[7])) < _UNIFORM:
        return k
    last = owner.shape[0] - 1
    source[y, x, k] = owner[min(max(np.int64(at[0]) - 1, 0), last), min(max(np.int64(at[1]) - 1, 0), last)]
    near[y, x, k] = depth[at[0], at[1]]
    jump[y, x, k, 0, 0], jump[y, x, k, 0, 1], jump[y, x, k, 0, 2], jump[y, x, k, 0, 3] = moved[:4]
    jump[y, x, k, 1, 0], jump[y, x, k, 1, 1], jump[y, x, k, 1, 2], jump[y, x, k, 1, 3] = moved[4:]
    return k + 1


@njit(cache=True, nogil=True)
def _spread(bone_of_vertices, source, near, jump):
    """Give half of every jump to the pixels beside it along its axis, a quarter to each."""
    size = source.shape[0]
    old_source, old_near, old_jump = source.copy(), near.copy(), jump.copy()
    source[:] = -1
    for y in range(size):
        for x in range(size):
            for k in range(MOVERS):
                v = old_source[y, x, k]
                if v < 0:
                    break
                for axis in range(2):
                    for away in range(-1, 2):
                        to_y, to_x = y + away * axis, x + away * (1 - axis)
                        if to_y < 0 or to_x < 0 or to_y >= size or to_x >= size:
                            continue
                        to = 0
                        while (to < MOVERS - 1 and source[to_y, to_x, to] >= 0
                               and bone_of_vertices[source[to_y, to_x, to]] != bone_of_vertices[v]):
                            to += 1
                        if source[to_y, to_x, to] < 0:
                            source[to_y, to_x, to], near[to_y, to_x, to] = v, old_near[y, x, k]
                            jump[to_y, to_x, to] = 0
                        jump[to_y, to_x, to, axis] += np.float32(0.25 if away else 0.5) * old_jump[y, x, k, axis]


@njit(cache=True, nogil=True)
def _note_parts(parts_of_vertices, source, parts):
    for y in range(source.shape[0]):
        for x in range(source.shape[1]):
            for k in range(MOVERS):
                if source[y, x, k] < 0:
                    break
                parts[y, x] |= parts_of_vertices[source[y, x, k]]
