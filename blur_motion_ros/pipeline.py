"""The stages in order, without ROS: frame -> background, matte -> initialiser -> blur fit -> MotionEstimate."""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import cv2
import numpy as np

from blur_motion_ros.background import BackgroundModel
from blur_motion_ros.body import BodyModel, load_body
from blur_motion_ros.camera.camera import Camera, Crop
from blur_motion_ros.camera.sampling import CropMap, crop_map
from blur_motion_ros.config import Settings
from blur_motion_ros.fit.exposure_estimate import ExposureEstimator
from blur_motion_ros.fit.kinematics import FitBody
from blur_motion_ros.fit.prior_files import load_pose_prior
from blur_motion_ros.fit.settings import FitSettings
from blur_motion_ros.fit.window import BlurFit
from blur_motion_ros.initialiser.base import Initialiser, make_initialiser
from blur_motion_ros.matting import Matters
from blur_motion_ros.matting.masked import completed, masked
from blur_motion_ros.types import (
    UNKNOWN_BACKGROUND,
    BodyState,
    Exposure,
    Frame,
    Matte,
    MotionEstimate,
    Observation,
    Plate,
    PoseMeasurement,
    Status,
)

UNKNOWN_ALPHA = np.float32(1e3)  # alpha sigma where nothing is known: outside the image, neither background nor mask
_LEAST_KNOWN = 0.5  # share of the person whose background must be known for the images to say much
OUTSIDE_SIGMA = 0.1  # alpha sigma beyond the crop that a frame was matted in: nobody was there


@dataclass(frozen=True)
class Cut:
    """A frame in a crop: image and background [S, S, 3] linear light (None: no plate)."""

    crop: Crop
    sampler: CropMap
    image: np.ndarray
    background: np.ndarray | None


@dataclass(frozen=True)
class Seen:
    """A frame with what the stages before the fit made of it."""

    frame: Frame
    plate: Plate | None
    measurement: PoseMeasurement | None
    fresh: bool = False  # it continues nothing that came before
    cut: Cut | None = None  # in the crop that it was matted in
    matted: tuple[Crop, Matte] | None = None


