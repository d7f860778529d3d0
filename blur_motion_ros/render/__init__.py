"""Renderers of sub-frames: the numba rasteriser, and torch backends behind one interface (`render.base`).

`make(kind, device)` builds a differentiable backend; nothing heavy is imported before it is called.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

    from blur_motion_ros.render.base import Renderer

KINDS = ("cpu", "nvdiffrast")


def make(kind: str = "cpu", device: str | torch.device = "cpu") -> Renderer:
    """A differentiable renderer: "cpu" (numba, always there) or "nvdiffrast" (an NVIDIA GPU, optional package).

    Raises `base.RendererError` when the kind is unknown or cannot run on `device`; the message names the fix.
    """
    from blur_motion_ros.render.base import RendererError

    if kind == "cpu":
        from blur_motion_ros.render.raster_torch import RasterRenderer

        return RasterRenderer(device)
    if kind == "nvdiffrast":
        from blur_motion_ros.render.nvdiffrast import NvdiffrastRenderer

        return NvdiffrastRenderer(device)
    raise RendererError(f"unknown renderer '{kind}'; choose one of {', '.join(KINDS)}")
