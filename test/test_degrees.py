"""A degree per joint: what is held at zero stays there, and the rest is what a solve without it finds."""

from dataclasses import replace

import numpy as np
import pytest
from blurred import EXPOSURES, K, Scene

from blur_motion_ros.fit import solver
from blur_motion_ros.fit.degrees import degrees, expected_travel
from blur_motion_ros.fit.dynamics import MotionPrior
from blur_motion_ros.fit.first_order import solve_first_order
from blur_motion_ros.fit.kinematics import pose
from blur_motion_ros.fit.layout import FREE_JOINTS, WindowLayout
from blur_motion_ros.fit.prior_files import load_motion_statistics
from blur_motion_ros.fit.settings import FirstOrderSettings, FitSettings
from blur_motion_ros.fit.window import BlurFit
from blur_motion_ros.motion import polynomials
from blur_motion_ros.types import Exposure

ELBOW = 1 + int(np.flatnonzero(FREE_JOINTS == 18)[0])
KNEE = 1 + int(np.flatnonzero(FREE_JOINTS == 5)[0])


@pytest.fixture(scope="module")
def scene():
    """The blurred body with an elbow whose speed changes."""
    scene = Scene()
    scene.truth[ELBOW, 2, 2] = 0.3
    scene.value = scene.render(scene.body)
    return scene


@pytest.fixture(scope="module")
def mixed(scene) -> WindowLayout:
    """Degree 1 for the left elbow and the right knee, 2 for the rest."""
    chosen = np.full(21, 2)
    chosen[[ELBOW, KNEE]] = 1
    return scene.layout.with_degrees(chosen)


def start():
    return np.random.default_rng(3).normal(0, 0.01, (21, 3, 3))


def test_normal_equations_are_the_full_ones_without_what_is_held(scene, mixed):
    """Rows and columns of the others are the full system's; what is held has its own prior's precision alone."""
    free = start()
    free[[ELBOW, KNEE], 2] = 0
    full, part = scene.problem(), scene.problem(layout=mixed)
    whole = full.normal(free, full.evaluate(free))
    kept = part.normal(free, part.evaluate(free))
    held = np.zeros((21, 3, 3), bool)
    held[[ELBOW, KNEE], 2] = True
    held = held.reshape(-1)
    assert np.array_equal(np.flatnonzero(held), mixed.held) and np.array_equal(np.flatnonzero(~held), mixed.solved)
    for name in ("prior_hessian", "hessian"):
        a, b = getattr(whole, name), getattr(kept, name)
        assert np.allclose(a[..., ~held, :][..., ~held], b[..., ~held, :][..., ~held], rtol=1e-4, atol=1e-3)
        assert (b[..., held, :][..., ~held] == 0).all()
    assert np.allclose(whole.gradient[:, ~held], kept.gradient[:, ~held], rtol=1e-4, atol=1e-3)
    matrix, right = kept.total()
    own = np.diag(full.priors[0].normal(free)[0])[held]
    assert np.allclose(matrix[np.ix_(held, held)], np.diag(own)) and (right[held] == 0).all()
    variance = np.diag(np.linalg.inv(matrix))[held]
    assert np.allclose(variance, 1 / own), "known as well as before looking"


def test_a_joint_of_degree_one_has_no_curvature_and_the_rest_is_the_clamped_solve(scene, mixed):
    """Against plain Levenberg-Marquardt on the full system whose rows and columns are struck out at every step; the
    motion prior is weak, which otherwise keeps curvatures small by itself."""
    wide = (MotionPrior.of(load_motion_statistics(), scene.layout, 100.0, False),)
    problem = scene.problem(layout=mixed, priors=wide)
    found = solver.solve(problem, start(), 6, tolerance=0.0)
    assert (found.free[[ELBOW, KNEE], 2] == 0).all() and np.abs(found.free[[ELBOW, KNEE], 1]).min() > 0
    full, free, damping = scene.problem(priors=wide), start(), 0.01
    free[[ELBOW, KNEE], 2] = 0
    out = np.setdiff1d(np.arange(189), np.ravel_multi_index(np.ix_([ELBOW, KNEE], [2], [0, 1, 2]), (21, 3, 3)))
    for _ in range(6):
        here = full.evaluate(free)
        matrix, right = full.normal(free, here).total()
        matrix, step = matrix[np.ix_(out, out)], np.zeros(189)
        step[out] = np.linalg.solve(matrix + damping * np.diag(np.diag(matrix)), right[out])
        if full.evaluate(free + step.reshape(free.shape)).cost < here.cost:
            free, damping = free + step.reshape(free.shape), max(damping / 4, 1e-4)
        else:
            damping *= 8
    assert np.allclose(found.free, free, atol=1e-4), np.abs(found.free - free).max()
    other = solver.solve(full, start(), 6, tolerance=0.0).free
    assert np.abs(other[ELBOW, 2]).max() > 1e-3 and np.abs(other - found.free).max() > 1e-3


