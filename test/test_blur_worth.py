"""Worth of the blur fit: image velocity, change tables, cost lines and covariances against hand counts."""

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from blur_motion_ros.body import load_body
from blur_motion_ros.evaluation import calibration, reliability
from blur_motion_ros.evaluation.image_motion import image_motion, image_velocity, ratio
from blur_motion_ros.fit.kinematics import FitBody
from blur_motion_ros.fit.layout import FREE_COUNT, free_indices
from blur_motion_ros.trajectory import joints_at, sample
from blur_motion_ros.trajectory.settings import TrajectorySettings
from blur_motion_ros.types import BodyState, Exposure, MotionEstimate, PoseMeasurement, Status

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "benchmarks"))

import blur_pays  # noqa: E402
import cost  # noqa: E402

K = np.array([[500.0, 0, 320], [0, 400, 240], [0, 0, 1]])


# ------------------------------------------------------------------------------------------------ image velocity


def test_image_velocity_of_points_that_slide_and_that_come_nearer():
    times = np.linspace(0, 0.04, 5)[None]
    points = np.zeros((1, 5, 2, 3)) + [0.4, 0.2, 2.0]
    points[0, :, 0, 0] += 3.0 * times[0]  # 3 m/s to the right at 2 m: 500 * 3 / 2 px/s
    points[0, :, 1, 2] -= 1.0 * times[0]  # towards the camera: u = f x / z grows by f x / z^2
    v = image_velocity(points, times, K)
    assert v.shape == (1, 3, 2, 2)
    assert v[..., 0, :] == pytest.approx(np.broadcast_to([750, 0], (1, 3, 2)))
    z = 2.0 - times[0, 1:-1]
    assert v[0, :, 1, 0] == pytest.approx(500 * 0.4 / z**2, rel=1e-3)
    assert v[0, :, 1, 1] == pytest.approx(400 * 0.2 / z**2, rel=1e-3)


def test_error_and_share_of_image_motion():
    """Two exposures at 750 and 1500 px/s, both predicted at 750: errors 0 and 750, share 750 / 2250; a gap is left
    out of both sums."""
    times = np.linspace(0, 0.04, 5) + np.array([[0.0], [0.1], [0.2]])
    still = np.broadcast_to([0.0, 0.0, 2.0], (3, 5, 14, 3))
    moved = (times - times[:, :1])[..., None, None] * np.array([3.0, 0, 0])
    truth = still + moved * np.array([1, 2, 1])[:, None, None, None]
    predicted = still + moved
    predicted[2, 3, 5, 1] = np.nan
    found = image_motion(predicted, truth, times, K)
    assert found.error[:2] == pytest.approx([0, 750], abs=1e-6) and found.speed[:2] == pytest.approx([750, 1500])
    assert np.isnan(found.error[2]) and found.share == pytest.approx(750 / 2250)
    none = image_motion(np.repeat(truth[:, :1], 5, 1), truth, times, K)
    assert none.share == pytest.approx(1), "predicting no motion costs the whole speed"
    assert np.isnan(ratio(np.array([np.nan]), np.array([1.0])))
    with pytest.raises(ValueError, match="S of at least 3"):
        image_motion(truth[:, :2], truth[:, :2], times[:, :2], K)


# ------------------------------------------------------------------------------------------------ tables


def row(name, count, error, size=64, rate=(0.1, 0.5, 1.0)):
    return blur_pays.Row(name, 33.0, np.array(rate), count, size, 0, np.array(error, float), np.full(3, 100.0),
                         np.array(error) / 10)


