"""Direction of time: known reversals undone, streams of single exposures, wrong flips, and honest doubt."""

from dataclasses import replace

import numpy as np
import pytest
from moving import PERIOD, MovingBody, swinging

from blur_motion_ros.fit import direction, solver
from blur_motion_ros.fit.direction import LIMB_COUNT, STATES, ExposureMotion
from blur_motion_ros.fit.direction_search import directed, in_hindsight, reversed_in_window
from blur_motion_ros.fit.layout import FREE_ROWS, LIMB_SLOTS, SLOT_OF_JOINT, WindowLayout, free_indices
from blur_motion_ros.fit.prior_files import load_motion_statistics
from blur_motion_ros.fit.settings import FitSettings
from blur_motion_ros.fit.window import BlurFit
from blur_motion_ros.motion import polynomials, rotations
from blur_motion_ros.trajectory import sample
from blur_motion_ros.types import BodyState, Exposure, MotionEstimate, Status

STATISTICS = load_motion_statistics()
SHOULDER = int(SLOT_OF_JOINT[16])


def smooth_motion(count: int, seed: int = 0, noise: float = 0.0) -> list[MotionEstimate]:
    """Single-exposure estimates cut from one smooth motion of all joints (analytic: sines of 1 to 2 Hz)."""
    rng = np.random.default_rng(seed)
    amplitude, phase = rng.uniform(0.3, 0.8, (21, 3)), rng.uniform(0, 2 * np.pi, (21, 3))
    speed = 2 * np.pi * rng.uniform(1.0, 2.0, (21, 3))
    out = []
    for i in range(count):
        exposure = Exposure(i * PERIOD, (i + 0.9) * PERIOD)
        times = np.linspace(exposure.open, exposure.close, 9)
        angle = amplitude * np.sin(speed * times[:, None, None] + phase)
        local = np.tile(np.eye(3), (9, 24, 1, 1))
        local[:, FREE_ROWS[1:] - 1] = rotations.exp(angle[:, 1:])
        reference, turning = polynomials.fit_rotations(local, times, exposure.open, exposure.close, 2)
        moving = polynomials.fit(angle[:, :1] - angle[4, :1], times, exposure.open, exposure.close, 2)
        free = np.concatenate([moving, turning[FREE_ROWS[1:] - 1]])
        free = free + rng.normal(0, noise, free.shape)
        vectors = rotations.log(reference)
        state = BodyState(vectors[0], vectors[1:], np.zeros(10), angle[4, 0])
        out.append(MotionEstimate(exposure.open, exposure.close, (exposure,), state, solver.widen(free),
                                  free_indices(2), 0.02**2 * np.eye(189), Status.OK, 0.3, 1.0))
    return out


def test_known_reversals_are_found_exactly():
    """Every limb of every exposure flipped by a coin: the decision must undo it, up to flipping everything at once."""
    motions = smooth_motion(8, noise=0.005)
    flipped = np.random.default_rng(1).random((8, LIMB_COUNT)) < 0.5
    spoilt = [direction.reverse_limbs(e, f) for e, f in zip(motions, flipped, strict=True)]
    found = direction.decide([ExposureMotion.of(e) for e in spoilt], STATISTICS)
    assert (found.reverse == flipped).all()
    assert (found.log_odds > 5).all()
    undone = [direction.reverse_limbs(e, r) for e, r in zip(spoilt, found.reverse, strict=True)]
    for e, u in zip(motions, undone, strict=True):
        assert np.abs(e.coefficients - u.coefficients).max() < 1e-12


def test_decision_agrees_with_trying_every_combination():
    """Viterbi and marginals against the plain sum over all 2^(2 x 3) paths of two limbs in three exposures."""
    motions = [ExposureMotion.of(e) for e in smooth_motion(3, seed=3, noise=0.08)]
    rng = np.random.default_rng(5)
    image = rng.uniform(0, 2, (3, len(STATES))) + 1e3 * STATES[:, 2:].any(1)  # only trunk and head may turn
    motions = [replace(m, image=i) for m, i in zip(motions, image, strict=True)]
    gaps = [direction.gap_costs(a, b, STATISTICS) for a, b in zip(motions, motions[1:], strict=False)]
    found = direction.decide(motions, STATISTICS)
    few = np.flatnonzero(~STATES[:, 2:].any(1))
    costs, paths = [], []
    for a in few:
        for b in few:
            for c in few:
                s = STATES[[a, b, c]]
                cost = image[0, a] + image[1, b] + image[2, c]
                cost += sum(gaps[k][limb, s[k, limb], s[k + 1, limb]] for k in range(2) for limb in range(LIMB_COUNT))
                costs.append(cost)
                paths.append(s)
    weight = np.exp(min(costs) - np.array(costs))
    weight /= weight.sum()
    best = paths[int(np.argmin(costs))]
    assert (found.reverse == best).all()
    wrong = np.einsum("p,pfl->fl", weight, (np.array(paths) != best).astype(float))
    assert np.abs(found.log_odds[:, :2] - np.log(1 / wrong[:, :2] - 1)).max() < 1e-6


