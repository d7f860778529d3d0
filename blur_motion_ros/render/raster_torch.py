"""Differentiable CPU backend: the numba rasteriser (`raster.draw`) inside a `torch.autograd.Function`.

Colours, per vertex or per texel: the image is linear in them, the gradient is exact. Vertices: a rendered image moves
with its surface, `dP(p) = -grad P(p) . u(p)`, u: image velocity of the surface point at pixel p; outside the silhouette
and behind a depth edge, of the nearer neighbour's. This is the rule of `fit.image_terms`, here scattered to the three
corners of the triangle instead of to the motion's coefficients. It is a first-order rule for edges as well as for
shading, needs no extra rendering, and is accurate to some per cent on smooth losses (see test_render_backends).
"""

from __future__ import annotations

import numpy as np
import torch
from numba import njit
from torch import Tensor

from blur_motion_ros.render import raster
from blur_motion_ros.render.base import Rendered, RendererError, Texels, check_inputs
from blur_motion_ros.render.raster import DEPTH_EDGE, SubFrames, barycentric


class RasterRenderer:
    """`render.base.Renderer` on the CPU. supersample: samples per pixel and axis."""

    def __init__(self, device: str | torch.device = "cpu", supersample: int = 2):
        self.device = torch.device(device)
        if self.device.type != "cpu":
            raise RendererError(f"the cpu renderer cannot draw on '{self.device}'; use kind='nvdiffrast' there")
        self.supersample = supersample

    def __call__(self, vertices: Tensor, faces: Tensor, colours: Tensor | Texels, intrinsics: Tensor, size: int
                 ) -> Rendered:
        check_inputs(vertices, faces, colours, intrinsics, size, self.device)
        values, layout = colours, None
        if isinstance(colours, Texels):
            values, layout = colours.values, tuple(_array(t) for t in (colours.uv, colours.uv_faces, colours.index))
        return Rendered(*_Draw.apply(vertices, values, faces, intrinsics, size, self.supersample, layout))


class _Draw(torch.autograd.Function):
    @staticmethod
    def forward(ctx, vertices, colours, faces, intrinsics, size, supersample, layout):
        frames = SubFrames.allocate(len(vertices), size, supersample)
        inputs = (_array(vertices), _array(faces), _array(colours), _array(intrinsics).astype(np.float32))
        took_part = np.zeros(len(colours), bool)
        ctx.texels = None
        if layout is None:
            raster.draw(*inputs, frames)
            _corners(frames.face, inputs[1], took_part)
        else:
            raster.draw(*inputs[:2], np.zeros((vertices.shape[1], 3), np.float32), inputs[3], frames)
            ctx.texels = _texel_map(frames, inputs[0], inputs[1], inputs[3], layout)
            _colour(*ctx.texels, inputs[2], frames.colour.reshape(-1, 3), took_part)
        seen, weights = np.full(frames.alpha.shape, -1, np.int32), np.zeros(frames.alpha.shape + (3,), np.float32)
        _seen(inputs[0], inputs[1], inputs[3], frames.face, frames.zbuffer, frames.box, seen, weights)
        ctx.frames, ctx.inputs, ctx.seen, ctx.weights = frames, inputs, seen, weights
        outputs = tuple(torch.from_numpy(a) for a in (frames.colour, frames.alpha, seen, frames.vertex, took_part))
        ctx.mark_non_differentiable(*outputs[2:])
        return outputs

    @staticmethod
    def backward(ctx, by_colour, by_alpha, *_):
        vertices, faces, colours, k = ctx.inputs
        frames = ctx.frames
        slope = np.concatenate([_array(by_colour), _array(by_alpha)[..., None]], -1)
        to_vertices, to_colours = None, None
        if ctx.needs_input_grad[0]:
            to_vertices = np.zeros_like(vertices)
            _move(slope, frames.colour, frames.alpha, frames.depth, frames.box, ctx.seen, ctx.weights, faces, k,
                  DEPTH_EDGE, to_vertices)
            to_vertices = torch.from_numpy(to_vertices)
        if ctx.needs_input_grad[1]:
            to_colours = np.zeros_like(colours)
            if ctx.texels is None:
                _paint(slope, vertices, faces, k, frames.face, frames.box, to_colours)
            else:
                _gather(*ctx.texels, slope.reshape(-1, 4), to_colours)
            to_colours = torch.from_numpy(to_colours)
        return to_vertices, to_colours, None, None, None, None, None


def _array(tensor: Tensor) -> np.ndarray:
    return np.ascontiguousarray(tensor.detach().numpy())


def _texel_map(frames: SubFrames, vertices: np.ndarray, faces: np.ndarray, k: np.ndarray, layout: tuple) -> tuple:
    """Rows (flat sub-frame, y, x), texels and weights of the colour image as a linear map of a texture."""
    entries = 4 * int((frames.face >= 0).sum())
    rows, columns, values = np.empty(entries, np.int32), np.empty(entries, np.int32), np.empty(entries, np.float32)
    each = np.arange(len(vertices), dtype=np.int32)
    raster.texel_weights(vertices, faces, k, frames.face, frames.box, frames.alpha.shape[1], each, np.float32(1),
                         *layout, rows, columns, values)
    return rows, columns, values


@njit(cache=True, nogil=True)
def _corners(face, faces, out):
    """out [V]: is the vertex a corner of a triangle that some sample shows?"""
    for m in range(len(face)):
        for y in range(face.shape[1]):
            for x in range(face.shape[2]):
                f = face[m, y, x]
                if f >= 0:
                    out[faces[f, 0]] = out[faces[f, 1]] = out[faces[f, 2]] = True