def test_change_compares_the_same_exposures_of_the_same_sequence():
    """a: 30 -> 15 over the exposures that both found, b: 60 -> 60; together 90 -> 75; each -1/2 and 0."""
    rows = [row("a", 1, [10, 20, np.nan]), row("a", 4, [10, 5, 99]), row("b", 1, [20, 20, 20]),
            row("b", 4, [20, 20, 20]), row("a", 4, [0, 0, 0], size=96)]
    found = blur_pays.change(rows, 64, 0, lambda r: np.ones(3, bool))
    assert found.mean == pytest.approx(75 / 90 - 1) and found.each == pytest.approx([-0.5, 0])
    assert found.exposures == 5 and found.error == pytest.approx(0.25)
    fast = blur_pays.change(rows, 64, 0, lambda r: blur_pays.within(r.blur_rate, 0.4, 0.6))
    assert fast.mean == pytest.approx(25 / 40 - 1) and fast.exposures == 2
    assert blur_pays.within(np.array([0.6, 1.0, 0.59]), 0.6, 1.0).tolist() == [True, True, False]
    nothing = blur_pays.change(rows, 64, 0, lambda r: np.zeros(3, bool))
    assert np.isnan(nothing.mean) and nothing.exposures == 0
    assert "+8.5 % +- 1.0" in blur_pays.percent(blur_pays.Change(0.085, 0.01, np.zeros(2), 3))


def test_repeated_fits_start_a_little_apart_and_count_once():
    body = BodyState(np.zeros(3), np.zeros((23, 3)), np.zeros(10), np.array([0, 0, 3.0]))
    live = [None, PoseMeasurement(0.5, body, np.eye(75), None, 0.0)]
    first, again = blur_pays.nudged(live, 0), blur_pays.nudged(live, 3)
    assert first == live and again[0] is None
    moved = again[1].state.transl - body.transl
    assert 0 < np.linalg.norm(moved) < 1e-5 and live[1].state.transl[2] == 3.0
    mean = blur_pays.averaged([row("a", 4, [10, 20, np.nan]), row("a", 4, [14, 10, 3])])
    assert mean.error[:2].tolist() == [12, 15] and np.isnan(mean.error[2]) and mean.sequence == "a"


def test_a_straight_line_is_told_from_a_square():
    x = np.array([1.0, 2, 4, 8, 12, 16])
    line = cost.straight_line(x, 5 + 1.5 * x)
    assert (line.a, line.b, line.growth) == pytest.approx((5, 1.5, 1)) and line.residual == pytest.approx(0, abs=1e-12)
    assert line.at_most_linear and cost.straight_line(x, np.sqrt(x)).at_most_linear
    assert not cost.straight_line(x, 5 + 0.2 * x**2).at_most_linear
    wobbly = cost.straight_line(x, 5 + 1.5 * x + np.array([1, -1, 1, -1, 1, -1]))
    assert wobbly.at_most_linear and 0.03 < wobbly.residual < 0.1


# ------------------------------------------------------------------------------------------------ covariance


def test_coverage_of_drawn_errors_is_nominal_in_plane_and_depth():
    rng = np.random.default_rng(0)
    root = rng.normal(size=(4000, 3, 3))
    covariance = root @ root.swapaxes(1, 2) + 0.01 * np.eye(3)
    errors = (np.linalg.cholesky(covariance) @ rng.normal(size=(4000, 3, 1)))[..., 0]
    errors[0, 0], covariance[1, 2, 2] = np.nan, np.inf
    levels = np.array([0.5, 0.68, 0.9, 0.95])
    n = calibration.normalised(errors * [1, 1, 2], covariance)
    assert len(n.plane) == len(n.depth) == 3998
    assert calibration.coverage(n.plane, 2, levels) == pytest.approx(levels, abs=0.025)
    halved = [0.2641, 0.3809, 0.5892, 0.6729]  # of a normal variable of twice the sigma
    assert calibration.coverage(n.depth, 1, levels) == pytest.approx(halved, abs=0.03)
    assert np.isnan(calibration.coverage(np.zeros(0), 2, levels)).all()


@pytest.fixture(scope="module")
def body():
    model = load_body(lod="fit")
    return FitBody.of(model.rest_vertices(), model.rest_joints(), model.weights, model.parents, model.faces)


