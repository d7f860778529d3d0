"""How long the shutter is open, told by the blur: one slow parameter beside the motion.

Displacement between frames tells how fast a body moves; the length of its smear tells how fast times how long the
shutter was open. The residual r of a solved window is linearised in the duration as it is in the motion. With J the
derivative of the predicted image by the duration (difference of the window rendered with sub-frame times scaled about
the middle of each exposure) and H, C, g of the motion (Gauss-Newton matrix, products with J, right-hand side), the
motion is eliminated:

    information = J'WJ - C'H^-1 C        gradient = J'Wr - C'H^-1 g

So are two things that lengthen a smear without being one: thicker clothes and a soft lens or matte. Left in, they make
every exposure look a tenth longer. What remains feeds a scalar Kalman filter with a slow random walk.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, replace

import numpy as np

from blur_motion_ros.camera.exposure import frame_period
from blur_motion_ros.camera.settings import CameraSettings
from blur_motion_ros.fit import image_terms, linear, solver
from blur_motion_ros.fit.image_terms import Residual
from blur_motion_ros.motion import polynomials
from blur_motion_ros.types import Exposure, Frame

STEP = 0.5  # of the duration: a secant, because the image is linear in an edge's place for about a pixel only
THICKNESS = 0.01  # m: one sigma of how much thicker or thinner the clothes may be than the fit assumes
LEAST_INFORMATION = 3.0  # a window surer than to 58 % is asked; in others the errors of the model win
_ALIKE = 2.5  # true errors in the filter's sigmas (rms 2.3, docs/direction.md): it does not know that windows err alike
_LONGEST_STEP = 0.3  # of the duration, by one window
_SHORTEST = 0.02  # of the duration stated
_FULL = 0.98  # of the period: a stuttering clock must not let exposures overlap
_HISTORY = 31  # frames from which the period is taken


@dataclass(frozen=True)
class Evidence:
    """What one window says of its exposures' duration, as a ratio to the one it was fitted with.

    A Gaussian: mean 1 + gradient / information, variance 1 / information.
    """

    gradient: float
    information: float


def evidence(problem: solver.Problem, free: np.ndarray, normal: solver.Normal) -> Evidence:
    """Of a solved window: free [21, K, 3] and the linearisation there. Draws into the problem's workspace."""
    here = problem.evaluate(free)
    robust, predicted = here.error.root_weight, here.predicted
    slopes = [_difference(scaled(problem, 1 + STEP), scaled(problem, 1 - STEP), free) / (2 * STEP),
              _difference(_thicker(problem, THICKNESS), _thicker(problem, -THICKNESS), free) / 2,
              _softer(predicted) - predicted]
    whitened = np.sqrt(np.float32(problem.data_weight)) * robust
    rows = np.stack([(whitened * problem.target.weight * s).reshape(-1) for s in slopes]).astype(np.float64)
    residual = (whitened * here.error.whitened).reshape(-1).astype(np.float64)
    here = problem.evaluate(free)  # its rendering must be in the workspace
    cross = problem.data_weight * np.stack([_project(problem, here, problem.target.weight * s) for s in slopes])
    hessian, gradient = normal.total()
    eliminated = linear.inverse(hessian) @ cross.T  # [n, 3]
    matrix = rows @ rows.T - cross @ eliminated
    right = rows @ residual - eliminated.T @ gradient
    matrix[1:, 1:] += np.eye(len(slopes) - 1)  # one sigma is what their slopes were made for
    share = np.linalg.solve(matrix[1:, 1:], matrix[1:, 0])
    return Evidence(float(right[0] - share @ right[1:]), max(float(matrix[0, 0] - share @ matrix[1:, 0]), 0.0))


def scaled(problem: solver.Problem, ratio: float) -> solver.Problem:
    """The same window with every exposure `ratio` times as long about its middle; the polynomials stay."""
    layout = problem.layout
    middle = np.repeat([e.middle for e in layout.exposures], layout.subframes)
    times = middle + ratio * (layout.times - middle)
    basis = polynomials.basis(times, layout.start, layout.end, layout.degree)
    return replace(problem, layout=replace(layout, times=times, basis=basis))


