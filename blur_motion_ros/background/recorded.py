"""The clean plate of a whole recording: every pixel as it was while nobody was before it.

Live, a pixel is believed once it has been free for a while (`learn`). With the recording known to its end, the median
over all the times that it was free is better, and is there from the first frame on.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np
from numba import njit

from blur_motion_ros.background.learn import FREE
from blur_motion_ros.background.model import BackgroundModel
from blur_motion_ros.background.settings import BackgroundSettings

_MOST_SAMPLES, _FEWEST_SAMPLES = 40, 8  # images of a recording that a plate is made of: more only cost memory
_MOST_BYTES = 4e8  # of those images
_LEAST_FREE = 3  # samples in which a pixel must have been free
_SAME = 15.0  # code values: where the person was most of the time, most free samples must lie this close to the median
_OVERLOOKED = 1.0  # s before and after which a person that is seen may be there unseen
_WATCHED = 8  # samples that a camera which moves is looked for in


class Sample(NamedTuple):
    """One image of a recording. time: s; image: [H, W, 3] uint8 RGB; person: `model.person_mask`; None: nobody."""

    time: float
    image: np.ndarray
    person: np.ndarray | None


class RecordedPlate(NamedTuple):
    """image: [H, W, 3] uint8 RGB; known: [H, W] bool, where nobody stood all the time."""

    image: np.ndarray
    known: np.ndarray


def sample_count(width: int, height: int) -> int:
    """Images to make a plate of: fewer of large ones, to bound memory."""
    return int(np.clip(_MOST_BYTES // (3 * width * height), _FEWEST_SAMPLES, _MOST_SAMPLES))


def plate_of(samples: Sequence[Sample], settings: BackgroundSettings, response: str = "srgb") -> RecordedPlate | None:
    """Median of a fixed camera's images over the times that a pixel was free. None where that does not explain the
    images (the camera moves), and where there are too few."""
    usable = [s for i, s in enumerate(samples) if not _overlooked(samples, i)]
    if len(usable) < _LEAST_FREE:
        return None
    nobody = np.full(usable[0].image.shape[:2], FREE, np.uint8)
    people = [nobody if s.person is None else s.person for s in usable]
    plate, known = _free_median(np.stack([s.image for s in usable]), np.stack(people))
    found = RecordedPlate(plate, known.astype(bool))
    return found if _explains(found, [s.image for s in usable], people, settings, response) else None


def _overlooked(samples: Sequence[Sample], i: int) -> bool:
    """Nobody was found in sample i, but somebody was just before or after: they may well be in it."""
    if samples[i].person is not None:
        return False
    return any(s.person is not None and (abs(k - i) == 1 or abs(s.time - samples[i].time) < _OVERLOOKED)
               for k, s in enumerate(samples))


def _explains(plate: RecordedPlate, images: Sequence[np.ndarray], people: Sequence[np.ndarray],
              settings: BackgroundSettings, response: str) -> bool:
    model = BackgroundModel(replace(settings, learn=False, margin=0.0), response)  # people are dilated already
    model.set_plate(plate.image, plate.known)
    watched = np.linspace(0, len(images) - 1, min(len(images), _WATCHED)).astype(int)
    shares = []
    for i in watched:
        model.update(images[i], (people[i] != FREE).astype(np.float32))
        shares.append(model.drift.explained)
    return float(np.median(shares)) >= settings.stale


@njit(cache=True, nogil=True)
def _free_median(images, people):
    """images [N, H, W, 3] uint8, people [N, H, W] -> median over the free ones [H, W, 3] uint8, known [H, W] uint8."""
    n, h, w = people.shape
    out, known = np.zeros((h, w, 3), np.uint8), np.zeros((h, w), np.uint8)
    values = np.empty(n, np.uint8)
    for y in range(h):
        for x in range(w):
            agree, count = n, 0
            for c in range(3):
                count = 0
                for i in range(n):
                    if people[i, y, x] == FREE:
                        values[count] = images[i, y, x, c]
                        count += 1
                if count < _LEAST_FREE:
                    break
                middle = np.sort(values[:count])[count // 2]
                close = 0
                for i in range(count):
                    close += abs(float(values[i]) - float(middle)) <= _SAME
                agree = min(agree, 2 * close - count)
                out[y, x, c] = middle
            known[y, x] = count >= _LEAST_FREE and (agree > 0 or 2 * count > n)
    return out, known