def test_mirrored_times_mirror_the_decision():
    """The same exposures in reversed order: every motion must come out reversed, as time itself was."""
    motions = smooth_motion(6, seed=2, noise=0.003)
    end = motions[-1].end
    backwards = []
    for e in reversed(motions):
        exposure = Exposure(end - e.end, end - e.start)
        backwards.append(replace(e, start=exposure.open, end=exposure.close, exposures=(exposure,)))
    found = direction.decide([ExposureMotion.of(e) for e in backwards], STATISTICS)
    assert found.reverse.all()


def test_reversing_keeps_the_average_and_swaps_the_ends():
    e = smooth_motion(2)[1]
    longer = replace(e, start=e.start - PERIOD, exposures=(Exposure(e.start - PERIOD, e.start - 0.1 * PERIOD),
                                                          *e.exposures))
    legs = np.array([0, 0, 0, 0, 1, 1], bool)
    turned = direction.reverse_limbs(longer, legs)
    body = MovingBody(swinging(16, 2, 0.0, 1.0)).body
    opened, closed = longer.exposures[-1].open, longer.exposures[-1].close
    at = np.array([opened, 0.5 * (opened + closed), closed])
    whole = direction.reverse_limbs(longer, np.ones(6, bool))
    before, all_turned = sample(longer, body, at), sample(whole, body, at)
    assert np.abs(before.positions - all_turned.positions[::-1]).max() < 1e-9
    assert np.abs(before.linear_velocity + all_turned.linear_velocity[::-1]).max() < 1e-7
    after = sample(turned, body, at)
    arms = [18, 19, 20, 21]
    assert np.abs(before.positions[:, arms] - after.positions[:, arms]).max() < 1e-9  # others are left alone
    assert np.abs(before.positions[0, 7] - after.positions[0, 7]).max() > 0.01
    claimed = before.velocity_covariance[0, 20] - sample(whole, body, at).velocity_covariance[2, 20]
    assert np.abs(claimed).max() < 1e-6 * np.abs(before.velocity_covariance[0, 20]).max()


def test_doubt_is_the_mean_squared_distance_limb_by_limb():
    """Monte Carlo: limbs run backwards by independent coins are as far from the estimate as the covariance says."""
    free = np.random.default_rng(6).normal(0, 0.1, (21, 3, 3))
    chance = np.array([0.1, 0.5, 0.3, 0.0, 0.5, 0.2])
    wrong = np.outer(chance, chance)
    np.fill_diagonal(wrong, chance)
    coins = np.random.default_rng(7).random((20000, 6)) < chance
    states, counts = np.unique(coins, axis=0, return_counts=True)
    off = [(direction.reverse_free(free, s) - free).reshape(-1) for s in states]
    expected = sum(n * np.outer(d, d) for n, d in zip(counts, off, strict=True)) / len(coins)
    claimed = direction.reversal_covariance(free, wrong)
    assert np.abs(claimed - expected).max() < 0.03 * np.abs(expected).max()
    right_arm = slice(LIMB_SLOTS[3][0] * 9, LIMB_SLOTS[3][1] * 9)
    assert (claimed[right_arm] == 0).all()  # its direction is certain


def single_stream(body: MovingBody, fit: BlurFit) -> list[MotionEstimate]:
    return [fit.update((body.observation(i),)) for i in range(body.frames)]


