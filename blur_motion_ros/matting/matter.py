"""What every matting method offers, and how one is chosen."""

from __future__ import annotations

from typing import Protocol

import numpy as np

from blur_motion_ros.matting.settings import MattingSettings
from blur_motion_ros.types import Matte


class Matter(Protocol):
    """Separates the person from a known background."""

    def matte(self, image: np.ndarray, plate: np.ndarray, plate_sigma: np.ndarray | float | None = None,
              person_mask: np.ndarray | None = None) -> Matte:
        """Alpha of the person in `image` [H, W, 3] float32 linear over `plate` [H, W, 3]; any size, crop or frame.

        plate_sigma: [H, W] expected noise of image - plate.  person_mask: [H, W] soft and coarse, or None.
        """
        ...


def make_matter(settings: MattingSettings | None = None) -> Matter:
    """The matter that `settings.method` names; loads a network only when asked for one."""
    settings = settings or MattingSettings()
    if settings.method == "network":
        from blur_motion_ros.matting.network import NetworkMatter

        return NetworkMatter(settings)
    if settings.method == "fused":
        from blur_motion_ros.matting.fused import FusedMatter

        return FusedMatter(settings)
    from blur_motion_ros.matting.difference import DifferenceMatter

    return DifferenceMatter(settings)
