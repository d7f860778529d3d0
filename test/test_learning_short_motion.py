"""The short-motion prior: corruptions mean what they say, forward kinematics, run-time wrapper, training step."""

import numpy as np
import pytest

from blur_motion_ros.data import mocap
from blur_motion_ros.fit import short_motion as runtime
from blur_motion_ros.learning.pose_prior import window_coefficients
from blur_motion_ros.motion import polynomials, rotations
from blur_motion_ros.types import BodyState, Exposure, MotionEstimate, Status

torch = pytest.importorskip("torch")
from blur_motion_ros.learning import short_motion as sm  # noqa: E402
from blur_motion_ros.learning import short_motion_train as train  # noqa: E402
from blur_motion_ros.learning import training  # noqa: E402

AT = torch.linspace(-1, 1, 5)
OFFSETS = torch.tensor(train._bones(mocap.NOMINAL_REST), dtype=torch.float32)


def _batch(n=4, seed=0):
    generator = torch.Generator().manual_seed(seed)
    rotmats = torch.tensor(rotations.exp(np.random.default_rng(seed).normal(0, 0.4, (n, 22, 3))), dtype=torch.float32)
    motion = torch.randn(n, 2, 23, 3, generator=generator) * torch.tensor([0.1, 0.02])[None, :, None, None]
    return rotmats, motion, torch.full((n,), 2 / 30)


def _clip(frames=60):
    t = np.arange(frames)[:, None, None] / 60
    rng = np.random.default_rng(3)
    rotvec = rng.normal(0, 0.3, (24, 3)) + 0.5 * np.sin(4 * t + rng.uniform(0, 6, (24, 3)))
    pelvis = np.stack([0.8 * t[:, 0, 0], 0.9 + 0.05 * np.sin(6 * t[:, 0, 0]), 0.2 * t[:, 0, 0]], 1)
    return mocap.MotionClip("cmu_made_1", "train", 60.0, rotvec, pelvis)


def test_window_coefficients_rebuild_the_motion():
    """Degree-2 polynomials over 67 ms reproduce every joint of a smooth motion to a millimetre."""
    clip = _clip()
    coefficients, middle = window_coefficients(clip, 4 / 60, stride=1 / 60)
    start, n = 10, 5
    x = np.linspace(0, 1, n)
    values = polynomials.evaluate(coefficients[start], x, 0, 1)
    local = middle[start] @ rotations.exp(values[:, 1:])
    pelvis = clip.pelvis[start + 2] + values[:, 0] @ middle[start, 0].T
    _, joints = mocap.forward(local, mocap.NOMINAL_REST, mocap.PARENTS)
    joints += (pelvis - joints[:, 0])[:, None]
    assert np.abs(joints - clip.joints()[start:start + n]).max() < 1e-3


def test_subframe_joints_agree_with_forward_kinematics():
    rotmats, motion, _ = _batch()
    local, joints = sm.subframe_joints(rotmats, motion, OFFSETS, AT)
    full = np.tile(np.eye(3), (5, 24, 1, 1))
    full[:, :22] = local[1].numpy()
    full[:, 0] = rotmats[1, 0].numpy().T @ full[:, 0]
    _, expected = mocap.forward(full, mocap.NOMINAL_REST, mocap.PARENTS)
    basis = np.stack([AT.numpy(), 1.5 * AT.numpy() ** 2 - 0.5])
    expected += (np.einsum("kt,kc->tc", basis, motion[1, :, 0].numpy()) - expected[:, 0])[:, None]
    assert np.allclose(joints[1].numpy(), expected[:, :22], atol=1e-5)


