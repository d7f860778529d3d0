"""VIBE as an initialiser: a temporal network, one step per frame, in place of registering landmarks frame by frame.

Two variants of the same temporal encoder and regressor: `LandmarkStream` reads BlazePose landmarks (the shipped, free
network), `ImageStream` reads ResNet-50 features of a square crop (official weights, exported by `blur-motion export
vibe`). Both carry the GRU state from frame to frame and forget it when the person is lost. `LandmarkReader` is for
recordings: its encoder is bidirectional, as the paper draws it, and sees the frames before and after.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from blur_motion_ros.body import BodyModel
from blur_motion_ros.camera.camera import Camera
from blur_motion_ros.fit import linear
from blur_motion_ros.initialiser.vibe_filter import PoseFilter
from blur_motion_ros.initialiser.vibe_landmarks import Start, View, features_of, mirror_features, view_translation
from blur_motion_ros.motion import rotations
from blur_motion_ros.motion.pose import body_state, local_rotations
from blur_motion_ros.types import BodyState, Exposure, Frame, Landmarks, Plate, PoseMeasurement

LANDMARK_NETWORK = "vibe_landmarks.ts"
HINDSIGHT_NETWORK = "vibe_hindsight.ts"
_GAP = 0.25  # seconds without a person after which the past is forgotten
_SHAPE_MEMORY = 60  # frames over which the shape is averaged
_ENLARGED = np.r_[np.full(3, 2.5), np.full(72, 1.95)]  # of place and rotations: measured error / product's sigma
_IMAGE_SIGMA = 0.35  # rad, rotations of the image variant: official weights say nothing of their own errors
_IMAGE_DEPTH_SIGMA = 0.08  # fraction of the depth, likewise


@dataclass(frozen=True)
class StreamOutput:
    """One frame's body in the camera frame.

    local: [24, 3, 3] rotations, root included; betas: [10]; pelvis: [3] m (the pelvis *joint*); covariance: [75, 75]
    over (pelvis m, right rotation tangents rad).
    """

    local: np.ndarray
    betas: np.ndarray
    pelvis: np.ndarray
    covariance: np.ndarray


class Stream(Protocol):
    """A network that is fed one frame after another."""

    def step(self, frame: Frame, landmarks: Landmarks, start: Start | None = None) -> StreamOutput: ...

    def reset(self) -> None: ...


class ShapeAverage:
    """The sequence's one shape: mean of what the network said so far, slowly forgetting."""

    def __init__(self, memory: int = _SHAPE_MEMORY):
        self._memory = memory
        self.reset()

    def reset(self) -> None:
        self._count, self._mean = 0, np.zeros(10)

    def update(self, betas: np.ndarray) -> np.ndarray:
        self._count = min(self._count + 1, self._memory)
        self._mean = self._mean + (betas - self._mean) / self._count
        return self._mean.copy()


class LandmarkStream:
    """The landmark encoder, streaming. network: TorchScript of `LandmarkVibe` (or the module itself)."""

    def __init__(self, network: Any):
        self._network = network
        self._shape = ShapeAverage()
        self.reset()

    @staticmethod
    def load(path: str | Path | None = None) -> LandmarkStream:
        """The packaged network, or the TorchScript file at `path`. Raises ValueError for a bidirectional one."""
        network = load_network(path or _packaged(LANDMARK_NETWORK))
        if _bidirectional(network):
            raise ValueError(f"{path}: a bidirectional network, which cannot stream; it reads recordings "
                             "(initialiser.hindsight_network)")
        return LandmarkStream(network)

    def reset(self) -> None:
        """Forget the past: the next frame is the first of a sequence."""
        self._state, self._time = None, None
        self._shape.reset()

    def step(self, frame: Frame, landmarks: Landmarks, start: Start | None = None) -> StreamOutput:
        """One frame on: landmarks and their registration. The frame's image is not looked at."""
        import torch

        time = frame.exposure.middle
        if self._time is not None and not 0 < time - self._time < _GAP:
            self.reset()
        gap = 0.0 if self._time is None else time - self._time
        if start is None:
            raise ValueError("start is missing: the landmark network corrects a registration; give it one")
        x, view = features_of(landmarks, frame.camera, gap, frame.exposure.duration, start)
        with torch.inference_mode():
            p, self._state = self._network(torch.from_numpy(x)[None, None], self._state)
        self._time = time
        return _lifted(p, 0, 0, view, self._shape.update(p.shape[0, 0].double().numpy()))


