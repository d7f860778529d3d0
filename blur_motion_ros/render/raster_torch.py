"""Differentiable CPU backend: the numba rasteriser (`raster.draw`) inside a `torch.autograd.Function`.

Colours, per vertex or per texel: the image is linear in them, the gradient is exact. Vertices: a rendered image moves
with its surface, `dP`: every line between two samples moves with the surface of the nearer one. This is the rule of
`fit.image_terms`, here scattered to the three corners of the triangle instead of to the motion's coefficients. It is a
first-order rule for edges as well as for shading, needs no extra rendering, and is accurate to some per cent on smooth
losses (see test_render_backends).
"""

from __future__ import annotations

import numpy as np
import torch
from numba import njit
from torch import Tensor

from blur_motion_ros.render import raster
from blur_motion_ros.render.base import Rendered, RendererError, Texels, check_inputs
from blur_motion_ros.render.raster import SubFrames, barycentric


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
            _colour_samples(*ctx.texels[1:], inputs[2], frames.face, frames.box, frames.alpha.shape[1], frames.sample)
        seen = np.full(frames.alpha.shape, -1, np.int32)
        _seen(frames.face, frames.zbuffer, frames.box, seen)
        ctx.frames, ctx.inputs = frames, inputs
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
            _move(slope, frames.sample, frames.face, frames.zbuffer, frames.box, vertices, faces, k, to_vertices)
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


@njit(cache=True, nogil=True)
def _colour_samples(columns, values, texels, face, box, size, sample):
    """sample [M, fine, fine, 3]: the colour of every covered sample by the same map (four entries each, in order)."""
    ss, entry = face.shape[1] // size, 0
    for m in range(len(face)):
        for y in range(box[m, 1] * ss, box[m, 3] * ss):
            for x in range(box[m, 0] * ss, box[m, 2] * ss):
                if face[m, y, x] < 0:
                    continue
                sample[m, y, x] = 0
                for e in range(entry, entry + 4):
                    if values[e] > 0:
                        for c in range(3):
                            sample[m, y, x, c] += ss * ss * values[e] * texels[columns[e], c]
                entry += 4


@njit(cache=True, nogil=True)
def _seen(face, zbuffer, box, seen):
    """The triangle of each pixel's nearest sample."""
    ss = face.shape[1] // seen.shape[1]
    for m in range(len(face)):
        for y in range(box[m, 1], box[m, 3]):
            for x in range(box[m, 0], box[m, 2]):
                near = raster.FAR
                for sy in range(y * ss, y * ss + ss):
                    for sx in range(x * ss, x * ss + ss):
                        if face[m, sy, sx] >= 0 and zbuffer[m, sy, sx] < near:
                            near = zbuffer[m, sy, sx]
                            seen[m, y, x] = face[m, sy, sx]


@njit(cache=True, nogil=True, fastmath=True)
def _move(slope, sample, face, zbuffer, box, vertices, faces, k, out):
    """out [M, V, 3] += slope . dP/dV by the rule of the module's docstring."""
    fine = face.shape[1]
    ss = fine // slope.shape[1]
    share = np.float32(0.5 / ss)  # of the change between two samples, in the pixel of each
    projected = np.empty((vertices.shape[1], 2), np.float32)
    for m in range(len(face)):
        if box[m, 2] == 0:
            continue
        raster._project(vertices[m], k, ss, projected)
        for y in range(max(0, box[m, 1] * ss - 1), min(fine, box[m, 3] * ss + 1)):
            for x in range(max(0, box[m, 0] * ss - 1), min(fine, box[m, 2] * ss + 1)):
                here = face[m, y, x] >= 0
                for axis in range(2):
                    y1, x1 = y + axis, x + 1 - axis
                    if y1 == fine or x1 == fine:
                        continue
                    there = face[m, y1, x1] >= 0
                    if not here and not there:
                        continue
                    a, b = np.float32(here), np.float32(there)
                    g = (b - a) * (slope[m, y // ss, x // ss, 3] + slope[m, y1 // ss, x1 // ss, 3])
                    for c in range(3):
                        change = b * sample[m, y1, x1, c] - a * sample[m, y, x, c]
                        g += change * (slope[m, y // ss, x // ss, c] + slope[m, y1 // ss, x1 // ss, c])
                    if g == 0:
                        continue
                    ny, nx = (y, x) if zbuffer[m, y, x] <= zbuffer[m, y1, x1] else (y1, x1)
                    f = face[m, ny, nx]
                    weight = barycentric(projected, faces[f, 0], faces[f, 1], faces[f, 2], np.float32(nx),
                                         np.float32(ny))
                    g *= -share
                    _pull(f, weight, g if axis == 0 else np.float32(0), g if axis == 1 else np.float32(0),
                          (nx + 0.5) / ss - 0.5, (ny + 0.5) / ss - 0.5, zbuffer[m, ny, nx], faces, k, out[m])


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
