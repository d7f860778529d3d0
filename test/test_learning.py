"""Training code: the pose prior's ingredients, matting examples, cards, the train command."""

import hashlib
import json

import numpy as np
import pytest

from blur_motion_ros.data import mocap
from blur_motion_ros.fit.prior_files import load_pose_prior
from blur_motion_ros.fit.priors import MixturePrior
from blur_motion_ros.learning import pose_prior, record, train_command, training
from blur_motion_ros.learning import pose_prior_train as train
from blur_motion_ros.motion import rotations

torch = pytest.importorskip("torch")


def _clips(count=3, frames=90):
    clips = []
    for i in range(count):
        rng = np.random.default_rng(i)
        t = np.arange(frames)[:, None, None] / 60
        rotvec = rng.normal(0, 0.15, (24, 3)) + 0.3 * np.sin(5 * t + rng.uniform(0, 6, (24, 3)))
        pelvis = np.stack([t[:, 0, 0], 0.9 + 0 * t[:, 0, 0], 0 * t[:, 0, 0]], 1)
        clips.append(mocap.MotionClip(f"cmu_kind{'abc'[i]}_1", "train", 60.0, rotvec, pelvis))
    return clips


def test_kinds_of_motion():
    names = {"cmu_extra_walking_13#1~": "walking", "cmu_walking_2": "walking", "deepmimic_dance_a": "dance",
             "deepmimic_getup_faceup": "getup", "cmu_basketball_signal_4": "basketball_signal"}
    assert {n: pose_prior.kind_of(n) for n in names} == names


def test_samples_are_symmetric_and_balanced():
    clips = _clips()
    clips[1] = mocap.MotionClip("cmu_rare_1", "train", 60.0, clips[1].rotvec[:10], clips[1].pelvis[:10])
    samples = pose_prior.gather(clips)
    mirrored = mocap.mirror_pose(samples.poses.reshape(-1, 23, 3)).reshape(-1, 69)
    for pose in samples.poses[::7]:
        assert np.abs(mirrored - pose).max(1).min() < 1e-9, "every pose has its mirror image among the samples"
    weight = {k: samples.weights[samples.kinds == k].sum() for k in set(samples.kinds)}
    count = {k: (samples.kinds == k).sum() for k in set(samples.kinds)}
    assert weight["rare"] / weight["kinda"] == pytest.approx(np.sqrt(count["rare"] / count["kinda"]))


def test_limits_mirror_and_hold_the_training_poses():
    low, high = pose_prior.joint_limits()
    assert (low < high).all()
    middle = ((low + high) / 2).reshape(23, 3)
    assert np.allclose(mocap.mirror_pose(middle), middle)
    elbow = 3 * 17 + 1  # the left elbow bends about -y
    assert low[elbow] < -2 and high[elbow] < 0.2


def test_shrinkage_removes_what_arms_tell_of_legs():
    samples = pose_prior.gather(_clips())
    full, block = (pose_prior.fit_mixture(samples, pose_prior.MixtureOptions(
        components=1, shrinkage=s, freedom=np.inf, iterations=2, broad=1e-6)) for s in (0.0, 1.0))
    arm, leg = slice(45, 48), slice(0, 3)  # left shoulder, left hip
    covariance = [np.linalg.inv(p.factors[0].T @ p.factors[0]) for p in (full, block)]
    assert np.abs(covariance[0][arm, leg]).max() > 1e-3
    assert np.abs(covariance[1][arm, leg]).max() < 1e-9
    assert np.allclose(np.diag(covariance[0]), np.diag(covariance[1]))


