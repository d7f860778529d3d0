"""The blur fit against finite differences, against analytic answers, and on blurred limbs of known speed."""

from dataclasses import replace

import cv2
import numpy as np
import pytest
from synthetic import PARENTS, REST, capsule_body

from blur_motion_ros.camera.camera import Crop
from blur_motion_ros.fit import image_terms, solver, starts
from blur_motion_ros.fit.dynamics import carry
from blur_motion_ros.fit.gaussian_terms import CoefficientPrior, PoseGaussian, RotationVectorPrior
from blur_motion_ros.fit.kinematics import pose
from blur_motion_ros.fit.layout import FREE_JOINTS, FREE_ROWS, LIMB_SLOTS, WindowLayout
from blur_motion_ros.fit.settings import FitSettings
from blur_motion_ros.fit.stillness import still_prior
from blur_motion_ros.fit.window import BlurFit, blur_rate
from blur_motion_ros.motion import rotations
from blur_motion_ros.render import raster
from blur_motion_ros.render.raster import SubFrames
from blur_motion_ros.trajectory import sample
from blur_motion_ros.trajectory.settings import TrajectorySettings
from blur_motion_ros.types import BodyState, Exposure, MotionEstimate, Observation, PoseMeasurement, Status

SIZE = 64
K = np.array([[SIZE * 1.6, 0, SIZE / 2 - 0.5], [0, SIZE * 1.6, SIZE / 2 - 0.5], [0, 0, 1.0]])
UPRIGHT = np.array([np.pi, 0, 0])  # SMPL's y up, facing +z -> camera's y down, facing the camera
TRANSL = np.array([0, 0.15, 3.0])
EXPOSURES = (Exposure(0.0, 0.03), Exposure(1 / 30, 1 / 30 + 0.03))


@pytest.fixture(scope="module")
def body():
    return capsule_body()


@pytest.fixture(scope="module")
def scene(body):
    return Scene(body, np.random.default_rng(0))