def test_reversal_is_time_reversal_of_the_chosen_limbs():
    rotmats, motion, _ = _batch()
    everything = torch.ones(4, 5)
    _, forth = sm.subframe_joints(rotmats, motion, OFFSETS, AT)
    _, back = sm.subframe_joints(rotmats, sm.flip_limbs(motion, everything), OFFSETS, AT)
    assert torch.allclose(back, forth.flip(1), atol=1e-5)
    left_arm = torch.zeros(4, 5)
    left_arm[:, 1] = 1
    flipped = sm.flip_limbs(motion, left_arm)
    local, _ = sm.subframe_joints(rotmats, flipped, OFFSETS, AT)
    before, _ = sm.subframe_joints(rotmats, motion, OFFSETS, AT)
    changed = (local - before).abs().amax((0, 1, 3, 4)) > 1e-6
    assert [j for j in range(22) if changed[j]] == [13, 16, 18, 20], "collar, shoulder, elbow, wrist of the left"
    assert torch.allclose(sm.flip_limbs(flipped, left_arm), motion)


def test_mirroring_in_depth_keeps_the_picture():
    """The elbow keeps its place and velocity in the picture; both are mirrored in depth (orthographic camera)."""
    rotmats, motion, _ = _batch(seed=1)
    motion[:, :, :17] = 0  # only the left shoulder (row 17) moves
    motion[:, :, 18:] = 0
    chosen = torch.zeros(4, 4)
    chosen[:, 0] = 1
    straight = OFFSETS.clone()
    straight[18] = torch.tensor([0.26, 0.0, 0.0])
    turned, moved, _ = sm.mirror_depth(rotmats, motion, chosen)

    def elbow(r, m):
        at = torch.tensor([-1e-2, 0.0, 1e-2])
        _, joints = sm.subframe_joints(r, m, straight, at)
        upper = torch.einsum("bij,btj->bti", r[:, 0], joints[:, :, 18] - joints[:, :, 16])
        return upper[:, 1], (upper[:, 2] - upper[:, 0]) / 2e-2
    place, velocity = elbow(rotmats, motion)
    place2, velocity2 = elbow(turned, moved)
    reflect = torch.tensor([1.0, 1.0, -1.0])
    assert torch.allclose(place2, place * reflect, atol=1e-4)
    assert torch.allclose(velocity2, velocity * reflect, atol=2e-3)
    assert (place2 - place).abs().max() > 0.05, "it does change"
    assert torch.equal(turned[:, 17], rotmats[:, 17])


def test_corruption_reports_what_it_touched():
    rotmats, motion, duration = _batch(256)
    sigma = torch.full((2, 23, 3), 0.05)
    turned, moved, fine = sm.corrupt(rotmats, motion, duration, sigma, torch.Generator().manual_seed(0))
    untouched = fine.min(1).values > 0
    assert 0.05 < untouched.float().mean() < 0.6
    assert torch.allclose(turned[untouched], rotmats[untouched], atol=1e-5)
    assert torch.allclose(moved[untouched], motion[untouched], atol=1e-6)
    assert torch.equal(turned[:, 0], rotmats[:, 0])


def _estimate(net_rotmats, motion, duration):
    vectors = np.zeros((24, 3))
    vectors[:22] = rotations.log(net_rotmats)
    coefficients = np.zeros((25, 3, 3))
    coefficients[:23, 1:] = np.swapaxes(motion, 0, 1)
    coefficients[0, 1:] = coefficients[0, 1:] @ net_rotmats[0].T
    exposure = Exposure(1.0, 1.0 + duration)
    state = BodyState(vectors[0], vectors[1:], np.zeros(10), np.array([0.1, 0.2, 3.0]))
    return MotionEstimate(exposure.open, exposure.close, (exposure,), state, coefficients, np.arange(3), None,
                          Status.OK, 0.3, 1.0)


@pytest.fixture(scope="module")
def network_file(tmp_path_factory):
    torch.manual_seed(0)
    net = sm.ShortMotionNet(torch.full((2, 23, 3), 0.05), 32)
    torch.nn.init.normal_(net.turn.weight, std=0.05)
    torch.nn.init.normal_(net.change.weight, std=0.05)
    path = tmp_path_factory.mktemp("net") / "net.pt"
    torch.jit.script(net.eval()).save(str(path))
    return path, net


