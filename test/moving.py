"""Blurred exposures of the capsule body in any motion: finely sampled, as the pipeline would hand them to the fit."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import cv2
import numpy as np
from synthetic import capsule_body

from blur_motion_ros.camera.camera import Crop
from blur_motion_ros.fit import image_terms
from blur_motion_ros.fit.kinematics import FitBody, pose
from blur_motion_ros.motion import rotations
from blur_motion_ros.render import raster
from blur_motion_ros.types import BodyState, Exposure, Observation, PoseMeasurement

SIZE = 64
K = np.array([[SIZE * 1.6, 0, SIZE / 2 - 0.5], [0, SIZE * 1.6, SIZE / 2 - 0.5], [0, 0, 1.0]])
UPRIGHT = np.array([np.pi, 0, 0])  # SMPL's y up, facing +z -> camera's y down, facing the camera
TRANSL = np.array([0, 0.15, 3.0])
PERIOD = 1 / 30

Motion = Callable[[float], tuple[np.ndarray, np.ndarray]]  # s -> (rotation vectors [24, 3], translation [3] m)


def swinging(joint: int, axis: int, amplitude: float, frequency: float, drift: float = 0.0) -> Motion:
    """A joint that swings (rad, Hz) on a body that drifts to the right (m/s)."""
    def at(t: float) -> tuple[np.ndarray, np.ndarray]:
        turn = np.zeros((24, 3))
        turn[joint, axis] = amplitude * np.sin(2 * np.pi * frequency * t)
        return turn, np.array([drift * t, 0.0, 0.0])
    return at


@dataclass
class MovingBody:
    """A capsule body with limb-wise colours before a smooth background; `motion` turns it away from its first pose."""

    motion: Motion
    seed: int = 0
    duty: float = 0.9
    frames: int = 10

    def __post_init__(self) -> None:
        rng = np.random.default_rng(self.seed)
        self.body: FitBody = capsule_body()
        self.first = rotations.exp(rng.normal(0, 0.12, (24, 3)))
        self.first[0] = rotations.exp(UPRIGHT) @ rotations.exp(np.array([0, 0.4, 0]))
        bones = rng.uniform(0.05, 0.9, (len(self.body.rest_vertices) // 80, 1, 3))
        self.colours = np.repeat(bones, 80, 1).reshape(-1, 3).astype(np.float32)
        noise = rng.uniform(0, 1, (SIZE, SIZE, 3)).astype(np.float32)
        self.background = cv2.GaussianBlur(noise, (0, 0), 3)
        self._rng = rng

    def exposure(self, index: int) -> Exposure:
        return Exposure(index * PERIOD, (index + self.duty) * PERIOD)

    def local(self, t: float) -> tuple[np.ndarray, np.ndarray]:
        """True local rotations [24, 3, 3] and translation [3] at `t` s."""
        turn, moved = self.motion(t)
        return self.first @ rotations.exp(turn), TRANSL + moved

    def joints(self, t: float) -> np.ndarray:
        """True joints [24, 3] m at `t` s."""
        local, transl = self.local(t)
        return pose(self.body, local, transl, np.zeros((25, 1, 3)), np.ones((1, 1)), skin=False).joints[0]

    def velocity(self, t: float, h: float = 1e-4) -> np.ndarray:
        return (self.joints(t + h) - self.joints(t - h)) / (2 * h)

    def observation(self, index: int, sigma: float = 0.1, subframes: int = 24) -> Observation:
        """The blurred exposure with a pose measured at mid-exposure, noise `sigma` rad (a third of it in m)."""
        exposure = self.exposure(index)
        workspace = image_terms.Workspace(subframes, SIZE, 3)
        vertices = []
        for cell in (np.arange(subframes) + 0.5) / subframes:
            local, transl = self.local(exposure.open + cell * exposure.duration)
            vertices.append(pose(self.body, local, transl, np.zeros((25, 1, 3)), np.ones((1, 1))).vertices[0])
        raster.draw(np.stack(vertices), self.body.faces, self.colours, K, workspace.frames)
        predicted = image_terms.predict(workspace.frames, 1, self.background[None])[0]
        return Observation(exposure, Crop(K, SIZE), predicted[..., :3] + self.background, self.background,
                           predicted[..., 3], np.full((SIZE, SIZE), 0.1, np.float32), self._measured(exposure, sigma))

    def _measured(self, exposure: Exposure, sigma: float) -> PoseMeasurement:
        local, transl = self.local(exposure.middle)
        noisy = local @ rotations.exp(self._rng.normal(0, sigma, (24, 3)))
        vectors = rotations.log(noisy)
        state = BodyState(vectors[0], vectors[1:], np.zeros(10), transl + self._rng.normal(0, sigma / 3, 3))
        covariance = np.diag(np.r_[np.full(3, (sigma / 3) ** 2), np.full(72, sigma**2)])
        return PoseMeasurement(exposure.middle, state, covariance, None, 0.0)
