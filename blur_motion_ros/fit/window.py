"""The sliding window: warm start, fusion with the initialiser, coarse-to-fine solve, and an honest status."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import cv2
import numpy as np

from blur_motion_ros.evaluation import blur_rate as silhouettes
from blur_motion_ros.fit import colour, linear, solver
from blur_motion_ros.fit.degrees import degrees, expected_travel
from blur_motion_ros.fit.direction_search import DirectionTracker, escape, image_costs
from blur_motion_ros.fit.doubt import doubted, limb_speeds, silhouette_overlap
from blur_motion_ros.fit.dynamics import Carry, MotionPrior, carry, process_noise
from blur_motion_ros.fit.exposure_estimate import ExposureEstimator
from blur_motion_ros.fit.gaussian_terms import MEASURED, PoseGaussian, RotationVectorPrior, Term
from blur_motion_ros.fit.image_terms import Target, Workspace
from blur_motion_ros.fit.kinematics import FitBody
from blur_motion_ros.fit.layout import LIMBS, WindowLayout, free_indices
from blur_motion_ros.fit.prior_files import load_motion_statistics
from blur_motion_ros.fit.priors import MotionStatistics, PosePrior
from blur_motion_ros.fit.settings import FitSettings
from blur_motion_ros.fit.starts import Start, agreeing, join, limbs_anew
from blur_motion_ros.fit.stillness import still_prior
from blur_motion_ros.fit.surface import Surface
from blur_motion_ros.motion.pose import body_state, local_rotations
from blur_motion_ros.types import Exposure, MotionEstimate, Observation, PoseMeasurement, Status

_APART = 4.0  # squared distance of a limb from its measurement, per angle: one of the two is wrong
_MEASURED_BLOCK = np.ix_(MEASURED, MEASURED)
_KNOWN = 0.99  # share of a pixel whose background must be known for its colour to count
_CONTRADICTED = 5.0  # on standard deviations where the measurements of a window contradict each other


@dataclass(frozen=True)
class Hypothesis:
    """A start and the terms of the joint loss that are relative to its reference."""

    start: Start
    priors: tuple[Term, ...]
    evidence: tuple[tuple[Term, ...], ...]

    def surprise(self, free: np.ndarray) -> float:
        """Squared Mahalanobis distance of the newest measurement (63 is expected; 0 without one)."""
        measured = [t for t in self.evidence[-1] if isinstance(t, PoseGaussian)]
        return measured[0].squared(free) if measured else 0.0

    def surprises(self, free: np.ndarray) -> np.ndarray:
        """[F, 6] the same of each exposure's measurement and each limb alone, over its number of angles (1 is expected;
        0 without a measurement)."""
        out = np.zeros((len(self.evidence), len(LIMBS)))
        for i, terms in enumerate(self.evidence):
            for term in terms:
                if isinstance(term, PoseGaussian):
                    out[i] = term.by_limb(free)
        return out


@dataclass(frozen=True)
class _Measured:
    """A measurement as the terms of several windows and starts need it. local [24, 3, 3]; covariance, information
    [63, 63] over the free slots."""

    measurement: PoseMeasurement
    local: np.ndarray
    covariance: np.ndarray
    information: np.ndarray

    @staticmethod
    def of(measurement: PoseMeasurement) -> _Measured:
        covariance = measurement.covariance[_MEASURED_BLOCK]
        return _Measured(measurement, local_rotations(measurement.state), covariance, linear.inverse(covariance))

    def term(self, layout: WindowLayout, start: Start, weight: float) -> PoseGaussian:
        return PoseGaussian(start.reference, start.reference_transl, self.local, self.measurement.state.transl,
                            weight * self.information, layout.values_at(self.measurement.time),
                            covariance=self.covariance / weight if weight > 0 else None)


class BlurFit:
    """Stateful fit of one tracked person. Feed it windows of observations in time order."""

    def __init__(self, settings: FitSettings, body: FitBody, betas: np.ndarray, pose_prior: PosePrior | None = None,
                 statistics: MotionStatistics | None = None):
        self.settings = settings
        self._prior = pose_prior
        self._statistics = statistics or load_motion_statistics()
        self._buffers: dict[tuple[int, int, bool], Workspace] = {}
        self._measured: dict[int, _Measured] = {}  # of this window, by identity
        self._targets: dict[tuple[int, bool], Target] = {}  # of this window
        self.directions = DirectionTracker(settings, self._statistics)
        self.exposure: ExposureEstimator | None = None  # learns from good windows (`camera.exposure_mode=estimate`)
        self.set_body(body, betas)
        self.reset()

    def set_body(self, body: FitBody, betas: np.ndarray) -> None:
        """Use another shape from now on (the motion carries over)."""
        self.body, self.betas = body, np.asarray(betas, np.float64)

    def reset(self) -> None:
        """Forget the person: the next window is a cold start."""
        self._last: MotionEstimate | None = None
        self._carry: Carry | None = None
        self._colours = np.full((len(self.body.rest_vertices), 3), colour.NEUTRAL, np.float32)
        self._coloured = False
        self._surface: Surface | None = None
        self._seen = 0
        self._until = math.inf
        self.directions.reset()

    @property
    def colours(self) -> np.ndarray:
        """Per-vertex colours [V, 3], linear light."""
        return self._colours

    def predicted_points(self, exposure: Exposure) -> np.ndarray | None:
        """Where the joints are expected in `exposure` [2 * 24, 3] m, or None without history."""
        if self._last is None:
            return None
        from blur_motion_ros.trajectory import joints_at

        return joints_at(self._last, self.body, np.array([exposure.open, exposure.close])).reshape(-1, 3)

    def update(self, observations: tuple[Observation, ...], until: float = math.inf) -> MotionEstimate | None:
        """Fit one window (oldest first). None if there is neither history nor a measurement to start from.

        until: `time.perf_counter()` s after which each level takes one step only. A window without history takes all
        of its steps: those after it would start from what it leaves.
        """
        self._until = until if self._carry is not None else math.inf
        layout = WindowLayout.of(tuple(o.exposure for o in observations), self.settings.subframes, self.settings.degree)
        measured = [o.measurement for o in observations if o.measurement is not None]
        self._targets.clear()
        self._measured = {id(m): self._measured.get(id(m)) or _Measured.of(m) for m in measured}
        hypothesis, free = self._coarse(observations, layout)
        if hypothesis is None:
            return None
        held = False
        for with_colour in (True,) if self._coloured else (True, True):
            problem, drawn = self._problem(observations, layout, hypothesis, self.settings.size, with_colour), None
            if self.settings.stillness and not held:
                drawn = problem.evaluate(free)
                problem, hypothesis = self._hold_still(problem, hypothesis)
                held = True
            solution = self._solve(problem, free, hypothesis, drawn)
            free = solution.free
            if not self._coloured or self._seen % self.settings.colour_every == 0 or self._surface is not None:
                self._update_colours(problem, solution)
        self._coloured = True
        return self._finish(observations, layout, hypothesis, problem, solution)

    def _hold_still(self, problem: solver.Problem, hypothesis: Hypothesis) -> tuple[solver.Problem, Hypothesis]:
        """Both with a prior on what the last rendering of the problem shows to be still."""
        prior = still_prior(self.body, problem.layout, problem.target, problem.workspace.frames)
        if prior is None:
            return problem, hypothesis
        priors = hypothesis.priors + (prior,)
        return replace(problem, priors=priors), replace(hypothesis, priors=priors)

    # -- where to start ------------------------------------------------------------------------------------------

    def _coarse(self, observations, layout) -> tuple[Hypothesis | None, np.ndarray | None]:
        """Solve at the coarsest level: the last motion going on and, where that surprises, the measurements joined up.

        Limbs alone may begin anew as well: one that the images lost (it passed before the trunk, and stayed there)
        has no gradient that leads back. The body then goes on from where it was just solved to. A new beginning is
        charged for giving up the last motion, so that one wrong measurement does not end a track.
        """
        measured = [o.measurement for o in observations if o.measurement is not None]
        if self._carry is None:
            return self._try(observations, layout, join(measured, layout))[1:] if measured else (None, None)
        c, s = self._carry, self.settings
        going_on = Start(c.reference, c.reference_transl, c.start(layout, s.velocity_carry), True)
        tried = [self._try(observations, layout, going_on)]
        if measured:
            _, hypothesis, free = tried[0]
            surprises = hypothesis.surprises(free)[-1]
            surprises[0] = 0.0  # without the trunk there is nothing that goes on
            solved = replace(going_on, free=free)
            for anew in _masks(surprises, (s.limb_above, max(s.limb_above, _APART))):
                tried.append(self._try(observations, layout, limbs_anew(solved, join(measured, layout), anew)))
            if hypothesis.surprise(free) > s.restart_above:
                tried.append(self._try(observations, layout, join(measured, layout)))
        return min(tried, key=lambda t: t[0])[1:]

    def _try(self, observations, layout, start: Start) -> tuple[float, Hypothesis, np.ndarray]:
        evidence = tuple(self._evidence(o, layout, start) for o in observations)
        hypothesis = Hypothesis(start, self._priors(layout, start), evidence)
        size = min(self.settings.coarse_size, self.settings.size)
        drawn = min(self.settings.coarse_subframes, layout.subframes)
        coarse = WindowLayout.of(layout.exposures, drawn, layout.degree)
        problem = self._problem(observations, coarse, hypothesis, size, self._coloured)
        solution = self._solve(problem, start.free, hypothesis)
        every = self.settings.direction_every
        if every and len(layout.exposures) > 1 and self._seen % every == 0:
            solution = escape(problem, solution, self._steps(problem.layout, hypothesis))
        charge = self.settings.limb_cost * start.anew.sum() if start.carried else self.settings.restart_cost
        return solution.evaluation.cost + charge, hypothesis, solution.free

    def _solve(self, problem: solver.Problem, free: np.ndarray, hypothesis: Hypothesis,
               drawn: solver.Evaluation | None = None) -> solver.Solution:
        if self.settings.solver == "adam":
            from blur_motion_ros.fit.first_order import solve_window

            surface = self._free_surface() if self._coloured and problem.target.size == self.settings.size else None
            return solve_window(problem, free, self.settings, hypothesis.start.carried, surface)
        return solver.solve(problem, free, self._steps(problem.layout, hypothesis), drawn=drawn, until=self._until)

    def _free_surface(self) -> Surface | None:
        """The colours that are solved with the motion (finest level, once there are any), if that is wanted."""
        if self._surface is None:
            from blur_motion_ros.fit.first_order import start_surface

            self._surface = start_surface(self.body, self.settings.first_order, self._colours)
        return self._surface

    def _steps(self, layout: WindowLayout, hypothesis: Hypothesis) -> int:
        s = self.settings
        if hypothesis.start.carried:
            long = layout.exposures[-1].duration >= s.long_exposure
            return max(s.iterations, s.long_iterations) if long else s.iterations
        return s.cold_iterations if self._carry is None else (s.cold_iterations + 1) // 2  # colours are known by then

    # -- what to minimise ----------------------------------------------------------------------------------------

    def _problem(self, observations, layout, hypothesis: Hypothesis, size: int, with_colour: bool) -> solver.Problem:
        start = hypothesis.start
        layout = self._by_blur(layout, start, observations[-1])
        target = self._target(observations, size, with_colour)
        workspace = self._buffer(len(layout.times), size, len(layout.exposures) == 1)
        weight = self.settings.data_weight * (64 / size) ** 2
        return solver.Problem(self.body, layout, start.reference, start.reference_transl, target, self._colours,
                              hypothesis.priors, hypothesis.evidence, weight, self.settings.cutoff, workspace)

    def _target(self, observations, size: int, with_colour: bool) -> Target:
        """What this window should look like, made once for all its starts."""
        key = (size, with_colour)
        if key not in self._targets:
            self._targets[key] = make_target(observations, size, self.settings, with_colour)
        return self._targets[key]

    def _by_blur(self, layout: WindowLayout, start: Start, newest: Observation) -> WindowLayout:
        """The layout with a degree per joint by its expected blur at the finest level, where there is a warm start."""
        below, above = self.settings.degree_one_below, self.settings.degree_three_above
        if not start.carried or (below == 0 and (above == 0 or layout.degree <= 2)):
            return layout
        pixels = newest.crop.resized(self.settings.size).K[0, 0] / max(start.reference_transl[2], 0.1)
        travel = expected_travel(self.body, layout, start.free, pixels)
        return layout.with_degrees(degrees(travel, layout.degree, below, above))

    def _priors(self, layout: WindowLayout, start: Start) -> tuple[Term, ...]:
        widening = self.settings.motion_widening
        motion = MotionPrior.of(self._statistics, layout, widening, start.carried & ~start.slots_anew)
        if not start.carried:
            return (motion,)
        carried = self._carry.without(start.slots_anew) if start.anew.any() else self._carry
        return motion, carried.term(layout)

    def _evidence(self, observation: Observation, layout: WindowLayout, start: Start) -> tuple[Term, ...]:
        """What an exposure tells besides its image: the initialiser's pose, and that poses are human."""
        terms: tuple[Term, ...] = ()
        if observation.measurement is not None:
            measured = self._measured[id(observation.measurement)]
            terms += (measured.term(layout, start, self.settings.measurement_weight),)
        if self._prior is not None and self.settings.pose_prior_weight > 0:
            basis = layout.values_at(observation.exposure.middle)
            terms += (RotationVectorPrior(start.reference, self._prior, basis, self.settings.pose_prior_weight),)
        return terms

    def _buffer(self, count: int, size: int, single: bool) -> Workspace:
        key = (count, size, single)
        if key not in self._buffers:
            self._buffers[key] = Workspace(count, size, wide=single)
        return self._buffers[key]

    def _update_colours(self, problem: solver.Problem, solution: solver.Solution) -> None:
        """Take over the colours that were solved with the motion, or solve them given the motion."""
        if self._surface is not None:
            self._surface = solution.surface
            self._colours = self._surface.vertex_colours()
            return
        posed, predicted = solution.evaluation.posed, solution.evaluation.predicted
        self._colours = colour.solve_colours(self.body, posed.vertices, problem.workspace.frames, problem.target,
                                             predicted[..., 3], self._colours)

    # -- what came out -------------------------------------------------------------------------------------------

    def _finish(self, observations, layout, hypothesis, problem, solution) -> MotionEstimate:
        start, free = hypothesis.start, solution.free
        normal = solution.normal or problem.normal(free, solution.evaluation)
        blur, rms = blur_rate(problem.workspace.frames.alpha[-layout.subframes:]), _rms(problem, solution)
        self._carry = self._hand_on(layout, start, free, normal)
        poor, covariance = self._doubted(observations, hypothesis, problem, solution, linear.inverse(normal.total()[0]))
        status = self._status(layout, start.carried, blur)
        if poor or rms > self.settings.poor_fit:
            status |= Status.POOR_FIT
        reference = body_state(start.reference, self.betas, start.reference_transl)
        self._last = MotionEstimate(layout.start, layout.end, layout.exposures, reference, solver.widen(free),
                                    free_indices(layout.degree), covariance, status, blur, rms)
        if status & Status.DIRECTION_UNDECIDED:
            self._last = self.directions.add(self._last, self._reversal_costs(problem, free))
        if self.exposure is not None and not status & (Status.COLD_START | Status.LOW_BLUR | Status.POOR_FIT):
            self.exposure.look(problem, free, normal)
        self._seen += 1
        return self._last

    def _doubted(self, observations, hypothesis, problem, solution, covariance) -> tuple[bool, np.ndarray]:
        """Whether the fit is a poor one, and its covariance as far as it is to be believed."""
        overlap = silhouette_overlap(problem.target, solution.evaluation.predicted)
        apart = hypothesis.surprises(solution.free).max(0)
        speeds = limb_speeds(solution.evaluation.posed.joints, problem.layout.times)
        covariance = doubted(covariance, overlap, apart, speeds)
        settings = self.settings
        poor = overlap < settings.poor_overlap or apart[1:].max() > _APART or speeds[1:].max() > settings.poor_speed
        measured = [o.measurement for o in observations if o.measurement is not None]
        if agreeing(measured) < len(measured):
            return True, _CONTRADICTED**2 * covariance
        return poor, covariance

    def _reversal_costs(self, problem: solver.Problem, free: np.ndarray) -> np.ndarray:
        """[64] negative log-likelihood of every combination of reversed limbs (`direction.STATES`)."""
        return image_costs(problem, free)

    def _hand_on(self, layout: WindowLayout, start: Start, free: np.ndarray, normal: solver.Normal) -> Carry | None:
        if len(layout.exposures) < self.settings.frames or len(layout.exposures) == 1:
            return None  # the next window sees all of this evidence again
        kept = normal.prior_hessian + normal.hessian[0]
        period = layout.exposures[-1].open - layout.exposures[-2].open
        noise = process_noise(self._statistics, period, self.settings.motion_widening)
        return carry(layout, start.reference, start.reference_transl, free, kept, normal.gradient[1:].sum(0),
                     layout.exposures[1].middle, noise)

    def _status(self, layout: WindowLayout, warm: bool, blur: float) -> Status:
        status = Status.OK
        if not warm:
            status |= Status.COLD_START
        if len(layout.exposures) == 1 and not warm:
            status |= Status.DIRECTION_UNDECIDED
        if blur < self.settings.low_blur:
            status |= Status.LOW_BLUR
        return status


