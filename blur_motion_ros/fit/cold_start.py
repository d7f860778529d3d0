"""Fitting frames that stand alone, with the short-motion prior in place of a history.

A single exposure hardly tells how fast, and not at all in which direction of time. The corrector says what motion a
body in this pose most likely makes; the fit begins there, and its motion prior is centred there instead of at rest.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from blur_motion_ros.fit import solver
from blur_motion_ros.fit.gaussian_terms import Term
from blur_motion_ros.fit.layout import FREE_ROWS, WindowLayout, free_indices
from blur_motion_ros.fit.short_motion import ShortMotionPrior
from blur_motion_ros.fit.window import BlurFit, Start
from blur_motion_ros.motion import rotations
from blur_motion_ros.types import BodyState, MotionEstimate, Status


@dataclass(frozen=True)
class Shifted:
    """A term of the motion's difference from `mean` [21, K, 3]."""

    term: Term
    mean: np.ndarray

    def cost(self, free: np.ndarray) -> float:
        return self.term.cost(free - self.mean)

    def normal(self, free: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return self.term.normal(free - self.mean)


class SingleFrameFit(BlurFit):
    """`BlurFit` whose windows without history expect the motion that `short_motion` expects."""

    short_motion: ShortMotionPrior

    @classmethod
    def like(cls, fit: BlurFit, short_motion: ShortMotionPrior) -> SingleFrameFit:
        """A fresh fit with the settings, body and priors of another."""
        new = cls(fit.settings, fit.body, fit.betas, fit._prior, fit._statistics)
        new.short_motion = short_motion
        return new

    def _try(self, observations, layout: WindowLayout, start: Start):
        if len(observations) == 1 and not start.carried:
            start = replace(start, free=self._expected(start, layout))
        return super()._try(observations, layout, start)

    def _priors(self, layout: WindowLayout, start: Start) -> tuple[Term, ...]:
        first, *others = super()._priors(layout, start)
        if start.carried or len(layout.exposures) > 1:
            return (first, *others)
        mean = start.free.copy()
        mean[:, 0] = 0.0
        return (Shifted(first, mean), *others)

    def _expected(self, start: Start, layout: WindowLayout) -> np.ndarray:
        """The start's coefficients [21, K, 3] with the corrector's c_1 and c_2."""
        state = BodyState(rotations.log(start.reference[0]), rotations.log(start.reference[1:]), self.betas,
                          start.reference_transl)
        estimate = MotionEstimate(layout.start, layout.end, layout.exposures, state, solver.widen(start.free),
                                  free_indices(layout.degree), None, Status.OK, 0.0, 0.0)
        free = start.free.copy()
        free[:, 1:3] = self.short_motion.correct(estimate).coefficients[FREE_ROWS, 1:3]
        return free