@pytest.mark.parametrize("duration", [0.1, 0.15, 0.2, 0.25])
def test_a_third_order_is_expected_to_be_as_small_as_a_swinging_limb_s(duration):
    """A 2.5 Hz swing, seen at all phases, against what the prior expects beside the quadratic term."""
    times, phases = np.linspace(0, duration, 41), np.linspace(0, 2 * np.pi, 24, endpoint=False)
    swing = np.sin(2 * np.pi * 2.5 * times[:, None, None] + phases[:, None])  # [T, phase, 1]
    _, _, bend, third = np.sqrt((polynomials.fit(swing, times, 0, duration, 3) ** 2).mean((0, 2)))
    exposures = Exposure(0.0, 0.4 * duration), Exposure(0.6 * duration, duration)
    prior = MotionPrior.of(load_motion_statistics(), WindowLayout.of(exposures, 4, 3), 1.0, False)
    expected = prior.scale[1:, 3] / prior.scale[1:, 2]
    assert (expected > 0.5 * third / bend).all()
    assert (expected < 2 * third / bend).all()


def test_all_orders_active_changes_nothing(scene):
    one, two = (scene.problem(layout=layout) for layout in (scene.layout, scene.layout.with_degrees(np.full(21, 2))))
    assert np.array_equal(solver.solve(one, start(), 2).free, solver.solve(two, start(), 2).free)


def test_adam_holds_the_same_coefficients(scene, mixed):
    found = solve_first_order(scene.problem(layout=mixed), start(), FirstOrderSettings(), 5)
    assert (found.free[[ELBOW, KNEE], 2] == 0).all() and np.abs(found.free[[ELBOW, KNEE], 1]).min() > 0


def test_expected_travel_is_how_far_the_far_end_moves(scene):
    """An elbow that turns at 10 rad/s, a body that moves at 2 m/s: against posing them at the exposure's ends."""
    layout = scene.layout
    span, newest = layout.end - layout.start, EXPOSURES[-1]
    free = np.zeros((21, 3, 3))
    free[ELBOW, 1, 2], free[0, 1, 0] = 5.0 * span, 1.0 * span
    travel = expected_travel(scene.body, layout, free, K[0, 0] / 3)
    ends = np.stack([layout.values_at(t) for t in (newest.open, newest.close)])
    alone = free.copy()
    alone[0] = 0
    joints = pose(scene.body, np.tile(np.eye(3), (24, 1, 1)), np.zeros(3), solver.widen(alone), ends, skin=False).joints
    hand = np.linalg.norm(joints[1, 22] - joints[0, 22]) * K[0, 0] / 3
    assert travel[ELBOW] == pytest.approx(hand, rel=0.03)
    assert travel[0] == pytest.approx(2.0 * newest.duration * K[0, 0] / 3)
    assert (np.delete(travel, [0, ELBOW]) == 0).all()
    assert np.array_equal(degrees(np.array([0.1, 0.6, 3.0, 9.0]), 3, 0.5, 4.0), [1, 2, 2, 3])
    assert np.array_equal(degrees(np.array([0.1, 0.6, 3.0, 9.0]), 2, 0.0, 4.0), [2, 2, 2, 2])


def test_sliding_window_chooses_by_the_last_motion(scene, moving_person):
    """Cold windows are whole; warm ones hold the curvature of slow joints at zero and state the prior's variance."""
    observations, person = moving_person
    whole, chosen = (BlurFit(replace(FitSettings(inflation=0.0), degree_one_below=px), person.body, np.zeros(10))
                     for px in (0.0, 1.0))
    for fit in (whole, chosen):
        fit._colours = person.colours.copy()
    first = [fit.update(observations) for fit in (whole, chosen)]
    assert np.array_equal(first[0].coefficients, first[1].coefficients)
    later, again = (fit.update(observations) for fit in (whole, chosen))
    flat = (again.coefficients[:, 2] == 0).all(1) & (later.coefficients[:, 2] != 0).any(1)
    assert flat.sum() >= 5 and not (again.coefficients[1:, 2] == 0).all()
    assert again.coefficients.shape == later.coefficients.shape and again.covariance.shape == later.covariance.shape
    assert np.linalg.eigvalsh(again.covariance).min() > 0
    bends = np.diag(again.covariance).reshape(21, 3, 3)[:, 2]
    assert np.isfinite(bends).all() and bends.min() > 0


@pytest.fixture(scope="module")
def moving_person(scene):
    from blur_motion_ros.camera.camera import Crop
    from blur_motion_ros.motion import rotations
    from blur_motion_ros.types import BodyState, Observation, PoseMeasurement

    covariance = np.diag(np.r_[np.full(3, 0.03**2), np.full(72, 0.1**2)])
    sigma = np.full(scene.plate.shape[1:3], 0.1, np.float32)
    observations = []
    for exposure, value, plate in zip(EXPOSURES, scene.value, scene.plate, strict=True):
        motion = np.einsum("k,jka->ja", scene.layout.values_at(exposure.middle), solver.widen(scene.truth))
        local = rotations.log(scene.reference @ rotations.exp(motion[1:]))
        state = BodyState(local[0], local[1:], np.zeros(10), np.array([0, 0.15, 3.0]) + motion[0])
        measurement = PoseMeasurement(exposure.middle, state, covariance, None, 0.0)
        observations.append(Observation(exposure, Crop(K, len(sigma)), value[..., :3] + plate, plate, value[..., 3],
                                        sigma, measurement))
    return tuple(observations), scene