@dataclass(frozen=True)
class Sight:
    """One frame as the landmark networks take it; start: the landmarks' registration."""

    exposure: Exposure
    camera: Camera
    landmarks: Landmarks
    start: Start


class LandmarkReader:
    """The bidirectional landmark encoder: a recording at once, every frame with those before and after it.

    network: TorchScript of a bidirectional `LandmarkVibe` (or the module itself). It reads the mirrored scene too, and
    the answer is the mean: what it takes left and right for differently is its error.
    """

    def __init__(self, network: Any):
        self._network = network

    @staticmethod
    def load(path: str | Path | None = None) -> LandmarkReader:
        """The packaged network, or the TorchScript file at `path`. Raises ValueError for one that streams."""
        network = load_network(path or _packaged(HINDSIGHT_NETWORK))
        if not _bidirectional(network):
            raise ValueError(f"{path}: not a bidirectional landmark network; make it with `blur-motion train vibe "
                             "--bidirectional`")
        return LandmarkReader(network)

    def read(self, sights: Sequence[Sight]) -> list[StreamOutput]:
        """One output per frame of an unbroken track, in order of time. The shape is the mean of all."""
        import torch

        times = [s.exposure.middle for s in sights]
        gaps = [0.0, *np.diff(times)]
        rows = [features_of(s.landmarks, s.camera, gap, s.exposure.duration, s.start)
                for s, gap in zip(sights, gaps, strict=True)]
        x = np.stack([row[0] for row in rows])
        with torch.inference_mode():
            p, _ = self._network(torch.from_numpy(np.stack([x, mirror_features(x)])), None)
        betas = p.shape.double().mean((0, 1)).numpy()
        return [between(_lifted(p, 0, i, view, betas), mirrored(_lifted(p, 1, i, view.mirrored, betas)))
                for i, (_, view) in enumerate(rows)]


class ImageStream:
    """The official architecture, streaming. network: TorchScript of `ImageVibe`; device: where it runs."""

    def __init__(self, network: Any, device: str = "cpu"):
        self._network, self._device = network.to(device), device
        self._shape = ShapeAverage()
        self.reset()

    @staticmethod
    def load(path: str | Path, device: str = "cpu") -> ImageStream:
        """A file written by `blur-motion export vibe`."""
        return ImageStream(load_network(path), device)

    def reset(self) -> None:
        self._state = None
        self._shape.reset()

    def step(self, frame: Frame, landmarks: Landmarks, start: Start | None = None) -> StreamOutput:
        """One frame on: crop around the person's box, network, camera lifted with the true crop."""
        import torch

        from blur_motion_ros.initialiser.vibe_camera import SquareCrop, weak_perspective_to_translation
        from blur_motion_ros.initialiser.vibe_model import normalise_image

        crop = SquareCrop.around(landmarks.box)
        image = normalise_image(torch.from_numpy(crop.cut(frame.image)))[None, None].to(self._device)
        with torch.inference_mode():
            p, self._state = self._network(image, self._state)
        pelvis = weak_perspective_to_translation(p.cam[0, 0].double().cpu().numpy(), crop, frame.camera)
        sigma = np.log(np.r_[0.05, 0.05, _IMAGE_DEPTH_SIGMA, np.full(72, _IMAGE_SIGMA)])
        return StreamOutput(p.rotmat[0, 0].double().cpu().numpy(),
                            self._shape.update(p.shape[0, 0].double().cpu().numpy()), pelvis,
                            _covariance(sigma, pelvis[2], np.eye(3)))


