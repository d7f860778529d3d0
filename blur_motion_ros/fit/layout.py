"""Which parameters a window has, and the time of every sub-frame.

The unknowns are `coefficients[free, :, :]`: root translation and the rotations of 20 joints (hands and feet follow
their parents), each a polynomial of `degree` over the window: 21 x (degree + 1) x 3 numbers, flattened in that order
(degree of freedom, Legendre order, axis). All arrays have that shape; where a joint's own degree is less
(`fit.degrees`), its higher coefficients are zero and not among what is solved for.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from blur_motion_ros.motion import polynomials
from blur_motion_ros.types import Exposure

# Rows of `MotionEstimate.coefficients` that are solved for: 0 = translation, 1 + j = SMPL joint j.
# Ordered trunk, head, left arm, right arm, left leg, right leg, so that every limb is one block of columns: a pixel
# sees the trunk and one limb, seldom more, and the normal equations are built from those blocks only.
LIMBS = ((0, 3, 6, 9), (12, 15), (13, 16, 18, 20), (14, 17, 19, 21), (1, 4, 7), (2, 5, 8))
FREE_JOINTS = np.array([j for limb in LIMBS for j in limb])
FREE_ROWS = np.concatenate([[0], 1 + FREE_JOINTS])
FREE_COUNT = len(FREE_ROWS)
SLOT_OF_JOINT = np.full(24, -1, np.int32)  # joint -> index among the free rows (1..20)
SLOT_OF_JOINT[FREE_JOINTS] = 1 + np.arange(len(FREE_JOINTS))
_ends = np.cumsum([1 + len(LIMBS[0])] + [len(limb) for limb in LIMBS[1:]])
LIMB_SLOTS = tuple(zip(np.concatenate([[0], _ends[:-1]]).tolist(), _ends.tolist(), strict=True))  # translation is trunk
# Finer than limbs: legs hang on the pelvis alone, arms and head on the spine too. Runs of slots, in slot order.
PARTS = ((0, 2), (2, LIMB_SLOTS[0][1])) + LIMB_SLOTS[1:]
PART_OF_SLOT = np.concatenate([np.full(b - a, i, np.int32) for i, (a, b) in enumerate(PARTS)])
LIMB_OF_SLOT = np.concatenate([np.full(b - a, i, np.int32) for i, (a, b) in enumerate(LIMB_SLOTS)])


@dataclass(frozen=True)
class WindowLayout:
    """Times of a window: `exposures` oldest first, `subframes` instants inside each, sampled at cell centres.

    times: [F * N] s.  basis: [F * N, K].  start / end: the interval of the polynomials.  active [21, K] bool: the
    orders that are solved for; the others are zero.
    """

    exposures: tuple[Exposure, ...]
    subframes: int
    degree: int
    start: float
    end: float
    times: np.ndarray
    basis: np.ndarray
    active: np.ndarray

    @staticmethod
    def of(exposures: tuple[Exposure, ...], subframes: int, degree: int) -> WindowLayout:
        start, end = exposures[0].open, exposures[-1].close
        cells = (np.arange(subframes) + 0.5) / subframes
        times = np.concatenate([e.open + cells * e.duration for e in exposures])
        return WindowLayout(exposures, subframes, degree, start, end, times,
                            polynomials.basis(times, start, end, degree), np.ones((FREE_COUNT, degree + 1), bool))

    def with_degrees(self, degrees: np.ndarray) -> WindowLayout:
        """The same window with a degree [21] for each free slot, at most `degree`."""
        return replace(self, active=np.arange(self.degree + 1) <= np.asarray(degrees)[:, None])

    @property
    def size(self) -> int:
        return FREE_COUNT * (self.degree + 1) * 3

    @cached_property
    def held(self) -> np.ndarray:
        """Flat indices of the coefficients that are not solved for."""
        return np.flatnonzero(~np.repeat(self.active.reshape(-1), 3))

    @cached_property
    def solved(self) -> np.ndarray:
        """Flat indices of those that are."""
        return np.flatnonzero(np.repeat(self.active.reshape(-1), 3))

    def values_at(self, time: float) -> np.ndarray:
        """[K] basis at one instant."""
        return polynomials.basis(np.array([time]), self.start, self.end, self.degree)[0]

    def rates_at(self, time: float) -> np.ndarray:
        """[K] time derivative of the basis at one instant, 1/s."""
        return polynomials.basis_rate(np.array([time]), self.start, self.end, self.degree)[0]


def free_indices(degree: int) -> np.ndarray:
    """Flat indices of the unknowns inside `coefficients` [25, K, 3]."""
    k = degree + 1
    return (FREE_ROWS[:, None] * (k * 3) + np.arange(k * 3)[None]).reshape(-1)
