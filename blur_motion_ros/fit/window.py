"""The sliding window: warm start, fusion with the initialiser, coarse-to-fine solve, and an honest status."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from blur_motion_ros.fit import colour, solver
from blur_motion_ros.fit.gaussian_terms import MEASURED, CoefficientPrior, PoseGaussian, RotationVectorPrior, Term
from blur_motion_ros.fit.image_terms import Target, Workspace
from blur_motion_ros.fit.kinematics import FitBody, pose
from blur_motion_ros.fit.layout import FREE_COUNT, FREE_JOINTS, FREE_ROWS, WindowLayout, free_indices
from blur_motion_ros.fit.settings import FitSettings
from blur_motion_ros.motion import polynomials, rotations
from blur_motion_ros.types import BodyState, Exposure, MotionEstimate, Observation, PoseMeasurement, Status

# One standard deviation of how far the warm start is off, per joint, rad (DESIGN: measured on mocap); translation in m.
_SIGMA = {0: .15, 3: .10, 6: .10, 9: .10, 12: .20, 13: .12, 14: .12, 15: .20, 1: .25, 2: .25, 4: .30, 5: .30, 7: .20,
          8: .20, 16: .35, 17: .35, 18: .35, 19: .35, 20: .20, 21: .20}
TRANSL_SIGMA = np.array([.06, .06, .10])
VELOCITY_RATE = 44.0  # 1/s: velocity sigma = VELOCITY_RATE * pose sigma (rad/s; m/s for the translation)
ACCELERATION_RATE = 300.0  # 1/s^2: acceleration sigma = ACCELERATION_RATE * pose sigma


@dataclass(frozen=True)
class Start:
    """Where a window's solve begins: reference rotations [24, 3, 3], translation [3], coefficients [25, K, 3]."""

    reference: np.ndarray
    reference_transl: np.ndarray
    coefficients: np.ndarray
    warm: bool


