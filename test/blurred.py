"""Two blurred exposures of the capsule body with known motion, and the window's problem on them."""

from dataclasses import replace

import cv2
import numpy as np
from synthetic import capsule_body

from blur_motion_ros.fit import image_terms, solver
from blur_motion_ros.fit.dynamics import MotionPrior
from blur_motion_ros.fit.gaussian_terms import MEASURED, PoseGaussian
from blur_motion_ros.fit.kinematics import pose
from blur_motion_ros.fit.layout import FREE_JOINTS, WindowLayout
from blur_motion_ros.fit.prior_files import load_motion_statistics
from blur_motion_ros.motion import rotations
from blur_motion_ros.render import raster
from blur_motion_ros.types import Exposure

SIZE = 64
K = np.array([[SIZE * 1.6, 0, SIZE / 2 - 0.5], [0, SIZE * 1.6, SIZE / 2 - 0.5], [0, 0, 1.0]])
TRANSL = np.array([0, 0.15, 3.0])
EXPOSURES = (Exposure(0.0, 0.03), Exposure(1 / 30, 1 / 30 + 0.03))


class Scene:
    """Two blurred exposures of the capsule body, whose left elbow and right shoulder turn, and a problem on them."""

    def __init__(self):
        rng = np.random.default_rng(0)
        self.body = capsule_body()
        self.reference = rotations.exp(rng.normal(0, 0.12, (24, 3)))
        self.reference[0] = rotations.exp(np.array([np.pi, 0, 0])) @ rotations.exp(np.array([0, 0.4, 0]))
        bones = rng.uniform(0.05, 0.9, (len(self.body.rest_vertices) // 80, 1, 3))
        self.colours = np.repeat(bones, 80, 1).reshape(-1, 3).astype(np.float32)
        noise = cv2.GaussianBlur(rng.uniform(0, 1, (SIZE, SIZE, 3)).astype(np.float32), (0, 0), 3)
        self.plate = np.stack([noise, noise])
        self.layout = WindowLayout.of(EXPOSURES, 4, 2)
        self.truth = np.zeros((21, 3, 3))
        for joint, axis, turn in ((18, 2, 0.35), (17, 1, 0.2)):
            self.truth[1 + int(np.flatnonzero(FREE_JOINTS == joint)[0]), 1, axis] = turn
        self.value = self.render(self.body)

    def render(self, body):
        """[F, S, S, 4] image minus plate and alpha of the true motion, 16 sub-frames of 16 samples per pixel."""
        layout = WindowLayout.of(EXPOSURES, 16, 2)
        frames = image_terms.SubFrames.allocate(len(layout.times), SIZE, 4)
        posed = pose(body, self.reference, TRANSL, solver.widen(self.truth), layout.basis)
        raster.draw(posed.vertices, body.faces, self.colours, K, frames)
        return image_terms.predict(frames, len(EXPOSURES), self.plate)

    def problem(self, **changes):
        weight = np.concatenate([np.full((2, SIZE, SIZE, 3), 1 / 0.06), np.full((2, SIZE, SIZE, 1), 1 / 0.15)], -1)
        target = image_terms.Target(self.value, weight.astype(np.float32), self.plate, K)
        evidence = tuple((self.measured(e.middle, 0.1),) for e in EXPOSURES)
        prior = MotionPrior.of(load_motion_statistics(), self.layout, 3.0, False)
        problem = solver.Problem(self.body, self.layout, self.reference, TRANSL, target, self.colours, (prior,),
                                 evidence, 0.02, 4.0, image_terms.Workspace(len(self.layout.times), SIZE))
        return replace(problem, **changes)

    def measured(self, time, sigma):
        """The true pose at `time`, known to `sigma` rad and a third of that in metres."""
        value = np.einsum("k,jkc->jc", self.layout.values_at(time), solver.widen(self.truth))
        covariance = np.diag(np.r_[np.full(3, (sigma / 3) ** 2), np.full(72, sigma**2)])
        information = np.linalg.inv(covariance[np.ix_(MEASURED, MEASURED)])
        return PoseGaussian(self.reference, TRANSL, self.reference @ rotations.exp(value[1:]), TRANSL + value[0],
                            information, self.layout.values_at(time))

    def joints(self, free):
        return pose(self.body, self.reference, TRANSL, solver.widen(free), self.layout.basis, skin=False).joints
