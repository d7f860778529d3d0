"""The only door from the nodes to the computing core, so that nothing else here depends on its shape."""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np

from blur_motion_ros.config import Settings
from blur_motion_ros.types import Frame, JointTrajectory, MotionEstimate


class Engine(Protocol):
    """What the nodes need of the pipeline.  faces: [F, 3] of `mesh`.  timings: stage -> ms of the last frame.

    `see`, `matte` and `set_background` run in one thread, the others in another; `see` is one frame ahead.
    fresh: the frame continues nothing that came before.  late: it had to wait for the one before.  matte: a part of
    `fit` that may be done before.
    """

    faces: np.ndarray
    timings: dict[str, float]

    def see(self, frame: Frame, fresh: bool, late: bool) -> Any: ...

    def matte(self, seen: Any) -> Any: ...

    def fit(self, seen: Any, until: float) -> MotionEstimate: ...

    def sample(self, estimate: MotionEstimate, times: np.ndarray) -> JointTrajectory: ...

    def mesh(self, estimate: MotionEstimate, trajectory: JointTrajectory, index: int) -> np.ndarray: ...

    def colours(self) -> np.ndarray: ...

    def set_background(self, image: np.ndarray) -> None: ...


class PipelineEngine:
    """`pipeline.Pipeline` as an `Engine`."""

    def __init__(self, settings: Settings) -> None:
        from blur_motion_ros.body.skin import Skin
        from blur_motion_ros.pipeline import Pipeline

        self._pipeline = Pipeline(settings)
        self._surface = Skin(settings.body.path, settings.ros.mesh_lod)
        if settings.ros.warm_up:
            from blur_motion_ros.warm_up import warm_up

            warm_up(self._pipeline)
            self.colours()  # finds each vertex of the surface on the fitted one, once

    @property
    def faces(self) -> np.ndarray:
        return self._surface.faces

    @property
    def timings(self) -> dict[str, float]:
        return self._pipeline.timings

    @property
    def values(self) -> dict[str, float]:
        """More for the diagnostics: the estimated exposure, where one is made."""
        found = self._pipeline.exposure
        if found is None:
            return {}
        return {"exposure_estimate_s": found.duration, "exposure_estimate_sigma_s": found.sigma,
                "exposure_estimate_share": found.fraction}

    def see(self, frame: Frame, fresh: bool, late: bool) -> Any:
        return self._pipeline.see(frame, fresh, late)

    def matte(self, seen: Any) -> Any:
        return self._pipeline.matte(seen)

    def fit(self, seen: Any, until: float) -> MotionEstimate:
        return self._pipeline.fit(seen, until)

    def sample(self, estimate: MotionEstimate, times: np.ndarray) -> JointTrajectory:
        from blur_motion_ros.trajectory import sample

        return sample(estimate, self._pipeline.skeleton, times, self._pipeline.settings.trajectory)

    def mesh(self, estimate: MotionEstimate, trajectory: JointTrajectory, index: int) -> np.ndarray:
        """[V, 3] float32 m of the display body at `trajectory.times[index]`; trajectory: what `sample` made of it."""
        return self._surface.posed(estimate.reference.betas, trajectory.positions[index], trajectory.rotations[index])

    def colours(self) -> np.ndarray:
        """[V, 3] linear light: the fit's vertex colours, brought to the vertices of `mesh`."""
        return self._surface.coloured(self._pipeline.body, self._pipeline.colours)

    def set_background(self, image: np.ndarray) -> None:
        self._pipeline.set_background(image)
