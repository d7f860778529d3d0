"""Undoes left/right confusions of the landmark network from the motion over frames.

In side views and in blur the network swaps a pair of limbs for a few frames. For the legs and for the arms there are
two readings of every frame, as seen or swapped; continuity of the 3D landmarks links the readings of consecutive
frames, and every swapped frame costs a little, so that the network's lasting opinion wins. This is a Viterbi search
over two states, of which only the present best reading is used.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from blur_motion_ros.body.joints import BLAZEPOSE33_MIRROR
from blur_motion_ros.types import Landmarks

LEGS = np.arange(25, 33)  # knees to toes; the hips stay with the trunk
ARMS = np.arange(13, 23)
_SIGMA = 0.12  # m, of a landmark's step beyond constant velocity
_CAP = 9.0  # largest squared step counted, in sigmas: one wild point must not decide
_PRICE = 1.0  # of a swapped reading, per frame, in mean squared sigmas
_MEMORY = 30.0  # largest advantage one reading can have built up


@dataclass(frozen=True)
class _Reading:
    cost: float
    position: np.ndarray
    velocity: np.ndarray


class SideKeeper:
    """State over the frames of one person."""

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """Start again with the network's own reading."""
        self._pairs: dict[str, list[_Reading]] = {}

    def correct(self, landmarks: Landmarks) -> Landmarks:
        """The landmarks of the next frame with swapped legs or arms put right."""
        order = np.arange(33)
        for name, limb in (("legs", LEGS), ("arms", ARMS)):
            if self._swapped(name, landmarks.world[limb], landmarks.world[np.array(BLAZEPOSE33_MIRROR)[limb]]):
                order[limb] = np.array(BLAZEPOSE33_MIRROR)[limb]
        return replace(landmarks, image=landmarks.image[order], world=landmarks.world[order],
                       visibility=landmarks.visibility[order])

    def _swapped(self, name: str, seen: np.ndarray, mirrored: np.ndarray) -> bool:
        past = self._pairs.get(name)
        if past is None:
            self._pairs[name] = [_Reading(0.0, seen, np.zeros_like(seen)), _Reading(_MEMORY, mirrored,
                                                                                    np.zeros_like(seen))]
            return False
        now = [_best(past, seen, 0.0), _best(past, mirrored, _PRICE)]
        least = min(r.cost for r in now)
        self._pairs[name] = [replace(r, cost=min(r.cost - least, _MEMORY)) for r in now]
        return now[1].cost < now[0].cost


def _best(past: list[_Reading], position: np.ndarray, price: float) -> _Reading:
    """This reading, continued from the past reading that explains it at the least cost."""
    costs = [r.cost + _mismatch(position - r.position - 0.5 * r.velocity) for r in past]
    i = int(np.argmin(costs))
    return _Reading(costs[i] + price, position, position - past[i].position)


def _mismatch(away: np.ndarray) -> float:
    return float(np.minimum((away**2).sum(1) / _SIGMA**2, _CAP).mean())
