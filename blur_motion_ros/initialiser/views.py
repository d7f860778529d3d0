"""One frame's person looked at again, cut differently and mirrored: what landmark networks say of all of them.

Their errors hang on how the picture is cut. The middle of several answers is closer to the truth than most of them
(docs/initialiser.md, "Several views"). Where they disagree which side of the trunk is left, some take the front of a
body for its back; the middle of the two would be neither.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from blur_motion_ros.initialiser.blazepose import MASK_SIZE, BlazePose, Region
from blur_motion_ros.initialiser.sides import READINGS, TRUNK, swapped, turned
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


# Eight are as good as eighteen; five are not enough (docs/experiments/initialiser.md).
VIEWS = tuple(View(scale, angle, mirrored) for mirrored in (False, True)
              for scale, angle in ((0.85, 0.0), (1.2, 0.0), (1.0, -0.2), (1.0, 0.2)))


@dataclass(frozen=True)
class Again:
    """What several views make of a person. landmarks: their consensus, left and right of the trunk as where the person
    was followed; turned: share of the views that have the trunk the other way round, in [0, 1]."""

    landmarks: Landmarks
    turned: float = 0.0


def looked_again(networks: Sequence[BlazePose], image: np.ndarray, plate: Plate | None, seen: Landmarks,
                 views: Iterable[View] = VIEWS) -> Again:
    """The person `seen` in an image [H, W, 3] uint8 RGB looked at in several views; plate as it was then.

    The landmarks are the first network's; which way the trunk faces, all networks are asked: one alone may take a
    person's front for the back in all its views."""
    region = Region.of_cut(seen.mask_to_image, MASK_SIZE)
    parts = [Region(region.centre, v.scale * region.side, region.angle + v.angle, v.mirrored) for v in views]
    answers = [[n.landmarks(image, part, plate, mask=False)[0] for part in parts] for n in networks]
    return agreed(answers[0], seen, sum(answers, []))


def agreed(found: Sequence[Landmarks], seen: Landmarks, asked: Sequence[Landmarks] | None = None) -> Again:
    """The consensus of answers read with the trunk as in `seen`, and how many of those that are asked (None: the same
    answers) had it the other way round."""
    other = swapped(seen, True, True, True)
    share = np.mean([_apart(answer, other, TRUNK) < _apart(answer, seen, TRUNK) for answer in asked or found])
    return Again(consensus(found, seen, trunk=True), float(share))


def outvoted(views: Sequence[Landmarks], before: Landmarks | None) -> Landmarks:
    """The consensus of those views that have the trunk as most have it. Where there are as many of the others, as
    `before` (None: the first view) has it."""
    first = views[0]
    other = [turned(view, first) for view in views]
    majority = 2 * sum(other) - len(views)
    wanted = majority > 0 if majority else before is not None and turned(before, first)
    kept = [view for view, o in zip(views, other, strict=True) if o == wanted]
    return consensus(kept, kept[0])


def consensus(found: Sequence[Landmarks], seen: Landmarks, trunk: bool = False) -> Landmarks:
    """Geometric median of every landmark over several answers, each read (legs, arms and, if wanted, the trunk) in the
    way closest to `seen`; mask, box and score are those of `seen`."""
    read = [_read_like(seen, answer, trunk) for answer in found]
    return replace(seen, image=_geometric_median(np.stack([r.image for r in read]), _PIXEL),
                   world=_geometric_median(np.stack([r.world for r in read]), _MILLIMETRE),
                   visibility=np.mean([r.visibility for r in read], 0))


def _read_like(seen: Landmarks, answer: Landmarks, trunk: bool) -> Landmarks:
    ways = (False, True) if trunk else (False,)
    readings = [swapped(answer, *reading, turned) for reading in READINGS for turned in ways]
    return min(readings, key=lambda r: _apart(r, seen, _BODY))


def _apart(a: Landmarks, b: Landmarks, points: np.ndarray | slice) -> float:
    return float(np.linalg.norm(a.image[points] - b.image[points], axis=-1).sum())


def _geometric_median(points: np.ndarray, near: float) -> np.ndarray:
    """[n, P, d] -> [P, d]: smallest sum of distances (Weiszfeld's iteration); `near` keeps the weights finite."""
    out = np.median(points, 0)
    for _ in range(_MEDIAN_STEPS):
        weight = 1 / np.sqrt(((points - out) ** 2).sum(-1, keepdims=True) + near**2)
        out = (weight * points).sum(0) / weight.sum(0)
    return out
