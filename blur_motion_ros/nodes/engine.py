"""The only door from the nodes to the computing core, so that nothing else here depends on its shape."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from blur_motion_ros.config import Settings
from blur_motion_ros.types import Frame, JointTrajectory, MotionEstimate

if TYPE_CHECKING:
    from blur_motion_ros.body import BodyModel


class Engine(Protocol):
    """What the nodes need of the pipeline.  faces: [F, 3] of `mesh`.  timings: stage -> ms of the last frame.

    `see` and `set_background` run in one thread, the others in another; `see` is one frame ahead.
    fresh: the frame continues nothing that came before.
    """

    faces: np.ndarray
    timings: dict[str, float]

    def see(self, frame: Frame, fresh: bool) -> Any: ...

    def fit(self, seen: Any) -> MotionEstimate: ...

    def sample(self, estimate: MotionEstimate, times: np.ndarray) -> JointTrajectory: ...

    def mesh(self, estimate: MotionEstimate, trajectory: JointTrajectory, index: int) -> np.ndarray: ...

    def colours(self) -> np.ndarray: ...

    def set_background(self, image: np.ndarray) -> None: ...


class PipelineEngine:
    """`pipeline.Pipeline` as an `Engine`."""

    def __init__(self, settings: Settings) -> None:
        from blur_motion_ros.pipeline import Pipeline

        self._pipeline = Pipeline(settings)
        self._surface = Surface(settings.body.path, settings.ros.mesh_lod)
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

    def see(self, frame: Frame, fresh: bool) -> Any:
        return self._pipeline.see(frame, fresh)

    def fit(self, seen: Any) -> MotionEstimate:
        return self._pipeline.fit(seen)

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


class Surface:
    """The body's skin at a level of detail, posed by joint transforms as the messages carry them."""

    def __init__(self, path: str = "", lod: str = "display") -> None:
        from blur_motion_ros.body import load_body

        self._body = load_body(path or None, lod=lod)
        self._betas: np.ndarray | None = None
        self._carrier: tuple[np.ndarray, np.ndarray] | None = None
        self.faces = self._body.faces

    def posed(self, betas: np.ndarray, positions: np.ndarray, rotations: np.ndarray) -> np.ndarray:
        """Vertices [V, 3] float32 m of shape `betas` [10], joints at `positions` [24, 3], `rotations` [24, 3, 3]."""
        if self._betas is None or not np.array_equal(betas, self._betas):
            self._betas = np.array(betas)
            self._rest = self._body.rest_vertices(betas)
            self._joints = self._body.rest_joints(betas)
        offset = positions - np.einsum("jab,jb->ja", rotations, self._joints)
        moved = self._body.weights @ np.concatenate([rotations.reshape(24, 9), offset], 1)
        return (np.einsum("vab,vb->va", moved[:, :9].reshape(-1, 3, 3), self._rest) + moved[:, 9:]).astype(np.float32)

    def coloured(self, source: BodyModel, colours: np.ndarray) -> np.ndarray:
        """Colours [V, 3] of this surface from those of another level of detail `source`, by the nearest point on it."""
        if source.v_template.shape == self._body.v_template.shape:
            return colours
        if self._carrier is None:
            from blur_motion_ros.body.decimate import closest_on_mesh

            face, bary, _ = closest_on_mesh(self._body.v_template, source.v_template, source.faces)
            self._carrier = source.faces[face], bary.astype(np.float32)
        corners, bary = self._carrier
        return np.einsum("vk,vkc->vc", bary, colours[corners])
