"""Pose priors at run time: exact gradients, Gauss-Newton form, drop-ins, what they prefer, speed."""

import pickle
import time

import numpy as np
import pytest
from scipy import stats

from blur_motion_ros.data import mocap
from blur_motion_ros.fit import prior_files
from blur_motion_ros.fit.prior_files import load_motion_statistics, load_pose_prior
from blur_motion_ros.fit.priors import DIMENSIONS, MixturePrior, PriorError
from blur_motion_ros.learning.pose_prior import MixtureOptions, PoseSamples, fit_mixture
from blur_motion_ros.motion import rotations


def _mixture(seed=0, components=3, freedom=np.inf, **limits):
    rng = np.random.default_rng(seed)
    spread = rng.normal(0, 0.2, (components, DIMENSIONS, DIMENSIONS)) / 8
    covariances = spread @ np.swapaxes(spread, 1, 2) + 0.05 * np.eye(DIMENSIONS)
    return MixturePrior.from_covariances(rng.normal(0, 0.2, (components, DIMENSIONS)), covariances,
                                         rng.uniform(0.5, 1.0, components), freedom, **limits), covariances


def _numerical_gradient(prior, x, h=1e-5):
    steps = np.eye(DIMENSIONS) * h
    return np.array([(prior.energy(x + s) - prior.energy(x - s)) / (2 * h) for s in steps])


@pytest.mark.parametrize("freedom", [np.inf, 20.0])
def test_residual_gradient_and_energy_agree(freedom):
    low, high = np.full(DIMENSIONS, -0.35), np.full(DIMENSIONS, 0.35)
    for bounds in ({}, {"low": low, "high": high}):
        prior, _ = _mixture(freedom=freedom, **bounds)
        for scale in (0.1, 0.4):
            x = np.random.default_rng(5).normal(0, scale, DIMENSIONS)
            r, jacobian = prior.residual(x.reshape(23, 3))
            assert r @ r == pytest.approx(2 * prior.energy(x), rel=1e-9)
            assert np.allclose(jacobian.T @ r, _numerical_gradient(prior, x), rtol=1e-4, atol=1e-4)


def test_log_density_is_scipys():
    x = np.random.default_rng(1).normal(0, 0.3, DIMENSIONS)
    for freedom, density in ((np.inf, lambda m, c: stats.multivariate_normal(m, c).logpdf(x)),
                             (12.0, lambda m, c: stats.multivariate_t(m, c, df=12).logpdf(x))):
        prior, covariances = _mixture(freedom=freedom)
        terms = [np.log(w) + density(m, c) for w, m, c in zip(prior.weights, prior.means, covariances, strict=True)]
        assert prior.log_density(x) == pytest.approx(np.logaddexp.reduce(terms), rel=1e-9)
        assert prior.energy(x) - prior.energy(x * 0) == pytest.approx(
            prior.log_density(x * 0) - prior.log_density(x), rel=1e-9)


def test_smplify_mixture_drops_in(tmp_path):
    """A pickle in the layout of gmm_08.pkl gives the density that scipy computes from its arrays."""
    prior, covariances = _mixture(components=8)
    file = tmp_path / "gmm_08.pkl"
    file.write_bytes(pickle.dumps({"means": prior.means, "covars": covariances, "weights": prior.weights}, protocol=2))
    loaded = load_pose_prior(file)
    x = np.random.default_rng(2).normal(0, 0.3, (23, 3))
    direct = np.logaddexp.reduce([np.log(w) + stats.multivariate_normal(m, c).logpdf(x.reshape(-1))
                                  for w, m, c in zip(prior.weights, prior.means, covariances, strict=True)])
    assert loaded.log_density(x) == pytest.approx(direct, rel=1e-9)


def test_bad_files_and_poses_are_named(tmp_path):
    with pytest.raises(PriorError, match="train pose-prior"):
        load_pose_prior(tmp_path / "none.npz")
    np.savez(tmp_path / "a.npz", means=np.zeros((1, 69)))
    with pytest.raises(PriorError, match="covariances"):
        load_pose_prior(tmp_path / "a.npz")
    (tmp_path / "b.pkl").write_bytes(pickle.dumps({"means": np.zeros((8, 69))}))
    with pytest.raises(PriorError, match="covars"):
        load_pose_prior(tmp_path / "b.pkl")
    with pytest.raises(PriorError, match=r"\[23, 3\]"):
        _mixture()[0].energy(np.zeros((24, 3)))
    with pytest.raises(PriorError, match="positive definite"):
        MixturePrior.from_covariances(np.zeros((1, 69)), -np.eye(69)[None], np.ones(1))