class VibeInitialiser:
    """Finds and follows one person, and measures their body with a VIBE stream (see `initialiser.base.Initialiser`).

    tracker: `person.PersonTracker`; register: `landmark.Registrar` of the same landmarks; sides: `sides.SideKeeper`.
    The network's answer is fused with the registration as a Gaussian, and smoothed (`vibe_filter`) unless
    `smooth` is false. hindsight_network: file that `initialiser.hindsight` reads recordings with (None: the packaged).
    """

    def __init__(self, tracker: Any, stream: Stream, body: BodyModel, register: Any = None, sides: Any = None,
                 smooth: bool = True, hindsight_network: str | Path | None = None):
        from blur_motion_ros.initialiser.landmark import Registrar
        from blur_motion_ros.initialiser.sides import SideKeeper

        self.tracker, self.stream, self._body = tracker, stream, body
        self.hindsight_network = hindsight_network
        self.register = register or Registrar(body)
        self._sides = sides or SideKeeper()
        self._filter = PoseFilter() if smooth else None

    def reset(self) -> None:
        """Forget whom we followed and how they moved."""
        for part in (self.tracker, self.stream, self.register, self._sides, self._filter):
            if part is not None:
                part.reset()

    def measure(self, frame: Frame, plate: Plate | None = None, late: bool = False) -> PoseMeasurement | None:
        """See `base.Initialiser.measure`."""
        landmarks = self.tracker.track(frame.image, plate, frame.exposure.duration, late)
        if landmarks is None:
            self.register.forget_pose()
            self._sides.reset()
            return None
        return self.of_landmarks(frame, landmarks)

    def of_landmarks(self, frame: Frame, landmarks: Landmarks) -> PoseMeasurement:
        """The measurement where the landmarks are known already."""
        landmarks = self._sides.correct(landmarks, frame.exposure.middle)
        registered = self.register(landmarks, frame)
        out = self.stream.step(frame, landmarks, start_of(registered.state, self._body))
        fused = fuse(registered, out, self._body)
        state = fused.state if self._filter is None else self._filter(fused.state, fused.time)
        return replace(fused, state=state, residual_px=reprojection_error(state, self._body, frame.camera, landmarks))


def start_of(state: BodyState, body: BodyModel) -> Start:
    """A registered state as the network takes it."""
    return Start(local_rotations(state), np.asarray(state.betas, float),
                 body.rest_joints(state.betas)[0] + state.transl)


def fuse(registered: PoseMeasurement, out: StreamOutput, body: BodyModel, trust: float = 4.0,
         place_trust: float = 0.25) -> PoseMeasurement:
    """Product of two Gaussians over translation and rotation tangents, in the tangent space of the registration.

    trust, place_trust: weight of the network's information on rotations and on the place (chosen on held-out
    recordings: registration is too sure of its rotations; it knows the place better, by body height). Both come from
    the same landmarks, so the product is too sure of itself: its standard deviations are enlarged to the errors
    measured on held-out recordings. The registration's shape is kept.
    """
    local = local_rotations(registered.state)
    rest = body.rest_joints(registered.state.betas)[0]
    step = np.concatenate([out.pelvis - rest - registered.state.transl,
                           rotations.log(np.swapaxes(local, -1, -2) @ out.local).ravel()])
    weight = np.sqrt(np.r_[np.full(3, place_trust), np.full(72, trust)])
    mine, theirs = linear.inverse(registered.covariance), linear.inverse(out.covariance) * weight[:, None] * weight
    spread = linear.inverse(mine + theirs)
    step = spread @ (theirs @ step)
    state = body_state(local @ rotations.exp(step[3:].reshape(24, 3)), registered.state.betas,
                       registered.state.transl + step[:3])
    return replace(registered, state=state, covariance=spread * _ENLARGED[:, None] * _ENLARGED)


