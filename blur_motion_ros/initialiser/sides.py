"""Undoes left/right confusions of the landmark network from the motion over frames.

In side views and in blur the network swaps a pair of limbs, or takes the whole body for turned round, for a few frames.
The legs, the arms and the trunk may each be as seen or swapped: eight readings of every frame. Continuity across the
image links the readings of consecutive frames, limbs should be near their own side of the trunk, and every swapped
frame costs a little, so that the network's lasting opinion wins. This is a Viterbi search over the eight, of which only
the present best reading is used. (The three parts each for itself was worse: arms up, the trunk alone could flip, and
the body's arms were crossed behind it.)

Depth takes no part and is not swapped: the network derives it from the trunk (the far side's limbs are far).
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numba import njit

from blur_motion_ros.body.joints import BLAZEPOSE33_MIRROR
from blur_motion_ros.types import Landmarks

LEGS = np.arange(25, 33)  # knees to toes; the hips stay with the trunk
ARMS = np.arange(13, 23)
TRUNK = np.array([11, 12, 23, 24])  # shoulders and hips; the face goes with them
_POINTS = np.r_[LEGS, ARMS, TRUNK]
_PART = np.repeat(np.arange(3), [len(LEGS), len(ARMS), len(TRUNK)])
_LASTING = np.array([0.7, 0.7, 0.0])  # share of the velocity of legs, arms and trunk that is expected to last
_READ = np.array([[bits >> i & 1 for i in range(3)] for bits in range(8)], bool)  # legs, arms, trunk swapped
_SWAPPED = _READ[:, _PART]
_HUNG, _HANGS = (np.array([int(np.flatnonzero(_POINTS == p)[0]) for p in row])  # elbow on shoulder, knee on hip
                 for row in ((13, 14, 25, 26), (11, 12, 23, 24)))
READINGS = ((False, False), (True, False), (False, True), (True, True))  # legs, arms taken for the other side's
_MIRROR = np.array(BLAZEPOSE33_MIRROR)
_SIGMA, _PERIOD = 0.12, 1 / 30  # m, of a landmark's step beyond constant velocity; s, in that time
_CAP = 9.0  # largest squared step counted, in sigmas: one wild point must not decide
_REACH = 0.2  # m: elbows and knees are farther from the other side's shoulder and hip than from their own
# Of a reading with none to three parts swapped, per frame, in mean squared sigmas: often all go together, as the whole
# body is taken for turned round, so that each further part costs half. In the first frame three times as much.
_PRICES = np.array([0.0, 1.0, 1.5, 2.0])[_READ.sum(1)]
_FIRST = 3.0
_SURE = 3.0  # times these prices where the network that read a frame seldom confuses sides
_MEMORY = 30.0  # largest advantage one reading can have built up


class SideKeeper:
    """State over the frames of one person."""

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """Start again with the network's own reading."""
        self._cost: np.ndarray | None = None  # [8], with position and velocity [8, n, 2] of each reading's limbs
        self._position, self._velocity = np.zeros((2, len(_READ), len(_POINTS), 2))
        self._time = 0.0

    def correct(self, landmarks: Landmarks, time: float) -> Landmarks:
        """The landmarks of the next frame, seen at `time` (s), with swapped legs, arms or trunk put right."""
        seen, step, self._time = np.ascontiguousarray(landmarks.world[:, :2]), time - self._time, time
        prices = _PRICES * (_SURE if landmarks.sides_sure else 1.0)
        return swapped(landmarks, *_READ[self._follow(seen, step, prices)].tolist())

    def _follow(self, seen: np.ndarray, step: float, prices: np.ndarray) -> int:
        """The cheapest reading of landmarks [33, 2] m, `step` s after those seen before. prices: [8], of each."""
        read = np.where(_SWAPPED[..., None], seen[_MIRROR[_POINTS]], seen[_POINTS])
        price = np.array([_apart(r) for r in read])
        if self._cost is None:
            self._cost, self._position, self._velocity = price + _FIRST * prices, read, np.zeros_like(read)
            return int(self._cost.argmin())
        price += prices
        sigma = _SIGMA * max(step / _PERIOD, 1.0)  # in a longer time a body may have turned farther
        cost, self._position, self._velocity = _step(self._cost, self._position, self._velocity, read, price, _PART,
                                                     _LASTING, sigma)
        self._cost = np.minimum(cost - cost.min(), _MEMORY)
        return int(cost.argmin())


def _apart(read: np.ndarray) -> float:
    """How far limbs are from the side of the trunk that they are read on: mean square, in sigmas."""
    away = read[_HUNG] - read[_HANGS]
    return float((away**2).sum(-1).mean() / _REACH**2)


@njit(cache=True)
def _step(cost, position, velocity, read, price, part, lasting, sigma):
    """One step of the Viterbi search. cost [8], position, velocity [8, n, 2] of the readings so far; read [8, n, 2]:
    this frame read in each way; price [8] of that; part [n]: which of the parts a point belongs to."""
    count, points, parts = len(cost), len(part), len(lasting)
    size = np.zeros(parts)
    for i in range(points):
        size[part[i]] += 1
    out_cost, out_position, out_velocity = np.full(count, np.inf), np.empty_like(read), np.empty_like(read)
    now, speed = np.empty((points, 2)), np.empty((points, 2))
    for new in range(count):
        for old in range(count):
            total = cost[old] + price[new]
            for i in range(points):
                x, y = position[old, i, 0] + velocity[old, i, 0], position[old, i, 1] + velocity[old, i, 1]
                dx, dy = read[new, i, 0] - x, read[new, i, 1] - y
                squared = (dx * dx + dy * dy) / sigma**2
                share = 1 / (1 + squared / _CAP) ** 2
                now[i, 0], now[i, 1] = x + share * dx, y + share * dy
                for a in range(2):
                    speed[i, a] = lasting[part[i]] * (now[i, a] - position[old, i, a])
                total += min(squared, _CAP) / size[part[i]]
            if total < out_cost[new]:
                out_cost[new] = total
                out_position[new] = now
                out_velocity[new] = speed
    return out_cost, out_position, out_velocity


def turned(a: Landmarks, b: Landmarks) -> bool:
    """Whether the trunk faces the other way in one than in the other, as far as the image tells."""
    across = [np.diff(x.image[TRUNK].reshape(2, 2, 2), axis=1) for x in (a, b)]
    return bool((across[0] * across[1]).sum() < 0)


def swapped(landmarks: Landmarks, legs: bool, arms: bool, trunk: bool = False) -> Landmarks:
    """The landmarks with left and right legs, arms, or trunk and face exchanged (depth stays where it was told)."""
    order = np.arange(33)
    for swap, limb in ((legs, LEGS), (arms, ARMS), (trunk, np.r_[:11, TRUNK])):
        if swap:
            order[limb] = _MIRROR[limb]
    world = landmarks.world[order]
    world[:, 2] = landmarks.world[:, 2]
    return replace(landmarks, image=landmarks.image[order], world=world, visibility=landmarks.visibility[order])
