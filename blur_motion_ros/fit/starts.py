"""Where a window's solve begins: the last motion going on, the measurements joined up, or some limbs of them."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np

from blur_motion_ros.fit.layout import FREE_JOINTS, FREE_ROWS, LIMB_OF_SLOT, LIMBS, WindowLayout
from blur_motion_ros.motion import polynomials, rotations
from blur_motion_ros.motion.pose import local_rotations
from blur_motion_ros.types import PoseMeasurement

_FASTEST_TURN = 20.0  # rad/s of the pelvis: three turns a second, as the fastest of skaters and dancers


@dataclass(frozen=True)
class Start:
    """Where a window's solve begins: reference rotations [24, 3, 3], translation [3], coefficients [21, K, 3].

    carried: it goes on from the last window, whose motion is a prior; otherwise it begins anew.
    anew [6] bool: limbs (`layout.LIMBS`) that do not go on from there, of a body that does.
    """

    reference: np.ndarray
    reference_transl: np.ndarray
    free: np.ndarray
    carried: bool
    anew: np.ndarray = field(default_factory=lambda: np.zeros(len(LIMBS), bool))

    @property
    def slots_anew(self) -> np.ndarray:
        """[21] bool: the slots of the limbs that begin anew."""
        return self.anew[LIMB_OF_SLOT]


def join(measured: list[PoseMeasurement], layout: WindowLayout) -> Start:
    """From measurements alone: linear between the first and the last, constant if there is one. Where nobody turns as
    fast as they say, one of them sees the person from the wrong side: only the newest that agree are believed."""
    times = np.linspace(layout.start, layout.end, 2 * layout.degree + 3)
    measured = measured[-agreeing(measured):]
    first, last = measured[0], measured[-1]
    r0, r1 = (local_rotations(m.state) for m in (first, last))
    span = last.time - first.time
    share = (times - first.time) / span if span > 0 else np.zeros_like(times)
    rotmats = rotations.slerp(r0[None], r1[None], share[:, None])
    transl = first.state.transl + share[:, None] * (last.state.transl - first.state.transl)
    reference, middle, coefficients = polynomials.fit_motion(rotmats, transl, times, layout.start, layout.end,
                                                             layout.degree)
    return Start(reference, middle, coefficients[FREE_ROWS], False)


def limbs_anew(going_on: Start, measured: Start, anew: np.ndarray) -> Start:
    """The last motion going on, but some limbs [6] bool as they were measured."""
    slots = anew[LIMB_OF_SLOT]
    joints = FREE_JOINTS[slots[1:]]
    reference = going_on.reference.copy()
    reference[joints] = measured.reference[joints]
    free = np.where(slots[:, None, None], measured.free, going_on.free)
    return replace(going_on, reference=reference, free=free, anew=anew)


def agreeing(measured: list[PoseMeasurement]) -> int:
    """How many of the newest measurements, in order of time, a person could turn between."""
    turned = [rotations.exp(np.asarray(m.state.global_orient, float)) for m in measured]
    for count in range(1, len(measured)):
        newer, older = len(measured) - count, len(measured) - count - 1
        turn = np.linalg.norm(rotations.log(turned[older].T @ turned[newer]))
        if turn > _FASTEST_TURN * (measured[newer].time - measured[older].time):
            return count
    return len(measured)
