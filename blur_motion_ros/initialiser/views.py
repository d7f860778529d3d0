"""One frame's person looked at again, cut differently and mirrored: what the landmark network says of all of them.

Its errors hang on how the picture is cut. The middle of several answers is closer to the truth than most of them, and
seldom the one in which the network takes the front of a body for its back (docs/initialiser.md, "Several views").
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from blur_motion_ros.initialiser.blazepose import LANDMARK_SIZE, BlazePose, Region
from blur_motion_ros.initialiser.sides import READINGS, swapped
from blur_motion_ros.types import Landmarks, Plate

_BODY = np.s_[11:]  # landmarks below the face
_MEDIAN_STEPS = 8
_PIXEL, _MILLIMETRE = 1.0, 1e-3  # distances that count as none in the geometric median


@dataclass(frozen=True)
class View:
    """A cut of the region in which the person was found. scale: of its side; angle: rad, turned by; mirrored: left for
    right."""

    scale: float
    angle: float
    mirrored: bool


# Eight are as good as eighteen; five are not enough (docs/initialiser.md).
VIEWS = tuple(View(scale, angle, mirrored) for mirrored in (False, True)
              for scale, angle in ((0.85, 0.0), (1.2, 0.0), (1.0, -0.2), (1.0, 0.2)))


def looked_again(networks: BlazePose, image: np.ndarray, plate: Plate | None, seen: Landmarks,
                 views: Iterable[View] = VIEWS) -> Landmarks:
    """The consensus of several views of the person `seen` in an image [H, W, 3] uint8 RGB; plate as it was then."""
    region = Region.of_cut(seen.mask_to_image, LANDMARK_SIZE)
    parts = [Region(region.centre, v.scale * region.side, region.angle + v.angle, v.mirrored) for v in views]
    return consensus([networks.landmarks(image, part, plate, mask=False)[0] for part in parts], seen)


def consensus(found: Sequence[Landmarks], seen: Landmarks) -> Landmarks:
    """Geometric median of every landmark over several answers, each read (legs, arms) in the way closest to `seen`;
    mask, box and score are those of `seen`."""
    read = [_read_like(seen, answer) for answer in found]
    return replace(seen, image=_geometric_median(np.stack([r.image for r in read]), _PIXEL),
                   world=_geometric_median(np.stack([r.world for r in read]), _MILLIMETRE),
                   visibility=np.mean([r.visibility for r in read], 0))


def _read_like(seen: Landmarks, answer: Landmarks) -> Landmarks:
    readings = [swapped(answer, *reading) for reading in READINGS]
    return min(readings, key=lambda r: np.linalg.norm(r.image[_BODY] - seen.image[_BODY], axis=-1).sum())


def _geometric_median(points: np.ndarray, near: float) -> np.ndarray:
    """[n, P, d] -> [P, d]: smallest sum of distances (Weiszfeld's iteration); `near` keeps the weights finite."""
    out = np.median(points, 0)
    for _ in range(_MEDIAN_STEPS):
        weight = 1 / np.sqrt(((points - out) ** 2).sum(-1, keepdims=True) + near**2)
        out = (weight * points).sum(0) / weight.sum(0)
    return out