def test_wrapper_hands_over_what_the_network_was_trained_on(network_file):
    path, net = network_file
    prior = runtime.ShortMotionPrior(path)
    rotmats, motion, duration = _batch()
    estimate = _estimate(rotmats[0].double().numpy(), motion[0].double().numpy(), float(duration[0]))
    with torch.no_grad():
        whole, limbs, turned, changed = net(rotmats, motion, duration)
        flips = torch.zeros(4, 5)
        flips[:, 2] = 1
        _, limb_flip = net.discriminate(rotmats, sm.flip_limbs(motion, flips), duration)
    judgement = prior.judge(estimate)
    assert judgement.real == pytest.approx(float(whole[0]), abs=1e-4)
    assert np.allclose(judgement.limbs, limbs[0].numpy(), atol=1e-4)
    assert judgement.direction[2] == pytest.approx(float(limbs[0, 2] - limb_flip[0, 2]), abs=1e-4)
    fixed = prior.correct(estimate)
    again = runtime.network_inputs(fixed)
    assert np.allclose(again[0], turned[0].numpy(), atol=1e-4)
    assert np.allclose(again[1], changed[0].numpy(), atol=1e-4)
    assert fixed.status & Status.DIRECTION_UNDECIDED and fixed.covariance is None
    same = runtime.network_inputs(prior.correct(estimate, share=0.0))
    assert np.allclose(same[0], rotmats[0].numpy(), atol=1e-4) and np.allclose(same[1], motion[0].numpy(), atol=1e-4)


def test_choosing_a_direction_reverses_exactly_the_unlikely_limbs(network_file):
    prior = runtime.ShortMotionPrior(network_file[0])
    rotmats, motion, duration = _batch(seed=5)
    estimate = _estimate(rotmats[0].double().numpy(), motion[0].double().numpy(), float(duration[0]))
    direction = prior.judge(estimate).direction
    chosen = prior.choose_direction(estimate, least=0.0)
    for i, limb in enumerate(runtime.LIMBS):
        for joint in limb:
            sign = -1 if direction[i] < 0 else 1
            assert np.allclose(chosen.coefficients[1 + joint, 1], sign * estimate.coefficients[1 + joint, 1])
            assert np.allclose(chosen.coefficients[1 + joint, 2], estimate.coefficients[1 + joint, 2])


def test_bad_input_is_named(network_file, tmp_path):
    with pytest.raises(runtime.ShortMotionError, match="train prior"):
        runtime.ShortMotionPrior(tmp_path / "none.pt")
    (tmp_path / "b.pt").write_bytes(b"x")
    with pytest.raises(runtime.ShortMotionError, match="TorchScript"):
        runtime.ShortMotionPrior(tmp_path / "b.pt")
    rotmats, motion, duration = _batch()
    estimate = _estimate(rotmats[0].double().numpy(), motion[0].double().numpy() * np.nan, float(duration[0]))
    with pytest.raises(runtime.ShortMotionError, match="not finite"):
        runtime.network_inputs(estimate)


def test_training_learns(tmp_path):
    """A few steps on one made-up clip: the corrector's error falls and the discriminator tells good from bad."""
    options = train.TrainOptions(steps=150, batch=64, width=64, rate=3e-3, judge_rate=3e-3)
    trainer = train.Trainer(options, [_clip(120)], mocap.NOMINAL_REST)
    real, motion, duration = trainer.data.draw(200, torch.Generator().manual_seed(5))
    spoilt = sm.corrupt(real, motion, duration, trainer.sigma, torch.Generator().manual_seed(6))
    training.Loop(trainer, tmp_path).run()
    with torch.no_grad():
        fixed = trainer.net.correct(spoilt[0], spoilt[1], duration)
        whole, _ = trainer.net.discriminate(real, motion, duration)
        bad, _ = trainer.net.discriminate(spoilt[0], spoilt[1], duration)
    before = train.differences(spoilt[:2], (real, motion), duration, trainer.offsets)
    after = train.differences(fixed, (real, motion), duration, trainer.offsets)
    assert after[0] < 0.9 * before[0] and after[1] < 0.6 * before[1], (before, after)
    assert train.auc(whole, bad[spoilt[2].min(1).values < 1]) > 0.8