def state_of(out: StreamOutput, body: BodyModel) -> BodyState:
    """SMPL parameters: `transl` is the pelvis minus its rest position."""
    return body_state(out.local, out.betas, out.pelvis - body.rest_joints(out.betas)[0])


def reprojection_error(state: BodyState, body: BodyModel, camera: Camera, landmarks: Landmarks) -> float:
    """RMS pixels between the twelve limb joints and their landmarks, the seen ones."""
    from blur_motion_ros.body.joints import BLAZEPOSE33_IS_SMPL24
    from blur_motion_ros.data.mocap import PARENTS, forward

    start = start_of(state, body)
    _, joints = forward(start.local[None], body.rest_joints(state.betas), PARENTS)
    joints = joints[0] - joints[0, 0] + start.pelvis
    pairs = np.array(BLAZEPOSE33_IS_SMPL24)
    seen = landmarks.visibility[pairs[:, 0]] > 0.5
    if not seen.any() or joints[:, 2].min() < 0.1:
        return float("inf")
    away = camera.project(joints[pairs[seen, 1]]) - landmarks.image[pairs[seen, 0]]
    return float(np.sqrt((away**2).sum(1).mean()))


def load_network(path: str | Path) -> Any:
    """A TorchScript file on the CPU. Raises ValueError naming it if it is not one."""
    import torch

    path = Path(path)
    if not path.is_file():
        raise ValueError(f"{path}: no such file; make it with `blur-motion export vibe` or `blur-motion train vibe`")
    try:
        return torch.jit.load(str(path), map_location="cpu").float().eval()  # some are kept in half precision
    except RuntimeError as error:
        raise ValueError(f"{path}: not a TorchScript file; make it with `blur-motion export vibe`") from error


def between(a: StreamOutput, b: StreamOutput) -> StreamOutput:
    """Halfway between two answers for one frame."""
    return StreamOutput(rotations.slerp(a.local, b.local, 0.5), 0.5 * (a.betas + b.betas), 0.5 * (a.pelvis + b.pelvis),
                        0.5 * (a.covariance + b.covariance))


def mirrored(out: StreamOutput) -> StreamOutput:
    """The same body in the mirrored world (x of the camera reversed): left and right exchanged."""
    from blur_motion_ros.body.joints import SMPL24_MIRROR

    order = list(SMPL24_MIRROR)
    # a rotation tangent is an axial vector: reflected and reversed
    signs = np.r_[-1.0, 1.0, 1.0, np.tile([1.0, -1.0, -1.0], 24)]
    index = np.r_[:3, 3 + (3 * np.array(order)[:, None] + np.arange(3)).ravel()]
    flip = np.diag([-1.0, 1.0, 1.0])
    return StreamOutput(flip @ out.local[order] @ flip, out.betas, flip @ out.pelvis,
                        out.covariance[np.ix_(index, index)] * signs[:, None] * signs)


def _lifted(p: Any, n: int, t: int, view: View, betas: np.ndarray) -> StreamOutput:
    """Item n, frame t of a `LandmarkPrediction`, from its view to the camera frame."""
    local = p.rotmat[n, t].double().numpy()
    local[0] = view.rotation.T @ local[0]
    in_view = view_translation(p.cam[n, t].double().numpy(), np.float64(view.size))
    return StreamOutput(local, betas, view.rotation.T @ in_view,
                        _covariance(p.log_sigma[n, t].double().numpy(), in_view[2], view.rotation))


def _bidirectional(network: Any) -> bool:
    return any(name.endswith("_reverse") for name, _ in network.named_parameters())


def _packaged(name: str) -> Path:
    from blur_motion_ros.assets import packaged

    return packaged(name)


def _covariance(log_sigma: np.ndarray, depth: float, view: np.ndarray) -> np.ndarray:
    """[75, 75]: translation sigmas are in view axes, the depth's a fraction of it; tangents are right ones and keep."""
    sigma = np.exp(log_sigma)
    sigma[2] *= depth
    out = np.diag(sigma**2)
    out[:3, :3] = view.T @ out[:3, :3] @ view
    return out
