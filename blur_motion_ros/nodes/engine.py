"""The only door from the nodes to the computing core, so that nothing else here depends on its shape."""

from __future__ import annotations

from typing import Protocol

import numpy as np

from blur_motion_ros.config import Settings
from blur_motion_ros.types import Frame, JointTrajectory, MotionEstimate


class Engine(Protocol):
    """What the nodes need of the pipeline."""

    faces: np.ndarray  # [F, 3]
    timings: dict[str, float]  # stage -> ms of the last frame

    def process(self, frame: Frame) -> MotionEstimate: ...

    def sample(self, estimate: MotionEstimate, times: np.ndarray) -> JointTrajectory: ...

    def mesh(self, estimate: MotionEstimate, time: float) -> np.ndarray: ...

    def reset(self) -> None: ...

    def set_background(self, image: np.ndarray) -> None: ...

    def capture_background(self, frames: int) -> None: ...


class PipelineEngine:
    """`pipeline.Pipeline` as an `Engine`."""

    def __init__(self, settings: Settings) -> None:
        from blur_motion_ros.pipeline import Pipeline

        self._pipeline = Pipeline(settings)
        self._lod = settings.ros.mesh_lod

    @property
    def faces(self) -> np.ndarray:
        return self._pipeline.faces

    @property
    def timings(self) -> dict[str, float]:
        return self._pipeline.timings

    def process(self, frame: Frame) -> MotionEstimate:
        return self._pipeline.process(frame)

    def sample(self, estimate: MotionEstimate, times: np.ndarray) -> JointTrajectory:
        return self._pipeline.sample(estimate, times)

    def mesh(self, estimate: MotionEstimate, time: float) -> np.ndarray:
        return self._pipeline.mesh(estimate, time, self._lod)

    def reset(self) -> None:
        self._pipeline.reset()

    def set_background(self, image: np.ndarray) -> None:
        self._pipeline.set_background(image)

    def capture_background(self, frames: int) -> None:
        self._pipeline.capture_background(frames)
