"""Differentiable GPU backend on nvdiffrast (Laine et al. 2020, "Modular Primitives for High-Performance Differentiable
Rendering"): rasterize, interpolate, antialias. nvdiffrast is an optional package under NVIDIA's non-commercial licence;
nothing of it is shipped here. NVIDIA's own build and PyPI's `diffrp-nvdiffrast` offer the same module.

All sub-frames of a window go through *one* rasterize call (instanced mode, [M, V, 4]). The context is kept per device
and the topology hash per face list. Gradients at silhouettes come from antialias, so that is always on; supersampling
on top makes the forward image that of the CPU backend. `rasterize` waits for the host: no CUDA graph captures it.
"""

from __future__ import annotations

from functools import lru_cache
from types import ModuleType

import torch
from torch import Tensor

from blur_motion_ros.render.base import FARTHEST, NEAREST, Rendered, RendererError, Texels, check_inputs

INSTALL = ("pip install diffrp-nvdiffrast ninja (compiles at first use: needs nvcc) or NVIDIA's build from "
           "https://github.com/NVlabs/nvdiffrast; non-commercial licence")


class NvdiffrastRenderer:
    """`render.base.Renderer` on one CUDA device. supersample: samples per pixel and axis.

    Raises RendererError without a CUDA device or without the package. `operations` replaces the module
    `nvdiffrast.torch` (tests run this class on the CPU with a plain stand-in). One renderer belongs to one thread.
    """

    def __init__(self, device: str | torch.device = "cuda", supersample: int = 2, operations: ModuleType | None = None):
        self.device = torch.device(device)
        self.supersample = supersample
        self._operations = operations or load_operations(self.device)
        self._context = (self._operations.RasterizeCudaContext(self.device) if operations
                         else _context(self._operations, str(self.device)))
        self._faces: Tensor | None = None
        self._topology = None

    def __call__(self, vertices: Tensor, faces: Tensor, colours: Tensor | Texels, intrinsics: Tensor, size: int
                 ) -> Rendered:
        check_inputs(vertices, faces, colours, intrinsics, size, self.device)
        clip, faces = to_clip(vertices, intrinsics, size).contiguous(), faces.contiguous()
        fine = size * self.supersample
        samples, _ = self._operations.rasterize(self._context, clip, faces, (fine, fine), grad_db=False)
        image, seen = self._paint(samples, faces, colours)
        image = self._operations.antialias(image, samples, clip, faces, topology_hash=self._hash(faces))
        image = shrink(image, self.supersample)
        face, vertex = visible(samples.detach(), faces, self.supersample)
        return Rendered(image[..., :3], image[..., 3], face, vertex, seen)

    def _paint(self, samples: Tensor, faces: Tensor, colours: Tensor | Texels) -> tuple[Tensor, Tensor]:
        """Colour and coverage [M, S f, S f, 4] of the samples, and which colours [n] take part."""
        if not isinstance(colours, Texels):
            painted = torch.cat([colours, torch.ones_like(colours[:, :1])], 1)[None].contiguous()
            image, _ = self._operations.interpolate(painted, samples, faces)
            triangle = samples.detach()[..., 3:].long() - 1
            corners = torch.where(triangle >= 0, faces.long()[triangle.clamp(min=0)[..., 0]], len(colours))
            return image, _marked(corners, len(colours))
        covered = (samples.detach()[..., 3:] > 0).to(colours.values.dtype)
        uv, _ = self._operations.interpolate(colours.uv[None].contiguous(), samples, colours.uv_faces.contiguous())
        image, texel = read_texels(colours, uv)
        texel = torch.where(covered > 0, texel, len(colours.values))
        return torch.cat([image * covered, covered], -1), _marked(texel, len(colours.values))

    def _hash(self, faces: Tensor):
        """The topology hash of a face list, built when another tensor arrives."""
        if self._faces is None or faces.data_ptr() != self._faces.data_ptr() or faces.shape != self._faces.shape:
            self._topology = self._operations.antialias_construct_topology_hash(faces)
            self._faces = faces  # held, so that its address cannot be given to another
        return self._topology


