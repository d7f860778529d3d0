"""The methods of the benchmark table: ours, and what it is compared with.

A method takes a sequence (inputs only) and gives a `Prediction`. `METHODS` lists them by name. A baseline that sees one
pose per frame comes twice: *held* over the exposure, and *interpolated* linearly between mid-exposures (which looks at
the next frame, so it could not run live).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
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


@dataclass(frozen=True)
class Method:
    """name: in tables and on the command line.  doc: one line.  run: sequence, settings -> prediction.

    causal: it uses nothing from after the exposure's own frame.  available: whether the files it needs are here."""

    name: str
    doc: str
    run: Callable[[Sequence, Settings], Prediction]
    causal: bool = True
    available: Callable[[], bool] = lambda: True


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


def select(names: Iterable[str] | None) -> list[Method]:
    """Methods by name (None: all whose files are here). ValueError lists the known ones."""
    table = methods()
    if names is None:
        return [m for m in table.values() if m.available()]
    unknown = [n for n in names if n not in table]
    if unknown:
        raise ValueError(f"unknown method '{unknown[0]}'; known: {', '.join(table)}")
    return [table[n] for n in names]


def methods() -> dict[str, Method]:
    """Every method by name, in the order of the table."""
    from blur_motion_ros.evaluation import baselines as b

    pairs = (("blazepose", "BlazePose per frame, root by reprojection", b.BlazePoseFrames),
             ("initialiser", "BlazePose registered to the body, without the temporal network", b.InitialiserFrames),
             ("vibe", "our initialiser alone: the registration fused with the temporal network (VIBE)", b.VibeFrames),
             ("deblur_wiener", "Wiener deconvolution along the measured flow, then BlazePose", b.WienerFrames),
             ("deblur_rl", "Richardson-Lucy deconvolution along the measured flow, then BlazePose",
              b.RichardsonLucyFrames),
             ("deblur_onnx", "a learned deblurring network (ONNX file in BLUR_MOTION_DEBLUR_ONNX), then BlazePose",
              b.OnnxFrames))
    out = [Method("blur_fit", "ours, live: polynomial motion fitted to the blurred images", run_pipeline),
           Method("blur_fit_offline", "ours with two exposures of hindsight, as `blur-motion fit`", run_offline, False),
           Method("registration_n1", "ours without the blur model: one sharp sub-frame per exposure (N = 1)",
                  b.run_single_subframe),
           Method("rigid_two_frames", "one rigid motion over two frames, same renderer (as in MfB)", b.run_rigid_two),
           Method("rigid_one_frame", "one rigid motion per frame, same renderer (as in SfB)", b.run_rigid_one)]
    for name, doc, make in pairs:
        available = getattr(make, "available", Method.available)
        out.append(Method(f"{name}_held", f"{doc}; held", _Bound(held, make), available=available))
        out.append(Method(f"{name}_interp", f"{doc}; interpolated", _Bound(interpolated, make), False, available))
    return {m.name: m for m in out}


@dataclass(frozen=True)
class _Bound:
    """`held` or `interpolated` with its per-frame method."""

    schedule: Callable
    make: Callable[[Settings], PerFrame]

    def __call__(self, sequence: Sequence, settings: Settings) -> Prediction:
        return self.schedule(sequence, settings, self.make)


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
