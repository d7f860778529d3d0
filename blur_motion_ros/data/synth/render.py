"""The synthesis renderer: full-resolution z-buffer with per-sample shading, in numba, linear light.

It shares no code with the fitter's rasteriser: surface colour is a solid texture evaluated per sample (not per vertex),
light is a sun with self-shadowing, a sky and bounce from the ground. Pixel centres lie at integers.
Meshes are in the camera frame (x right, y down, z forward, m); faces wound counter-clockwise seen from outside.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numba import njit

FAR = np.float32(1e9)
PLAIN, STRIPES, CHECKS, BLOTCHES, SPECKS = range(5)


@dataclass(frozen=True)
class Light:
    """sun [3]: unit direction *towards* the sun, camera frame.  up [3]: unit, away from the ground.
    sun_colour, sky_colour, ground_colour [3]: irradiance / pi, so that albedo 1 facing the sun alone gives
    sun_colour."""

    sun: np.ndarray
    up: np.ndarray
    sun_colour: np.ndarray
    sky_colour: np.ndarray
    ground_colour: np.ndarray


@dataclass(frozen=True)
class Surface:
    """What is drawn.  faces [F, 3]; texture_points [V, 3] m (rest pose; the solid texture lives there);
    material [F] index into `materials` [M, 10]: base rgb, second rgb, pattern, scale (1/m), contrast, gloss."""

    faces: np.ndarray
    texture_points: np.ndarray
    material: np.ndarray
    materials: np.ndarray


class Renderer:
    """Draws one sub-frame after another into buffers of one size. supersample: samples per pixel side."""

    def __init__(self, width: int, height: int, supersample: int = 2, shadow_size: int = 384):
        self.width, self.height, self.ss = width, height, supersample
        shape = (height * supersample, width * supersample)
        self._z, self._face = np.empty(shape, np.float32), np.empty(shape, np.int32)
        self._shadow_z = np.empty((shadow_size, shadow_size), np.float32)
        self._shadow_face = np.empty((shadow_size, shadow_size), np.int32)

    def draw(self, vertices: np.ndarray, normals: np.ndarray, surface: Surface, light: Light,
             K: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """One instant -> colour [H, W, 3] premultiplied by coverage (linear light) and coverage [H, W], float32."""
        vertices = np.ascontiguousarray(vertices, np.float32)
        pixels = self._project(vertices, K)
        _rasterise(pixels, vertices[:, 2], surface.faces, True, self._z, self._face)
        shadow = self._shadow_map(vertices, surface.faces, light)
        colour = np.zeros((self.height, self.width, 3), np.float32)
        alpha = np.zeros((self.height, self.width), np.float32)
        lamps = np.stack([light.sun, light.up, light.sun_colour, light.sky_colour, light.ground_colour])
        _shade(self.ss, pixels, vertices, np.ascontiguousarray(normals, np.float32),
               surface.texture_points.astype(np.float32), surface.faces, surface.material,
               surface.materials.astype(np.float32), lamps.astype(np.float32), self._face, *shadow, colour, alpha)
        return colour, alpha

    def silhouette(self, vertices: np.ndarray, faces: np.ndarray, K: np.ndarray) -> np.ndarray:
        """Coverage [H, W] of a mesh seen from both sides (for cast shadows)."""
        vertices = np.ascontiguousarray(vertices, np.float32)
        _rasterise(self._project(vertices, K), vertices[:, 2], faces, False, self._z, self._face)
        hit = (self._face >= 0).reshape(self.height, self.ss, self.width, self.ss)
        return hit.mean((1, 3), dtype=np.float32)

    def _project(self, vertices: np.ndarray, K: np.ndarray) -> np.ndarray:
        z = np.maximum(vertices[:, 2:], 1e-3)
        pixels = (vertices @ np.asarray(K, np.float32).T)[:, :2] / z
        return np.ascontiguousarray((pixels + 0.5) * self.ss - 0.5, np.float32)

    def _shadow_map(self, vertices: np.ndarray, faces: np.ndarray, light: Light) -> tuple:
        """Orthographic depth from the sun: the map, and the [3, 4] affine from points to (map x, map y, depth)."""
        side = np.cross(light.sun, [0.3, 0.1, 1.0])
        side /= np.linalg.norm(side)
        axes = np.stack([side, np.cross(light.sun, side), -light.sun])
        seen = vertices @ axes.T
        low, high = seen.min(0), seen.max(0)
        size = self._shadow_z.shape[0]
        scale = (size - 5) / max((high - low)[:2].max(), 1e-6)
        affine = np.concatenate([axes, -low[:, None] + 0.5], 1)
        affine[:2] = np.concatenate([axes[:2] * scale, -low[:2, None] * scale + 2], 1)
        affine = affine.astype(np.float32)
        mapped = vertices @ affine[:, :3].T + affine[:, 3]
        _rasterise(np.ascontiguousarray(mapped[:, :2]), np.ascontiguousarray(mapped[:, 2]), faces, False,
                   self._shadow_z, self._shadow_face)
        return self._shadow_z, affine, np.float32(scale)


@njit(cache=True, nogil=True, fastmath=True)
def _rasterise(pixels, depth, faces, cull, zbuffer, face):
    """z-buffer over a grid whose sample (i, j) lies at integers; culls faces that show their back."""
    zbuffer[:] = FAR
    face[:] = -1
    height, width = zbuffer.shape
    for f in range(faces.shape[0]):
        a, b, c = faces[f, 0], faces[f, 1], faces[f, 2]
        ax, ay, bx, by, cx, cy = pixels[a, 0], pixels[a, 1], pixels[b, 0], pixels[b, 1], pixels[c, 0], pixels[c, 1]
        area = (bx - ax) * (cy - ay) - (by - ay) * (cx - ax)
        if abs(area) < 1e-9 or (cull and area > 0):  # y points down: faces towards us have negative area
            continue
        az, bz, cz = depth[a], depth[b], depth[c]
        if az < 0.05 or bz < 0.05 or cz < 0.05:
            continue
        x0, x1 = max(0, int(np.ceil(min(ax, bx, cx)))), min(width - 1, int(np.floor(max(ax, bx, cx))))
        y0, y1 = max(0, int(np.ceil(min(ay, by, cy)))), min(height - 1, int(np.floor(max(ay, by, cy))))
        inv = np.float32(1.0) / area
        for y in range(y0, y1 + 1):
            for x in range(x0, x1 + 1):
                wb = ((x - ax) * (cy - ay) - (y - ay) * (cx - ax)) * inv
                wc = ((bx - ax) * (y - ay) - (by - ay) * (x - ax)) * inv
                wa = np.float32(1.0) - wb - wc
                if wa >= 0 and wb >= 0 and wc >= 0:
                    z = wa * az + wb * bz + wc * cz
                    if z < zbuffer[y, x]:
                        zbuffer[y, x] = z
                        face[y, x] = f


@njit(cache=True, nogil=True, fastmath=True)
def _hash(i, j, k):
    h = (i * 374761393 + j * 668265263 + k * 1440662683) & 0x7FFFFFFF
    h = ((h ^ (h >> 13)) * 1274126177) & 0x7FFFFFFF
    return np.float32((h ^ (h >> 16)) & 0xFFFF) / np.float32(65535.0)


@njit(cache=True, nogil=True, fastmath=True)
def noise(x, y, z):
    """Smooth value noise in [0, 1] with unit lattice."""
    i, j, k = int(np.floor(x)), int(np.floor(y)), int(np.floor(z))
    u, v, w = x - i, y - j, z - k
    u, v, w = u * u * (3 - 2 * u), v * v * (3 - 2 * v), w * w * (3 - 2 * w)
    out = np.float32(0)
    for di in range(2):
        for dj in range(2):
            for dk in range(2):
                weight = (u if di else 1 - u) * (v if dj else 1 - v) * (w if dk else 1 - w)
                out += weight * _hash(i + di, j + dj, k + dk)
    return out


@njit(cache=True, nogil=True, fastmath=True)
def _pattern(kind, x, y, z):
    """Share of the second colour at texture point (x, y, z), in pattern units."""
    if kind == STRIPES:
        return np.float32(1.0) if (y - np.floor(y)) < 0.5 else np.float32(0.0)
    if kind == CHECKS:
        return np.float32((int(np.floor(x)) + int(np.floor(y)) + int(np.floor(z))) & 1)
    if kind == BLOTCHES:
        n = 0.65 * noise(x, y, z) + 0.35 * noise(2.3 * x, 2.3 * y, 2.3 * z)
        return np.float32(min(max((n - 0.42) * 8, 0.0), 1.0))
    if kind == SPECKS:
        return np.float32(1.0) if noise(2 * x, 2 * y, 2 * z) > 0.68 else np.float32(0.0)
    return np.float32(0.0)


def vertex_colours(surface: Surface) -> np.ndarray:
    """Albedo [V, 3] of the solid texture at the vertices, for renderers that take colours per vertex."""
    material = np.zeros(len(surface.texture_points), np.int32)
    material[surface.faces.ravel()] = np.repeat(surface.material, 3)
    return _vertex_colours(surface.texture_points.astype(np.float32), surface.materials.astype(np.float32)[material])


@njit(cache=True, nogil=True)
def _vertex_colours(points, looks):
    out = np.empty(points.shape, np.float32)
    for v in range(points.shape[0]):
        p, m = points[v], looks[v]
        mix = m[8] * _pattern(int(m[6]), m[7] * p[0], m[7] * p[1], m[7] * p[2])
        for i in range(3):
            out[v, i] = (1 - mix) * m[i] + mix * m[3 + i]
    return out


@njit(cache=True, nogil=True, fastmath=True)
def _lit(sx, sy, depth, shadow_z, bias):
    """Share of four map samples around (sx, sy) that nothing nearer to the sun covers."""
    size = shadow_z.shape[0]
    count = np.float32(0)
    for d in range(4):
        x, y = int(sx + (d & 1)), int(sy + (d >> 1))
        if x < 0 or y < 0 or x >= size or y >= size or shadow_z[y, x] > depth - bias:
            count += np.float32(0.25)
    return count


@njit(cache=True, nogil=True, fastmath=True)
def _shade(ss, pixels, vertices, normals, texture, faces, material, materials, lamps, face, shadow_z, affine, scale,
           colour, alpha):
    share = np.float32(1.0 / (ss * ss))
    height, width = face.shape
    bias = np.float32(0.012) + np.float32(3.0) / scale
    for y in range(height):
        for x in range(width):
            f = face[y, x]
            if f < 0:
                continue
            a, b, c = faces[f, 0], faces[f, 1], faces[f, 2]
            ax, ay, bx, by = pixels[a, 0], pixels[a, 1], pixels[b, 0], pixels[b, 1]
            cx, cy = pixels[c, 0], pixels[c, 1]
            inv = np.float32(1.0) / ((bx - ax) * (cy - ay) - (by - ay) * (cx - ax))
            wb = ((x - ax) * (cy - ay) - (y - ay) * (cx - ax)) * inv
            wc = ((bx - ax) * (y - ay) - (by - ay) * (x - ax)) * inv
            wa = np.float32(1.0) - wb - wc
            n, p, t = np.zeros(3, np.float32), np.zeros(3, np.float32), np.zeros(3, np.float32)
            length = np.float32(1e-12)
            for i in range(3):
                n[i] = wa * normals[a, i] + wb * normals[b, i] + wc * normals[c, i]
                p[i] = wa * vertices[a, i] + wb * vertices[b, i] + wc * vertices[c, i]
                t[i] = wa * texture[a, i] + wb * texture[b, i] + wc * texture[c, i]
                length += n[i] * n[i]
            length = np.sqrt(length)
            m = materials[material[f]]
            mix = m[8] * _pattern(int(m[6]), m[7] * t[0], m[7] * t[1], m[7] * t[2])
            grain = np.float32(0.9) + np.float32(0.2) * noise(60 * t[0], 60 * t[1], 60 * t[2])
            facing, up, half, far = np.float32(0), np.float32(0), np.float32(0), np.float32(0)
            for i in range(3):
                n[i] /= length
                facing += n[i] * lamps[0, i]
                up += n[i] * lamps[1, i]
                far += p[i] * p[i]
            far = np.sqrt(far)
            glint = np.float32(0)
            if facing > 0:
                s0 = affine[0, 0] * p[0] + affine[0, 1] * p[1] + affine[0, 2] * p[2] + affine[0, 3]
                s1 = affine[1, 0] * p[0] + affine[1, 1] * p[1] + affine[1, 2] * p[2] + affine[1, 3]
                s2 = affine[2, 0] * p[0] + affine[2, 1] * p[1] + affine[2, 2] * p[2] + affine[2, 3]
                facing *= _lit(s0, s1, s2, shadow_z, bias)
                for i in range(3):
                    half += n[i] * (lamps[0, i] - p[i] / far)
                glint = m[9] * facing * max(half * np.float32(0.5), np.float32(0)) ** 24
            else:
                facing = np.float32(0)
            alpha[y // ss, x // ss] += share
            for i in range(3):
                albedo = ((1 - mix) * m[i] + mix * m[3 + i]) * grain
                sky = np.float32(0.5) * ((1 + up) * lamps[3, i] + (1 - up) * lamps[4, i])
                colour[y // ss, x // ss, i] += share * (albedo * (facing * lamps[2, i] + sky) + glint * lamps[2, i])