@pytest.fixture(scope="module")
def estimate():
    rng, degree = np.random.default_rng(1), 2
    coefficients = np.zeros((25, degree + 1, 3))
    free = free_indices(degree)
    coefficients.reshape(-1)[free] = rng.normal(0, 0.1, len(free))
    root = rng.normal(0, 1e-3, (len(free), len(free)))
    state = BodyState(rng.normal(0, 1, 3), rng.normal(0, 0.3, (23, 3)), np.zeros(10), np.array([0.2, 0.1, 4.0]))
    exposures = (Exposure(0, 0.03), Exposure(0.033, 0.063))
    return MotionEstimate(0.0, 0.063, exposures, state, coefficients, free, root @ root.T, Status.OK, 0.3, 1.0)


def test_propagation_of_all_joints_is_what_sampling_states(body, estimate):
    times = np.linspace(0.033, 0.063, 4)
    bare = TrajectorySettings(inflation=1, pose_inflation=1, model_sigma=0, scale_sigma=0)
    said = reliability.stated(estimate, body, times, bare)
    posed = reliability.pose_at(estimate, body, times)
    moved = reliability.joint_jacobian(posed, body.parents)
    basis = reliability.polynomials.basis(times, 0.0, 0.063, 2)
    again = reliability.propagated(moved, basis, estimate.covariance)
    np.testing.assert_allclose(again, said["pose"].covariance, rtol=1e-6, atol=1e-12)


def test_relative_covariance_is_that_of_differences_from_the_pelvis(body, estimate):
    """Against numerical derivatives of joint positions by every coefficient, moved relative to the pelvis."""
    times, step = np.array([0.04, 0.06]), 1e-5
    bare = TrajectorySettings(inflation=1, pose_inflation=1, model_sigma=0, scale_sigma=0)
    said = reliability.stated(estimate, body, times, bare)["pose, root-relative"]

    def place(shift):
        coefficients = estimate.coefficients.copy()
        coefficients.reshape(-1)[estimate.free] += shift
        joints = joints_at(replace(estimate, coefficients=coefficients), body, times)
        return joints - joints[:, :1]

    unit = step * np.eye(len(estimate.free))
    derivative = np.stack([(place(u) - place(-u)) / (2 * step) for u in unit], -1)
    expected = derivative @ estimate.covariance @ np.swapaxes(derivative, -1, -2)
    np.testing.assert_allclose(said.value, place(0 * unit[0]), atol=1e-12)
    np.testing.assert_allclose(said.covariance, expected, atol=1e-4 * expected.max())
    assert np.abs(said.covariance[:, 0]).max() < 1e-15 and len(estimate.free) == 9 * FREE_COUNT
    known = TrajectorySettings(inflation=1, pose_inflation=1, model_sigma=0.02, scale_sigma=0.05)
    own = reliability.stated(estimate, body, times, known)
    more = own["pose, root-relative"].covariance - said.covariance
    r = said.value[1, 20]
    np.testing.assert_allclose(more[1, 20], 2 * 0.02**2 * np.eye(3) + 0.05**2 * np.outer(r, r), atol=1e-12)


def test_true_velocities_are_relative_to_the_pelvis(body, estimate):
    times = np.linspace(0.045, 0.048, 9)  # short: a central difference errs by the third derivative
    joints = joints_at(estimate, body, times)
    true = reliability.true_values(joints, times)
    said = sample(estimate, body, times[1:-1])
    np.testing.assert_allclose(true["velocity"], said.linear_velocity, atol=2e-3)
    own = said.linear_velocity - said.linear_velocity[:, :1]
    np.testing.assert_allclose(true["velocity, root-relative"], own, atol=2e-3)
    assert np.abs(true["pose, root-relative"][:, 0]).max() == 0 and true["pose"].shape == (7, 24, 3)


def test_groups_hold_every_joint_once():
    assert sorted(j for joints in reliability.GROUPS.values() for j in joints) == list(range(24))
