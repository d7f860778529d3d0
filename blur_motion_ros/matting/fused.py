"""Both mattes, weighed by how sure each is: the background difference knows the plate, the network knows people."""

from __future__ import annotations

import numpy as np

from blur_motion_ros.matting.difference import DifferenceMatter
from blur_motion_ros.matting.network import NetworkMatter
from blur_motion_ros.matting.settings import MattingSettings
from blur_motion_ros.types import Matte


class FusedMatter:
    """`Matter` that asks both. Costs the sum of both (about 8 ms of CPU at 128 x 128)."""

    def __init__(self, settings: MattingSettings | None = None):
        self.settings = settings or MattingSettings(method="fused")
        self._difference, self._network = DifferenceMatter(self.settings), NetworkMatter(self.settings)

    def matte(self, image: np.ndarray, plate: np.ndarray, plate_sigma: np.ndarray | float | None = None,
              person_mask: np.ndarray | None = None) -> Matte:
        """Alpha of the person in `image` [H, W, 3] float32 linear over `plate` [H, W, 3]; see `Matter`."""
        return fuse(self._difference.matte(image, plate, plate_sigma, person_mask),
                    self._network.matte(image, plate, plate_sigma, person_mask))


def fuse(first: Matte, second: Matte) -> Matte:
    """Weighted by 1 / sigma^2. They look at the same pixels, so their errors are not independent: sigma is that of the
    mixture (mean variance plus disagreement), not that of a product."""
    a, b = 1 / np.square(first.sigma), 1 / np.square(second.sigma)
    share = a / (a + b)
    alpha = share * first.alpha + (1 - share) * second.alpha
    variance = (share * (first.sigma**2 + (first.alpha - alpha) ** 2)
                + (1 - share) * (second.sigma**2 + (second.alpha - alpha) ** 2))
    return Matte(alpha.astype(np.float32), np.sqrt(variance).astype(np.float32))