class Pipeline:
    """One camera, one person. `process` is called with every frame in time order, from one thread."""

    def __init__(self, settings: Settings | None = None, body: BodyModel | None = None,
                 initialiser: Initialiser | None = None, matters: Matters | None = None):
        self.settings = settings or Settings()
        self.body = body or load_body(self.settings.body.path or None, lod="fit")
        self.initialiser = initialiser or make_initialiser(self.settings.initialiser, self.body)
        self.matters = matters or Matters(self.settings.matting)
        self.background = BackgroundModel(self.settings.background, self.settings.camera.response)
        self.timings: dict[str, float] = {}
        self._betas = np.zeros(10)
        mean = FitBody.of(self.body.rest_vertices(), self.body.rest_joints(), self.body.weights, self.body.parents,
                          self.body.faces)
        self._mean_body = replace(mean, uv=self.body.uv, uv_faces=self.body.uv_faces)
        self._fit = make_fit(self.settings.fit, self._fit_body(self._betas), self._betas)
        self.exposure: ExposureEstimator | None = None
        if self.settings.camera.exposure_mode == "estimate":
            self.exposure = self._fit.exposure = ExposureEstimator(self.settings.camera)
        self._window: deque[Seen] = deque(maxlen=self.settings.fit.frames)
        self._looks: deque[Seen] = deque(maxlen=self.settings.fit.frames)  # `_window`, as `matte` knows it ahead
        self._missed = 0

    def reset(self) -> None:
        """Forget the person and the motion; keep the background."""
        self.initialiser.reset()
        self._looks.clear()
        self._forget_motion()

    def _forget_motion(self) -> None:
        self._window.clear()
        self._fit.reset()
        self._missed = 0

    def set_background(self, image: np.ndarray, known: np.ndarray | None = None) -> None:
        """Use `image` [H, W, 3] uint8 RGB as the clean plate from now on; known [H, W] bool: where it is one (None:
        everywhere)."""
        self.background.set_plate(image, known)

    def process(self, frame: Frame) -> MotionEstimate:
        """Everything for one frame. Never raises for lack of a person: the status says LOST and values are NaN."""
        return self.fit(self.see(frame))

    def see(self, frame: Frame, fresh: bool = False, late: bool = False) -> Seen:
        """Background and person.  fresh: the frame continues nothing that came before.  late: it has waited.

        `see` and `matte` may run in one thread and `fit` in another, one frame behind.
        """
        clock = _Stopwatch(self.timings)
        if self.exposure is not None:
            frame = self.exposure.apply(frame)
        if fresh:
            self.initialiser.reset()
        plate = self.background.plate(frame)
        clock.lap("background")
        measurement = self.initialiser.measure(frame, plate, late)
        clock.lap("initialiser")
        self.background.update(frame, measurement.landmarks if measurement else None)
        clock.lap("background update")
        seen = Seen(frame, plate, measurement, fresh)
        if fresh or not self._continues(self._looks, frame.exposure):
            self._looks.clear()
        self._looks.append(seen)
        return seen

    def matte(self, seen: Seen) -> Seen:
        """What `see` just returned, with the matte of a person who was found. May be left out: `fit` then does it."""
        return self._with_matte(seen, self._looks)

    def fit(self, seen: Seen, until: float = math.inf) -> MotionEstimate:
        """The blur fit of what `see`, or `matte`, returned, in the same order.  until: `BlurFit.update`'s."""
        if seen.fresh or not self._continues(self._window, seen.frame.exposure):
            self._forget_motion()
        self._follow_shape(seen.measurement)
        self._window.append(seen)
        self._window[-1] = self._with_matte(seen, self._window)
        return self._fit_window(_Stopwatch(self.timings), until)

    def mesh(self, estimate: MotionEstimate, at: float) -> np.ndarray:
        """Vertices [V, 3] of the fitted body at time `at` (camera frame, m); triangles are `body.faces`."""
        from blur_motion_ros.trajectory import pose_at

        return pose_at(estimate, self._fit.body, np.array([at])).vertices[0]

    @property
    def colours(self) -> np.ndarray:
        """The fit's colours [V, 3] of the vertices of `mesh`, linear light (grey where nothing was seen yet)."""
        return self._fit.colours

    @property
    def skeleton(self) -> FitBody:
        """The body as fitted (for `trajectory.sample`)."""
        return self._fit.body

    def record_directions(self) -> list:
        """Keep every single exposure's undecided motion from now on, for `fit.direction_search.in_hindsight`."""
        self._fit.directions.record = []
        return self._fit.directions.record

    def _continues(self, before: Sequence[Seen], exposure: Exposure) -> bool:
        """Whether an exposure follows the last of those before closely enough to be of the same motion."""
        if not before:
            return True
        last = before[-1].frame.exposure
        return last.close <= exposure.open + 1e-6 and exposure.open - last.close <= self.settings.camera.max_gap

    # -- one window ----------------------------------------------------------------------------------------------

    def _fit_window(self, clock: _Stopwatch, until: float) -> MotionEstimate:
        newest = self._window[-1]
        self._missed = 0 if newest.measurement is not None else self._missed + 1
        if self._missed > self.settings.fit.patience:
            self._fit.reset()
            self._window.clear()
            return lost(newest.frame.exposure)
        crop = self._crop()
        if crop is None:
            return lost(newest.frame.exposure)
        for i in range(len(self._window)):  # those of frames from before the person was found
            if self._window[i].matted is None:
                self._window[i] = self._matted(self._window[i], crop)
        observations = tuple(self._observe(seen, crop) for seen in self._window)
        clock.lap("crops")
        estimate = self._fit.update(observations, until)
        clock.lap("fit")
        if estimate is None:
            return lost(newest.frame.exposure)
        return replace(estimate, status=estimate.status | self._pipeline_status(self._window[-1]))

    def _crop(self) -> Crop | None:
        """A square view around everything the body may touch in this window: the newest frame's, if that is one."""
        newest = self._window[-1]
        ahead = self._fit.predicted_points(newest.frame.exposure)
        if ahead is not None:
            ahead = ahead[:, :2] / ahead[:, 2:]
        if newest.cut is not None and (ahead is None or self._shows(newest.cut.crop, ahead)):
            return newest.cut.crop
        points = _boxes(self._window) + ([] if ahead is None else [ahead])
        return self._around(newest.frame.camera, points) if points else None

    def _around(self, camera: Camera, rays: list[np.ndarray]) -> Crop:
        """A square view around x / z, y / z [n, 2]."""
        pixels = np.concatenate(rays) @ camera.K[:2, :2].T + camera.K[:2, 2]
        low, high = pixels.min(0), pixels.max(0)
        side = float((high - low).max()) * (1 + 2 * self.settings.fit.margin)
        return Crop.around(camera, 0.5 * (low + high), max(side, 8.0), self.settings.fit.crop_size)

    def _shows(self, crop: Crop, rays: np.ndarray) -> bool:
        """Whether joints at x / z, y / z [n, 2] lie inside a crop, with flesh around them."""
        margin = self.settings.fit.margin
        border = 0.5 * crop.size * margin / (1 + 2 * margin)
        pixels = rays @ crop.K[:2, :2].T + crop.K[:2, 2]
        return bool((pixels > border).all() and (pixels < crop.size - 1 - border).all())

    def _with_matte(self, seen: Seen, window: Iterable[Seen]) -> Seen:
        """The newest frame of a window with its matte, in a crop of where the person was seen in all of it."""
        if seen.cut is not None or not _boxes([seen]):
            return seen
        clock = _Stopwatch(self.timings)
        seen = self._matted(seen, self._around(seen.frame.camera, _boxes(window)))
        clock.lap("matting")
        return seen

    def _cut(self, seen: Seen, crop: Crop) -> Cut:
        """The frame in a crop."""
        if seen.cut is not None and seen.cut.crop is crop:
            return seen.cut
        sampler = crop_map(seen.frame.camera, crop)
        image = sampler.sample(seen.frame.image, self.settings.camera.response)
        return Cut(crop, sampler, image, None if seen.plate is None else sampler.sample(seen.plate.image))

    def _observe(self, seen: Seen, crop: Crop) -> Observation:
        cut = self._cut(seen, crop)
        background = cut.image if cut.background is None else cut.background
        matte = _nothing(crop) if seen.matted is None else _moved(seen.matted, crop)
        matte.sigma[~cut.sampler.valid] = UNKNOWN_ALPHA
        return Observation(seen.frame.exposure, crop, cut.image, background, matte.alpha, matte.sigma, seen.measurement,
                           matte.behind)

    def _matted(self, seen: Seen, crop: Crop) -> Seen:
        """The frame with its matte, made in `crop`; without one where there is neither background nor mask."""
        cut = self._cut(seen, crop)
        seen = replace(seen, cut=cut)
        mask = _person_mask(cut.sampler, seen.measurement)
        if seen.plate is None:
            return seen if mask is None else replace(seen, matted=(crop, masked(mask)))
        noise = cut.sampler.sample(seen.plate.sigma)
        unknown = noise > UNKNOWN_BACKGROUND
        matter = self.matters.of(seen.frame.exposure.duration, whole=not unknown.any())
        matte = matter.matte(cut.image, cut.background, noise, mask)
        matte = completed(matte, unknown) if mask is not None else completed(matte, unknown, UNKNOWN_ALPHA)
        return replace(seen, matted=(crop, matte))

    def _pipeline_status(self, newest: Seen) -> Status:
        status = Status.OK
        if newest.matted is None or _known_behind(newest.matted[1]) < _LEAST_KNOWN:
            status |= Status.NO_BACKGROUND
        if newest.measurement is None:
            status |= Status.OCCLUDED
        return status

    # -- shape ---------------------------------------------------------------------------------------------------

    def _follow_shape(self, measurement: PoseMeasurement | None) -> None:
        """Rebuild the fitting body when the initialiser's idea of the shape has moved noticeably."""
        if measurement is None or np.abs(measurement.state.betas - self._betas).max() < 0.1:
            return
        self._betas = np.array(measurement.state.betas)
        self._fit.set_body(self._fit_body(self._betas), self._betas)

    def _fit_body(self, betas: np.ndarray) -> FitBody:
        return self._mean_body.reshaped(self.body.rest_vertices(betas), self.body.rest_joints(betas),
                                        self.settings.fit.inflation)


