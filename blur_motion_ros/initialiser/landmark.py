"""The initialiser that needs no training of ours: BlazePose landmarks registered to the body."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from blur_motion_ros.body.model import BodyModel
from blur_motion_ros.data.mocap import PARENTS, forward
from blur_motion_ros.fit.priors import PosePrior
from blur_motion_ros.initialiser.blazepose import BlazePose
from blur_motion_ros.initialiser.evidence import Evidence, evidence
from blur_motion_ros.initialiser.kinematics import LandmarkBody
from blur_motion_ros.initialiser.person import PersonTracker
from blur_motion_ros.initialiser.pose_prior import DiagonalPrior
from blur_motion_ros.initialiser.registration import (
    Pose,
    Problem,
    Registration,
    ShapePrior,
    cold_start,
    covariance,
    register,
    shape_information,
    with_shape,
)
from blur_motion_ros.initialiser.settings import InitialiserSettings, RegistrationSettings
from blur_motion_ros.initialiser.sides import SideKeeper
from blur_motion_ros.types import Exposure, Frame, Landmarks, Plate, PoseMeasurement


class LandmarkInitialiser:
    """Person -> 33 landmarks -> pose, shape and place of the body, with covariance. See `base.Initialiser`."""

    def __init__(self, body: BodyModel, settings: InitialiserSettings | None = None,
                 networks: BlazePose | None = None, prior: PosePrior | None = None):
        self.settings = settings or InitialiserSettings()
        person = self.settings.person
        self.tracker = PersonTracker.pretrained(person) if networks is None else PersonTracker(networks, person)
        self.register = Registrar(body, self.settings.registration, prior)
        self.sides = SideKeeper()

    def reset(self) -> None:
        """Forget the person."""
        self.tracker.reset()
        self.register.reset()
        self.sides.reset()

    def measure(self, frame: Frame, plate: Plate | None = None, late: bool = False) -> PoseMeasurement | None:
        """See `base.Initialiser.measure`. Raises ValueError for an image or plate of another size or kind."""
        _check(frame, plate)
        seen = self.tracker.track(frame.image, plate, frame.exposure.duration, late)
        if seen is None:
            self.sides.reset()
            self.register.forget_pose()
            return None
        return self.of_landmarks(frame, seen)

    def of_landmarks(self, frame: Frame, landmarks: Landmarks) -> PoseMeasurement:
        """The measurement where the landmarks are known already."""
        return self.register(self.sides.correct(landmarks, frame.exposure.middle), frame)


def _check(frame: Frame, plate: Plate | None) -> None:
    size = (frame.camera.height, frame.camera.width)
    if frame.image.dtype != np.uint8 or frame.image.shape != size + (3,):
        raise ValueError(f"frame.image is {frame.image.dtype} {frame.image.shape}; the camera says uint8 "
                         f"{size + (3,)}, RGB")
    if plate is not None and plate.image.shape[:2] != size:
        raise ValueError(f"plate.image is {plate.image.shape[:2]}; the frame is {size}: capture the background again")


@dataclass(frozen=True)
class _Last:
    """The frame before: exposure, rays [33, 2], pose."""

    exposure: Exposure
    rays: np.ndarray
    pose: Pose


class Registrar:
    """Landmarks of consecutive frames of one person -> PoseMeasurement; learns the person's shape on the way."""

    def __init__(self, body_model: BodyModel, settings: RegistrationSettings | None = None,
                 prior: PosePrior | None = None):
        self.body_model, self.body = body_model, LandmarkBody.of(body_model)
        self.settings = settings or RegistrationSettings()
        self.prior = prior or default_prior()
        self.mean_pose = DiagonalPrior.default().mean
        self.reset()

    def reset(self) -> None:
        """Forget pose and shape."""
        self._shape = ShapePrior.people(self.body, self.settings.stature, self.settings.stature_sigma)
        self._frames = 0
        self.forget_pose()

    def forget_pose(self) -> None:
        """The next frame does not continue the last one."""
        self._last: _Last | None = None
        self._usual_cost = 0.0

    @property
    def betas(self) -> np.ndarray:
        """[10] shape as estimated so far."""
        return self._shape.mean

    def __call__(self, landmarks: Landmarks, frame: Frame) -> PoseMeasurement:
        """Register one frame."""
        rays = frame.camera.undistort(landmarks.image)
        seen = evidence(landmarks, frame.camera, self.settings, self._path(rays, frame.exposure))
        found = self._solve(seen)
        self._learn_shape(found)
        self._last = _Last(frame.exposure, rays, found.pose)
        miss = frame.camera.project(found.posed.points) - landmarks.image
        spread = self.settings.inflation**2 * covariance(found.normal)
        return PoseMeasurement(frame.exposure.middle, found.pose.state, spread, landmarks,
                               float(np.sqrt((miss[_LIMB_POINTS]**2).sum(1).mean())))

    def _solve(self, seen: Evidence) -> Registration:
        """Continue from the frame before; where that explains this frame worse than usual, also start afresh."""
        s = self.settings
        if self._last is not None:
            problem = self.problem(seen, self._last.pose.transl[2])
            found = register(problem, with_shape(self._last.pose, self.betas), s.iterations)
            if found.cost < _POOR * self._usual_cost:
                return self._remember(found)
        else:
            found = None
        start = cold_start(self.body, seen, self.mean_pose, self.betas)
        afresh = register(self.problem(seen, start.transl[2]), start, s.cold_iterations)
        return self._remember(afresh if found is None or afresh.cost < found.cost else found)

    def problem(self, seen: Evidence, distance: float) -> Problem:
        """What to solve for one frame, `distance` m away. The shape gives way to one frame's landmarks only as much as
        it learns from them."""
        s = self.settings
        shape = ShapePrior(self.betas, s.shape_correlation * self._shape.precision)
        return Problem(self.body, seen, self.prior, shape, float(distance), s.outlier)

    def joints(self, pose: Pose) -> np.ndarray:
        """[24, 3] m: the joints of a pose, placed as it says."""
        rest = self.body.joints + self.body.joints_by_beta @ pose.betas
        _, joints = forward(pose.local[None], rest, PARENTS)
        return joints[0] - joints[0, :1] + rest[0] + pose.transl

    def _remember(self, found: Registration) -> Registration:
        share = 0.2 if self._usual_cost > 0 else 1.0
        self._usual_cost += share * (found.cost - self._usual_cost)
        return found

    def _path(self, rays: np.ndarray, exposure: Exposure) -> np.ndarray | None:
        """[33, 2] m across the image during the exposure, from the step since the frame before."""
        if self._last is None or exposure.middle <= self._last.exposure.middle:
            return None
        share = exposure.duration / (exposure.middle - self._last.exposure.middle)
        return (rays - self._last.rays) * share * self._last.pose.transl[2]

    def _learn_shape(self, found: Registration) -> None:
        """Add what this frame says of the shape; frames resemble each other, so each counts only in part."""
        s = self.settings
        if self._frames >= s.shape_frames:
            return
        self._frames += 1
        precision = self._shape.precision + shape_information(found.data, found.normal) / s.shape_correlation
        self._shape = ShapePrior(found.pose.betas, precision)


_POOR = 1.1  # times the usual cost: the pose of the frame before may have led into a wrong minimum


def default_prior() -> PosePrior:
    """The learned mixture where it is packaged, else the built-in Gaussian."""
    from blur_motion_ros.fit.prior_files import ASSET, load_pose_prior

    return load_pose_prior() if ASSET.is_file() else DiagonalPrior.default()


_LIMB_POINTS = [i for i in range(11, 33) if i not in range(17, 23)]