@pytest.fixture(scope="module")
def stream():
    """An arm that swings, exposures fitted one by one, each begun in a random direction (zero is a saddle)."""
    body = MovingBody(swinging(16, 2, 0.6, 1.5), frames=10)
    settings = FitSettings(inflation=0.0, frames=1, motion_widening=10.0, data_weight=0.1, sigma_alpha=0.15,
                           cold_iterations=20)
    fit = BlurFit(settings, body.body, np.zeros(10))
    fit._colours[:] = body.colours
    rng = np.random.default_rng(3)
    plain = fit._try

    def pushed(observations, layout, start):
        free = start.free.copy()
        free[SHOULDER, 1, 2] += rng.choice([-0.15, 0.15])
        return plain(observations, layout, replace(start, free=free))

    fit._try = pushed
    fit.directions.record = []
    return body, fit, single_stream(body, fit)


def directions_of(body: MovingBody, estimates: list[MotionEstimate], joint: int = 20) -> np.ndarray:
    """+1 right, -1 wrong, 0 where the joint is slow: the wrist in the picture, against the truth."""
    out = []
    for e in estimates:
        t = e.exposures[-1].middle
        v, w = sample(e, body.body, np.array([t])).linear_velocity[0, joint, :2], body.velocity(t)[joint, :2]
        out.append(np.sign(v @ w) if np.linalg.norm(w) > 1.3 else 0)
    return np.array(out)


def test_a_stream_of_single_exposures_gets_its_direction(stream):
    body, fit, estimates = stream
    alone = directions_of(body, [e for e, _ in fit.directions.record])
    assert (alone < 0).sum() >= 2, alone  # there is something to decide
    online = directions_of(body, estimates)
    assert (online[1:] >= 0).all(), online
    best = in_hindsight(estimates, fit.directions.record, fit.settings)
    assert (directions_of(body, best) >= 0).all()
    decided = [not e.status & Status.DIRECTION_UNDECIDED for e in best]
    assert sum(decided) >= len(best) // 2, decided


def test_frames_in_reversed_order_come_out_reversed(stream):
    body, fit, _ = stream
    record = fit.directions.record
    end = record[-1][0].end
    mirrored = []
    for e, m in reversed(record):
        exposure = Exposure(end - e.end, end - e.start)
        e = replace(e, start=exposure.open, end=exposure.close, exposures=(exposure,))
        mirrored.append((e, ExposureMotion.of(e, m.image)))
    ahead = in_hindsight([e for e, _ in record], record, fit.settings)
    back = in_hindsight([e for e, _ in mirrored], mirrored, fit.settings)
    for a, b in zip(ahead, reversed(back), strict=True):
        v, w = (sample(e, body.body, np.array([e.exposures[-1].middle])).linear_velocity[0, 20, :2] for e in (a, b))
        if np.linalg.norm(v) > 1.3:  # near the turning points there is nothing to tell
            assert v @ w < -0.5 * (v @ v), (v, w)


def test_an_isolated_exposure_is_undecided_and_covers_both_ends(stream):
    body, fit, estimates = stream
    first = estimates[0]
    assert first.status & Status.DIRECTION_UNDECIDED
    arm = np.array([0, 0, 1, 0, 0, 0], bool)
    plain = fit.directions.record[0][0]
    at = np.array([first.start, first.end])
    here, there = sample(first, body.body, at), sample(direction.reverse_limbs(first, arm), body.body, at)
    sure = sample(plain, body.body, at)
    for end in range(2):
        apart = (there.positions - here.positions)[end, 20, :2]
        assert np.linalg.norm(apart) > 0.03
        assert apart @ np.linalg.solve(here.position_covariance[end, 20, :2, :2], apart) < 2.0**2
        faster = (there.linear_velocity - here.linear_velocity)[end, 20, :2]
        assert faster @ np.linalg.solve(here.velocity_covariance[end, 20, :2, :2], faster) < 2.0**2
        before = faster @ np.linalg.solve(sure.velocity_covariance[end, 20, :2, :2], faster)
        assert before > 2 * faster @ np.linalg.solve(here.velocity_covariance[end, 20, :2, :2], faster)
    added = here.position_covariance - sure.position_covariance
    assert np.abs(added[:, 8]).max() < 0.1 * np.abs(added[:, 20]).max()  # doubt stays with its limb


