"""Compile and load everything before the first image, so that it is not answered seconds late."""

from __future__ import annotations

import numpy as np

from blur_motion_ros.camera.camera import Camera
from blur_motion_ros.config import Settings
from blur_motion_ros.types import BodyState, Exposure, Frame, Landmarks, PoseMeasurement

_CAMERA = Camera(320, 240, np.array([[260.0, 0, 160], [0, 260.0, 120], [0, 0, 1]]))
_FRAMES = 4


def warm_up(settings: Settings) -> None:
    """Run a throw-away pipeline on noise: once with the real initialiser, a few times with a made-up person."""
    from blur_motion_ros.pipeline import Pipeline

    real = Pipeline(settings)
    real.process(_frame(0))
    pretend = Pipeline(settings, body=real.body, initialiser=_Standing())
    pretend.set_background(_frame(99).image)
    for i in range(_FRAMES):
        estimate = pretend.process(_frame(i))
    from blur_motion_ros.trajectory import sample

    sample(estimate, pretend.skeleton, np.array([estimate.end]))


class _Standing:
    """An initialiser that always sees the same person standing 3 m away."""

    def measure(self, frame: Frame, plate: object = None) -> PoseMeasurement:
        state = BodyState(np.array([np.pi, 0.0, 0.0]), np.zeros((23, 3)), np.zeros(10), np.array([0.0, 0.2, 3.0]))
        image = np.full((33, 2), 120.0)
        landmarks = Landmarks(image, np.zeros((33, 3)), np.ones(33), 1.0, None, np.eye(3)[:2],
                              np.array([100.0, 20.0, 220.0, 220.0]))
        return PoseMeasurement(frame.exposure.middle, state, 0.01 * np.eye(75), landmarks, 1.0)

    def reset(self) -> None:
        """Nothing is remembered."""


def _frame(index: int) -> Frame:
    image = np.random.default_rng(index).integers(60, 200, (_CAMERA.height, _CAMERA.width, 3)).astype(np.uint8)
    return Frame(image, Exposure(index / 30, index / 30 + 0.03), _CAMERA, index)
