"""What the blur fit is compared with: one pose per frame, deblurring first, one sharp sub-frame, rigid motion."""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from dataclasses import replace

import cv2
import numpy as np

from blur_motion_ros.body.joints import lsp14
from blur_motion_ros.camera.camera import Camera
from blur_motion_ros.config import Settings
from blur_motion_ros.data.sequence import Sequence
from blur_motion_ros.evaluation.predictions import Prediction
from blur_motion_ros.evaluation.runs import run_pipeline
from blur_motion_ros.fit.gaussian_terms import CoefficientPrior, Term
from blur_motion_ros.fit.layout import FREE_COUNT, WindowLayout
from blur_motion_ros.fit.starts import Start
from blur_motion_ros.fit.window import BlurFit
from blur_motion_ros.light import to_codes, to_linear
from blur_motion_ros.types import Frame, Landmarks, Plate

_STIFF = 1e8  # precision that leaves a coefficient no freedom


class BlazePoseFrames:
    """BlazePose's world landmarks of each blurred frame, placed so that they project onto its image landmarks."""

    def __init__(self, settings: Settings):
        from blur_motion_ros.initialiser.blazepose import BlazePose
        from blur_motion_ros.initialiser.person import PersonTracker

        networks = BlazePose.pretrained(settings.initialiser.person.threads)
        self._tracker = PersonTracker(networks, settings.initialiser.person)

    def __call__(self, frame: Frame, plate: Plate | None) -> np.ndarray | None:
        """The plate is not used: the network sees the frame as it is."""
        seen = self._tracker.track(self.prepare(frame, plate))
        return None if seen is None else lsp14(placed(seen, frame.camera))

    def prepare(self, frame: Frame, plate: Plate | None) -> np.ndarray:
        """The image that the network sees."""
        return frame.image


def placed(seen: Landmarks, camera: Camera) -> np.ndarray:
    """World landmarks [33, 3] moved by the translation that reprojects them best (linear least squares, visibility
    weighted), camera frame, m."""
    rays = camera.undistort(seen.image)
    weight = np.sqrt(np.clip(seen.visibility, 0.01, 1))[:, None]
    ones = np.ones(len(rays))
    rows = np.concatenate([np.stack([ones, 0 * ones, -rays[:, 0]], 1) * weight,
                           np.stack([0 * ones, ones, -rays[:, 1]], 1) * weight])
    x, y, z = seen.world.T
    right = np.concatenate([(rays[:, 0] * z - x) * weight[:, 0], (rays[:, 1] * z - y) * weight[:, 0]])
    return seen.world + np.linalg.lstsq(rows, right, rcond=None)[0]


class InitialiserFrames:
    """The landmarks registered to the body, frame by frame, clean plate included; no temporal network."""

    kind = "landmarks"

    def __init__(self, settings: Settings):
        from blur_motion_ros.body import load_body
        from blur_motion_ros.initialiser.base import make_initialiser

        self._body = load_body(settings.body.path or None, lod="fit")
        self._initialiser = make_initialiser(replace(settings.initialiser, kind=self.kind), self._body)

    def __call__(self, frame: Frame, plate: Plate | None) -> np.ndarray | None:
        from blur_motion_ros.body.skeleton import Skeleton
        from blur_motion_ros.motion.pose import local_rotations

        measured = self._initialiser.measure(frame, plate)
        if measured is None:
            return None
        s = measured.state
        return Skeleton.of(self._body, s.betas).forward_kinematics(local_rotations(s), s.transl)[0]


class VibeFrames(InitialiserFrames):
    """The pipeline's own initialiser: the registration fused with the packaged temporal network (or the one that
    `initialiser.network` names)."""

    kind = "vibe"

    @staticmethod
    def available() -> bool:
        """Whether the network comes with this installation."""
        from blur_motion_ros.assets import AssetError, packaged
        from blur_motion_ros.initialiser.vibe import LANDMARK_NETWORK

        try:
            return packaged(LANDMARK_NETWORK).is_file()
        except AssetError:
            return False


# ---------------------------------------------------------------------------------------------- deblurring first


class _DeblurFrames(BlazePoseFrames, ABC):
    """Deconvolve the person's neighbourhood with a straight-line kernel, then BlazePose.

    The kernel is the median optical flow of the moving region since the last frame, times the open share of the
    period: the best single kernel that a classical method can know.
    """

    def __init__(self, settings: Settings):
        super().__init__(settings)
        self._flow = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_FAST)
        self._last: Frame | None = None

    def prepare(self, frame: Frame, plate: Plate | None) -> np.ndarray:
        path = self._path(frame, plate)
        self._last = frame
        if np.hypot(*path) < 1.5:
            return frame.image
        return to_codes(self.deconvolve(to_linear(frame.image), line_kernel(path)))

    @abstractmethod
    def deconvolve(self, image: np.ndarray, kernel: np.ndarray) -> np.ndarray:
        """image [H, W, 3] linear light, kernel [k, k] summing to one -> the image before it was blurred."""

    def _path(self, frame: Frame, plate: Plate | None) -> np.ndarray:
        """[2] px that the moving region travelled during this exposure."""
        if self._last is None:
            return np.zeros(2)
        before, now = (cv2.cvtColor(f.image, cv2.COLOR_RGB2GRAY) for f in (self._last, frame))
        flow = self._flow.calc(before, now, None)
        moving = np.hypot(flow[..., 0], flow[..., 1]) > 1.0
        if plate is not None:
            moving &= np.abs(to_linear(frame.image) - plate.image).max(2) > 0.04
        if moving.sum() < 50:
            return np.zeros(2)
        share = frame.exposure.duration / (frame.exposure.open - self._last.exposure.open)
        return np.median(flow[moving], axis=0) * share