def read_texels(texels: Texels, uv: Tensor) -> tuple[Tensor, Tensor]:
    """Bilinear colours [..., 3] at uv [..., 2], and which texels [..., 4] they came from (n: one that is not there).

    As `raster.texel_weights`: the share of a texel that does not exist goes to the other three. Differentiable with
    respect to both.
    """
    count, side = len(texels.values), len(texels.index)
    x, y = (uv[..., 0] * side - 0.5).clamp(0, side - 1), ((1 - uv[..., 1]) * side - 0.5).clamp(0, side - 1)
    x0, y0 = x.detach().long().clamp(max=side - 2), y.detach().long().clamp(max=side - 2)
    fx, fy = x - x0, y - y0
    share = torch.stack([(1 - fx) * (1 - fy), fx * (1 - fy), (1 - fx) * fy, fx * fy], -1)
    at = torch.stack([texels.index[y0 + dy, x0 + dx] for dy in (0, 1) for dx in (0, 1)], -1).long()
    share = share * (at >= 0)
    share = share / share.sum(-1, keepdim=True).clamp(min=1e-12)
    return (share[..., None] * texels.values[at.clamp(min=0)]).sum(-2), torch.where(share > 0, at, count)


def _marked(numbers: Tensor, count: int) -> Tensor:
    """[count] bool: which numbers below `count` are there."""
    marked = torch.zeros(count + 1, dtype=torch.bool, device=numbers.device)
    return marked.index_fill(0, numbers.flatten(), True)[:count]


def to_clip(vertices: Tensor, intrinsics: Tensor, size: int) -> Tensor:
    """Camera-frame points [M, V, 3] -> clip space [M, V, 4] of an image `size` px square.

    nvdiffrast's first row is at y = -1, so image y (down) maps to clip y without a flip. Pixel centres are at integers
    here and at half integers there.
    """
    k = intrinsics.to(vertices)
    x, y, z = vertices.unbind(-1)
    u = k[0, 0] * x + k[0, 1] * y + k[0, 2] * z
    v = k[1, 1] * y + k[1, 2] * z
    near, far = NEAREST, FARTHEST
    depth = ((far + near) * z - 2 * far * near) / (far - near)
    return torch.stack([(2 * u + z) / size - z, (2 * v + z) / size - z, depth, z], -1)


def shrink(image: Tensor, factor: int) -> Tensor:
    """Mean over blocks of factor x factor samples: [M, S f, S f, C] -> [M, S, S, C]."""
    m, fine, _, channels = image.shape
    size = fine // factor
    return image.reshape(m, size, factor, size, factor, channels).mean((2, 4))


def visible(samples: Tensor, faces: Tensor, factor: int) -> tuple[Tensor, Tensor]:
    """(face, vertex) [M, S, S] int32 of each pixel's nearest sample, -1 where empty; samples: what rasterize gives."""
    m, fine = samples.shape[:2]
    size = fine // factor
    blocks = samples.reshape(m, size, factor, size, factor, 4).permute(0, 1, 3, 2, 4, 5).reshape(m, size, size, -1, 4)
    depth = torch.where(blocks[..., 3] > 0, blocks[..., 2], torch.full_like(blocks[..., 2], 2.0))
    nearest = depth.argmin(-1)[..., None, None].expand(m, size, size, 1, 4)
    u, v, _, triangle = blocks.gather(3, nearest)[..., 0, :].unbind(-1)
    face = triangle.long() - 1
    corner = torch.stack([u, v, 1 - u - v], -1).argmax(-1)
    vertex = faces.long()[face.clamp(min=0), corner]
    return face.int(), torch.where(face >= 0, vertex, -1).int()


def load_operations(device: torch.device) -> ModuleType:
    """The module `nvdiffrast.torch`. Raises RendererError naming what is missing and the fix."""
    if device.type != "cuda":
        raise RendererError(f"nvdiffrast draws on CUDA devices, not on '{device}'; use the cpu renderer there")
    if not torch.cuda.is_available():
        raise RendererError("nvdiffrast needs an NVIDIA GPU and a CUDA build of PyTorch, and torch.cuda finds no "
                            "device; use the cpu renderer (fit.device=cpu)")
    try:
        import nvdiffrast.torch as operations
    except ImportError as error:
        raise RendererError(f"nvdiffrast is not installed ({error}); {INSTALL}") from error
    return operations


def unavailable(device: str | torch.device = "cuda") -> str:
    """Why nvdiffrast cannot be used on `device`; empty when it can (nothing is compiled to find out)."""
    try:
        load_operations(torch.device(device))
    except RendererError as error:
        return str(error)
    return ""


@lru_cache(maxsize=8)
def _context(operations: ModuleType, device: str):
    """One rasteriser context per device: it holds GPU buffers, and the first one may compile the package."""
    try:
        return operations.RasterizeCudaContext(device)
    except (ImportError, OSError, RuntimeError) as error:
        raise RendererError(f"nvdiffrast cannot start on {device}: {error}; {INSTALL}") from error