def test_motion_statistics_of_a_known_swing():
    """A hip swinging as A sin(w t) has angular velocity A w / sqrt 2 and acceleration A w^2 / sqrt 2 (RMS)."""
    amplitude, w, frames = 0.4, 6.0, 600
    rotvec = np.zeros((frames, 24, 3))
    rotvec[:, 1, 0] = amplitude * np.sin(w * np.arange(frames) / 60)
    clip = mocap.MotionClip("cmu_swing_1", "train", 60.0, rotvec, np.zeros((frames, 3)))
    statistics = pose_prior.motion_statistics([clip])
    # The mirrored clip moves the other hip: each moves half of the time.
    speed = statistics.angular_velocity(1 / 15)[1 + 1, 0]
    assert speed == pytest.approx(amplitude * w / 2, rel=0.05)
    acceleration = statistics.acceleration(0.1)[1 + 1, 0]
    assert acceleration == pytest.approx(amplitude * w**2 / 2, rel=0.12)
    assert statistics.slope[1, 1 + 1, 0] == pytest.approx(statistics.slope[1, 1 + 2, 0])


def test_completion_jacobian_is_right():
    """The benchmark's own solver: image points by pose, against finite differences."""
    rng = np.random.default_rng(0)
    task = pose_prior.completion_task(rng.normal(0, 0.3, (1, 23, 3)), 0)
    pose, turn = task.poses[0, 1:], rotations.exp(task.poses[0, 0])
    _, jacobian, _ = pose_prior._project(task, pose, turn, True)
    for k in (0, 2, 3 + 3 * 15, 3 + 3 * 17 + 1, 3 + 3 * 3):
        h = np.zeros(72)
        h[k] = 1e-6
        ahead, behind = (pose_prior._project(task, pose + s * h[3:].reshape(23, 3),
                                             turn @ rotations.exp(s * h[:3]))[0] for s in (1, -1))
        assert np.allclose(jacobian[..., k], (ahead - behind) / 2e-6, atol=1e-2), k


def test_a_good_prior_completes_a_hidden_limb():
    """Both arms always bend alike: the prior that knows it recovers the hidden one."""
    rng = np.random.default_rng(0)
    bend = rng.uniform(-1.5, 0.0, 60)
    poses = np.zeros((60, 23, 3))
    poses[:, 17, 1], poses[:, 18, 1] = bend, -bend
    x = poses.reshape(60, 69)
    covariance = np.cov(x.T) + 0.02**2 * np.eye(69)
    knowing = MixturePrior.from_covariances(x.mean(0)[None], covariance[None], np.ones(1))
    unaware = MixturePrior.from_covariances(x.mean(0)[None], np.diag(np.diag(covariance))[None], np.ones(1))
    task = pose_prior.completion_task(poses[:16], 1, sigma=2.0)
    hidden = ~task.seen & np.isin(np.arange(24), [20, 21])
    assert hidden.sum() > 4
    errors = [np.median(pose_prior.complete(task, p)[hidden]) for p in (knowing, unaware)]
    assert errors[0] < 0.6 * errors[1], errors


def test_saved_prior_is_the_fitted_one(tmp_path):
    clips = _clips()
    prior = pose_prior.fit_mixture(pose_prior.gather(clips), pose_prior.MixtureOptions(components=2, iterations=3))
    train.save(tmp_path / "p.npz", prior, pose_prior.motion_statistics(clips))
    loaded = load_pose_prior(tmp_path / "p.npz")
    for clip in clips:
        assert loaded.energy(clip.rotvec[5, 1:]) == pytest.approx(prior.energy(clip.rotvec[5, 1:]), rel=1e-3)


def test_card_names_hash_seed_and_metrics(tmp_path):
    weights = tmp_path / "w.npz"
    weights.write_bytes(b"abc")
    card = json.loads(record.write_card(weights, seed=3, seconds=1.0, metrics={"x": 1}, settings={}).read_text())
    assert card["sha256"] == hashlib.sha256(b"abc").hexdigest()
    assert card["seed"] == 3 and card["metrics"] == {"x": 1} and card["bytes"] == 3


