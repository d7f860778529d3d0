"""Keeps to one person from frame to frame: whom to choose, where to look next, when to believe the landmarks."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import cache

import numpy as np

from blur_motion_ros.initialiser.blazepose import BlazePose, Detection, Region, landmark_file
from blur_motion_ros.initialiser.settings import PersonSettings
from blur_motion_ros.initialiser.sides import turned
from blur_motion_ros.initialiser.views import consensus, outvoted
from blur_motion_ros.types import UNKNOWN_BACKGROUND, Landmarks, Plate

_log = logging.getLogger(__name__)
_TILE_OVERLAP = 0.5
_LEAD = 0.5  # share of the last step by which the next region leads (a full step overshoots after a bad frame)
_SIZE_FRAMES = 15  # over which somebody's usual size is taken
_FARTHEST = 3.0  # body radii from their last place that a lost person is looked for
_AT_TARGET = 1.0  # body radii between the target and the hips of the person meant
_BLOBS = 96  # pixels per image side in which moved regions are looked for


class PersonTracker:
    """Follows one person.

    While they are tracked only the landmark network runs, on a region predicted from the frames before. When they are
    lost, candidates are tried in this order: the detector on the whole frame, on enlarged parts of it (about the place
    where they are expected, else one tile per frame), what differs from the clean plate, and the last region.

    careful: gives the networks that read landmarks of long exposures (None: `networks` read all). Called once, at the
    first of them.
    """

    def __init__(self, networks: BlazePose, settings: PersonSettings | None = None,
                 careful: Callable[[], BlazePose] | None = None):
        self.networks = networks
        self.settings = settings or PersonSettings()
        self._careful = None if careful is None else cache(careful)
        self.reset()

    @staticmethod
    def pretrained(settings: PersonSettings) -> PersonTracker:
        """With the networks that the settings name. Raises what `BlazePose.pretrained` does."""
        quick = BlazePose.pretrained(settings.threads, settings.landmarks)

        def careful() -> BlazePose:
            best = landmark_file("best")
            if best == quick.landmark_file:
                return quick
            try:
                return BlazePose.pretrained(settings.threads, str(best))
            except ValueError as error:  # of a file that nobody named: a worse reading instead of none
                _log.warning("long exposures are read by the landmark network of short ones: %s; or delete it and run "
                             "`blur-motion assets`", error)
                return quick

        return PersonTracker(quick, settings, careful if settings.landmarks == "auto" else None)

    def reset(self) -> None:
        """Forget whom we followed."""
        self._last: Detection | None = None
        self._seen: Landmarks | None = None  # the last ones
        self._size = 0.0  # their usual radius: the last one before somebody is lost is often a wrong one
        self._sized = 0  # how many frames that is the mean of
        self._velocity = np.zeros(2)
        self._tracked = False
        self._frames = 0  # of this track so far
        self._lost = 0
        self._tile = 0

    def track(self, image: np.ndarray, plate: Plate | None = None, exposure: float = 0.0,
              late: bool = False) -> Landmarks | None:
        """Landmarks of the person followed in the next frame, image [H, W, 3] uint8 RGB; None while nobody is found.

        plate: clean background under the light of this frame, or None.  exposure: s that the shutter was open; long
        ones are read carefully, unless this is late."""
        reading = self.networks if late else self.reading(exposure)
        looks = [reading] * self.settings.passes
        if self._tracked:
            found = self._look(looks, image, plate, self._predicted())
            if found is not None:
                return found
        self._tracked = False
        if reading is not self.networks and self._waiting:
            looks.insert(0, self.networks)  # of the many places where a lost person may be, most are told quickly
        for candidate in self._candidates(image, plate):
            found = self._look(looks, image, plate, candidate)
            if found is not None:
                return found
        self._lost += 1
        return None

    def reading(self, exposure: float) -> BlazePose:
        """The networks that read exposures of so many s."""
        if self._careful is None or exposure < self.settings.long_exposure:
            return self.networks
        return self._careful()

    def _look(self, looks: Sequence[BlazePose], image: np.ndarray, plate: Plate | None,
              where: Detection) -> Landmarks | None:
        """Landmarks at `where`, if they are a person's and still this person's; remembers them. looks: the networks
        that look in turn, each where the one before found the person."""
        s = self.settings
        seen = where
        for i, networks in enumerate(looks):
            region, mask = Region.around(seen.hip, seen.scale), s.mask and i == len(looks) - 1
            landmarks, seen = networks.landmarks(image, region, plate, mask)
            if landmarks.score < s.presence_score or not self._same(where, seen):
                return None
        self._frames = self._frames + 1 if self._tracked else 1
        landmarks = self._reconsidered(landmarks, networks, image, plate, region)
        self._velocity = seen.hip - self._last.hip if self._tracked and self._last is not None else np.zeros(2)
        self._sized = min(self._sized + 1, _SIZE_FRAMES) if self._tracked or self._waiting else 1
        self._size += (seen.radius - self._size) / self._sized
        self._last, self._tracked, self._lost = seen, True, 0
        self._seen = landmarks
        return landmarks

    def _reconsidered(self, landmarks: Landmarks, networks: BlazePose, image: np.ndarray, plate: Plate | None,
                      region: Region) -> Landmarks:
        """What is made of the landmarks that networks saw in a region: the first frames of a track are looked at in a
        mirror as well. The careful network takes the front for the back now and then, for several frames. So a body
        that it begins with, or sees turned round, the quick one looks at too. Where the two differ, or a track begins,
        both look in a mirror as well, and most of the four views decide."""
        # Views with masks that nobody wants: a network without one is another to load (heavy: 0.1 GB).
        mask, careful, mirror = self.settings.mask, networks is not self.networks, replace(region, mirrored=True)
        views = [landmarks]
        begins = self._frames <= self.settings.mirrored
        turns = careful and self._seen is not None and turned(landmarks, self._seen)
        if careful and (begins or turns):
            views.append(self.networks.landmarks(image, region, plate, mask)[0])
        if begins or len(views) > 1 and turned(*views):
            views.append(networks.landmarks(image, mirror, plate, mask)[0])
            if careful:
                views.append(self.networks.landmarks(image, mirror, plate, mask)[0])
        if len(views) == 1:
            return landmarks
        return outvoted(views, self._seen) if careful else consensus(views, landmarks)

    def _predicted(self) -> Detection:
        last = self._last
        assert last is not None  # a tracked person has a last place
        step = _LEAD * self._velocity
        return Detection(last.hip + step, last.scale + step, last.score)

    def _same(self, a: Detection, b: Detection) -> bool:
        s = self.settings
        growth = max(a.radius, b.radius) / max(min(a.radius, b.radius), 1e-6)
        jump = np.hypot(*(a.hip - b.hip)) / max(a.radius, 1e-6)
        return bool(growth < s.largest_growth and jump < s.largest_jump)

    # -- when they are lost --------------------------------------------------------------------------------------

    def _candidates(self, image: np.ndarray, plate: Plate | None) -> Iterator[Detection]:
        """Where to look for the person, best guess first."""
        score = self.settings.detection_score
        found = self._ranked(self.networks.detect(image, score))
        for x, y, side in [] if found else self._views(image):
            part = self.networks.detect(image[y:y + side, x:x + side], score)
            found += self._ranked([Detection(d.hip + (x, y), d.scale + (x, y), d.score) for d in part])
        yield from found
        if self._waiting:
            if plate is not None:
                yield from self._ranked(moved(image, plate, self._size))[:2]
            yield self._last

    def _views(self, image: np.ndarray) -> list[tuple[int, int, int]]:
        """Parts of the frame (x, y, side) to enlarge for the detector."""
        s, (height, width) = self.settings, image.shape[:2]
        if self._last is not None or s.select == "target":
            place = self._last.hip if self._last is not None else np.array([s.target_x, s.target_y])
            sides = (min(width, height) * 3 // 4, min(width, height) // 2)
            return [tuple(int(np.clip(p - side / 2, 0, n - side)) for p, n in zip(place, (width, height), strict=True))
                    + (side,) for side in sides]
        self._tile += 1
        views = tiles(width, height)
        return [views[(self._tile - 1) % len(views)]]

    @property
    def _waiting(self) -> bool:
        """The person followed may still come back: nobody else is taken."""
        return self._last is not None and self._lost < self.settings.patience

    def _ranked(self, people: list[Detection]) -> list[Detection]:
        """Candidates in order of preference, without those who cannot be the person we wait for."""
        s = self.settings
        if self._waiting:
            reach = min(s.largest_jump * (1 + self._lost), _FARTHEST) * max(self._size, self._last.radius)
            return [d for d in self._nearest(people, self._last.hip) if np.hypot(*(d.hip - self._last.hip)) < reach]
        if s.select == "target" and self._last is None:
            target = np.array([s.target_x, s.target_y])
            return [d for d in self._nearest(people, target) if np.hypot(*(d.hip - target)) < _AT_TARGET * d.radius]
        if s.select != "largest" and self._last is not None:
            return self._nearest(people, self._last.hip)
        return sorted(people, key=lambda d: -d.radius)

    @staticmethod
    def _nearest(people: list[Detection], to: np.ndarray) -> list[Detection]:
        return sorted(people, key=lambda d: float(np.hypot(*(d.hip - to))))


def moved(image: np.ndarray, plate: Plate, radius: float) -> list[Detection]:
    """Regions that differ from the clean plate and could be a body of this radius, as upright and inverted people."""
    import cv2

    from blur_motion_ros import light

    scale = max(image.shape[:2]) / _BLOBS
    size = (max(1, round(image.shape[1] / scale)), max(1, round(image.shape[0] / scale)))
    small = light.to_linear(cv2.resize(image, size, interpolation=cv2.INTER_AREA))
    clean = cv2.resize(plate.image, size, interpolation=cv2.INTER_AREA)
    known = cv2.resize(plate.sigma, size, interpolation=cv2.INTER_AREA) < UNKNOWN_BACKGROUND
    different = (known & (np.abs(small - clean).max(2) > 0.03 + 0.1 * clean.max(2))).astype(np.uint8)
    count, labels, stats, centres = cv2.connectedComponentsWithStats(different)
    out = []
    for i in range(1, count):
        if stats[i, cv2.CC_STAT_AREA] * scale**2 < 0.1 * radius**2:
            continue
        rows, columns = np.nonzero(labels == i)
        axis = np.linalg.svd(np.cov(np.stack([columns, rows])))[0][:, 0]  # the longest direction of the blob
        up = radius * (axis if axis[1] < 0 else -axis)
        hip = (centres[i] + 0.5) * scale - 0.5
        out += [Detection(hip, hip + up, 0.0), Detection(hip, hip - up, 0.0)]
    return out


def tiles(width: int, height: int) -> list[tuple[int, int, int]]:
    """Overlapping squares (x, y, side) that show parts of a frame at 1.5 to 3 times the scale of the whole."""
    out = []
    for side in (min(width, height) * 3 // 4, min(width, height) // 2):
        out += [(x, y, side) for y in _starts(height, side) for x in _starts(width, side)]
    return out


def _starts(length: int, side: int) -> list[int]:
    n = max(1, int(np.ceil((length - side) / (side * (1 - _TILE_OVERLAP)))) + 1)
    return [int(round(v)) for v in np.linspace(0, length - side, n)]
