"""Directions of time while a stream is fitted: single exposures get theirs from the sequence, windows of several are
checked for a motion that was caught running the wrong way. The decision itself is `fit.direction`."""

from __future__ import annotations

from collections import deque
from dataclasses import replace

import numpy as np

from blur_motion_ros.fit import direction, solver
from blur_motion_ros.fit.direction import LIMB_COUNT, STATES, ExposureMotion
from blur_motion_ros.fit.layout import FREE_ROWS, LIMB_SLOTS, WindowLayout
from blur_motion_ros.fit.prior_files import load_motion_statistics
from blur_motion_ros.fit.priors import MotionStatistics
from blur_motion_ros.fit.settings import FitSettings
from blur_motion_ros.motion import polynomials
from blur_motion_ros.types import MotionEstimate, Status


class DirectionTracker:
    """Decides the direction of exposures that were fitted one by one, from those that came before.

    record: a list that gets every exposure's undecided estimate and motion, for a decision in hindsight; or None.
    """

    def __init__(self, settings: FitSettings, statistics: MotionStatistics):
        self._settings, self._statistics = settings, statistics
        self.record: list[tuple[MotionEstimate, ExposureMotion]] | None = None
        self.reset()

    def reset(self) -> None:
        """Forget the exposures: the next one stands alone."""
        self._motions: deque[ExposureMotion] = deque(maxlen=self._settings.direction_window)
        self._gaps: deque[np.ndarray] = deque(maxlen=self._settings.direction_window - 1)

    def add(self, estimate: MotionEstimate, image: np.ndarray) -> MotionEstimate:
        """The newest exposure's estimate (window: that exposure alone) with its direction, or what is open of it.

        image: [64], see `image_costs`. The covariance of `estimate` is the fit's own; what is undecided is added.
        """
        motion = ExposureMotion.of(estimate, image)
        if self.record is not None:
            self.record.append((estimate, motion))
        if self._motions:
            self._gaps.append(direction.gap_costs(self._motions[-1], motion, self._statistics,
                                                  self._settings.motion_widening))
        self._motions.append(motion)
        found = direction.decide(self._motions, self._statistics, gaps=list(self._gaps))
        return directed(estimate, found, -1, self._settings.direction_log_odds, len(self._motions) == 1)


def directed(estimate: MotionEstimate, found: direction.Directions, index: int, least: float, alone: bool
             ) -> MotionEstimate:
    """Run the limbs the way that was decided; status and covariance say how sure that is.

    least: log-odds from which a direction counts as decided: of the share of the motion that runs the right way
    against the share that may not.  alone: nothing came before or after.
    """
    estimate = direction.reverse_limbs(estimate, found.reverse[index])
    free = estimate.coefficients[FREE_ROWS]
    undecided = alone or direction.doubt(free, found.wrong[index]) > 1 / (1 + np.exp(least))
    status = estimate.status & ~Status.DIRECTION_UNDECIDED
    if undecided:
        status |= Status.DIRECTION_UNDECIDED
    covariance = estimate.covariance + direction.reversal_covariance(free, found.wrong[index])
    return replace(estimate, covariance=covariance, status=status)


def image_costs(problem: solver.Problem, free: np.ndarray) -> np.ndarray:
    """[64] negative log-likelihood of the image for every combination of reversed limbs (`direction.STATES`).

    A limb that turns on a resting trunk looks the same both ways; on a moving one it does not. What counts is the way
    it runs against the trunk's: both reversed is neither reversed. Each limb is rendered once, reversed alone, and the
    changes are summed up as if limbs did not cover each other. Window: one exposure. Draws into its workspace.
    """
    moves = direction.moving(free)
    change = np.zeros(LIMB_COUNT)
    if moves[0]:  # otherwise reversing a limb leaves its average as it is
        limbs = np.eye(LIMB_COUNT)
        own = _image_cost(problem, free, 0 * limbs[0])
        for limb in np.flatnonzero(moves[1:]) + 1:
            change[limb] = _image_cost(problem, free, limbs[limb]) - own
    costs = (STATES != STATES[:, :1]) @ change
    return costs - costs.min()


