"""Keeps to one person from frame to frame: whom to choose, where to look next, when to believe the landmarks."""

from __future__ import annotations

import numpy as np

from blur_motion_ros.initialiser.blazepose import BlazePose, Detection, Region
from blur_motion_ros.initialiser.settings import PersonSettings
from blur_motion_ros.types import Landmarks, Plate

_TILE_OVERLAP = 0.5


class PersonTracker:
    """Follows one person. While they are tracked only the landmark network runs, on a region predicted from the two
    frames before; when they are lost, the detector searches the frame and then, tile by tile, its enlarged parts."""

    def __init__(self, networks: BlazePose, settings: PersonSettings | None = None):
        self.networks = networks
        self.settings = settings or PersonSettings()
        self.reset()

    def reset(self) -> None:
        """Forget whom we followed."""
        self._last: Detection | None = None
        self._velocity = np.zeros(2)
        self._tracked = False
        self._lost = 0
        self._tile = 0

    def track(self, image: np.ndarray, plate: Plate | None = None) -> Landmarks | None:
        """Landmarks of the person followed in the next frame, image [H, W, 3] uint8 RGB; None while nobody is found.

        plate: clean background under the light of this frame, or None."""
        if self._tracked and self._last is not None:
            found = self._look(image, plate, self._predicted())
            if found is not None:
                return found
        self._tracked = False
        for detection in self._ranked(self._search(image)):
            found = self._look(image, plate, detection)
            if found is not None:
                return found
        self._miss()
        return None

    def _look(self, image: np.ndarray, plate: Plate | None, where: Detection) -> Landmarks | None:
        """Landmarks at `where`, if they are a person's and still this person's; remembers them."""
        s = self.settings
        seen = where
        for i in range(s.passes):
            region, mask = Region.around(seen.hip, seen.scale), s.mask and i == s.passes - 1
            landmarks, seen = self.networks.landmarks(image, region, plate, mask)
            if landmarks.score < s.presence_score or not self._same(where, seen):
                return None
        if self._tracked and self._last is not None:
            self._velocity = seen.hip - self._last.hip
        else:
            self._velocity = np.zeros(2)
        self._last, self._tracked, self._lost = seen, True, 0
        return landmarks

    def _predicted(self) -> Detection:
        """Where the person should be now: half of the last step further (the full step overshoots on a bad frame)."""
        step = 0.5 * self._velocity
        return Detection(self._last.hip + step, self._last.scale + step, self._last.score)

    def _same(self, a: Detection, b: Detection) -> bool:
        s = self.settings
        growth = max(a.radius, b.radius) / max(min(a.radius, b.radius), 1e-6)
        jump = np.hypot(*(a.hip - b.hip)) / max(a.radius, 1e-6)
        return bool(growth < s.largest_growth and jump < s.largest_jump)

    def _search(self, image: np.ndarray) -> list[Detection]:
        """People in the whole frame, else in one enlarged tile of it (the next one at the next call)."""
        score = self.settings.detection_score
        found = self.networks.detect(image, score)
        if self._ranked(found):
            return found
        x, y, side = tiles(image.shape[1], image.shape[0])[self._tile % len(tiles(image.shape[1], image.shape[0]))]
        self._tile += 1
        offset = np.array([x, y], float)
        part = self.networks.detect(image[y:y + side, x:x + side], score)
        return found + [Detection(d.hip + offset, d.scale + offset, d.score) for d in part]

    def _ranked(self, people: list[Detection]) -> list[Detection]:
        """Candidates in order of preference; nobody else while the person followed may still come back."""
        s = self.settings
        if self._last is not None and self._lost < s.patience:
            reach = s.largest_jump * self._last.radius * (1 + self._lost)
            near = [d for d in people if np.hypot(*(d.hip - self._last.hip)) < reach]
            return sorted(near, key=lambda d: float(np.hypot(*(d.hip - self._last.hip))))
        if s.select == "target":
            return sorted(people, key=lambda d: float(np.hypot(*(d.hip - [s.target_x, s.target_y]))))
        if s.select == "nearest" and self._last is not None:
            return sorted(people, key=lambda d: float(np.hypot(*(d.hip - self._last.hip))))
        return sorted(people, key=lambda d: -d.radius)

    def _miss(self) -> None:
        self._lost += 1


def tiles(width: int, height: int) -> list[tuple[int, int, int]]:
    """Overlapping squares (x, y, side) that show parts of a frame at 1.5 to 3 times the scale of the whole."""
    out = []
    for side in (min(width, height) * 3 // 4, min(width, height) // 2):
        out += [(x, y, side) for y in _starts(height, side) for x in _starts(width, side)]
    return out


def _starts(length: int, side: int) -> list[int]:
    n = max(1, int(np.ceil((length - side) / (side * (1 - _TILE_OVERLAP)))) + 1)
    return [int(round(v)) for v in np.linspace(0, length - side, n)]