@njit(cache=True, nogil=True)
def _colour(rows, columns, values, texels, image, took_part):
    """image [P, 3] += map . texels; took_part [n]: which of them it used."""
    for e in range(len(rows)):
        if values[e] > 0:
            took_part[columns[e]] = True
            for c in range(3):
                image[rows[e], c] += values[e] * texels[columns[e], c]


@njit(cache=True, nogil=True)
def _gather(rows, columns, values, slope, out):
    """out [n, 3] += transposed map . slope [P, 4]."""
    for e in range(len(rows)):
        for c in range(3):
            out[columns[e], c] += values[e] * slope[rows[e], c]


@njit(cache=True, nogil=True, fastmath=True)
def _seen(vertices, faces, k, face, zbuffer, box, seen, weights):
    """The triangle of each pixel's nearest sample and the sample's barycentric weights in it."""
    ss = face.shape[1] // seen.shape[1]
    projected = np.empty((vertices.shape[1], 2), np.float32)
    for m in range(len(vertices)):
        raster._project(vertices[m], k, ss, projected)
        for y in range(box[m, 1], box[m, 3]):
            for x in range(box[m, 0], box[m, 2]):
                near = raster.FAR
                nx, ny = -1, -1
                for sy in range(y * ss, y * ss + ss):
                    for sx in range(x * ss, x * ss + ss):
                        if face[m, sy, sx] >= 0 and zbuffer[m, sy, sx] < near:
                            near = zbuffer[m, sy, sx]
                            nx, ny = sx, sy
                if nx < 0:
                    continue
                f = face[m, ny, nx]
                seen[m, y, x] = f
                wa, wb, wc = barycentric(projected, faces[f, 0], faces[f, 1], faces[f, 2], np.float32(nx),
                                         np.float32(ny))
                weights[m, y, x, 0] = wa
                weights[m, y, x, 1] = wb
                weights[m, y, x, 2] = wc


@njit(cache=True, nogil=True, fastmath=True)
def _move(slope, colour, alpha, depth, box, seen, weights, faces, k, edge, out):
    """out [M, V, 3] += slope . dP/dV by the rule of the module's docstring."""
    size = alpha.shape[1]
    half = np.float32(0.5)
    for m in range(alpha.shape[0]):
        if box[m, 2] == 0:
            continue
        for y in range(max(0, box[m, 1] - 1), min(size, box[m, 3] + 1)):
            for x in range(max(0, box[m, 0] - 1), min(size, box[m, 2] + 1)):
                x0, x1, y0, y1 = max(x - 1, 0), min(x + 1, size - 1), max(y - 1, 0), min(y + 1, size - 1)
                gx = slope[m, y, x, 3] * (alpha[m, y, x1] - alpha[m, y, x0])
                gy = slope[m, y, x, 3] * (alpha[m, y1, x] - alpha[m, y0, x])
                for c in range(3):
                    gx += slope[m, y, x, c] * (colour[m, y, x1, c] - colour[m, y, x0, c])
                    gy += slope[m, y, x, c] * (colour[m, y1, x, c] - colour[m, y0, x, c])
                if gx == 0 and gy == 0:
                    continue
                sx, sy = _surface(depth[m], x, y, edge)
                f = seen[m, sy, sx]
                if f < 0:
                    continue
                z = depth[m, sy, sx]
                _pull(f, weights[m, sy, sx], -half * gx, -half * gy, x, y, z, faces, k, out[m])


@njit(cache=True, nogil=True, fastmath=True, inline="always")
def _surface(depth, x, y, edge):
    """The pixel whose surface moves at (x, y): itself, or the nearest neighbour that is nearer by `edge`."""
    size = depth.shape[0]
    own = depth[y, x]
    best, bx, by = own, x, y
    for j in range(max(0, y - 1), min(size, y + 2)):
        for i in range(max(0, x - 1), min(size, x + 2)):
            if depth[j, i] < best and depth[j, i] < own - edge:
                best, bx, by = depth[j, i], i, j
    return bx, by


@njit(cache=True, nogil=True, fastmath=True, inline="always")
def _pull(f, weight, gx, gy, x, y, z, faces, k, out):
    """Carry an image-plane slope (gx, gy) at pixel (x, y), depth z, to the corners of triangle f."""
    ry = (y - k[1, 2]) / k[1, 1]
    rx = (x - k[0, 2] - k[0, 1] * ry) / k[0, 0]
    dx = gx * k[0, 0] / z
    dy = (gx * k[0, 1] + gy * k[1, 1]) / z
    dz = -(dx * rx + dy * ry)
    for i in range(3):
        v, w = faces[f, i], weight[i]
        out[v, 0] += w * dx
        out[v, 1] += w * dy
        out[v, 2] += w * dz


@njit(cache=True, nogil=True, fastmath=True)
def _paint(slope, vertices, faces, k, face, box, out):
    """out [V, 3] += slope . dP/dcolour: every sample's barycentric weights."""
    ss = face.shape[1] // slope.shape[1]
    share = np.float32(1.0 / (ss * ss))
    projected = np.empty((vertices.shape[1], 2), np.float32)
    for m in range(len(vertices)):
        raster._project(vertices[m], k, ss, projected)
        for y in range(box[m, 1] * ss, box[m, 3] * ss):
            for x in range(box[m, 0] * ss, box[m, 2] * ss):
                f = face[m, y, x]
                if f < 0:
                    continue
                a, b, c = faces[f, 0], faces[f, 1], faces[f, 2]
                wa, wb, wc = barycentric(projected, a, b, c, np.float32(x), np.float32(y))
                for i in range(3):
                    g = share * slope[m, y // ss, x // ss, i]
                    out[a, i] += wa * g
                    out[b, i] += wb * g
                    out[c, i] += wc * g