def test_fitting_recovers_a_known_mixture():
    """EM finds two well separated clusters of poses, their shares and spreads."""
    rng = np.random.default_rng(0)
    centres = np.zeros((2, DIMENSIONS))
    centres[0, 2], centres[1, 2] = -1.0, 1.0
    x = np.concatenate([centres[0] + rng.normal(0, 0.2, (900, DIMENSIONS)),
                        centres[1] + rng.normal(0, 0.2, (300, DIMENSIONS))])
    samples = PoseSamples(x, np.ones(len(x)), np.array(["a"] * len(x)))
    prior = fit_mixture(samples, MixtureOptions(components=2, freedom=np.inf, broad=1e-6, spread=0.0, iterations=10))
    order = np.argsort(prior.means[:2, 2])
    assert np.allclose(prior.means[order, 2], [-1, 1], atol=0.05)
    assert np.allclose(prior.weights[order], [0.75, 0.25], atol=0.02)


# ------------------------------------------------------------------------------------ the packaged asset


def test_asset_knows_left_from_right():
    """Mirror images are equally likely, mirror nonsense (swapping sides without reflecting) is not."""
    prior = load_pose_prior()
    pose = np.zeros((23, 3))
    pose[15], pose[16] = [0.2, -0.4, -1.2], [0.2, 0.4, 1.2]  # arms down
    pose[17] = [0, -1.2, 0]  # left elbow bent forwards
    pose[3] = [0.8, 0, 0]  # left knee
    mirrored = mocap.mirror_pose(pose)
    assert prior.energy(mirrored) == pytest.approx(prior.energy(pose), abs=3.0)
    for joint, wrong in ((17, [0, 1.2, 0]), (3, [-0.8, 0, 0])):  # elbow and knee bent the wrong way
        broken = pose.copy()
        broken[joint] = wrong
        assert prior.energy(broken) > prior.energy(pose) + 20


def _held_out():
    try:
        return mocap.read_cmu_npz(mocap.mocap_path(), "test")
    except mocap.MocapError as error:
        pytest.skip(str(error))


def test_asset_prefers_unseen_real_poses():
    prior = load_pose_prior()
    rng = np.random.default_rng(0)
    poses = np.concatenate([c.rotvec[::40, 1:] for c in _held_out()])[:80]
    real = np.array([prior.energy(p) for p in poses])
    perturbed = np.array([prior.energy(p + rng.normal(0, 0.25, p.shape)) for p in poses])
    assert (real < perturbed).mean() > 0.98
    assert np.percentile(real, 99) - np.median(real) < 150, "unusual poses must stay affordable"


def test_tails_are_heavy():
    """Far from the mean, pulling grows slower than a Gaussian's: an extreme pose is not forbidden."""
    prior = load_pose_prior()
    x = np.zeros((23, 3))
    x[15, 2], x[16, 2] = 1.2, -1.2  # both arms straight up
    gradient = [np.linalg.norm(prior.residual(x * s)[1].T @ prior.residual(x * s)[0]) for s in (1.0, 0.5)]
    assert prior.energy(x) < 150
    assert gradient[0] < 3 * gradient[1]


def test_evaluation_is_cheap():
    prior = load_pose_prior()
    poses = np.random.default_rng(0).normal(0, 0.2, (200, 23, 3))
    prior.residual(poses[0])
    start = time.process_time()
    for pose in poses:
        prior.residual(pose)
    assert (time.process_time() - start) / len(poses) < 1e-3, "0.1 ms on an idle core"


def test_motion_statistics_scale_with_the_window():
    statistics = load_motion_statistics()
    short, long = statistics.sigmas(1 / 30), statistics.sigmas(0.1)
    knee = 1 + 4
    assert 2.0 < long[0][knee, 0] / short[0][knee, 0] < 3.2, "travel grows about linearly"
    assert long[1][knee, 0] / short[1][knee, 0] > 3.5, "bend grows faster"
    assert np.allclose(statistics.sigmas(0.2)[0], 1.5 * statistics.sigmas(4 / 30)[0])
    speed = statistics.angular_velocity(1 / 15)
    assert 1.0 < speed[knee, 0] < 6.0 and speed[1 + 9].max() < speed[knee, 0], "knees turn faster than spines, rad/s"
    assert np.allclose(speed[1 + 16], speed[1 + 17], rtol=0.05), "left and right shoulders alike"
    precision = statistics.slope_precision[0]
    assert np.linalg.eigvalsh(precision).min() > 0 and np.allclose(precision[:3, 3:], 0, atol=1e-3)