def packaged_on_unseen_walking(duration: float):
    """The packaged network, and windows of recorded walking that it never saw."""
    if not runtime.ASSET.is_file():
        pytest.skip("assets/short_motion.pt is not trained yet")
    try:
        clips = [c for c in mocap.read_cmu_npz(mocap.mocap_path(), "test") if "walking" in c.name]
    except mocap.MocapError as error:
        pytest.skip(str(error))
    return torch.jit.load(str(runtime.ASSET)), sm.Windows(clips[:8], durations=(duration,))


def test_asset_tells_unseen_walking_from_walking_backwards():
    net, windows = packaged_on_unseen_walking(2 / 30)
    rotmats, motion, duration = windows.draw(400, torch.Generator().manual_seed(0))
    with torch.no_grad():
        whole, limbs, _, _ = net(rotmats, motion, duration)
        back, back_limbs, _, _ = net(rotmats, sm.flip_limbs(motion, torch.ones(400, 5)), duration)
    assert (whole > back).float().mean() > 0.85


def test_shifted_term_is_the_term_around_its_mean():
    """The single-frame fit's motion prior: same cost and Newton step as the prior at rest, moved to the mean."""
    from blur_motion_ros.fit.cold_start import Shifted
    from blur_motion_ros.fit.dynamics import MotionPrior
    from blur_motion_ros.fit.layout import WindowLayout
    from blur_motion_ros.fit.prior_files import load_motion_statistics
    layout = WindowLayout.of((Exposure(0.0, 0.03),), 4, 2)
    prior = MotionPrior.of(load_motion_statistics(), layout, 1.0, False)
    rng = np.random.default_rng(0)
    mean, free = rng.normal(0, 0.05, (2, 21, 3, 3))
    term = Shifted(prior, mean)
    assert term.cost(free + mean) == pytest.approx(prior.cost(free))
    assert term.cost(mean) < term.cost(free)
    assert np.allclose(term.normal(mean)[1], 0)
    assert np.allclose(term.normal(free + mean)[1], prior.normal(free)[1])


class _Swing:
    """A prior that expects the left elbow to turn by 0.4 rad, whatever the pose."""

    def __init__(self):
        self.asked = 0

    def expect(self, estimate):
        self.asked += 1
        motion = np.zeros((25, 2, 3))
        motion[1 + 18, 0, 1] = 0.2
        return runtime.Expectation(motion, np.full((25, 3), 0.1))


def _observation(i, sigma=0.1, elbow=0.1):
    """A blank image of weight nothing, and a measured pose at rest; elbow: its standard deviation there."""
    from blur_motion_ros.camera.camera import Crop
    from blur_motion_ros.types import Observation, PoseMeasurement
    state = BodyState(np.array([np.pi, 0, 0]), np.zeros((23, 3)), np.zeros(10), np.array([0.0, 0.0, 3.0]))
    blank, nothing = np.zeros((64, 64, 3), np.float32), np.zeros((64, 64), np.float32)
    crop = Crop(np.array([[64.0, 0, 32], [0, 64.0, 32], [0, 0, 1]]), 64)
    deviation = np.full(75, sigma)
    deviation[3 + 3 * 18:6 + 3 * 18] = elbow
    measured = PoseMeasurement(i / 30 + 0.015, state, np.diag(deviation**2), None, 1.0)
    return Observation(Exposure(i / 30, i / 30 + 0.03), crop, blank, blank, nothing, nothing + np.inf, measured)


