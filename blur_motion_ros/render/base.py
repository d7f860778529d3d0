"""The interface of differentiable sub-frame renderers (torch).

Every backend draws M posed meshes of one topology, seen by one camera, into M small square images. Conventions are
those of the package: camera frame x right, y down, z forward, metres; pixel centres at integers; linear light. A
backend is made once (`render.make`) and called often; it keeps what does not depend on the vertices.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

NEAREST = 0.1  # m; a triangle with a vertex nearer than this is not drawn
FARTHEST = 100.0  # m; backends with a depth range end it here


class RendererError(RuntimeError):
    """A backend cannot be used, or was given what it cannot draw. The message names the reason and the fix."""


@dataclass(frozen=True)
class Rendered:
    """M rendered sub-frames, S pixels square.

    colour [M, S, S, 3] premultiplied by coverage, alpha [M, S, S] coverage in [0, 1]: differentiable with respect to
    vertices and colours. face, vertex [M, S, S] int32: the triangle that is seen at the pixel and its corner nearest
    to what is seen, -1 where nothing is (no gradient). seen [n] bool: which colours (vertices or texels) take part in
    at least one sub-frame.
    """

    colour: Tensor
    alpha: Tensor
    face: Tensor
    vertex: Tensor
    seen: Tensor


@dataclass(frozen=True)
class Texels:
    """A texture in place of colours per vertex, read bilinearly (`fit.texels.TexelGrid` makes the layout).

    values [n, 3] linear light (differentiable); uv [K, 2] in [0, 1], uv_faces [F, 3] int32: the layout; index [T, T]
    int32: number of the value at each texel, row 0 at v = 1; -1 where there is none.
    """

    values: Tensor
    uv: Tensor
    uv_faces: Tensor
    index: Tensor


class Renderer(Protocol):
    """`renderer(vertices, faces, colours, intrinsics, size) -> Rendered`; `device` is where its tensors live."""

    device: torch.device

    def __call__(self, vertices: Tensor, faces: Tensor, colours: Tensor | Texels, intrinsics: Tensor, size: int
                 ) -> Rendered:
        """Draw `vertices` [M, V, 3] (camera frame, m) with `colours`: per vertex [V, 3] (linear light), or a texture.

        faces [F, 3] int32, wound so that outward normals are right-handed; intrinsics [3, 3] of the square image;
        size: its side in px. Floating tensors are float32 on `device`. Raises RendererError.
        """
        ...


def check_inputs(vertices: Tensor, faces: Tensor, colours: Tensor | Texels, intrinsics: Tensor, size: int,
                 device: torch.device) -> None:
    """Raise RendererError in one sentence where shapes, types or devices are not those of `Renderer`."""
    if isinstance(colours, Texels):
        paint = (("texels", colours.values, (None, 3), torch.float32), ("uv", colours.uv, (None, 2), torch.float32),
                 ("uv_faces", colours.uv_faces, (len(faces), 3), torch.int32),
                 ("index", colours.index, (len(colours.index),) * 2, torch.int32))
    else:
        paint = (("colours", colours, (vertices.shape[-2], 3), torch.float32),)
    for name, value, shape, dtype in (("vertices", vertices, (None, None, 3), torch.float32),
                                      ("faces", faces, (None, 3), torch.int32), *paint,
                                      ("intrinsics", intrinsics, (3, 3), None)):
        if value.dim() != len(shape) or any(s is not None and s != g for s, g in zip(shape, value.shape, strict=True)):
            wanted = ", ".join("any" if s is None else str(s) for s in shape)
            raise RendererError(f"{name} has shape {tuple(value.shape)}; [{wanted}] wanted")
        if dtype is not None and value.dtype != dtype:
            raise RendererError(f"{name} is {value.dtype}; {dtype} wanted")
        if value.device.type != device.type:
            raise RendererError(f"{name} is on {value.device}; this renderer draws on {device}")
    if size < 1:
        raise RendererError(f"size is {size}; at least one pixel wanted")