class ExposureEstimator:
    """The ratio of the true exposure to the one that the frames state, over all frames of a camera.

    `apply` gives frames their estimated exposure, `look` learns from windows fitted to them; the two may run in
    different threads.
    """

    def __init__(self, settings: CameraSettings):
        self._settings = settings
        self._opens: deque[float] = deque(maxlen=_HISTORY)
        self._stated = float("nan")
        self._until_next = 0
        self.ratio = 1.0
        self.variance = settings.exposure_sigma**2

    @property
    def duration(self) -> float:
        """Seconds that the shutter is estimated to be open (NaN before the first frame)."""
        return self.ratio * self._stated

    @property
    def fraction(self) -> float:
        """The same as a share of the frame period (NaN before the second frame)."""
        return self.duration / self.period

    @property
    def sigma(self) -> float:
        """One standard deviation of `duration`, s: the filter's, as much larger as its errors were found to be, and at
        most what was assumed before anything was seen."""
        return min(_ALIKE * float(np.sqrt(self.variance)), self._settings.exposure_sigma) * self._stated

    @property
    def period(self) -> float:
        """Seconds from frame to frame (NaN before the second frame)."""
        return frame_period(np.diff(self._opens)) if len(self._opens) > 1 else float("nan")

    def apply(self, frame: Frame) -> Frame:
        """The frame with the exposure that its stated one stands for; what the stamp marks (`reference`) stays."""
        stated = frame.exposure
        if self._opens and stated.open <= self._opens[-1]:
            self._opens.clear()
        self._opens.append(stated.open)
        self._stated = stated.duration
        return replace(frame, exposure=self.scaled(stated))

    def scaled(self, stated: Exposure) -> Exposure:
        """The exposure that a stated one stands for."""
        duration = self.ratio * stated.duration
        if np.isfinite(self.period):
            duration = min(duration, max(_FULL * self.period, stated.duration))
        kept = {"start": 0.0, "middle": 0.5, "end": 1.0}[self._settings.reference]
        opened = stated.open + kept * (stated.duration - duration)
        return Exposure(opened, opened + duration)

    def look(self, problem: solver.Problem, free: np.ndarray, normal: solver.Normal) -> None:
        """Learn from a solved window of several exposures; windows that overlap the last one looked at are skipped."""
        self._until_next -= 1
        if self._until_next > 0 or len(problem.layout.exposures) < 2:
            return
        self._until_next = len(problem.layout.exposures)
        self.update(evidence(problem, free, normal))

    def update(self, found: Evidence) -> None:
        """One step of the filter; nothing happens, and nothing is forgotten, where the window does not tell."""
        if found.information < LEAST_INFORMATION:
            return
        # Drift beyond what the setting allows for is not believed: the prior is the widest the variance gets.
        self.variance = min(self.variance + self._settings.exposure_drift**2, self._settings.exposure_sigma**2)
        step = float(np.clip(found.gradient / found.information, -_LONGEST_STEP, _LONGEST_STEP))
        noise = self.ratio**2 / found.information
        gain = self.variance / (self.variance + noise)
        longest = max(_FULL * self.period / self._stated, 1.0) if np.isfinite(self.period) else np.inf
        self.ratio = float(np.clip(self.ratio * (1 + gain * step), _SHORTEST, longest))
        self.variance *= 1 - gain


def _difference(above: solver.Problem, below: solver.Problem, free: np.ndarray) -> np.ndarray:
    return above.evaluate(free).predicted - below.evaluate(free).predicted


def _thicker(problem: solver.Problem, metres: float) -> solver.Problem:
    """The same window with a body grown along its normals."""
    body = problem.body
    return replace(problem, body=body.reshaped(body.rest_vertices, body.rest_joints, metres))


def _softer(images: np.ndarray) -> np.ndarray:
    """Images [F, S, S, 4] after one 1-2-1 pass each way."""
    wide = np.pad(images, ((0, 0), (1, 1), (1, 1), (0, 0)), mode="edge")
    rows = 0.25 * (wide[:, :-2] + 2 * wide[:, 1:-1] + wide[:, 2:])
    return 0.25 * (rows[:, :, :-2] + 2 * rows[:, :, 1:-1] + rows[:, :, 2:])


def _project(problem: solver.Problem, at: solver.Evaluation, whitened: np.ndarray) -> np.ndarray:
    """[n] J'W s of the motion for a whitened image change s [F, S, S, 4]."""
    error = Residual(whitened, at.error.root_weight, 0.0)
    _, right = image_terms.normal_equations(problem.body, at.posed, problem.workspace, problem.layout, problem.target,
                                            error)
    return right.sum(0)
