"""The exposure told by the blur: its evidence on a scene of known duration, and the filter against plain formulas."""

from dataclasses import replace

import numpy as np
import pytest
from moving import PERIOD, MovingBody

from blur_motion_ros.camera.camera import Camera
from blur_motion_ros.camera.settings import CameraSettings
from blur_motion_ros.config import load
from blur_motion_ros.fit.exposure_estimate import Evidence, ExposureEstimator
from blur_motion_ros.fit.settings import FitSettings
from blur_motion_ros.fit.window import BlurFit
from blur_motion_ros.settings import SettingError
from blur_motion_ros.types import Exposure, Frame

CAMERA = Camera(8, 8, np.eye(3))


def running(t: float) -> tuple[np.ndarray, np.ndarray]:
    """Arms and legs that swing against each other on a body that sways across the picture."""
    turn, phase = np.zeros((24, 3)), 2 * np.pi * 1.3 * t
    for joint, sign in ((16, 1), (17, 1), (1, -1), (2, -1)):
        turn[joint, 2] = 0.5 * sign * np.sin(phase)
    turn[[18, 19], 2] = 0.6 * np.cos(phase)
    return turn, np.array([0.25 * np.sin(2 * np.pi * 0.9 * t), 0, 0])


def still(t: float) -> tuple[np.ndarray, np.ndarray]:
    return np.zeros((24, 3)), np.zeros(3)


def fitted(motion, true: float, stated: float, frames: int) -> ExposureEstimator:
    """Fit a stream of exposures of `true` share of the period that are stated to be of another."""
    body = MovingBody(motion, duty=true)
    fit = BlurFit(FitSettings(inflation=0.0), body.body, np.zeros(10))
    fit._colours[:] = body.colours
    fit.exposure = ExposureEstimator(CameraSettings(exposure_mode="estimate"))
    window: tuple = ()
    for i in range(frames):
        seen = body.observation(i, 0.06, subframes=16)
        said = Exposure(seen.exposure.open, seen.exposure.open + stated * PERIOD)
        frame = fit.exposure.apply(Frame(np.zeros((8, 8, 3), np.uint8), said, CAMERA, i))
        window = (*window[-1:], replace(seen, exposure=frame.exposure))
        fit.update(window)
    return fit.exposure


@pytest.mark.parametrize("true,stated", [(0.5, 0.9), (0.9, 0.6)])
def test_it_converges_to_the_true_exposure(true, stated):
    found = fitted(running, true, stated, 40)
    assert found.fraction == pytest.approx(true, abs=0.1), (found.fraction, found.sigma / PERIOD)
    assert found.sigma < 0.6 * 0.3 * stated * PERIOD  # and knows that it has learnt something
    assert abs(found.fraction - true) < 2 * found.sigma / PERIOD, "surer than it may be"


def test_a_still_person_leaves_it_where_it_was():
    found = fitted(still, 0.5, 0.9, 8)
    assert found.fraction == pytest.approx(0.9)
    assert found.sigma == pytest.approx(0.3 * 0.9 * PERIOD)


def test_the_filter_is_bayes_rule():
    """Without drift, two windows' Gaussians and the prior multiply."""
    estimator = ExposureEstimator(CameraSettings(exposure_sigma=0.3, exposure_drift=0.0))
    estimator.apply(Frame(np.zeros((8, 8, 3), np.uint8), Exposure(0.0, 0.01), CAMERA))
    mean, precision = 1.0, 1 / 0.3**2
    for gradient, information in ((-2.0, 20.0), (1.5, 50.0)):
        measured = mean * (1 + gradient / information)
        own = information / mean**2
        mean, precision = (precision * mean + own * measured) / (precision + own), precision + own
        estimator.update(Evidence(gradient, information))
        assert estimator.ratio == pytest.approx(mean)
        assert estimator.variance == pytest.approx(1 / precision)
    before = estimator.ratio, estimator.variance
    estimator.update(Evidence(-5.0, 0.1))  # a window without blur
    assert (estimator.ratio, estimator.variance) == before


@pytest.mark.parametrize("reference,kept", [("start", 0.0), ("middle", 0.005), ("end", 0.01)])
def test_what_the_stamp_marks_stays_where_it_is(reference, kept):
    estimator = ExposureEstimator(CameraSettings(reference=reference))
    estimator.ratio = 0.6
    stated = Exposure(1.0, 1.01)
    found = estimator.apply(Frame(np.zeros((8, 8, 3), np.uint8), stated, CAMERA)).exposure
    assert found.duration == pytest.approx(0.006)
    assert found.open + kept * 0.6 == pytest.approx(stated.open + kept)


def test_exposures_never_overlap():
    estimator = ExposureEstimator(CameraSettings())
    estimator.ratio = 3.0
    last = None
    for i in range(6):
        frame = Frame(np.zeros((8, 8, 3), np.uint8), Exposure(i * PERIOD, (i + 0.5) * PERIOD), CAMERA, i)
        found = estimator.apply(frame).exposure
        assert last is None or i < 2 or last.close <= found.open
        last = found


def test_the_setting_is_checked():
    assert load(None, {"camera.exposure_mode": "estimate"}).camera.exposure_mode == "estimate"
    with pytest.raises(SettingError, match="exposure_mode"):
        load(None, {"camera.exposure_mode": "guess"})