@pytest.mark.parametrize("name", ["pose_prior.npz", "short_motion.pt", "matting.onnx"])
def test_packaged_weights_match_their_cards(name):
    weights = load_pose_prior.__globals__["ASSET"].parent / name
    if not weights.is_file():
        pytest.skip(f"{name} is not trained yet")
    card = json.loads(weights.with_suffix(".json").read_text())
    assert card["sha256"] == hashlib.sha256(weights.read_bytes()).hexdigest()
    assert card["command"].startswith("blur-motion train ")


def test_every_trainable_has_its_options():
    import argparse
    import importlib
    for module_name, _ in train_command.TRAINABLES.values():
        module = importlib.import_module(module_name)
        parser = argparse.ArgumentParser()
        module.add_arguments(parser)
        assert callable(module.run) and parser.parse_args([]) is not None


# ------------------------------------------------------------------------------------ matting


def _layers(n=3):
    from blur_motion_ros.learning import matting_data as md
    rng = np.random.default_rng(0)
    side = md.SIDE
    alpha = np.zeros((n, side, side), np.uint8)
    alpha[:, 40:110, 55:90] = 255
    alpha[:, 40:110, 90:105] = 120
    plate = rng.integers(60, 120, (n, side, side, 3)).astype(np.uint8)
    colour = np.zeros((n, side, side, 3), np.uint8)
    colour[:, 40:110, 55:105] = (200, 60, 60)
    return md.Layers(colour, alpha, plate, np.full((n, side, side), 255, np.uint8))


def test_composition_obeys_the_matting_equation():
    """Where nobody is, the picture is the plate (up to drift, slip and noise); where opaque, the person's colour."""
    from blur_motion_ros.learning import matting_data as md
    layers = _layers()
    rng = np.random.default_rng(1)
    gap, colour_gap = [], []
    for _ in range(20):
        e = md.compose(layers, rng)
        assert e.src.shape == (128, 128, 3) and e.alpha.shape == (128, 128) and 0 <= e.src.min() <= e.src.max() <= 1
        gap.append(np.abs(e.src - e.bgr)[e.alpha < 0.001].mean())
        colour_gap.append(np.abs(e.src - e.colour)[e.alpha > 0.999].mean())
    assert np.median(gap) < 0.06 and np.median(colour_gap) < 0.05
    assert np.median(gap) > 0.002, "camera noise is there"


def test_network_has_the_interface_and_learns(tmp_path):
    from blur_motion_ros.learning import matting_train as mt
    from blur_motion_ros.matting import MattingSettings
    from blur_motion_ros.matting.network import NetworkMatter
    options = mt.MattingOptions(layers=3, steps=30, batch=4, side=64, width=8)
    trainer = mt.Trainer(options, _layers())
    first = float(mt.losses(trainer.net, *mt.to_tensors(_examples(64)))["alpha"].detach())
    training.Loop(trainer, tmp_path).run()
    last = float(mt.losses(trainer.net, *mt.to_tensors(_examples(64)))["alpha"].detach())
    assert last < 0.7 * first, (first, last)
    assert training.Loop(mt.Trainer(options, _layers()), tmp_path).step == 30
    mt.export(trainer.net.eval(), tmp_path / "m.onnx")
    matter = NetworkMatter(MattingSettings(method="network", model=str(tmp_path / "m.onnx")))
    matte = matter.matte(np.full((50, 70, 3), 0.2, np.float32), np.full((50, 70, 3), 0.2, np.float32))
    with torch.no_grad():
        src = torch.rand(1, 3, 52, 72)
        pha, fgr, err = trainer.net(src, src)
    assert matte.alpha.shape == (50, 70) and pha.shape == (1, 1, 52, 72) and fgr.shape == src.shape
    assert err.shape == pha.shape and err.min() >= 0


def _examples(side):
    from blur_motion_ros.learning import matting_data as md
    rng = np.random.default_rng(9)
    return [md.compose(_layers(), rng, side=side) for _ in range(8)]