def make_fit(settings: FitSettings, body: FitBody, betas: np.ndarray) -> BlurFit:
    """The blur fit; with the short-motion prior for windows without history, where that is wanted."""
    fit = BlurFit(settings, body, betas, load_pose_prior() if settings.pose_prior_weight > 0 else None)
    if not settings.short_motion:
        return fit
    from blur_motion_ros.fit.cold_start import ColdStartFit
    from blur_motion_ros.fit.short_motion import ShortMotionPrior

    return ColdStartFit.like(fit, ShortMotionPrior())


def lost(exposure: Exposure) -> MotionEstimate:
    """The answer when there is nobody: NaN everywhere, status LOST."""
    nothing = np.full(3, np.nan)
    reference = BodyState(nothing, np.full((23, 3), np.nan), np.full(10, np.nan), nothing)
    return MotionEstimate(exposure.open, exposure.close, (exposure,), reference, np.full((25, 2, 3), np.nan),
                          np.zeros(0, np.int64), None, Status.LOST, 0.0, 0.0)


def _nothing(crop: Crop) -> Matte:
    """The matte of a frame of which nothing is known."""
    nothing = np.zeros((crop.size, crop.size), np.float32)
    return Matte(nothing, nothing + UNKNOWN_ALPHA, nothing)


def _moved(matted: tuple[Crop, Matte], crop: Crop) -> Matte:
    """A matte seen in another crop, in arrays of its own; outside the matte there is background."""
    old, matte = matted
    if old is crop:
        return replace(matte, sigma=matte.sigma.copy())
    to_old = (old.K @ np.linalg.inv(crop.K))[:2]
    size, flags = (crop.size, crop.size), cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    alpha = cv2.warpAffine(matte.alpha, to_old, size, flags=flags)
    sigma = cv2.warpAffine(matte.sigma, to_old, size, flags=flags, borderValue=OUTSIDE_SIGMA)
    behind = None if matte.behind is None else cv2.warpAffine(matte.behind, to_old, size, flags=flags)
    return Matte(alpha, sigma, behind)


