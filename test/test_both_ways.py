"""A recording fitted forwards and backwards: mirrored in time, and two motions made into one."""

from dataclasses import replace

import numpy as np
import pytest
from synthetic import capsule_body
from test_direction import smooth_motion

from blur_motion_ros.fit.both_ways import agreed, mirrored
from blur_motion_ros.fit.direction import within
from blur_motion_ros.fit.layout import FREE_COUNT, LIMB_OF_SLOT, SLOT_OF_JOINT
from blur_motion_ros.motion import polynomials
from blur_motion_ros.trajectory import joints_at, sample
from blur_motion_ros.types import Exposure, Status

TOTAL = 1.0
LEFT_ARM, ELBOW, WRIST, KNEE = 2, 18, 20, 4


@pytest.fixture(scope="module")
def body():
    return capsule_body()


def moved(estimate, joint: int, angle: float):
    """The motion with one joint turned elsewhere, about its z axis."""
    coefficients = estimate.coefficients.copy()
    coefficients[1 + joint, 0, 2] += angle
    return replace(estimate, coefficients=coefficients)


def with_variance(estimate, of_limb: dict[int, float], other: float = 1e-4):
    each = np.array([of_limb.get(limb, other) for limb in LIMB_OF_SLOT])
    return replace(estimate, covariance=np.diag(np.repeat(each, 9)))


def test_mirrored_is_where_the_motion_was_at_the_mirrored_time(body):
    estimate = smooth_motion(3)[2]
    back = mirrored(estimate, TOTAL)
    times = np.linspace(estimate.start, estimate.end, 5)
    np.testing.assert_allclose(joints_at(back, body, TOTAL - times), joints_at(estimate, body, times), atol=1e-12)
    there, here = sample(estimate, body, times), sample(back, body, TOTAL - times)
    np.testing.assert_allclose(here.linear_velocity, -there.linear_velocity, atol=1e-9)
    np.testing.assert_allclose(here.velocity_covariance, there.velocity_covariance, atol=1e-9)
    assert back.exposures[-1] == Exposure(TOTAL - estimate.end, TOTAL - estimate.start)
    again = mirrored(back, TOTAL)
    np.testing.assert_allclose(again.coefficients, estimate.coefficients)


def test_two_that_are_the_same_are_that_motion(body):
    """Also where they tell it over windows of their own, that reach beyond the exposure to either side."""
    estimate = smooth_motion(1)[0]
    exposure = estimate.exposures[-1]
    times = np.linspace(exposure.open, exposure.close, 5)

    def over(start, end):
        move = polynomials.shift_matrix((estimate.start, estimate.end), (start, end), 2)
        wide = np.kron(np.eye(FREE_COUNT), np.kron(move, np.eye(3)))
        return replace(estimate, start=start, end=end, covariance=wide @ estimate.covariance @ wide.T,
                       coefficients=np.einsum("kl,jlc->jkc", move, estimate.coefficients))

    out = agreed(over(exposure.open - 0.03, exposure.close), over(exposure.open, exposure.close + 0.05))
    np.testing.assert_allclose(joints_at(out, body, times), joints_at(estimate, body, times), atol=2e-3)
    np.testing.assert_allclose(np.diag(out.covariance), np.diag(within(estimate).covariance), rtol=0.1)
    assert (out.start, out.end) == (exposure.open, exposure.close)


def test_each_limb_comes_from_the_fit_that_is_surer_of_it(body):
    true = smooth_motion(1)[0]
    lost_arm, lost_leg = moved(true, ELBOW, 1.0), moved(true, KNEE, 1.0)
    a = with_variance(lost_arm, {LEFT_ARM: 0.5})
    b = with_variance(lost_leg, {4: 0.5})
    at = np.array([0.5 * (true.start + true.end)])
    for out in (agreed(a, b), agreed(b, a)):
        away = np.linalg.norm(joints_at(out, body, at) - joints_at(true, body, at), axis=-1)[0]
        assert away.max() < 0.01
        assert np.linalg.norm(joints_at(a, body, at) - joints_at(true, body, at), axis=-1)[0, WRIST] > 0.2


def test_where_they_differ_the_covariance_holds_both(body):
    true = smooth_motion(1)[0]
    out = agreed(with_variance(moved(true, ELBOW, 0.4), {}), with_variance(moved(true, ELBOW, -0.4), {}))
    spread = np.sqrt(np.diag(out.covariance)).reshape(FREE_COUNT, 3, 3)[:, 0]
    assert spread[SLOT_OF_JOINT[ELBOW], 2] == pytest.approx(0.4, rel=0.05)
    assert np.delete(spread, SLOT_OF_JOINT[ELBOW], 0).max() < 0.02
    assert np.linalg.eigvalsh(out.covariance).min() > -1e-12


def test_status_of_both():
    e = smooth_motion(1)[0]

    def status(a, b):
        return agreed(replace(e, status=a), replace(e, status=b)).status

    assert status(Status.COLD_START, Status.OK) == Status.OK  # the other had a past there
    assert status(Status.COLD_START, Status.COLD_START) == Status.COLD_START
    assert status(Status.POOR_FIT, Status.LOW_BLUR) == Status.POOR_FIT | Status.LOW_BLUR
    lost = replace(e, status=Status.LOST, coefficients=np.full_like(e.coefficients, np.nan))
    assert agreed(lost, e) is e
    assert agreed(e, lost) is e
    assert agreed(lost, lost).status & Status.LOST
