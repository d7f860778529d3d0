"""A limb that was followed wrongly begins anew where it is measured, and the rest of the body goes on; a fit that does
not cover the person is doubted."""

from dataclasses import replace

import numpy as np
import pytest
from moving import PERIOD, MovingBody

from blur_motion_ros.fit.doubt import doubt, doubted, limb_speeds, silhouette_overlap
from blur_motion_ros.fit.dynamics import carry
from blur_motion_ros.fit.gaussian_terms import PoseGaussian
from blur_motion_ros.fit.image_terms import Target
from blur_motion_ros.fit.layout import FREE_COUNT, LIMB_OF_SLOT, LIMB_SLOTS, WindowLayout
from blur_motion_ros.fit.settings import FitSettings
from blur_motion_ros.fit.starts import Start, limbs_anew
from blur_motion_ros.fit.window import BlurFit
from blur_motion_ros.motion import rotations
from blur_motion_ros.trajectory import joints_at, sample
from blur_motion_ros.types import Exposure, Status

SHOULDER, WRIST, JUMP = 17, 21, 8  # right arm; frame from which it is elsewhere
LEFT_ARM, RIGHT_ARM = 2, 3  # in layout.LIMBS
DRIFT = 1.0  # m/s
FAINT = FitSettings(data_weight=0.05, sigma_alpha=0.3)  # images that find no limb again by themselves
EXPOSURES = tuple(Exposure(i * PERIOD, i * PERIOD + 0.03) for i in range(3))
LAYOUT = WindowLayout.of(EXPOSURES[:2], 4, 2)
TRANSL = np.array([0, 0.15, 3.0])


def leaping(t: float) -> tuple[np.ndarray, np.ndarray]:
    """An arm that is suddenly 90 degrees from where it was, as if it had been followed wrongly till then."""
    turn = np.zeros((24, 3))
    turn[SHOULDER, 2] = 1.6 if t > (JUMP - 0.05) * PERIOD else 0.0
    return turn, np.array([DRIFT * t, 0.0, 0.0])


def followed(settings: FitSettings, frames: int = JUMP + 4) -> tuple[np.ndarray, list]:
    """Distance [frames] m of the wrist from the truth at mid-exposure, and the estimates."""
    body = MovingBody(leaping)
    fit = BlurFit(settings, body.body, np.zeros(10))
    seen = [body.observation(i, sigma=0.15) for i in range(frames)]
    estimates = [fit.update(tuple(seen[max(i - 1, 0):i + 1])) for i in range(frames)]
    at = [body.exposure(i).middle for i in range(frames)]
    away = [joints_at(e, body.body, np.array([t]))[0, WRIST] - body.joints(t)[WRIST]
            for e, t in zip(estimates, at, strict=True)]
    return np.linalg.norm(away, axis=1), estimates


def test_an_arm_followed_wrongly_is_found_again_and_the_body_goes_on():
    away, estimates = followed(FAINT)
    stuck, _ = followed(replace(FAINT, limb_above=1e9))
    assert away[4:JUMP].max() < 0.08
    assert away[JUMP + 1:].max() < 0.12  # one window sees both places; the next has it
    assert stuck[JUMP + 2] > 2 * away[JUMP + 2]  # what this is for
    assert not any("COLD_START" in str(e.status) for e in estimates[2:])
    drifting = [joints_at(e, MovingBody(leaping).body, np.array([e.end - 0.01, e.end]))[:, 0] for e in estimates[4:]]
    assert np.allclose([(b - a)[0] / 0.01 for a, b in drifting], DRIFT, atol=0.5)


def test_a_limb_that_stays_lost_is_doubted():
    """What nothing finds again must at least not be published as sure."""
    _, found = followed(FAINT)
    away, lost = followed(replace(FAINT, limb_above=1e9))
    assert away[JUMP + 1] > 0.3
    body = MovingBody(leaping).body

    def spread(estimate):
        trajectory = sample(estimate, body, np.array([estimate.end]))
        return np.sqrt(np.trace(trajectory.position_covariance[0, WRIST]) / 3)

    assert spread(lost[JUMP + 1]) > 2 * spread(found[JUMP + 1])
    assert spread(lost[JUMP + 1]) > 0.3 * away[JUMP + 1]