@pytest.mark.parametrize("every", [0, 1])
def test_a_wrong_flip_is_recovered_within_five_windows(every):
    """What a two-frame window hands on is spoilt: the arm's velocity reversed, and a hundred times too sure of it."""
    body = MovingBody(swinging(16, 2, 0.5, 1.5), frames=14)
    calm = FitSettings(inflation=0.0, direction_every=every, data_weight=0.02, sigma_alpha=0.15, iterations=2,
                       limb_above=1e9)  # a limb begun anew, or more image weight: the flip would do no harm at all
    fit = BlurFit(calm, body.body, np.zeros(10))
    seen = [body.observation(i, 0.05) for i in range(body.frames)]
    first, last = LIMB_SLOTS[2]
    right = []
    for i in range(body.frames):
        if i == 8:
            handed = fit._carry
            mean, velocity = handed.mean.copy(), handed.velocity.copy()
            mean[1, first:last] *= -1
            velocity[first:last] *= -1
            fit._carry = replace(handed, mean=mean, velocity=velocity, covariance=handed.covariance / 100)
        estimate = fit.update(tuple(seen[max(0, i - 1):i + 1]))
        t = estimate.exposures[-1].middle
        v, w = sample(estimate, body.body, np.array([t])).linear_velocity[0, 20, :2], body.velocity(t)[20, :2]
        right.append(float(v @ w / (w @ w)))
    assert right[8] < 0.5 * right[7], right  # it did go wrong
    assert all(0.6 < r < 1.5 for r in right[9 if every else 10:14]), right


def test_reversal_inside_a_window_turns_the_bend():
    """An arm that swings out in one exposure and back in the next: its bend, and nothing else, changes sign."""
    layout = WindowLayout.of((Exposure(0.0, 1.0), Exposure(1.0, 2.0)), 8, 2)
    free = np.zeros((21, 3, 3))
    free[SHOULDER, 2] = [0.3, -0.2, 0.1]
    turned = reversed_in_window(free, layout, 2, 2)
    ratio = turned[SHOULDER, 2] / free[SHOULDER, 2]
    assert np.ptp(ratio) < 1e-9 and -1.0 < ratio[0] < -0.3
    one = reversed_in_window(free, layout, 2, 1)
    early = layout.basis[:4] @ (one[SHOULDER] - free[SHOULDER])
    late = layout.basis[-4:] @ (one[SHOULDER] - free[SHOULDER])
    assert np.abs(early).max() < np.abs(late).max()
    assert (np.delete(turned, SHOULDER, 0) == 0).all()


def test_on_a_moving_trunk_the_image_tells_how_a_limb_runs_against_it():
    """Both reversed looks like neither; the arm against the body costs, and as much as its own rendering says."""
    body = MovingBody(swinging(16, 2, 0.6, 1.5, drift=3.0))
    kept = []

    class Watched(BlurFit):
        def _reversal_costs(self, problem, free):
            free = np.zeros_like(free)
            free[0, 1, 0], free[SHOULDER, 1, 2] = 0.5 * 3.0 * 0.9 * PERIOD, 0.3
            predicted = problem.evaluate(free).predicted
            problem = replace(problem, target=replace(problem.target, value=predicted))
            costs = super()._reversal_costs(problem, free)
            kept.append((costs, problem, free))
            return costs

    fit = Watched(FitSettings(inflation=0.0, frames=1), body.body, np.zeros(10))
    fit._colours[:] = body.colours
    fit.update((body.observation(0),))
    costs, problem, free = kept[0]
    arm = np.array([0, 0, 1, 0, 0, 0])
    at = {tuple(s): c for s, c in zip(STATES, costs, strict=True)}
    assert at[(0,) * 6] == pytest.approx(at[(1,) * 6]) == pytest.approx(0.0)
    against = 0.5 * problem.data_weight * problem.evaluate(direction.reverse_free(free, arm)).error.cost
    assert at[tuple(arm)] == pytest.approx(against, rel=1e-6) and against > 0.3
    assert at[tuple(1 - arm)] == pytest.approx(against, rel=1e-6)


def test_nothing_moves_nothing_is_doubted():
    still = smooth_motion(1)[0]
    still = replace(still, coefficients=np.zeros_like(still.coefficients))
    motions = [ExposureMotion.of(replace(still, start=i * PERIOD, end=(i + 0.9) * PERIOD,
                                         exposures=(Exposure(i * PERIOD, (i + 0.9) * PERIOD),))) for i in range(3)]
    found = direction.decide(motions, STATISTICS)
    assert not found.reverse.any()  # no reason, no reversal
    decided = directed(still, found, 1, 2.2, False)
    assert not decided.status & Status.DIRECTION_UNDECIDED
    assert np.allclose(decided.covariance, still.covariance)
