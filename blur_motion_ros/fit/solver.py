"""Levenberg-Marquardt on the joint loss: image terms at one resolution plus any number of Gaussian terms."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, replace

import numpy as np
from numba import njit

from blur_motion_ros.fit import image_terms, linear
from blur_motion_ros.fit.gaussian_terms import Term, add_normal
from blur_motion_ros.fit.image_terms import Residual, Target, Workspace
from blur_motion_ros.fit.kinematics import FitBody, Posed, pose
from blur_motion_ros.fit.layout import FREE_ROWS, WindowLayout
from blur_motion_ros.render import raster


@dataclass(frozen=True)
class Problem:
    """Everything the joint loss depends on besides the unknowns.

    colours [V, 3] linear, priors: terms known before looking, how bodies move (`dynamics.MotionPrior`) first; evidence:
    terms of each exposure besides its image, data_weight: scale of the image terms (pixels are not independent),
    cutoff: robust, sigmas.
    """

    body: FitBody
    layout: WindowLayout
    reference: np.ndarray
    reference_transl: np.ndarray
    target: Target
    colours: np.ndarray
    priors: tuple[Term, ...]
    evidence: tuple[tuple[Term, ...], ...]
    data_weight: float
    cutoff: float
    workspace: Workspace

    def evaluate(self, free: np.ndarray, drawn: Evaluation | None = None) -> Evaluation:
        """Render and compare. free [21, K, 3].  drawn: of the same motion and images with other terms, if known."""
        if drawn is not None:
            return replace(drawn, cost=self._cost(free, drawn.error))
        posed = pose(self.body, self.reference, self.reference_transl, widen(free), self.layout.basis)
        raster.draw(posed.vertices, self.body.faces, self.colours, self.target.intrinsics, self.workspace.frames)
        predicted = image_terms.predict(self.workspace.frames, len(self.layout.exposures), self.target.background)
        error = image_terms.residual(self.target, predicted, self.cutoff)
        return Evaluation(posed, predicted, error, self._cost(free, error))

    def _cost(self, free: np.ndarray, error: Residual) -> float:
        terms = self.priors + sum(self.evidence, ())
        return self.data_weight * error.cost + sum(term.cost(free) for term in terms)

    def normal(self, free: np.ndarray, at: Evaluation) -> Normal:
        """Gauss-Newton system of the whole loss at an evaluation whose rendering is still in `workspace`.

        Coefficients that the layout holds at zero keep the curvature of the first prior alone: they do not move, and
        the inverse gives them the variance that is known without looking.
        """
        hessian, gradient = image_terms.normal_equations(
            self.body, at.posed, self.workspace, self.layout, self.target, at.error)
        hessian *= self.data_weight
        gradient *= self.data_weight
        for i, terms in enumerate(self.evidence):
            for term in terms:
                add_normal(term, free, hessian[i], gradient[i])
        prior_hessian, prior_gradient = np.zeros(hessian.shape[1:]), np.zeros(gradient.shape[1:])
        held = self.layout.held
        alone = np.ones(len(held))
        for i, term in enumerate(self.priors):
            add_normal(term, free, prior_hessian, prior_gradient)
            if i == 0:
                alone = prior_hessian[held, held]
        _strike_out(hessian, gradient, held)
        _strike_out(prior_hessian[None], prior_gradient[None], held)
        prior_hessian[held, held] = alone
        return Normal(prior_hessian, prior_gradient, hessian, gradient)


@dataclass(frozen=True)
class Normal:
    """A Gauss-Newton system in parts: prior_hessian [n, n], prior_gradient [n] and, per exposure, hessian [F, n, n],
    gradient [F, n]. A step solves (sum of matrices) d = (sum of right-hand sides)."""

    prior_hessian: np.ndarray
    prior_gradient: np.ndarray
    hessian: np.ndarray
    gradient: np.ndarray

    def after(self, step: np.ndarray) -> Normal:
        """The same system seen from `step` further on."""
        d = step.reshape(-1)
        return Normal(self.prior_hessian, self.prior_gradient - self.prior_hessian @ d, self.hessian,
                      self.gradient - self.hessian @ d)

    def total(self) -> tuple[np.ndarray, np.ndarray]:
        return self.prior_hessian + self.hessian.sum(0), self.prior_gradient + self.gradient.sum(0)


@dataclass(frozen=True)
class Evaluation:
    """One rendering of the problem: posed bodies, predicted image, residual, total cost."""

    posed: Posed
    predicted: np.ndarray
    error: Residual
    cost: float


@dataclass(frozen=True)
class Solution:
    """free [21, K, 3], the evaluation there, the linearisation there or, seen from there, that of the step before
    (None where no step was taken), iterations spent."""

    free: np.ndarray
    evaluation: Evaluation
    normal: Normal | None
    iterations: int


def widen(free: np.ndarray) -> np.ndarray:
    """[21, K, 3] -> [25, K, 3] with the joints that are not solved for at rest."""
    out = np.zeros((25,) + free.shape[1:])
    out[FREE_ROWS] = free
    return out


def solve(problem: Problem, free: np.ndarray, iterations: int, damping: float = 0.01, tolerance: float = 1e-3,
          drawn: Evaluation | None = None, until: float = math.inf) -> Solution:
    """Minimise from `free`; tries at most `iterations` steps, stops when the cost falls by less than `tolerance`.

    until: `time.perf_counter()` s after which no step but the first is begun.  drawn: an evaluation at `free` whose
    rendering is still in the problem's workspace, if there is one. Coefficients that the layout does not solve for are
    set to zero first.
    """
    held, solved = problem.layout.held, problem.layout.solved
    if free.reshape(-1)[held].any():
        free, drawn = free.copy(), None
        free.reshape(-1)[held] = 0
    here = problem.evaluate(free, drawn)
    normal, last, in_workspace = None, None, True
    spent = 0
    while spent < iterations and not (spent and time.perf_counter() > until):
        normal = normal or problem.normal(free, here)
        spent += 1
        step = _step(*normal.total(), damping, solved).reshape(free.shape)
        there = problem.evaluate(free + step)
        in_workspace = there.cost < here.cost
        if in_workspace:
            small = here.cost - there.cost < tolerance * here.cost
            last = (normal, step)
            free, here, normal, damping = free + step, there, None, max(damping / 4, 1e-4)
            if small:
                break
            continue
        damping *= 8  # the linearisation stays; only the step is shorter
        if damping > 10:
            break
    if not in_workspace:
        here = problem.evaluate(free)  # the buffers hold the rejected trial; draw the accepted motion again
    if normal is None and last is not None:
        normal = last[0].after(last[1])
    return Solution(free, here, normal, spent)


@njit(cache=True)
def _strike_out(hessian, gradient, held):
    """Clear the rows and columns `held` of matrices [F, n, n] and the entries of right-hand sides [F, n]."""
    for f in range(len(hessian)):
        for i in held:
            hessian[f, i] = 0.0
            gradient[f, i] = 0.0
        for row in range(hessian.shape[1]):
            for i in held:
                hessian[f, row, i] = 0.0


def _step(hessian: np.ndarray, gradient: np.ndarray, damping: float, solved: np.ndarray) -> np.ndarray:
    """`_damped_step` in the coefficients `solved`; 0 in the others."""
    if len(solved) == len(gradient):
        return _damped_step(hessian, gradient, damping)
    step = np.zeros_like(gradient)
    step[solved] = _damped_step(hessian[np.ix_(solved, solved)], gradient[solved], damping)
    return step


def _damped_step(hessian: np.ndarray, gradient: np.ndarray, damping: float) -> np.ndarray:
    """Solve (H + damping diag H) d = g; where rounding has made H indefinite, with as much damping as it takes."""
    diagonal = np.maximum(np.diag(hessian), 1e-12)
    while damping < 1e6:
        damped = hessian.copy()
        damped.reshape(-1)[::len(damped) + 1] += damping * diagonal
        step = linear.solve(damped, gradient)
        if step is not None:
            return step
        damping = 10 * damping + 1e-3
    return np.zeros_like(gradient)  # not finite: stay where we are