class Scene:
    """A posed capsule body in front of a smooth background, with limb-wise colours."""

    def __init__(self, body, rng):
        self.body = body
        self.reference = rotations.exp(rng.normal(0, 0.12, (24, 3)))
        self.reference[0] = rotations.exp(UPRIGHT) @ rotations.exp(np.array([0, 0.4, 0]))
        bones = rng.uniform(0.05, 0.9, (len(body.rest_vertices) // 80, 1, 3))
        self.colours = np.repeat(bones, 80, 1).reshape(-1, 3).astype(np.float32)
        noise = cv2.GaussianBlur(rng.uniform(0, 1, (SIZE, SIZE, 3)).astype(np.float32), (0, 0), 3)
        self.background = np.stack([noise, noise])
        self.layout = WindowLayout.of(EXPOSURES, 4, 2)

    def render(self, free, supersample=2, layout=None):
        layout = layout or self.layout
        workspace = image_terms.Workspace(len(layout.times), SIZE, supersample)
        posed = pose(self.body, self.reference, TRANSL, solver.widen(free), layout.basis)
        raster.draw(posed.vertices, self.body.faces, self.colours, K, workspace.frames)
        return posed, workspace, image_terms.predict(workspace.frames, len(layout.exposures), self.background)

    def observations(self, free, measurements=(None, None), subframes=16):
        """Both exposures rendered finely, as the pipeline would hand them over."""
        layout = WindowLayout.of(EXPOSURES, subframes, 2)
        _, _, predicted = self.render(free, 4, layout)
        crop = Crop(K, SIZE)
        return tuple(
            Observation(e, crop, p[..., :3] + b, b, p[..., 3], np.full((SIZE, SIZE), 0.1, np.float32), m)
            for e, p, b, m in zip(EXPOSURES, predicted, self.background, measurements, strict=True))

    def measurement(self, free, time, sigma):
        """The true pose at `time` as an initialiser would report it with standard deviation `sigma` (rad; m / 3)."""
        value = np.einsum("k,jkc->jc", self.layout.values_at(time), solver.widen(free))
        local = rotations.log(self.reference @ rotations.exp(value[1:]))
        state = BodyState(local[0], local[1:], np.zeros(10), TRANSL + value[0])
        covariance = np.diag(np.r_[np.full(3, (sigma / 3) ** 2), np.full(72, sigma**2)])
        return PoseMeasurement(time, state, covariance, None, 0.0)


def limb_motion(joint, axis, half_travel):
    free = np.zeros((21, 3, 3))
    free[1 + int(np.flatnonzero(FREE_JOINTS == joint)[0]), 1, axis] = half_travel
    return free


def test_skinning_agrees_with_a_plain_matrix_reference(body):
    rng = np.random.default_rng(5)
    local = rotations.exp(rng.normal(0, 0.5, (24, 3)))
    posed = pose(body, local, TRANSL, np.zeros((25, 1, 3)), np.ones((1, 1)))
    world = [np.eye(4)] * 24
    for j in range(24):
        step = np.eye(4)
        step[:3, :3] = local[j]
        step[:3, 3] = REST[j] - (REST[PARENTS[j]] if j else 0) + (TRANSL if j == 0 else 0)
        world[j] = world[PARENTS[j]] @ step if j else step
    for v in range(0, len(body.rest_vertices), 37):
        j = body.weight_joints[v, 0]
        expected = world[j][:3, :3] @ (body.rest_vertices[v] - REST[j]) + world[j][:3, 3]
        assert np.abs(posed.vertices[0, v] - expected).max() < 1e-5


def test_rasteriser_covers_a_triangle_exactly():
    vertices = np.array([[[-1, -1, 2], [1, -1, 2], [-1, 1, 2]]], np.float32)
    frames = SubFrames.allocate(1, 32, 4)
    intrinsics = np.array([[16, 0, 15.5], [0, 16, 15.5], [0, 0, 1]])
    facing = np.array([[0, 2, 1]], np.int32)
    raster.draw(vertices, facing, np.ones((3, 3), np.float32), intrinsics, frames)
    assert frames.alpha.sum() == pytest.approx(0.5 * 16 * 16, rel=0.02)
    assert frames.alpha[0, 9, 9] == 1 and frames.alpha[0, 22, 22] == 0  # upper left, not lower right
    assert np.allclose(frames.depth[0][frames.alpha[0] > 0], 2.0)
    raster.draw(vertices, facing[:, ::-1].copy(), np.ones((3, 3), np.float32), intrinsics, frames)
    assert frames.alpha.sum() == 0  # seen from behind


@pytest.mark.parametrize(("supersample", "alike", "low", "high"), [(8, 0.96, 0.88, 1.1), (2, 0.85, 0.7, 1.2)])
def test_image_jacobian_against_finite_differences(scene, supersample, alike, low, high):
    """Directional derivatives of a finely rendered image: drawn as finely, the linearisation is the same image; as
    coarsely as the fit draws, it still points the same way, for thin limbs too."""
    free = np.random.default_rng(1).normal(0, 0.05, (21, 3, 3)) * np.array([0.3] + [1] * 20)[:, None, None]
    posed, workspace, predicted = scene.render(free, supersample)
    checks = [("translation x", 0, 0, 0), ("translation y", 0, 0, 1), ("shoulder", 16, 0, 2), ("arm rate", 17, 1, 2),
              ("knee", 4, 0, 2), ("pelvis", 0, 0, 2), ("elbow", 18, 0, 2), ("elbow rate", 19, 1, 2),
              ("wrist", 20, 0, 2), ("neck", 12, 0, 2)]
    for name, joint, order, axis in checks:
        direction = np.zeros((21, 3, 3))
        slot = 0 if name.startswith("translation") else 1 + int(np.flatnonzero(FREE_JOINTS == joint)[0])
        direction[slot, order, axis] = 1
        h = 0.01 if slot == 0 else 0.02
        difference = (scene.render(free + h * direction, 8)[2] - scene.render(free - h * direction, 8)[2]) / (2 * h)
        shifted = image_terms.Target(predicted + difference, np.ones_like(predicted), scene.background, K)
        plain = image_terms.Residual(difference, np.ones_like(difference), 0.0)
        hessian, gradient = image_terms.normal_equations(scene.body, posed, workspace, scene.layout, shifted, plain)
        flat = direction.reshape(-1)
        linear = np.sqrt(flat @ hessian.sum(0) @ flat)
        cosine = float(gradient.sum(0) @ flat) / (linear * np.sqrt((difference**2).sum()))
        gain = linear / np.sqrt((difference**2).sum())
        assert cosine > alike, (name, cosine)
        assert low < gain < high, (name, gain)


def _directional(term, free, direction, h=1e-5):
    return (term.cost(free + h * direction) - term.cost(free - h * direction)) / (2 * h)


def test_gaussian_terms_against_finite_differences(scene):
    rng = np.random.default_rng(4)
    free = rng.normal(0, 0.1, (21, 3, 3))
    measured = rotations.exp(rng.normal(0, 0.2, (24, 3)))
    root = rng.normal(size=(63, 63))
    basis = scene.layout.values_at(0.048)

    class Quadratic:
        def __init__(self):
            self.matrix = rng.normal(size=(7, 69))

        def residual(self, body_pose):
            return self.matrix @ body_pose.reshape(-1), self.matrix

    terms = [CoefficientPrior(rng.normal(size=free.shape), rng.uniform(1, 5, free.shape)),
             PoseGaussian(scene.reference, TRANSL, scene.reference @ measured, TRANSL + 0.1, root @ root.T, basis, 1e6),
             RotationVectorPrior(scene.reference, Quadratic(), basis, 0.7)]
    for term in terms:
        _, gradient = term.normal(free)
        for _ in range(3):
            direction = rng.normal(size=free.shape)
            expected = _directional(term, free, direction)
            assert -2 * gradient @ direction.reshape(-1) == pytest.approx(expected, rel=2e-3), type(term).__name__


@pytest.mark.parametrize("joint,axis,name", [(18, 2, "left elbow"), (17, 2, "right shoulder"), (2, 2, "right hip")])
def test_angular_velocity_of_a_blurred_limb_is_recovered(scene, joint, axis, name):
    """Two blurred exposures, started from the true mid pose at rest: speed and direction must come from the blur.

    Depth is hardly seen by one camera, so the image plane is what must be right; depth must lie within what the
    covariance says.
    """
    truth = limb_motion(joint, axis, 0.35)
    start = scene.measurement(truth, 0.5 * (EXPOSURES[0].open + EXPOSURES[1].close), 0.1)
    first, second = scene.observations(truth)
    fit = BlurFit(FitSettings(inflation=0.0, cold_iterations=20, motion_widening=10.0), scene.body, np.zeros(10))
    fit._colours = scene.colours.copy()
    estimate = fit.update((first, replace(second, measurement=start)))
    t = np.array([EXPOSURES[1].middle])
    found = sample(estimate, scene.body, t)
    true = scene_velocity(scene, truth, t)
    child = {18: 20, 17: 19, 2: 8}[joint]
    assert np.linalg.norm(true[child, :2]) > 0.5, name
    error = found.linear_velocity[0, child] - true[child]
    assert np.linalg.norm(error[:2]) < 0.5 * np.linalg.norm(true[child, :2]), (name, error, true[child])
    assert abs(error[2]) < 3 * np.sqrt(found.velocity_covariance[0, child, 2, 2]), (name, error, true[child])


def scene_velocity(scene, free, times):
    local = rotations.log(scene.reference)
    reference = BodyState(local[0], local[1:], np.zeros(10), TRANSL)
    truth = MotionEstimate(scene.layout.start, scene.layout.end, EXPOSURES, reference, solver.widen(free),
                           np.arange(1), None, Status.OK, 0.0, 0.0)
    return sample(truth, scene.body, times).linear_velocity[0]


def test_sampled_velocity_is_the_derivative_of_sampled_position(scene):
    rng = np.random.default_rng(7)
    local = rotations.log(scene.reference)
    reference = BodyState(local[0], local[1:], np.zeros(10), TRANSL)
    root = rng.normal(size=(189, 189)) * 0.01
    estimate = MotionEstimate(0.0, 0.0633, EXPOSURES, reference, solver.widen(rng.normal(0, 0.2, (21, 3, 3))),
                              np.arange(189), root @ root.T, Status.OK, 0.0, 0.0)
    h = 1e-5
    for time in (0.02, 0.05, 0.09):  # the last one is past the window
        s = sample(estimate, scene.body, np.array([time - h, time, time + h]))
        difference = (s.positions[2] - s.positions[0]) / (2 * h)
        assert np.abs(difference - s.linear_velocity[1]).max() < 1e-3
        turn = rotations.log(s.rotations[2] @ np.swapaxes(s.rotations[0], -1, -2)) / (2 * h)
        assert np.abs(turn - s.angular_velocity[1]).max() < 1e-3
    inside = np.trace(sample(estimate, scene.body, np.array([0.05])).position_covariance[0, 20])
    later = np.trace(sample(estimate, scene.body, np.array([0.25])).position_covariance[0, 20])
    assert later > 2 * inside  # a prediction ages


def test_joint_covariance_matches_monte_carlo(scene):
    rng = np.random.default_rng(8)
    local = rotations.log(scene.reference)
    reference = BodyState(local[0], local[1:], np.zeros(10), TRANSL)
    root = rng.normal(size=(189, 40)) * 0.002
    draws = rng.normal(size=(400, 40)) @ root.T

    def at(free):
        e = MotionEstimate(0.0, 0.0633, EXPOSURES, reference, solver.widen(free), np.arange(189), root @ root.T,
                           Status.OK, 0.0, 0.0)
        bare = TrajectorySettings(inflation=1.0, pose_inflation=1.0, model_sigma=0.0, scale_sigma=0.0)
        return sample(e, scene.body, np.array([0.05]), bare)

    cloud = np.array([at(d.reshape(21, 3, 3)).positions[0, 20] for d in draws])
    claimed = at(np.zeros((21, 3, 3))).position_covariance[0, 20]
    assert np.allclose(np.cov(cloud.T), claimed, atol=0.2 * np.trace(claimed))


def test_a_still_person_stays_still(scene):
    still = np.zeros((21, 3, 3))
    observations = scene.observations(still, tuple(scene.measurement(still, e.middle, 0.1) for e in EXPOSURES))
    fit = BlurFit(FitSettings(inflation=0.0), scene.body, np.zeros(10))
    estimate = fit.update(observations)
    speed = np.linalg.norm(sample(estimate, scene.body, estimate.exposures[-1].open + np.array([0.0, 0.015, 0.03]))
                           .linear_velocity, axis=-1)
    assert speed.mean() < 0.05, speed.mean(0)
    assert estimate.status & Status.LOW_BLUR


@pytest.mark.parametrize("threshold, steps", [(0.05, 2), (0.029, 5)])
def test_steps_of_a_window(scene, monkeypatch, threshold, steps):
    """More where exposures are long; the first window has nothing to go on from, so it is never cut short."""
    asked = []
    solve = solver.solve
    monkeypatch.setattr(solver, "solve", lambda problem, free, iterations, **options:
                        asked.append((iterations, options["until"])) or solve(problem, free, iterations, **options))
    still = np.zeros((21, 3, 3))
    observations = scene.observations(still, tuple(scene.measurement(still, e.middle, 0.1) for e in EXPOSURES))
    fit = BlurFit(FitSettings(inflation=0.0, long_exposure=threshold), scene.body, np.zeros(10))
    fit.update(observations, until=0.0)
    assert {a for a in asked} == {(10, np.inf)}
    asked.clear()
    later = tuple(replace(o, exposure=Exposure(o.exposure.open + 1 / 30, o.exposure.close + 1 / 30),
                          measurement=replace(o.measurement, time=o.measurement.time + 1 / 30)) for o in observations)
    fit.update(later, until=0.0)
    assert {a for a in asked} == {(steps, 0.0)}


def test_blur_rate_counts_what_the_silhouettes_do_not_share():
    alpha = np.zeros((2, 10, 10), np.float32)
    alpha[0, :, 0:4] = 1
    alpha[1, :, 2:6] = 1
    assert blur_rate(alpha) == pytest.approx(1 - 2 / 6)
    assert blur_rate(alpha * 0) == 0


def test_cost_of_free_rows_only():
    wide = solver.widen(np.ones((21, 3, 3)))
    assert wide.shape == (25, 3, 3)
    assert wide[FREE_ROWS].min() == 1 and wide[[11, 12, 23, 24]].max() == 0  # feet and hands follow


def test_a_window_hands_on_its_pose_velocity_and_certainty(scene):
    """The next window's prior says at the hand-over instant just what the last window knew there."""
    rng = np.random.default_rng(11)
    free = rng.normal(0, 0.05, (21, 3, 3))
    root = rng.normal(size=(189, 189))
    kept = root @ root.T + 50 * np.eye(189)
    time = EXPOSURES[1].middle
    handed = carry(scene.layout, scene.reference, TRANSL, free, kept, np.zeros(189), time, np.zeros((2, 21, 3)))
    later = WindowLayout.of((EXPOSURES[1], Exposure(2 / 30, 2 / 30 + 0.03)), 4, 2)
    term = handed.term(later)
    pose_then = np.einsum("k,skc->sc", later.values_at(time), term.mean)
    assert np.abs(pose_then).max() < 1e-9  # relative to the new reference

    def local(t):
        return scene.reference[FREE_JOINTS] @ rotations.exp(np.einsum("k,skc->sc", scene.layout.values_at(t), free)[1:])

    assert np.abs(handed.reference[FREE_JOINTS] - local(time)).max() < 1e-12
    h = 1e-5
    turning = rotations.log(np.swapaxes(local(time - h), -1, -2) @ local(time + h)) / (2 * h)
    velocity_then = np.einsum("k,skc->sc", later.rates_at(time), term.mean)
    assert np.abs(velocity_then[1:] - turning).max() < 1e-4
    rows = np.stack([scene.layout.values_at(time), scene.layout.rates_at(time)])
    spread = np.einsum("ok,st,ab->osaktb", rows, np.eye(21), np.eye(3))[0, 0, 0].transpose(1, 0, 2).reshape(-1)
    certainty = 1 / (spread @ np.linalg.inv(kept) @ spread)  # root x, pose: its tangent does not turn
    assert 1 / handed.covariance[0, 0] == pytest.approx(certainty, rel=1e-6)


def test_what_changes_is_not_held_still(scene):
    """Stillness holds a person who did not move, lets a moving arm go, and never a moving trunk's limbs."""
    still, arm, walk = np.zeros((21, 3, 3)), limb_motion(16, 2, 0.25), np.zeros((21, 3, 3))
    walk[0, 1, 0] = 0.05
    rng = np.random.default_rng(12)
    held = []
    for free in (still, arm, walk):
        _, workspace, predicted = scene.render(free)
        noisy = predicted + rng.normal(0, 0.003, predicted.shape).astype(np.float32)
        target = image_terms.Target(noisy, np.ones_like(noisy), scene.background, K)
        prior = still_prior(scene.body, scene.layout, target, workspace.frames)
        held.append(np.zeros(21) if prior is None else prior.precision[:, 1, 0])
    left_arm = slice(*LIMB_SLOTS[2])
    assert (held[0][1:5] > 0).all() and held[0][0] > 0
    assert (held[1][left_arm] == 0).all()
    assert (held[2] == 0).all()


def test_a_hidden_limb_is_held_less_and_only_where_all_that_is_seen_is_still(scene):
    rng = np.random.default_rng(12)
    left, right = slice(*LIMB_SLOTS[2]), slice(*LIMB_SLOTS[3])
    held = []
    for free in (np.zeros((21, 3, 3)), limb_motion(17, 2, 0.25)):
        _, workspace, predicted = scene.render(free)
        noisy = predicted + rng.normal(0, 0.003, predicted.shape).astype(np.float32)
        target = image_terms.Target(noisy, np.ones_like(noisy), scene.background, K)
        vertex = workspace.frames.vertex
        vertex[(vertex >= 0) & (scene.body.limbs_of_vertices[vertex] >> 2 & 1 > 0)] = -1  # the left arm is behind
        prior = still_prior(scene.body, scene.layout, target, workspace.frames)
        held.append(prior.precision[:, 1, 0])
    assert (held[0][left] > 0).all()
    assert (held[0][left] < 0.1 * held[0][right]).all()
    assert (held[1][left] == 0).all() and (held[1][right] == 0).all()
    assert (held[1][1:5] > 0).all()


@pytest.mark.parametrize(("angles", "count"), [((0.0,), 1), ((0.0, 0.3, 0.6), 3), ((3.0, 0.0, 0.3), 2),
                                              ((0.0, 3.0, 0.3), 1), ((0.0, 0.3, 3.0), 1)])
def test_the_newest_measurements_that_agree_are_counted(angles, count):
    measured = [PoseMeasurement(i / 15, BodyState(np.array([0, a, 0.0]), np.zeros((23, 3)), np.zeros(10), np.zeros(3)),
                                np.eye(75), None, 1.0) for i, a in enumerate(angles)]
    assert starts.agreeing(measured) == count


@pytest.mark.parametrize(("turn", "joined"), [(0.5, True), (3.0, False)])
def test_measurements_that_nobody_turns_between_are_not_joined(turn, joined):
    """Half a radian in 33 ms is a fast turn; three are one measurement that sees the person from behind."""
    layout = WindowLayout.of(EXPOSURES, 4, 2)
    measured = [PoseMeasurement(e.middle, BodyState(np.array([0, angle, 0.0]), np.zeros((23, 3)), np.zeros(10),
                                                    np.array([0, 0, 3.0])), np.eye(75), None, 1.0)
                for e, angle in zip(EXPOSURES, (0.0, turn), strict=True)]
    start = starts.join(measured, layout)
    values = [layout.values_at(t) @ start.free[1] for t in (layout.start, layout.end)]
    there = [rotations.log(start.reference[0] @ rotations.exp(v))[1] for v in values]
    slope = turn / (1 / 30) if joined else 0.0
    np.testing.assert_allclose(there, [turn + slope * (t - EXPOSURES[1].middle) for t in (layout.start, layout.end)],
                               atol=1e-6)