def _cold_fit(prior, **settings):
    from blur_motion_ros.body import load_body
    from blur_motion_ros.fit.cold_start import ColdStartFit
    from blur_motion_ros.fit.kinematics import FitBody
    from blur_motion_ros.fit.settings import FitSettings
    from blur_motion_ros.fit.window import BlurFit
    model = load_body(None, lod="fit")
    body = FitBody.of(model.rest_vertices(), model.rest_joints(), model.weights, model.parents, model.faces)
    return ColdStartFit.like(BlurFit(FitSettings(**settings), body, np.zeros(10)), prior)


def test_cold_windows_move_as_expected_where_nothing_else_is_known():
    """Without evidence of motion the fit answers what the prior expects; measured rest wins over it."""
    fit = _cold_fit(_Swing(), stillness=False)  # blank images do not change
    elbow = fit.update((_observation(0),)).coefficients[1 + 18]
    assert np.allclose(elbow[1], [0, 0.2, 0], atol=0.03), elbow
    fit.reset()
    unseen = fit.update((_observation(0, elbow=30.0), _observation(1, elbow=30.0))).coefficients[1 + 18]
    assert np.allclose(unseen[1], [0, 0.2, 0], atol=0.03), unseen
    fit.reset()
    measured = fit.update((_observation(0, elbow=0.01), _observation(1, elbow=0.01))).coefficients[1 + 18]
    assert np.abs(measured[1]).max() < 0.03, measured


def test_expectation_of_an_unsure_pose_is_rest():
    """Nothing below the lower bound, all above the upper, linear between; the spread stays."""
    motion = np.zeros((25, 2, 3))
    motion[:23] = 0.2
    whole = runtime.Expectation(motion, np.full((25, 3), 0.4))  # stands out by 0.5
    low, high = runtime.TRUST
    for trust, share in ((low, 0.0), (0.5 * low, 0.0), (0.25 * low + 0.75 * high, 0.75), (high, 1.0), (9 * high, 1.0)):
        part = whole.trusted(0.5 / trust)
        assert np.allclose(part.motion, share * motion, atol=1e-9) and np.array_equal(part.spread, whole.spread)
    assert np.allclose(_cold_fit(_Swing()).update((_observation(0, sigma=0.5),)).coefficients[1 + 18, 1], 0, atol=1e-3)


def test_the_prior_is_asked_only_where_there_is_no_history():
    swing = _Swing()
    fit = _cold_fit(swing)
    fit.update((_observation(0),))
    fit.update((_observation(0), _observation(1)))
    asked = swing.asked
    assert asked == 2, "two windows began cold: one exposure, then the first full window"
    fit.update((_observation(1), _observation(2)))
    assert swing.asked == asked, "history goes on"
    swing.asked = 0
    linear = _cold_fit(swing, degree=1)
    assert linear.update((_observation(0),)) is not None and swing.asked == 0, "it has no word on straight motions"


def test_direction_of_a_single_exposure_is_as_sure_as_the_expectation():
    """Probability that the elbow runs backwards: logistic of 2 m^2 / s^2 (mean over the arm's 12 numbers)."""
    fit = _cold_fit(_Swing(), frames=1)
    estimate = fit.update((_observation(0),))
    assert estimate.status & Status.DIRECTION_UNDECIDED
    swing = _Swing().expect(None)
    first = np.zeros((25, 3))
    for scale, share in ((1.0, 1.0), (4.0, 1.0), (0.5, 0.5), (-0.5, -0.5), (-3.0, -1.0), (0.0, 0.0)):
        first[1 + 18, 1] = 0.2 * scale
        odds = swing.direction_log_odds(first)
        assert odds[1] == pytest.approx(2 * share * (0.2 / 0.1) ** 2 / 12), scale
        assert np.allclose(odds[[0, 2, 3, 4]], 0)
    free = np.flatnonzero(estimate.free == 9 * (1 + 18) + 3 + 1)[0]  # the elbow's c_1 about y
    other = _cold_fit(_Swing(), frames=1)
    other._reversal_costs = lambda problem, free: np.zeros(64)
    even = other.update((_observation(0),)).covariance[free, free]
    odd, p = estimate.coefficients[1 + 18, 1, 1], 1 / (1 + np.exp(2 * 4 / 12))
    assert even - estimate.covariance[free, free] == pytest.approx(4 * odd**2 * (0.5 - p), rel=0.05)