def _known_behind(matte: Matte) -> float:
    """Share of the person whose background is known."""
    person = float(matte.alpha.sum())
    return 1.0 if matte.behind is None or person == 0 else float((matte.alpha * matte.behind).sum()) / person


def _boxes(looks: Iterable[Seen]) -> list[np.ndarray]:
    """Corners of the person's box in each frame in which there was one, x / z, y / z [4, 2]."""
    out = []
    for seen in looks:
        if seen.measurement is not None and seen.measurement.landmarks is not None:
            x0, y0, x1, y1 = seen.measurement.landmarks.box
            out.append(seen.frame.camera.undistort(np.array([[x0, y0], [x1, y0], [x0, y1], [x1, y1]])))
    return out


def _person_mask(sampler, measurement: PoseMeasurement | None) -> np.ndarray | None:
    if measurement is None or measurement.landmarks is None or measurement.landmarks.mask is None:
        return None
    return sampler.sample_affine(measurement.landmarks.mask, measurement.landmarks.mask_to_image)


class _Stopwatch:
    """Wall time of each stage of the current frame, in ms."""

    def __init__(self, into: dict[str, float]):
        self._into, self._last = into, time.perf_counter()

    def lap(self, stage: str) -> None:
        now = time.perf_counter()
        self._into[stage] = (now - self._last) * 1e3
        self._last = now