class BlurFit:
    """Stateful fit of one tracked person. Feed it windows of observations in time order."""

    def __init__(self, settings: FitSettings, body: FitBody, betas: np.ndarray, pose_prior: object | None = None):
        self.settings = settings
        self._prior = pose_prior
        self._buffers: dict[tuple[int, int], Workspace] = {}
        self.set_body(body, betas)
        self.reset()

    def set_body(self, body: FitBody, betas: np.ndarray) -> None:
        """Use another shape from now on (the motion carries over)."""
        self.body, self.betas = body, np.asarray(betas, np.float64)

    def reset(self) -> None:
        """Forget the person: the next window is a cold start."""
        self._last: MotionEstimate | None = None
        self._colours = np.full((len(self.body.rest_vertices), 3), colour.NEUTRAL, np.float32)
        self._seen = 0

    @property
    def colours(self) -> np.ndarray:
        """Per-vertex colours [V, 3], linear light."""
        return self._colours

    def predicted_points(self, exposure: Exposure) -> np.ndarray | None:
        """Where the joints are expected in `exposure` [2 * 24, 3] m, or None without history."""
        if self._last is None:
            return None
        layout = WindowLayout.of((exposure,), 2, self.settings.degree)
        start = self._warm_start(layout)
        return pose(self.body, start.reference, start.reference_transl, start.coefficients, layout.basis,
                    skin=False).joints.reshape(-1, 3)

    def update(self, observations: tuple[Observation, ...]) -> MotionEstimate | None:
        """Fit one window (oldest first). None if there is neither history nor a measurement to start from."""
        layout = WindowLayout.of(tuple(o.exposure for o in observations), self.settings.subframes, self.settings.degree)
        start = self._start(observations, layout)
        if start is None:
            return None
        terms = self._terms(observations, layout, start)
        free = start.coefficients[FREE_ROWS]
        solution = problem = None
        for size, with_colour in self._schedule(start.warm, observations[0].crop.size):
            problem = self._problem(observations, layout, start, terms, size, with_colour)
            steps = self.settings.iterations if start.warm else self.settings.cold_iterations
            solution = solver.solve(problem, free, steps)
            free = solution.free
            if not start.warm:
                self._update_colours(problem, solution)
        if start.warm and self._seen % self.settings.colour_every == 0:
            self._update_colours(problem, solution)
        estimate = self._estimate(observations, layout, start, problem, solution)
        self._last = estimate
        self._seen += 1
        return estimate

    # -- where to start ------------------------------------------------------------------------------------------

    def _start(self, observations: tuple[Observation, ...], layout: WindowLayout) -> Start | None:
        if self._last is not None and self._last.end > layout.start:
            return self._warm_start(layout)
        measured = [o.measurement for o in observations if o.measurement is not None]
        return _cold_start(measured, layout) if measured else None

    def _warm_start(self, layout: WindowLayout) -> Start:
        """Extrapolate the last window with a damped velocity and refit it to the new one."""
        last = self._last
        times = np.linspace(layout.start, layout.end, 2 * layout.degree + 3)
        inside = np.minimum(times, last.end)
        value = polynomials.evaluate(last.coefficients, inside, last.start, last.end)
        value += (self.settings.velocity_carry * (times - inside)[:, None, None]
                  * polynomials.rate(last.coefficients, inside, last.start, last.end))
        old = rotations.exp(np.concatenate([last.reference.global_orient[None], last.reference.body_pose]))
        reference, turning = polynomials.fit_rotations(old[None] @ rotations.exp(value[:, 1:]), times, layout.start,
                                                       layout.end, layout.degree)
        middle = value[len(times) // 2, 0]
        moving = polynomials.fit(value[:, :1] - middle, times, layout.start, layout.end, layout.degree)
        return Start(reference, last.reference.transl + middle, np.concatenate([moving, turning]), True)

    # -- what to minimise ----------------------------------------------------------------------------------------

    def _terms(self, observations: tuple[Observation, ...], layout: WindowLayout, start: Start) -> tuple[Term, ...]:
        terms: list[Term] = [self._motion_prior(layout, start)]
        measured = [o.measurement for o in observations if o.measurement is not None]
        if start.warm:  # older measurements are already in the warm start
            measured = [m for m in measured if m.time > self._last.end]
        terms += [_measured_term(m, layout, start, self.settings.measurement_weight) for m in measured]
        if self._prior is not None and self.settings.pose_prior_weight > 0:
            basis = layout.values_at(layout.exposures[-1].middle)
            terms.append(RotationVectorPrior(start.reference, self._prior, basis, self.settings.pose_prior_weight))
        return tuple(terms)

    def _motion_prior(self, layout: WindowLayout, start: Start) -> CoefficientPrior:
        sigma = np.empty((FREE_COUNT, 3))
        sigma[0] = TRANSL_SIGMA
        sigma[1:] = np.array([_SIGMA[int(j)] for j in FREE_JOINTS])[:, None]
        span = layout.end - layout.start  # Legendre on a window of T: c_1 = v T / 2, c_2 = a T^2 / 12
        ratio = np.array([1.0, VELOCITY_RATE * span / 2] + [ACCELERATION_RATE * span**2 / 12] * (layout.degree - 1))
        precision = self.settings.warm_weight / (sigma[:, None] * ratio[None, :, None]) ** 2
        if not start.warm:
            precision[:, 0] *= 0.04  # the pose comes from the measurement
        return CoefficientPrior(start.coefficients[FREE_ROWS], precision)

    def _schedule(self, warm: bool, finest: int) -> list[tuple[int, bool]]:
        """(side in px, use colour) of each level."""
        size, coarse = min(self.settings.size, finest), min(self.settings.coarse_size, self.settings.size)
        if warm:
            return [(size, True)] if coarse >= size else [(coarse, True), (size, True)]
        return [(min(24, size), False), (size, True), (size, True)]

    def _problem(self, observations, layout, start, terms, size, with_colour) -> solver.Problem:
        target = make_target(observations, size, self.settings, with_colour)
        workspace = self._buffer(len(layout.times), size)
        weight = self.settings.data_weight * (64 / size) ** 2
        return solver.Problem(self.body, layout, start.reference, start.reference_transl, target, self._colours,
                              terms, weight, self.settings.cutoff, workspace)

    def _buffer(self, count: int, size: int) -> Workspace:
        key = (count, size)
        if key not in self._buffers:
            self._buffers[key] = Workspace(count, size)
        return self._buffers[key]

    def _update_colours(self, problem: solver.Problem, solution: solver.Solution) -> None:
        posed, predicted = solution.evaluation.posed, solution.evaluation.predicted
        self._colours = colour.solve_colours(self.body, posed.vertices, problem.workspace.frames, problem.target,
                                             predicted[..., 3], self._colours)

    # -- what came out -------------------------------------------------------------------------------------------

    def _estimate(self, observations, layout, start, problem, solution) -> MotionEstimate:
        covariance = np.linalg.inv(solution.hessian)
        blur = blur_rate(problem.workspace.frames.alpha[-layout.subframes:])
        rms = _rms(problem, solution)
        reference = BodyState(rotations.log(start.reference[0]), rotations.log(start.reference[1:]), self.betas,
                              start.reference_transl)
        status = self._status(layout, start, blur, rms)
        return MotionEstimate(layout.start, layout.end, layout.exposures, reference, solver.widen(solution.free),
                              free_indices(layout.degree), covariance, status, blur, rms)

    def _status(self, layout: WindowLayout, start: Start, blur: float, rms: float) -> Status:
        status = Status.OK
        if not start.warm:
            status |= Status.COLD_START
        if len(layout.exposures) == 1 and not start.warm:
            status |= Status.DIRECTION_UNDECIDED
        if blur < self.settings.low_blur:
            status |= Status.LOW_BLUR
        if rms > self.settings.poor_fit:
            status |= Status.POOR_FIT
        return status


def make_target(observations: tuple[Observation, ...], size: int, settings: FitSettings, with_colour: bool) -> Target:
    """Stack the exposures of a window at one resolution."""
    crop = observations[0].crop.resized(size)
    image = np.stack([_resize(o.image, size) for o in observations])
    background = np.stack([_resize(o.background, size) for o in observations])
    alpha = np.stack([_resize(o.alpha, size) for o in observations])
    sigma = np.stack([_resize(o.alpha_sigma, size) for o in observations])
    value = np.concatenate([image - background, alpha[..., None]], -1)
    weight = np.empty_like(value)
    weight[..., :3] = 1.0 / settings.sigma_image if with_colour else 0.0
    weight[..., 3] = 1.0 / np.maximum(sigma, settings.sigma_alpha)
    return Target(value, weight, background, crop.K)


def blur_rate(alpha: np.ndarray) -> float:
    """1 - |intersection| / |union| of the sub-frame silhouettes alpha [N, S, S] (coverage above one half)."""
    inside = alpha > 0.5
    union = inside.any(0).sum()
    return float(1 - inside.all(0).sum() / union) if union else 0.0


def _cold_start(measured: list[PoseMeasurement], layout: WindowLayout) -> Start:
    """From measurements alone: constant if there is one, linear between the first and the last if there are more."""
    times = np.linspace(layout.start, layout.end, 2 * layout.degree + 3)
    first, last = measured[0], measured[-1]
    r0, r1 = (rotations.exp(np.concatenate([m.state.global_orient[None], m.state.body_pose])) for m in (first, last))
    span = last.time - first.time
    share = (times - first.time) / span if span > 0 else np.zeros_like(times)
    rotmats = rotations.slerp(r0[None], r1[None], share[:, None])
    transl = first.state.transl + share[:, None] * (last.state.transl - first.state.transl)
    reference, turning = polynomials.fit_rotations(rotmats, times, layout.start, layout.end, layout.degree)
    middle = transl[len(times) // 2]
    moving = polynomials.fit(transl[:, None] - middle, times, layout.start, layout.end, layout.degree)
    return Start(reference, middle, np.concatenate([moving, turning]), False)


def _measured_term(m: PoseMeasurement, layout: WindowLayout, start: Start, weight: float) -> PoseGaussian:
    rotmats = rotations.exp(np.concatenate([m.state.global_orient[None], m.state.body_pose]))
    information = weight * np.linalg.inv(m.covariance[np.ix_(MEASURED, MEASURED)])
    return PoseGaussian(start.reference, start.reference_transl, rotmats, m.state.transl, information,
                        layout.values_at(m.time))


def _resize(image: np.ndarray, size: int) -> np.ndarray:
    if image.shape[0] == size:
        return image
    return cv2.resize(image, (size, size), interpolation=cv2.INTER_AREA)


def _rms(problem: solver.Problem, solution: solver.Solution) -> float:
    """Image residual in sigmas over the pixels that the body covers or should cover."""
    body = (problem.target.value[..., 3] > 0.1) | (solution.evaluation.predicted[..., 3] > 0.1)
    r = solution.evaluation.error.whitened[body]
    return float(np.sqrt(np.mean(r * r))) if r.size else 0.0


