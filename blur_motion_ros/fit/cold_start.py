"""Windows without history, with the short-motion prior in its place.

A single exposure hardly tells how fast, and not at all in which direction of time; two exposures tell both, but badly
what the camera does not see. The prior says what motion a body in this pose most likely makes. The fit's motion prior
is centred there instead of at rest. A window of one exposure also begins there (rest is a saddle that it would never
leave), as far as the pose is sure enough, and takes the odds of each limb's direction from there. A window of several
begins at its measurements joined up: to correct those first was tried and changes nothing
(docs/experiments/learning.md).
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from blur_motion_ros.fit import solver
from blur_motion_ros.fit.direction import STATES
from blur_motion_ros.fit.gaussian_terms import Term
from blur_motion_ros.fit.layout import FREE_ROWS, WindowLayout, free_indices
from blur_motion_ros.fit.short_motion import Expectation, ShortMotionPrior
from blur_motion_ros.fit.starts import Start
from blur_motion_ros.fit.window import BlurFit
from blur_motion_ros.motion.pose import body_state
from blur_motion_ros.types import MotionEstimate, Status


@dataclass(frozen=True)
class Shifted:
    """A term of the motion's difference from `mean` [21, K, 3]."""

    term: Term
    mean: np.ndarray

    def cost(self, free: np.ndarray) -> float:
        return self.term.cost(free - self.mean)

    def normal(self, free: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return self.term.normal(free - self.mean)


class ColdStartFit(BlurFit):
    """`BlurFit` whose windows without history expect the motion that `short_motion` expects."""

    short_motion: ShortMotionPrior
    _expectation: Expectation | None = None

    @classmethod
    def like(cls, fit: BlurFit, short_motion: ShortMotionPrior) -> ColdStartFit:
        """A fresh fit with the settings, body and priors of another."""
        new = cls(fit.settings, fit.body, fit.betas, fit._prior, fit._statistics)
        new.short_motion = short_motion
        return new

    def _try(self, observations, layout: WindowLayout, start: Start):
        self._expectation = None
        if not start.carried and layout.degree >= 2:
            self._expectation = self.short_motion.expect(self._estimate(start, layout))
            if len(observations) == 1:
                turning = np.diag(observations[0].measurement.covariance)[3:]
                self._expectation = self._expectation.trusted(float(turning.mean()))
                start = replace(start, free=start.free + self._mean(layout))
        return super()._try(observations, layout, start)

    def _mean(self, layout: WindowLayout) -> np.ndarray:
        """The expected motion as coefficients [21, K, 3]; nothing in order 0."""
        mean = np.zeros((len(FREE_ROWS), layout.degree + 1, 3))
        mean[:, 1:3] = self._expectation.motion[FREE_ROWS]
        return mean

    def _priors(self, layout: WindowLayout, start: Start) -> tuple[Term, ...]:
        first, *others = super()._priors(layout, start)
        if self._expectation is None:
            return (first, *others)
        return (Shifted(first, self._mean(layout)), *others)

    def _reversal_costs(self, problem: solver.Problem, free: np.ndarray) -> np.ndarray:
        """What the image says of reversed limbs, and what the pose makes one expect."""
        costs = super()._reversal_costs(problem, free)
        if self._expectation is None:
            return costs
        trunk, *limbs = self._expectation.direction_log_odds(solver.widen(free)[:, 1])
        return costs + STATES @ np.array([trunk, 0.0, *limbs])  # the head goes with the trunk's odds

    def _estimate(self, start: Start, layout: WindowLayout) -> MotionEstimate:
        """A start as an estimate, as the networks take it."""
        state = body_state(start.reference, self.betas, start.reference_transl)
        return MotionEstimate(layout.start, layout.end, layout.exposures, state, solver.widen(start.free),
                              free_indices(layout.degree), None, Status.OK, 0.0, 0.0)
