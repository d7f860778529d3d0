"""Cutting square undistorted crops out of images: area-averaged in linear light, so that nothing aliases.

A crop pixel is the mean of the source over its area: exactly where the lens does not bend lines and the crop is no
finer than the source. Where it does, the area is taken for an upright box about the pixel's centre, at least as large
as a source pixel (which is bilinear interpolation). Crops that are finer than the source, or turned, are means of n x n
bilinear samples (n = source pixels per crop pixel, rounded; very large boxes are first block-averaged). One map serves
the image, the plate and the person mask of a frame.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import cv2
import numpy as np
from numba import njit

from blur_motion_ros import light
from blur_motion_ros.camera.camera import Camera, Crop

_MAX_OVERSAMPLING = 3  # beyond it whole source pixels are averaged first
_FAR, _WIDEST = 1e4, 64.0  # px: beyond the view that it was fitted to, a lens model ends up anywhere
_MESH = 4  # distortion is smooth: its map is computed at every 4th crop pixel and interpolated


@dataclass(frozen=True)
class CropMap:
    """Where the samples of a crop lie in the (distorted) source image.

    size: crop pixels per side.  n: samples per crop pixel and axis.  shape: (height, width) of the source.
    affine: [2, 3] sample grid -> source pixels when the lens does not bend lines, else None and
    x, y: [S, S] float32 source pixels under the centres of the crop pixels (n is 1).
    """

    size: int
    n: int
    shape: tuple[int, int]
    affine: np.ndarray | None
    x: np.ndarray | None
    y: np.ndarray | None

    def sample(self, image: np.ndarray, response: str = "srgb") -> np.ndarray:
        """[H, W, C] or [H, W] -> [S, S, C] or [S, S] float32. uint8 is code values and is made linear first.

        Outside the image the border is repeated; `valid` says where. ValueError when the size is not the camera's.
        """
        if image.shape[:2] != self.shape:
            raise ValueError(f"image is {image.shape[1]} x {image.shape[0]} but the camera says {self.shape[1]} x"
                             f" {self.shape[0]}; use Camera.scaled or the calibration of this resolution")
        if self._boxes is not None or self.affine is None:
            return self._averaged(image, response)
        x0, y0, x1, y1 = self.roi
        part = image[y0:y1, x0:x1]
        part = light.to_linear(part, response) if part.dtype == np.uint8 else part.astype(np.float32, copy=False)
        return self._mean(self._warp(part, (x0, y0), cv2.BORDER_REPLICATE))

    def sample_affine(self, mask: np.ndarray, mask_to_image: np.ndarray) -> np.ndarray:
        """[S, S] float32 of `mask` [h, w] placed by `mask_to_image` [2, 3]; 0 outside it."""
        inverse = cv2.invertAffineTransform(np.asarray(mask_to_image, np.float64))
        mask = np.ascontiguousarray(mask, np.float32)
        if self.affine is None:
            u, v = (row[0] * self.x + row[1] * self.y + row[2] for row in inverse.astype(np.float32))
            return cv2.remap(mask, u, v, cv2.INTER_LINEAR, borderMode=cv2.BORDER_CONSTANT, borderValue=0)
        side = self.n * self.size
        grid_to_mask = _compose(inverse, self.affine)
        samples = cv2.warpAffine(mask, grid_to_mask, (side, side), flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP)
        return self._mean(samples)

    @cached_property
    def _boxes(self) -> np.ndarray | None:
        """[2, 2]: rows x, y; the width of a crop pixel in source pixels and the first one's edge (the source's first
        edge is 0). None where crop pixels are finer than the source's, or no upright boxes of it."""
        a = self.affine
        if a is None or a[0, 1] != 0 or a[1, 0] != 0 or min(a[0, 0], a[1, 1]) * self.n < 1:
            return None
        scale = np.array([a[0, 0], a[1, 1]])
        return np.stack([self.n * scale, a[:, 2] + 0.5 - 0.5 * scale], -1)

    @cached_property
    def _areas(self) -> np.ndarray:
        """`_boxes_about` the crop pixels' centres, where the lens bends lines."""
        return _boxes_about(self.x, self.y)

    def _averaged(self, image: np.ndarray, response: str) -> np.ndarray:
        """The mean over every crop pixel's box; [S, S, C] or [S, S] float32."""
        channels = 1 if image.ndim == 2 else image.shape[2]
        if channels not in (1, 3):
            return np.dstack([self._averaged(image[..., c], response) for c in range(channels)])
        out = np.empty((self.size, self.size * channels), np.float32)
        flat = np.ascontiguousarray(image).reshape(len(image), -1)
        flat.flags.writeable = False  # numba compiles anew for an image that may be written to
        table = light.decode_table(response) if image.dtype == np.uint8 else None
        if table is None:
            flat = flat.astype(np.float32, copy=False)
        if self.affine is None:
            _average_over(flat, table, channels, self._areas, out)
        else:
            _average(flat, table, channels, self._boxes, out)
        return out.reshape((self.size, self.size) + image.shape[2:])

    @cached_property
    def valid(self) -> np.ndarray:
        """[S, S] bool: the crop pixel's centre lies inside the source image."""
        x, y = self._axes if self.affine is not None else self.centres
        return (x >= -0.5) & (x <= self.shape[1] - 0.5) & (y >= -0.5) & (y <= self.shape[0] - 0.5)

    @cached_property
    def centres(self) -> tuple[np.ndarray, np.ndarray]:
        """x, y: [S, S] source pixels under the centres of the crop pixels."""
        if self.affine is not None:
            x, y = self._axes
            shape = (self.size, self.size)
            return np.broadcast_to(x, shape), np.broadcast_to(y, shape)
        return self.x, self.y

    @property
    def _axes(self) -> tuple[np.ndarray, np.ndarray]:
        """`centres` along the axes, x [S or 1, S] and y [S, S or 1], where the lens does not bend lines."""
        grid, a = (np.arange(self.size) + 0.5) * self.n - 0.5, self.affine
        u, v = grid[None, :], grid[:, None]
        x, y = a[0, 0] * u + a[0, 2], a[1, 1] * v + a[1, 2]
        return x if a[0, 1] == 0 else x + a[0, 1] * v, y if a[1, 0] == 0 else y + a[1, 0] * u

    @cached_property
    def roi(self) -> tuple[int, int, int, int]:
        """x0, y0, x1, y1: the part of the source that the samples touch, clipped to the image, never empty (where the
        lens does not bend lines)."""
        last = self.n * self.size - 1
        corners = np.array([[0, 0, 1], [last, 0, 1], [0, last, 1], [last, last, 1]]) @ self.affine.T
        low, high = corners.min(0), corners.max(0)
        h, w = self.shape
        x0, y0 = (int(np.clip(np.floor(v) - 1, 0, n - 1)) for v, n in zip(low, (w, h), strict=True))
        x1, y1 = (int(np.clip(np.ceil(v) + 2, o + 1, n)) for v, o, n in zip(high, (x0, y0), (w, h), strict=True))
        return x0, y0, x1, y1

    def _warp(self, part: np.ndarray, origin: tuple[int, int], border: int) -> np.ndarray:
        matrix, part = self._shrunk(part, origin)
        side = self.n * self.size
        flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
        return cv2.warpAffine(part, matrix, (side, side), flags=flags, borderMode=border)

    def _shrunk(self, part: np.ndarray, origin: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
        """Average whole blocks of source pixels first when samples are two or more of them apart."""
        matrix = self.affine - np.array([[0, 0, origin[0]], [0, 0, origin[1]]])
        f = int(abs(matrix[0, 0]))
        if f < 2 or min(part.shape[:2]) < f:
            return matrix, part
        h, w = (d // f for d in part.shape[:2])
        part = cv2.resize(np.ascontiguousarray(part[:h * f, :w * f]), (w, h), interpolation=cv2.INTER_AREA)
        shift = np.array([[0, 0, 0.5 / f - 0.5], [0, 0, 0.5 / f - 0.5]])
        return matrix / f + shift, part

    def _mean(self, samples: np.ndarray) -> np.ndarray:
        if self.n == 1:
            return samples
        return cv2.resize(samples, (self.size, self.size), interpolation=cv2.INTER_AREA)


def crop_map(camera: Camera, crop: Crop) -> CropMap:
    """Where `crop`'s pixels lie in `camera`'s image: build once, sample image, plate and mask with it."""
    shape = (camera.height, camera.width)
    if camera.distorted:
        return CropMap(crop.size, 1, shape, None, *_distorted_grid(camera, crop))
    n = int(np.clip(round(float(camera.K[0, 0] / crop.K[0, 0])), 1, _MAX_OVERSAMPLING))
    affine = np.asarray(camera.K, np.float64) @ np.linalg.inv(crop.resized(n * crop.size).K)
    return CropMap(crop.size, n, shape, affine[:2], None, None)


@njit(cache=True, nogil=True, error_model="numpy", fastmath=True)
def _average(image, table, channels, boxes, out):
    """out [S, S C]: mean of image [H, W C] over boxes [2, 2] (`CropMap._boxes`), its border repeated outside.

    table [256]: light of the image's code values; None where it is light already."""
    height, width, size = image.shape[0], image.shape[1] // channels, out.shape[0]
    left = min(max(int(np.floor(boxes[0, 1])), 0), width - 1)
    right = max(min(int(np.ceil(boxes[0, 1] + size * boxes[0, 0])), width), left + 1)
    row = np.empty((right - left) * channels, np.float32)  # the mean over the height of a row of boxes
    total = np.zeros(row.size + channels)  # what lies left of each of its pixels
    lit, lit_row = np.empty(row.size, np.float32), -1  # the source's row that was looked up last
    for i in range(size):
        row[:] = 0.0
        low = boxes[1, 1] + i * boxes[1, 0]
        high = low + boxes[1, 0]
        for j in range(int(np.floor(low)), int(np.ceil(high))):
            share = np.float32((min(j + 1, high) - max(j, low)) / boxes[1, 0])
            y = min(max(j, 0), height - 1)
            source = image[y, channels * left:channels * right]
            if table is None:
                for x in range(row.size):
                    row[x] += share * source[x]
                continue
            if y != lit_row:
                lit_row = y
                for x in range(row.size):
                    lit[x] = table[source[x]]
            for x in range(row.size):
                row[x] += share * lit[x]
        for x in range(row.size):
            total[x + channels] = total[x] + row[x]
        for c in range(channels):
            before = _left_of(row, total, boxes[0, 1] - left, channels, c)
            for k in range(size):
                here = _left_of(row, total, boxes[0, 1] - left + (k + 1) * boxes[0, 0], channels, c)
                out[i, channels * k + c] = (here - before) / boxes[0, 0]
                before = here


@njit(cache=True, nogil=True, error_model="numpy", fastmath=True)
def _boxes_about(x, y):
    """Upright boxes about x, y [S, S] that touch their neighbours', at least one source pixel wide and at most
    `_WIDEST`: their low edges and widths, x and y [4, S, S] in source pixels (the source's first edge is 0)."""
    size = x.shape[0]
    out = np.empty((4, size, size), np.float32)
    half, one, widest = np.float32(0.5), np.float32(1.0), np.float32(_WIDEST)
    for i in range(size):
        up, down = max(i - 1, 0), min(i + 1, size - 1)
        along = one / np.float32(down - up)
        for k in range(size):
            left, right = max(k - 1, 0), min(k + 1, size - 1)
            across = one / np.float32(right - left)
            a, b = across * (x[i, right] - x[i, left]), along * (x[down, k] - x[up, k])
            c, d = across * (y[i, right] - y[i, left]), along * (y[down, k] - y[up, k])
            wide = min(max(np.sqrt(a * a + b * b), one), widest)
            high = min(max(np.sqrt(c * c + d * d), one), widest)
            out[0, i, k], out[1, i, k] = x[i, k] + half - half * wide, y[i, k] + half - half * high
            out[2, i, k], out[3, i, k] = wide, high
    return out


@njit(cache=True, nogil=True, error_model="numpy", fastmath=True)
def _average_over(image, table, channels, areas, out):
    """out [S, S C]: mean of image [H, W C] over areas [4, S, S] (`_boxes_about`), its border repeated outside; C: 1 or
    3.  table: as in `_average`."""
    height, width, size = image.shape[0], image.shape[1] // channels, out.shape[0]
    zero = np.float32(0.0)
    for i in range(size):
        for k in range(size):
            left, top, wide, high = areas[0, i, k], areas[1, i, k], areas[2, i, k], areas[3, i, k]
            right, bottom = left + wide, top + high
            first, last = int(np.floor(left)), int(np.ceil(right))
            red, green, blue = zero, zero, zero
            for j in range(int(np.floor(top)), int(np.ceil(bottom))):
                row = image[min(max(j, 0), height - 1)]
                tall = min(np.float32(j + 1), bottom) - max(np.float32(j), top)
                for m in range(first, last):
                    share = tall * (min(np.float32(m + 1), right) - max(np.float32(m), left))
                    at = channels * min(max(m, 0), width - 1)
                    red += share * _light(row[at], table)
                    if channels == 3:
                        green += share * _light(row[at + 1], table)
                        blue += share * _light(row[at + 2], table)
            area = wide * high
            out[i, channels * k] = red / area
            if channels == 3:
                out[i, 3 * k + 1], out[i, 3 * k + 2] = green / area, blue / area


@njit(cache=True, nogil=True, inline="always", error_model="numpy")
def _light(value, table):
    return value if table is None else table[value]


@njit(cache=True, nogil=True, inline="always", error_model="numpy")
def _left_of(row, total, x, channels, c):
    """Integral of channel c of row [W C] from 0 to x; total [(W + 1) C]: the same at whole x."""
    k = min(max(int(np.floor(x)), 0), row.size // channels - 1)
    return total[channels * k + c] + (x - k) * row[channels * k + c]


def _distorted_grid(camera: Camera, crop: Crop) -> tuple[np.ndarray, np.ndarray]:
    """x, y [S, S] float32: distorted source pixel of every crop pixel's centre, through a coarse mesh."""
    nodes = np.arange(-(-crop.size // _MESH) + 1) * float(_MESH)
    u, v = np.meshgrid(nodes, nodes)
    rays = np.stack([u, v, np.ones_like(u)], -1) @ np.linalg.inv(crop.K).T
    pixels = np.clip(np.nan_to_num(camera.project(rays), nan=-_FAR), -_FAR, _FAR).astype(np.float32)
    grid = np.arange(crop.size, dtype=np.float32) / _MESH
    gx, gy = np.meshgrid(grid, grid)
    x = cv2.remap(pixels[..., 0], gx, gy, cv2.INTER_LINEAR)
    return x, cv2.remap(pixels[..., 1], gx, gy, cv2.INTER_LINEAR)


def _compose(outer: np.ndarray, inner: np.ndarray) -> np.ndarray:
    """[2, 3] affine: outer after inner."""
    return np.hstack([outer[:, :2] @ inner[:, :2], outer[:, :2] @ inner[:, 2:] + outer[:, 2:]])