def test_packed_triangles_round_trip():
    matrix = np.random.default_rng(0).normal(size=(2, 5, 5))
    matrix = matrix + np.swapaxes(matrix, 1, 2)
    assert np.allclose(prior_files._unpack(prior_files.pack_symmetric(matrix)), matrix, atol=1e-6)


# ------------------------------------------------------------------------------------ VPoser


def _vposer_state(first, width=24, latent=8):
    """Random weights under the published names, and the network built from torch's own layers in that order."""
    torch = pytest.importorskip("torch")
    from torch import nn
    torch.manual_seed(0)
    slope = 0.2 if first else 0.01
    norm1, norm2, mean = nn.BatchNorm1d(63), nn.BatchNorm1d(width), nn.Linear(width, latent)
    for norm in (norm1, norm2):
        norm.running_mean.normal_(0, 0.3)
        norm.running_var.uniform_(0.5, 2)
    e = [nn.Linear(63, width), nn.Linear(width, width), nn.Linear(width, width)]
    d = [nn.Linear(latent, width), nn.Linear(width, width), nn.Linear(width, 126)]
    leaky = nn.LeakyReLU(slope)
    middle = [e[1], leaky] if first else [e[1], e[2]]
    encoder = nn.Sequential(norm1, e[0], leaky, norm2, *middle, mean).eval()
    decoder = nn.Sequential(d[0], leaky, d[1], leaky, d[2]).eval()
    if first:
        parts = {"bodyprior_enc_bn1": norm1, "bodyprior_enc_fc1": e[0], "bodyprior_enc_bn2": norm2,
                 "bodyprior_enc_fc2": e[1], "bodyprior_enc_mu": mean, "bodyprior_enc_logvar": mean,
                 "bodyprior_dec_fc1": d[0], "bodyprior_dec_fc2": d[1], "bodyprior_dec_out": d[2]}
    else:
        parts = {f"vp_model.encoder_net.{i}": m for i, m in ((1, norm1), (2, e[0]), (4, norm2), (6, e[1]), (7, e[2]))}
        parts |= {"vp_model.encoder_net.8.mu": mean, "vp_model.encoder_net.8.logvar": mean}
        parts |= {f"vp_model.decoder_net.{i}": m for i, m in ((0, d[0]), (3, d[1]), (5, d[2]))}
    return {f"{n}.{k}": v for n, m in parts.items() for k, v in m.state_dict().items()}, encoder, decoder


@pytest.mark.parametrize("first", [True, False])
def test_vposer_drops_in(first, tmp_path):
    torch = pytest.importorskip("torch")
    state, encoder, decoder = _vposer_state(first)
    torch.save({"state_dict": state} if not first else state, tmp_path / "vposer.pt")
    prior = load_pose_prior(tmp_path / "vposer.pt")
    pose = np.random.default_rng(0).normal(0, 0.3, (23, 3))
    with torch.no_grad():
        code = encoder.double()(torch.tensor(pose[:21].reshape(1, 63)))
        sixes = decoder.double()(code).numpy().reshape(21, 3, 2)
    r, jacobian = prior.residual(pose)
    assert np.allclose(r[:8], code.numpy()[0])
    x = sixes[..., 0] / np.linalg.norm(sixes[..., 0], axis=-1, keepdims=True)
    assert np.allclose(rotations.exp(prior.decode(code.numpy()[0])[:21])[..., 0], x, atol=1e-9)
    assert prior.energy(pose) == pytest.approx(0.5 * r @ r)
    assert np.allclose(jacobian.T @ r, _numerical_gradient(prior, pose.reshape(-1)), rtol=1e-3, atol=1e-3)


def test_wrong_vposer_files_are_named(tmp_path):
    torch = pytest.importorskip("torch")
    state, _, _ = _vposer_state(False)
    torch.save({"weight": torch.zeros(3)}, tmp_path / "a.pt")
    with pytest.raises(PriorError, match="no VPoser layers"):
        load_pose_prior(tmp_path / "a.pt")
    torch.save({k: v for k, v in state.items() if "decoder_net.5" not in k}, tmp_path / "b.pt")
    with pytest.raises(PriorError, match="decoder_net.5"):
        load_pose_prior(tmp_path / "b.pt")
    (tmp_path / "c.pt").write_bytes(b"nothing")
    with pytest.raises(PriorError, match="not a plain PyTorch checkpoint"):
        load_pose_prior(tmp_path / "c.pt")
