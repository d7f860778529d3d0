"""Undoes left/right confusions of the landmark network from the motion over frames.

In side views and in blur the network swaps a pair of limbs, or takes the whole body for turned round, for a few frames.
For the legs, the arms and the trunk there are two readings of every frame, as seen or swapped; continuity across the
image links the readings of consecutive frames, and every swapped frame costs a little, so that the network's lasting
opinion wins. This is a Viterbi search over two states, of which only the present best reading is used.

Depth takes no part and is not swapped: the network derives it from the trunk (the far side's limbs are far).
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numba import njit

from blur_motion_ros.body.joints import BLAZEPOSE33_MIRROR
from blur_motion_ros.types import Landmarks

LEGS = np.arange(25, 33)  # knees to toes; the hips stay with the trunk
ARMS = np.arange(13, 23)
TRUNK = np.array([11, 12, 23, 24])  # shoulders and hips; the face goes with them
_PAIRS = {"legs": (LEGS, 0.7), "arms": (ARMS, 0.7), "trunk": (TRUNK, 0.0)}  # share of the velocity expected to last
READINGS = ((False, False), (True, False), (False, True), (True, True))  # legs, arms taken for the other side's
_MIRROR = np.array(BLAZEPOSE33_MIRROR)
_SIGMA = 0.12  # m, of a landmark's step beyond constant velocity
_CAP = 9.0  # largest squared step counted, in sigmas: one wild point must not decide
_PRICE = 1.0  # of a swapped reading, per frame, in mean squared sigmas
_START = 3.0  # of taking the first frame for swapped
_MEMORY = 30.0  # largest advantage one reading can have built up


@dataclass(frozen=True)
class _Reading:
    """cost so far; position [n, 2] m, smoothed against wild points; velocity [n, 2] m per frame."""

    cost: float
    position: np.ndarray
    velocity: np.ndarray

    def next(self, seen: np.ndarray, price: float, lasting: float) -> _Reading:
        """After a frame that reads `seen` [n, 2]. lasting: share of the velocity that goes on."""
        surprise, position, velocity = _follow(self.position, self.velocity, seen, lasting)
        return _Reading(self.cost + price + surprise, position, velocity)


@njit(cache=True)
def _follow(position, velocity, seen, lasting):
    """Mean squared step of points [n, 2] beyond what was expected (sigmas); new position and velocity [n, 2]."""
    n = len(seen)
    now, speed, total = np.empty((n, 2)), np.empty((n, 2)), 0.0
    for i in range(n):
        x, y = position[i, 0] + velocity[i, 0], position[i, 1] + velocity[i, 1]
        dx, dy = seen[i, 0] - x, seen[i, 1] - y
        squared = (dx * dx + dy * dy) / _SIGMA**2
        share = 1 / (1 + squared / _CAP) ** 2
        now[i, 0], now[i, 1] = x + share * dx, y + share * dy
        for a in range(2):
            speed[i, a] = lasting * (now[i, a] - position[i, a])
        total += min(squared, _CAP)
    return total / n, now, speed


class SideKeeper:
    """State over the frames of one person."""

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """Start again with the network's own reading."""
        self._pairs: dict[str, list[_Reading]] = {}

    def correct(self, landmarks: Landmarks) -> Landmarks:
        """The landmarks of the next frame with swapped legs, arms or trunk put right."""
        seen = np.ascontiguousarray(landmarks.world[:, :2])
        return swapped(landmarks, *(self._swapped(name, seen[_PAIRS[name][0]], seen[_MIRROR[_PAIRS[name][0]]])
                                    for name in _PAIRS))

    def _swapped(self, name: str, seen: np.ndarray, mirrored: np.ndarray) -> bool:
        past, lasting = self._pairs.get(name), _PAIRS[name][1]
        if past is None:
            still = np.zeros_like(seen)
            self._pairs[name] = [_Reading(0.0, seen, still), _Reading(_START, mirrored, still)]
            return False
        now = [min((r.next(reading, price, lasting) for r in past), key=lambda r: r.cost)
               for reading, price in ((seen, 0.0), (mirrored, _PRICE))]
        least = min(r.cost for r in now)
        self._pairs[name] = [replace(r, cost=min(r.cost - least, _MEMORY)) for r in now]
        return now[1].cost < now[0].cost


def swapped(landmarks: Landmarks, legs: bool, arms: bool, trunk: bool = False) -> Landmarks:
    """The landmarks with left and right legs, arms, or trunk and face exchanged (depth stays where it was told)."""
    order = np.arange(33)
    for swap, limb in ((legs, LEGS), (arms, ARMS), (trunk, np.r_[:11, TRUNK])):
        if swap:
            order[limb] = _MIRROR[limb]
    world = landmarks.world[order]
    world[:, 2] = landmarks.world[:, 2]
    return replace(landmarks, image=landmarks.image[order], world=world, visibility=landmarks.visibility[order])
