"""What flows between the stages. Arrays are numpy; nothing here computes.

Conventions, used everywhere in this package:
  * camera frame: OpenCV / REP-103 optical (x right, y down, z forward), metres;
  * time: seconds (float) on one clock; an exposure is the interval in which the shutter is open;
  * images: uint8 sRGB in **RGB** order, or float32 *linear* light in [0, 1] (always said which);
  * rotations: rotation vectors (radians) or 3x3 matrices, column convention `x_parent = R x_child`,
    composed on the right: `R(t) = R_ref exp(p(t))`;
  * body parameters: SMPL (`global_orient`, `body_pose`, `betas`, `transl`), joints in SMPL order
    (`body.joints`), `transl` added after posing as in smplx, all in the camera frame.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntFlag

import numpy as np

from blur_motion_ros.camera.camera import Camera, Crop


class Status(IntFlag):
    """Why an estimate should not be trusted fully. OK (0) means: nothing known against it."""

    OK = 0
    LOW_BLUR = 1  # too little blur to measure velocity from: it comes from frame differences and priors
    DIRECTION_UNDECIDED = 2  # time direction inside the exposure is ambiguous (isolated frame)
    OCCLUDED = 4  # a large part of the body is out of view or covered
    COLD_START = 8  # no history yet: shape, colour and velocity are still settling
    POOR_FIT = 16  # not explained, a limb far from its measurement or too fast, or measurements that contradict
    NO_BACKGROUND = 32  # no clean plate, or none where the person is: fitted to landmarks and the network's mask
    PREDICTED = 64  # no measurement in this exposure, extrapolated
    LOST = 128  # no person: the values are NaN


BEGINNINGS = Status.COLD_START | Status.DIRECTION_UNDECIDED  # for want of a past
DISTRUSTED = Status.POOR_FIT | Status.OCCLUDED | Status.PREDICTED  # a guess, or likely wrong: shown, not to plan with


LONG_EXPOSURE = 0.05  # s: by default, from here on stages take the more careful of two ways (docs/fit.md)


@dataclass(frozen=True)
class Exposure:
    """One open-shutter interval, seconds on the camera's clock."""

    open: float
    close: float

    @property
    def duration(self) -> float:
        return self.close - self.open

    @property
    def middle(self) -> float:
        return 0.5 * (self.open + self.close)


@dataclass(frozen=True)
class Frame:
    """A captured image with the interval it integrates over.

    image: [H, W, 3] uint8 sRGB, RGB order.  index: counts frames of this stream from 0.
    """

    image: np.ndarray
    exposure: Exposure
    camera: Camera
    index: int = 0


UNKNOWN_BACKGROUND = 0.5  # linear light: a plate whose sigma is larger says nothing about its pixel


@dataclass(frozen=True)
class Plate:
    """Clean background.  image: [H, W, 3] float32 linear light.  sigma: [H, W] float32 noise (linear, one channel),
    above `UNKNOWN_BACKGROUND` where nothing is known."""

    image: np.ndarray
    sigma: np.ndarray


@dataclass(frozen=True)
class Matte:
    """Soft foreground coverage.  alpha: [H, W] in [0, 1].  sigma: [H, W], one standard deviation of alpha.  behind:
    [H, W] in [0, 1], where the background is known (None: everywhere)."""

    alpha: np.ndarray
    sigma: np.ndarray
    behind: np.ndarray | None = None


@dataclass(frozen=True)
class BodyState:
    """One SMPL pose.  global_orient: [3], body_pose: [23, 3] rotation vectors, betas: [10], transl: [3] m."""

    global_orient: np.ndarray
    body_pose: np.ndarray
    betas: np.ndarray
    transl: np.ndarray


@dataclass(frozen=True)
class Landmarks:
    """BlazePose's 33 landmarks of one person in one frame (names: `body.joints.BLAZEPOSE33`).

    image: [33, 2] px in the full (distorted) frame.  world: [33, 3] m, hip-centred, camera axes.
    visibility: [33] in [0, 1].  score: person presence in [0, 1].
    mask: [h, w] float32 person probability over the region of interest, or None.
    mask_to_image: [2, 3] affine, mask pixel (x, y, 1) -> image pixel.  box: [4] x0, y0, x1, y1 px of the person.
    sides_sure: whether the network that read them seldom takes left for right.
    """

    image: np.ndarray
    world: np.ndarray
    visibility: np.ndarray
    score: float
    mask: np.ndarray | None
    mask_to_image: np.ndarray
    box: np.ndarray
    sides_sure: bool = False


@dataclass(frozen=True)
class PoseMeasurement:
    """What an initialiser says of one frame: a body at `time` as a Gaussian.

    covariance: [75, 75] over (transl m [3], rotation tangents rad [24, 3] in SMPL joint order,
    `R = R_mean exp(delta)`), including systematic error (calibrated, not just the fit's own curvature).
    """

    time: float
    state: BodyState
    covariance: np.ndarray
    landmarks: Landmarks | None
    residual_px: float


@dataclass(frozen=True)
class Observation:
    """One exposure as the fit sees it: an undistorted square crop in linear light.

    image, background: [S, S, 3] float32 linear.  alpha, alpha_sigma: [S, S]; a sigma above 1 says that nothing is
    known of the pixel (outside the image): its colour is not used either.  behind: [S, S] in [0, 1], where the
    background is known (None: everywhere); elsewhere the colour is not used.
    """

    exposure: Exposure
    crop: Crop
    image: np.ndarray
    background: np.ndarray
    alpha: np.ndarray
    alpha_sigma: np.ndarray
    measurement: PoseMeasurement | None
    behind: np.ndarray | None = None


@dataclass(frozen=True)
class MotionEstimate:
    """Continuous motion of one body over a window of exposures: the product of the fit.

    For joint j, `R_j(t) = R_ref,j exp(sum_k c_jk P_k(2 tau - 1))`, root translation likewise (additive);
    tau runs from 0 to 1 over [start, end] (open of the first exposure to close of the last one); P = Legendre.
    coefficients: [25, degree + 1, 3], row 0 = root translation (m), rows 1.. = SMPL joints (rad).
    covariance: [m, m] of the coefficients listed in `free` ([m] flat indices into `coefficients`), or None.
    exposures: the exposures of the window, oldest first; the last one is what this estimate is *about*.
    blur_rate: see `evaluation.blur_rate`.  rms: image residual in units of its expected noise.
    """

    start: float
    end: float
    exposures: tuple[Exposure, ...]
    reference: BodyState
    coefficients: np.ndarray
    free: np.ndarray
    covariance: np.ndarray | None
    status: Status
    blur_rate: float
    rms: float


@dataclass(frozen=True)
class JointTrajectory:
    """`MotionEstimate` sampled at `times` [T] s, every joint in SMPL-24 order, camera frame.

    positions [T, 24, 3] m; rotations [T, 24, 3, 3] (joint to camera); linear_velocity [T, 24, 3] m/s;
    angular_velocity [T, 24, 3] rad/s (camera axes); position_covariance and velocity_covariance
    [T, 24, 3, 3]; exposure: the one it is about; status as in MotionEstimate.
    """

    times: np.ndarray
    positions: np.ndarray
    rotations: np.ndarray
    linear_velocity: np.ndarray
    angular_velocity: np.ndarray
    position_covariance: np.ndarray
    velocity_covariance: np.ndarray
    exposure: Exposure
    status: Status
