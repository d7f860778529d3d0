"""Background matting by a network with Background-Matting-V2's interface (`runners`); official files run unchanged."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

from blur_motion_ros.light import to_codes
from blur_motion_ros.matting.runners import load_network, resized
from blur_motion_ros.matting.settings import MattingSettings
from blur_motion_ros.types import Matte

ASSET = Path(__file__).resolve().parents[1] / "assets" / "matting.onnx"
_LEAST_SIGMA, _EDGE_SIGMA = 0.03, 0.12  # alpha's standard deviation where opaque or empty, and more where blended


class NetworkMatter:
    """`Matter` by a network. Without `settings.model` the free network of this package is used."""

    def __init__(self, settings: MattingSettings | None = None):
        self.settings = settings or MattingSettings(method="network")
        self.runner = load_network(self.settings.model or ASSET)

    def matte(self, image: np.ndarray, plate: np.ndarray, plate_sigma: np.ndarray | float | None = None,
              person_mask: np.ndarray | None = None) -> Matte:
        """Alpha of the person in `image` [H, W, 3] float32 linear over `plate` [H, W, 3], any size.

        plate_sigma is not used (the network judges noise itself). person_mask [H, W]: others than this person are
        dropped. ValueError when shapes disagree.
        """
        if image.shape != plate.shape or image.ndim != 3 or image.shape[2] != 3:
            raise ValueError(f"image {image.shape} and plate {plate.shape} must both be [H, W, 3]")
        if person_mask is not None and person_mask.shape != image.shape[:2]:
            raise ValueError(f"person_mask is {person_mask.shape}; it must have the image's size {image.shape[:2]}")
        pha, error = self.runner.run(_planes(image), _planes(plate))
        height, width = image.shape[:2]
        alpha = np.ascontiguousarray(pha[:height, :width])
        near = _near(person_mask, self.settings.reach)
        return Matte(alpha * near, _sigma(alpha, error, pha.shape))


# --------------------------------------------------------------------------------------------- pictures


def _planes(linear: np.ndarray) -> np.ndarray:
    """[H, W, 3] linear -> [1, 3, H', W'] sRGB in [0, 1], edges repeated up to multiples of 4."""
    codes = to_codes(linear).astype(np.float32) * (1 / 255)
    height, width = codes.shape[:2]
    down, right = -height % 4, -width % 4
    if down or right:
        codes = cv2.copyMakeBorder(codes, 0, down, 0, right, cv2.BORDER_REPLICATE)
    return np.ascontiguousarray(codes.transpose(2, 0, 1)[None])


def _sigma(alpha: np.ndarray, error: np.ndarray | None, padded: tuple[int, int]) -> np.ndarray:
    """Standard deviation of alpha: the network's own word where it has one, never under a floor."""
    base = _LEAST_SIGMA + _EDGE_SIGMA * 4 * alpha * (1 - alpha)
    if error is None:
        return base.astype(np.float32)
    if error.shape != padded:
        error = resized(error, padded)
    own = 1.25 * np.clip(error[:alpha.shape[0], :alpha.shape[1]], 0.0, 1.0)  # mean absolute error to deviation
    return np.maximum(own, _LEAST_SIGMA).astype(np.float32)


def _near(mask: np.ndarray | None, reach: float) -> np.ndarray | float:
    """1 near this person, 0 at others: the mask widened by how far blur may carry them."""
    if mask is None or float(mask.max(initial=0.0)) < 0.3:
        return 1.0
    solid = (mask > 0.3).astype(np.uint8)
    distance = cv2.distanceTransform(1 - solid, cv2.DIST_L2, 3)
    return np.clip(2.0 - distance / max(reach * float(np.sqrt(solid.sum())), 1.0), 0.0, 1.0).astype(np.float32)