class WienerFrames(_DeblurFrames):
    """Wiener deconvolution, noise-to-signal 0.01."""

    def deconvolve(self, image: np.ndarray, kernel: np.ndarray) -> np.ndarray:
        return wiener(image, kernel)


class RichardsonLucyFrames(_DeblurFrames):
    """Richardson-Lucy deconvolution, 15 rounds."""

    def deconvolve(self, image: np.ndarray, kernel: np.ndarray) -> np.ndarray:
        return richardson_lucy(image, kernel)


class OnnxFrames(BlazePoseFrames):
    """A learned deblurring network: ONNX, input and output [1, 3, H, W] RGB sRGB in [0, 1]."""

    def __init__(self, settings: Settings):
        import onnxruntime

        super().__init__(settings)
        path = os.environ.get("BLUR_MOTION_DEBLUR_ONNX", "")
        if not self.available():
            raise ValueError(f"deblur_onnx needs a network; BLUR_MOTION_DEBLUR_ONNX is '{path}', not a file")
        self._network = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])

    @staticmethod
    def available() -> bool:
        """Whether a network is named."""
        return os.path.isfile(os.environ.get("BLUR_MOTION_DEBLUR_ONNX", ""))

    def prepare(self, frame: Frame, plate: Plate | None) -> np.ndarray:
        value = frame.image.astype(np.float32).transpose(2, 0, 1)[None] / 255
        out = self._network.run(None, {self._network.get_inputs()[0].name: value})[0]
        return np.round(np.clip(out[0].transpose(1, 2, 0), 0, 1) * 255).astype(np.uint8)


def line_kernel(path: np.ndarray) -> np.ndarray:
    """A kernel that smears along `path` [2] px (x, y), sum 1, odd side, anti-aliased."""
    half = int(np.ceil(np.abs(path).max() / 2)) + 1
    kernel = np.zeros((2 * half + 1, 2 * half + 1), np.float32)
    for s in np.linspace(-0.5, 0.5, 8 * half + 1):
        x, y = half + s * path[0], half + s * path[1]
        i, j = int(np.floor(x)), int(np.floor(y))
        for dy in (0, 1):
            for dx in (0, 1):
                kernel[j + dy, i + dx] += (1 - abs(x - i - dx)) * (1 - abs(y - j - dy))
    return kernel / kernel.sum()


def wiener(image: np.ndarray, kernel: np.ndarray, noise: float = 0.01) -> np.ndarray:
    """Wiener deconvolution of [H, W, 3] linear light; edges are mirrored so that they do not ring."""
    pad = kernel.shape[0]
    wide = cv2.copyMakeBorder(image, pad, pad, pad, pad, cv2.BORDER_REFLECT)
    spread = np.zeros(wide.shape[:2], np.float32)
    spread[:kernel.shape[0], :kernel.shape[1]] = kernel
    transfer = np.fft.rfft2(np.roll(spread, (-(kernel.shape[0] // 2),) * 2, (0, 1)))
    inverse = np.conj(transfer) / (np.abs(transfer) ** 2 + noise)
    planes = [np.fft.irfft2(np.fft.rfft2(wide[..., c]) * inverse, wide.shape[:2]) for c in range(3)]
    return np.clip(np.stack(planes, -1)[pad:-pad, pad:-pad], 0, 1).astype(np.float32)


def richardson_lucy(image: np.ndarray, kernel: np.ndarray, rounds: int = 15) -> np.ndarray:
    """Richardson-Lucy deconvolution of [H, W, 3] linear light."""
    image = np.maximum(image, 1e-4)
    flipped = np.ascontiguousarray(kernel[::-1, ::-1])  # filter2D correlates: this convolves
    guess = image.copy()
    for _ in range(rounds):
        blurred = cv2.filter2D(guess, -1, flipped, borderType=cv2.BORDER_REFLECT)
        guess *= cv2.filter2D(image / np.maximum(blurred, 1e-4), -1, kernel, borderType=cv2.BORDER_REFLECT)
    return np.clip(guess, 0, 1)


# ---------------------------------------------------------------------------------------- our solver, restricted


class RigidBlurFit(BlurFit):
    """The same fit, but limbs may not turn during a window: one rigid motion (Shape / Motion from Blur)."""

    def _priors(self, layout: WindowLayout, start: Start) -> tuple[Term, ...]:
        precision = np.zeros((FREE_COUNT, layout.degree + 1, 3))
        precision[2:, 1:] = _STIFF  # row 0: translation, row 1: the pelvis; column 0: the pose itself
        return (*super()._priors(layout, start), CoefficientPrior(np.zeros_like(precision), precision))


def run_rigid_two(sequence: Sequence, settings: Settings) -> Prediction:
    """One rigid motion over two frames."""
    return run_pipeline(sequence, settings, _make_rigid)


def run_rigid_one(sequence: Sequence, settings: Settings) -> Prediction:
    """One rigid motion per frame; every frame on its own direction of time."""
    return run_pipeline(sequence, replace(settings, fit=replace(settings.fit, frames=1)), _make_rigid)


def run_single_subframe(sequence: Sequence, settings: Settings) -> Prediction:
    """Polynomial motion, but each exposure rendered as one sharp image at its middle."""
    return run_pipeline(sequence, replace(settings, fit=replace(settings.fit, subframes=1)))


def _make_rigid(pipeline: object) -> None:
    fit = pipeline._fit
    pipeline._fit = RigidBlurFit(fit.settings, fit.body, fit.betas, fit._prior)
