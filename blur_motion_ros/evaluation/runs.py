"""How the benchmark runs a sequence: through the product's pipeline, or one pose per frame, held or interpolated."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Protocol

import numpy as np

from blur_motion_ros.body.joints import lsp14
from blur_motion_ros.config import Settings
from blur_motion_ros.data.sequence import Sequence
from blur_motion_ros.evaluation.predictions import Prediction
from blur_motion_ros.evaluation.rerender import Rerendered, rerender
from blur_motion_ros.types import Exposure, Frame, JointTrajectory, MotionEstimate, Plate

if TYPE_CHECKING:
    from blur_motion_ros.pipeline import Pipeline

SAMPLES = 9  # instants per exposure


class PerFrame(Protocol):
    """One pose for each frame."""

    def __call__(self, frame: Frame, plate: Plate | None) -> np.ndarray | None:
        """Joints [24, 3] (SMPL24) or [14, 3] (LSP14) m at mid-exposure, or None."""
        ...


def run_pipeline(sequence: Sequence, settings: Settings, adapt: Callable = lambda pipeline: None) -> Prediction:
    """The product's own pipeline over a sequence, as the live node runs it. adapt: changes the pipeline beforehand."""
    from blur_motion_ros.offline import pipeline_for

    pipeline = pipeline_for(sequence, settings, adapt)
    tracks, pictures, spent, surfaces = [], [], [], []
    for frame in sequence:
        estimate = _timed(spent, pipeline.process, frame)
        tracks.append(_sampled(pipeline, estimate))
        surfaces.append(_surface(pipeline, estimate))
        if sequence.plate is not None:
            pictures.append(rerender(pipeline, estimate, frame, sequence.plate))
    return replace(_of_tracks(tracks, pictures, spent), vertices=np.stack(surfaces))


def run_offline(sequence: Sequence, settings: Settings) -> Prediction:
    """The same with hindsight, as `blur-motion fit` runs it: an exposure is told from the latest window that has it."""
    from blur_motion_ros.offline import fit_recording

    spent: list[float] = []

    def adapt(pipeline: Pipeline) -> None:
        process = pipeline.process
        pipeline.process = lambda frame: _timed(spent, process, frame)

    estimates, pipeline = fit_recording(sequence, settings, adapt=adapt)
    pictures = [] if sequence.plate is None else [
        rerender(pipeline, e, frame, sequence.plate) for e, frame in zip(estimates, sequence, strict=True)]
    made = _of_tracks([_sampled(pipeline, e) for e in estimates], pictures, spent)
    return replace(made, vertices=np.stack([_surface(pipeline, e) for e in estimates]))


def held(sequence: Sequence, settings: Settings, make: Callable[[Settings], PerFrame]) -> Prediction:
    """The pose of each frame, constant over its exposure."""
    poses, seconds = per_frame(sequence, settings, make)
    times = np.stack([_instants(e) for e in sequence.exposures])
    return _prediction(times, np.repeat(poses[:, None], SAMPLES, 1), seconds)


def interpolated(sequence: Sequence, settings: Settings, make: Callable[[Settings], PerFrame]) -> Prediction:
    """Poses at mid-exposures, linear in between; constant before the first and after the last, NaN across a miss."""
    poses, seconds = per_frame(sequence, settings, make)
    middles = np.array([e.middle for e in sequence.exposures])
    times = np.stack([_instants(e) for e in sequence.exposures])
    known = np.isfinite(poses).all((1, 2))
    if not known.any():
        return _prediction(times, np.repeat(poses[:, None], SAMPLES, 1), seconds)
    flat = poses[known].reshape(known.sum(), -1)
    dense = np.stack([np.interp(times.ravel(), middles[known], column) for column in flat.T], -1)
    dense = dense.reshape(times.shape + poses.shape[1:])
    dense[~known] = np.nan
    return _prediction(times, dense, seconds)


def per_frame(sequence: Sequence, settings: Settings,
              make: Callable[[Settings], PerFrame]) -> tuple[np.ndarray, float]:
    """[F, J, 3] poses (NaN where nobody is found) and median seconds per frame."""
    from blur_motion_ros.background import BackgroundModel

    background = BackgroundModel(settings.background, sequence.response)
    if sequence.plate is not None:
        background.set_plate(sequence.plate)
    method, found, spent = make(settings), [], []
    for frame in sequence:
        found.append(_timed(spent, method, frame, background.plate(frame)))
    shape = next((f.shape for f in found if f is not None), (14, 3))
    return np.stack([np.full(shape, np.nan) if f is None else f for f in found]), float(np.median(spent))


def _prediction(times: np.ndarray, joints: np.ndarray, seconds: float) -> Prediction:
    if joints.shape[2] == 24:
        return Prediction(times, lsp14(joints), joints, seconds=seconds)
    return Prediction(times, joints, seconds=seconds)


def _timed(spent: list[float], do: Callable, *arguments: object) -> object:
    """`do(*arguments)`; adds its processor time, s, to the list (medians are reported: the first call compiles)."""
    began = time.process_time()
    result = do(*arguments)
    spent.append(time.process_time() - began)
    return result


def _sampled(pipeline: Pipeline, estimate: MotionEstimate) -> JointTrajectory:
    from blur_motion_ros.trajectory import sample

    return sample(estimate, pipeline.skeleton, _instants(estimate.exposures[-1]))


def _surface(pipeline: Pipeline, estimate: MotionEstimate) -> np.ndarray:
    """[V, 3] m at mid-exposure, without the cloth thickness that the fit adds (NaN where nobody is found)."""
    from blur_motion_ros.trajectory import pose_at

    betas, model = estimate.reference.betas, pipeline.body
    if not np.isfinite(betas).all():
        return np.full_like(pipeline.skeleton.rest_vertices, np.nan)
    bare = pipeline.skeleton.reshaped(model.rest_vertices(betas), model.rest_joints(betas))
    return pose_at(estimate, bare, np.array([estimate.exposures[-1].middle])).vertices[0]


def _of_tracks(tracks: list[JointTrajectory], pictures: list[Rerendered | None], spent: list[float]) -> Prediction:
    joints = np.stack([t.positions for t in tracks])
    return Prediction(np.stack([t.times for t in tracks]), lsp14(joints), joints,
                      np.stack([t.position_covariance for t in tracks]), float(np.median(spent)), *_stacked(pictures))


def _stacked(pictures: list[Rerendered | None]) -> tuple[np.ndarray | None, np.ndarray | None, np.ndarray | None]:
    """alpha [F, C, C], K [F, 3, 3], psnr [F] (NaN where nothing was drawn); None each without any picture."""
    some = next((p for p in pictures if p is not None), None)
    if some is None:
        return None, None, None
    nothing = Rerendered(np.full_like(some.alpha, np.nan), np.full((3, 3), np.nan), float("nan"))
    pictures = [nothing if p is None else p for p in pictures]
    return (np.stack([p.alpha for p in pictures]), np.stack([p.K for p in pictures]),
            np.array([p.psnr for p in pictures]))


def _instants(exposure: Exposure) -> np.ndarray:
    return np.linspace(exposure.open, exposure.close, SAMPLES)