def test_overlap_of_silhouettes_where_the_matte_knows():
    """Half of each exposure's person covered, and as much beside them: a third. Unknown pixels speak for the fit."""
    value, weight = np.zeros((2, 8, 8, 4), np.float32), np.full((2, 8, 8, 4), 5.0, np.float32)
    value[:, 2:6, 0:4, 3] = 1.0
    predicted = np.zeros_like(value)
    predicted[:, 2:6, 2:6, 3] = 1.0
    target = Target(value, weight, np.zeros((2, 8, 8, 3), np.float32), np.eye(3))
    assert silhouette_overlap(target, predicted) == pytest.approx(1 / 3)
    weight[:, :, 4:, 3] = 1e-3
    assert silhouette_overlap(target, predicted) == pytest.approx(2 / 3)
    weight[..., 3] = 1e-3
    assert silhouette_overlap(target, predicted) == 1.0  # without a background the images say nothing either way
    assert doubt(1.0) == doubt(0.88) == 1.0
    assert doubt(0.88 - 1 / 12) == pytest.approx(np.e)
    assert doubt(0.0) == pytest.approx(doubt(0.48))
    assert doubt(0.0) > 100


def test_only_the_limb_that_is_measured_elsewhere_is_doubted():
    root = np.random.default_rng(1).normal(size=(189, 300))
    covariance = root @ root.T
    surprises = np.array([3.0, 0.1, 0.2, 1.6, 0.3, 0.4])  # the trunk's surprise and the usual ones count for nothing
    out = doubted(covariance, 0.9, surprises, np.zeros(6)) / covariance
    limb = np.repeat(LIMB_OF_SLOT == RIGHT_ARM, 9)
    np.testing.assert_allclose(out[np.ix_(limb, limb)], 4.0)
    np.testing.assert_allclose(out[np.ix_(limb, ~limb)], 2.0)
    np.testing.assert_allclose(out[np.ix_(~limb, ~limb)], 1.0)
    np.testing.assert_allclose(doubted(covariance, 0.0, surprises, np.zeros(6)) / covariance / out, doubt(0.0))


def test_distance_of_a_limb_counts_that_limb_only():
    """Against a covariance in which everything hangs together: each limb's own block of it, as marginals are."""
    rng = np.random.default_rng(3)
    root = rng.normal(size=(63, 80))
    covariance = 0.01 * root @ root.T / 80
    basis = LAYOUT.values_at(EXPOSURES[1].middle)
    reference = rotations.exp(rng.normal(0, 0.3, (24, 3)))
    term = PoseGaussian(reference, TRANSL, reference, TRANSL, np.linalg.inv(covariance), basis)
    free = np.zeros((FREE_COUNT, 3, 3))
    first, last = LIMB_SLOTS[RIGHT_ARM]
    free[first + 1, 0] = [0.2, 0.0, 0.0]
    of = term.by_limb(free)
    own = np.linalg.inv(covariance[3 * first:3 * last, 3 * first:3 * last])[3, 3]
    assert of[RIGHT_ARM] == pytest.approx(0.04 * own / (3 * (last - first)), rel=1e-6)
    assert np.abs(np.delete(of, RIGHT_ARM)).max() < 1e-12


def test_measurements_of_no_weight_surprise_nobody():
    away, _ = followed(FitSettings(measurement_weight=0.0), 4)
    assert np.isfinite(away).all()