def _masks(values: np.ndarray, limits: tuple[float, ...]) -> list[np.ndarray]:
    """Which values exceed each limit; none twice, and none that is empty."""
    masks = {tuple(values > limit): values > limit for limit in limits}
    return [mask for mask in masks.values() if mask.any()]


def make_target(observations: tuple[Observation, ...], size: int, settings: FitSettings, with_colour: bool) -> Target:
    """Stack the exposures of a window at one resolution."""
    crop = observations[0].crop.resized(size)
    image = np.stack([_resize(o.image, size) for o in observations])
    background = np.stack([_resize(o.background, size) for o in observations])
    alpha = np.stack([_resize(o.alpha, size) for o in observations])
    sigma = np.stack([_resize(o.alpha_sigma, size) for o in observations])
    value = np.concatenate([image - background, alpha[..., None]], -1)
    weight = np.empty_like(value)
    weight[..., :3] = (sigma < 1.0)[..., None] / settings.sigma_image if with_colour else 0.0
    for w, o in zip(weight, observations, strict=True):
        if o.behind is not None:
            w[_resize(o.behind, size) < _KNOWN, :3] = 0.0
    weight[..., 3] = 1.0 / np.maximum(sigma, settings.sigma_alpha)
    return Target(value, weight, background, crop.K)


def blur_rate(alpha: np.ndarray) -> float:
    """`evaluation.blur_rate` of rendered sub-frames alpha [N, S, S]; 0 where nothing is covered."""
    return float(np.nan_to_num(silhouettes.blur_rate(alpha)))


def _resize(image: np.ndarray, size: int) -> np.ndarray:
    if image.shape[0] == size:
        return image
    return cv2.resize(image, (size, size), interpolation=cv2.INTER_AREA)


def _rms(problem: solver.Problem, solution: solver.Solution) -> float:
    """Image residual in sigmas over the pixels that the body covers or should cover."""
    body = (problem.target.value[..., 3] > 0.1) | (solution.evaluation.predicted[..., 3] > 0.1)
    r = solution.evaluation.error.whitened[body]
    return float(np.sqrt(np.mean(r * r))) if r.size else 0.0