def test_expectation_is_the_network_s_in_the_estimate_s_units(network_file):
    path, net = network_file
    rotmats, motion, duration = _batch(seed=2)
    estimate = _estimate(rotmats[0].double().numpy(), motion[0].double().numpy(), float(duration[0]))
    found = runtime.ShortMotionPrior(path).expect(estimate)
    with torch.no_grad():
        mean, spread = net.expect(rotmats[:1], duration[:1])
    inverse = rotmats[0, 0].double().numpy().T
    assert np.allclose(found.motion[1:23], np.swapaxes(mean[0].numpy(), 0, 1)[1:], atol=1e-5)
    assert np.allclose(found.motion[0] @ inverse.T, mean[0, :, 0].numpy(), atol=1e-5), "pelvis axes to the camera's"
    assert np.allclose(found.motion[23:], 0)
    for limb, joints in enumerate(runtime.LIMBS):
        for joint in joints:
            size = float(spread[0, limb]) * 0.05 * float(duration[0]) / (2 / 30)
            assert np.allclose(found.spread[1 + joint], size, rtol=1e-4)


def test_expectation_fits_unseen_walking():
    """The packaged network on recorded walking it never saw, from slightly wrong poses: which way each leg goes."""
    net, windows = packaged_on_unseen_walking(1 / 30)
    generator = torch.Generator().manual_seed(0)
    rotmats, motion, duration = windows.draw(400, generator)
    noise = sm.rotations_torch.exp(0.15 * torch.randn(400, 21, 3, generator=generator))
    with torch.no_grad():
        mean, _ = net.expect(torch.cat([rotmats[:, :1], rotmats[:, 1:] @ noise], 1), duration)
    for joints in ((1, 4), (2, 5)):
        rows = [1 + j for j in joints]
        together = (mean[:, 0, rows] * motion[:, 0, rows]).sum((1, 2))
        moving = motion[:, 0, rows].norm(dim=(1, 2)) > 1.5 / 60
        assert (together[moving] > 0).float().mean() > 0.8


def test_spread_is_trained_to_be_honest():
    """Pure noise around nothing: the Student-t's likelihood is best at the noise's own size."""
    generator = torch.Generator().manual_seed(0)
    off = 0.7 * torch.randn(4000, 23, 3, generator=generator)
    squared, size = sm.limb_squares(off, sm.limb_masks())
    assert torch.equal(size, torch.tensor([21.0, 12, 12, 12, 12]))
    nu = sm.SPREAD_FREEDOM
    grid = torch.linspace(0.4, 1.2, 41)
    cost = torch.stack([(0.5 * (nu + size) * torch.log1p(squared / (nu * s**2)) + size * torch.log(s)).mean(0)
                        for s in grid])
    assert torch.allclose(grid[cost.argmin(0)], torch.full((5,), 0.7), atol=0.08)


def test_setting_switches_the_prior_of_cold_windows():
    from blur_motion_ros.fit.cold_start import ColdStartFit
    from blur_motion_ros.fit.settings import FitSettings
    from blur_motion_ros.fit.window import BlurFit
    from blur_motion_ros.pipeline import make_fit
    body = _cold_fit(_Swing()).body
    if runtime.ASSET.is_file():
        assert isinstance(make_fit(FitSettings(), body, np.zeros(10)), ColdStartFit), "on by default"
    assert type(make_fit(FitSettings(short_motion=False), body, np.zeros(10))) is BlurFit