def test_what_is_handed_on_without_a_limb_knows_the_rest_as_before():
    rng = np.random.default_rng(11)
    root = rng.normal(size=(189, 400))
    reference = rotations.exp(rng.normal(0, 0.3, (24, 3)))
    handed = carry(LAYOUT, reference, TRANSL, rng.normal(0, 0.05, (21, 3, 3)), root @ root.T,
                   rng.normal(size=189), EXPOSURES[1].middle, np.full((2, 21, 3), 1e-3))
    slots = np.zeros(FREE_COUNT, bool)
    slots[slice(*LIMB_SLOTS[RIGHT_ARM])] = True
    less = handed.without(slots)
    kept = np.tile(np.repeat(~slots, 3), 2)
    assert np.array_equal(less.covariance[np.ix_(kept, kept)], handed.covariance[np.ix_(kept, kept)])
    assert not less.covariance[np.ix_(kept, ~kept)].any()
    later = WindowLayout.of(EXPOSURES[1:], 4, 2)
    moved = np.zeros((FREE_COUNT, 3, 3))
    moved[slots, :2] = 0.5
    term = less.term(later)
    assert term.cost(term.mean + moved) < 4.0  # half a radian of every joint of the limb: next to nothing
    moved[~slots, :2] = 0.5
    assert term.cost(term.mean + moved) > 1e3


def test_only_the_limb_starts_where_it_was_measured():
    rng = np.random.default_rng(5)

    def start(carried):
        return Start(rotations.exp(rng.normal(0, 0.3, (24, 3))), rng.normal(size=3),
                            rng.normal(size=(21, LAYOUT.degree + 1, 3)), carried)

    going_on, measured = start(True), start(False)
    anew = np.zeros(6, bool)
    anew[LEFT_ARM] = True
    mixed = limbs_anew(going_on, measured, anew)
    joints, slots = [13, 16, 18, 20], np.arange(*LIMB_SLOTS[LEFT_ARM])
    assert mixed.carried and np.array_equal(np.flatnonzero(mixed.slots_anew), slots)
    assert np.array_equal(mixed.reference[joints], measured.reference[joints])
    assert np.array_equal(np.delete(mixed.reference, joints, 0), np.delete(going_on.reference, joints, 0))
    assert np.array_equal(mixed.free[slots], measured.free[slots])
    assert np.array_equal(np.delete(mixed.free, slots, 0), np.delete(going_on.free, slots, 0))
    assert np.array_equal(mixed.reference_transl, going_on.reference_transl)


def test_a_limb_that_is_hardly_credibly_fast_is_doubted():
    """A wrist that swings 0.7 m from its pelvis at 20 rad/s does 14 m/s, whatever the whole body does meanwhile."""
    times = np.linspace(0, 0.05, 11)
    joints = np.zeros((11, 24, 3)) + (3.0 * times)[:, None, None]
    joints[:, WRIST] += 0.7 * np.stack([np.cos(20 * times), np.sin(20 * times), 0 * times], 1)
    speeds = limb_speeds(joints, times)
    np.testing.assert_allclose(speeds, np.where(np.arange(6) == RIGHT_ARM, 14.0, 0.0), atol=0.02)
    assert not limb_speeds(joints[:1], times[:1]).any()
    covariance = np.eye(189)
    out = np.diag(doubted(covariance, 1.0, np.zeros(6), speeds))
    np.testing.assert_allclose(out, np.where(np.repeat(LIMB_OF_SLOT == RIGHT_ARM, 9), 4.0, 1.0), rtol=0.01)


@pytest.mark.parametrize(("limit", "poor"), [(2.0, True), (6.0, False)])
def test_a_fit_with_a_limb_beyond_the_set_speed_is_poor(limit, poor):
    """An arm that turns at 6 rad/s has its wrist at 3 m/s, half a metre from the shoulder."""
    def swinging(t):
        turn = np.zeros((24, 3))
        turn[SHOULDER, 2] = 6.0 * t
        return turn, np.array([DRIFT * t, 0.0, 0.0])

    body = MovingBody(swinging)
    fit = BlurFit(replace(FitSettings(), poor_speed=limit), body.body, np.zeros(10))
    seen = [body.observation(i) for i in range(6)]
    estimates = [fit.update(tuple(seen[max(i - 1, 0):i + 1])) for i in range(6)]
    assert [bool(e.status & Status.POOR_FIT) for e in estimates[2:]] == [poor] * 4