def _image_cost(problem: solver.Problem, free: np.ndarray, limbs: np.ndarray) -> float:
    error = problem.evaluate(direction.reverse_free(free, limbs)).error
    return 0.5 * problem.data_weight * error.cost


def escape(problem: solver.Problem, solution: solver.Solution, steps: int) -> solver.Solution:
    """The solution, or a better one from which it is cut off by a limb that runs the wrong way.

    For every moving limb: its motion reversed inside the newest exposure, or inside all of the window's, as near as
    the window's polynomial can follow. The best of these is solved for `steps` steps and kept if it costs less.
    """
    layout, free = problem.layout, solution.free
    candidates = [reversed_in_window(free, layout, limb, count) for limb in np.flatnonzero(_moves(free, layout))
                  for count in (1, len(layout.exposures))]
    if not candidates:
        return solution
    costs = [problem.evaluate(c).cost for c in candidates]
    other = solver.solve(problem, candidates[int(np.argmin(costs))], steps)
    if other.evaluation.cost < solution.evaluation.cost:
        return other
    return replace(solution, evaluation=problem.evaluate(free), normal=None)  # draws the motion that is kept again


def reversed_in_window(free: np.ndarray, layout: WindowLayout, limb: int, count: int) -> np.ndarray:
    """Coefficients [21, K, 3] with a limb's motion run backwards inside each of the newest `count` exposures.

    A window of several exposures can follow that only so far: least squares over the sub-frames.
    """
    times = np.concatenate([_mirrored(layout, i) if i >= len(layout.exposures) - count else _own(layout, i)
                            for i in range(len(layout.exposures))])
    turned = polynomials.basis(times, layout.start, layout.end, layout.degree)
    move = np.linalg.pinv(layout.basis) @ turned
    out = np.array(free, np.float64)
    first, last = LIMB_SLOTS[limb]
    out[first:last] = np.einsum("kl,slc->skc", move, out[first:last])
    return out


def _own(layout: WindowLayout, index: int) -> np.ndarray:
    return layout.times[index * layout.subframes:(index + 1) * layout.subframes]


def _mirrored(layout: WindowLayout, index: int) -> np.ndarray:
    exposure = layout.exposures[index]
    return exposure.open + exposure.close - _own(layout, index)


def _moves(free: np.ndarray, layout: WindowLayout) -> np.ndarray:
    """[6] bool: limbs that move noticeably inside the newest exposure."""
    exposure = layout.exposures[-1]
    inside = polynomials.shift_matrix((layout.start, layout.end), (exposure.open, exposure.close), layout.degree)
    return direction.moving(np.einsum("kl,slc->skc", inside, free))


def in_hindsight(estimates: list[MotionEstimate], record: list[tuple[MotionEstimate, ExposureMotion]],
                 settings: FitSettings, statistics: MotionStatistics | None = None) -> list[MotionEstimate]:
    """Single-exposure estimates with the directions that the whole recording decides.

    record: as a `DirectionTracker` kept it. Estimates that are not in it (nobody there) are returned as they are.
    """
    if not record:
        return estimates
    found = direction.decide([motion for _, motion in record], statistics or load_motion_statistics(),
                             settings.motion_widening)
    again = {own.exposures[-1]: directed(own, found, i, settings.direction_log_odds, len(record) == 1)
             for i, (own, _) in enumerate(record)}
    out = []
    for e in estimates:
        better = again.get(e.exposures[-1]) if len(e.exposures) == 1 and not e.status & Status.LOST else None
        kept = e.status & ~Status.DIRECTION_UNDECIDED  # what the pipeline added to the fit's own status stays
        out.append(e if better is None else replace(better, status=kept | better.status))
    return out
