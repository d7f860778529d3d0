"""Levenberg-Marquardt on the joint loss: image terms at one resolution plus any number of Gaussian terms."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.linalg import cho_factor, cho_solve

from blur_motion_ros.fit import image_terms
from blur_motion_ros.fit.gaussian_terms import Term
from blur_motion_ros.fit.image_terms import Residual, Target, Workspace
from blur_motion_ros.fit.kinematics import FitBody, Posed, pose
from blur_motion_ros.fit.layout import FREE_ROWS, WindowLayout
from blur_motion_ros.render import raster


@dataclass(frozen=True)
class Problem:
    """Everything the joint loss depends on besides the unknowns.

    colours [V, 3] linear, data_weight: scale of the image terms (pixels are not independent), cutoff: robust, sigmas.
    """

    body: FitBody
    layout: WindowLayout
    reference: np.ndarray
    reference_transl: np.ndarray
    target: Target
    colours: np.ndarray
    terms: tuple[Term, ...]
    data_weight: float
    cutoff: float
    workspace: Workspace

    def evaluate(self, free: np.ndarray) -> Evaluation:
        """Render and compare. free [21, K, 3]."""
        posed = pose(self.body, self.reference, self.reference_transl, widen(free), self.layout.basis)
        raster.draw(posed.vertices, self.body.faces, self.colours, self.target.intrinsics, self.workspace.frames)
        predicted = image_terms.predict(self.workspace.frames, len(self.layout.exposures), self.target.background)
        error = image_terms.residual(self.target, predicted, self.cutoff)
        cost = self.data_weight * error.cost + sum(term.cost(free) for term in self.terms)
        return Evaluation(posed, predicted, error, cost)

    def normal(self, free: np.ndarray, at: Evaluation) -> tuple[np.ndarray, np.ndarray]:
        """Gauss-Newton system of the whole loss at an evaluation whose rendering is still in `workspace`."""
        hessian, gradient = image_terms.normal_equations(
            self.body, at.posed, self.workspace, self.layout, self.target, at.error)
        hessian *= self.data_weight
        gradient *= self.data_weight
        for term in self.terms:
            h, g = term.normal(free)
            hessian += h
            gradient += g
        return hessian, gradient


@dataclass(frozen=True)
class Evaluation:
    """One rendering of the problem: posed bodies, predicted image, residual, total cost."""

    posed: Posed
    predicted: np.ndarray
    error: Residual
    cost: float


@dataclass(frozen=True)
class Solution:
    """free [21, K, 3], the evaluation there, the last Gauss-Newton matrix [n, n], iterations spent."""

    free: np.ndarray
    evaluation: Evaluation
    hessian: np.ndarray
    iterations: int


def widen(free: np.ndarray) -> np.ndarray:
    """[21, K, 3] -> [25, K, 3] with the joints that are not solved for at rest."""
    out = np.zeros((25,) + free.shape[1:])
    out[FREE_ROWS] = free
    return out


def solve(problem: Problem, free: np.ndarray, iterations: int, damping: float = 0.01, tolerance: float = 1e-3
          ) -> Solution:
    """Minimise from `free`; at most `iterations` linearisations, stops when the cost falls by less than `tolerance`."""
    here = problem.evaluate(free)
    hessian = np.eye(problem.layout.size)
    spent = 0
    while spent < iterations:
        hessian, gradient = problem.normal(free, here)
        spent += 1
        step = _damped_step(hessian, gradient, damping).reshape(free.shape)
        there = problem.evaluate(free + step)
        if there.cost < here.cost:
            small = here.cost - there.cost < tolerance * here.cost
            free, here, damping = free + step, there, max(damping / 4, 1e-4)
            if small:
                break
            continue
        here = problem.evaluate(free)  # the buffers hold the rejected trial; draw the accepted motion again
        damping *= 8
        if damping > 10:
            break
    return Solution(free, here, hessian, spent)


def _damped_step(hessian: np.ndarray, gradient: np.ndarray, damping: float) -> np.ndarray:
    damped = hessian + damping * np.diag(np.diag(hessian))
    return cho_solve(cho_factor(damped, lower=True, check_finite=False), gradient, check_finite=False)
