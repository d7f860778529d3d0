"""The training loop: an interrupted run ends with the numbers of one that was not; options; devices; logs."""

import argparse
import importlib
import json
from dataclasses import replace

import numpy as np
import pytest

from blur_motion_ros.data import mocap
from blur_motion_ros.fit import prior_files
from blur_motion_ros.learning import pose_prior, train_command, training

torch = pytest.importorskip("torch")

COMMON = {"mocap", "deepmimic", "out", "run", "seed", "device"}


def _clip(seed=3, frames=60):
    rng = np.random.default_rng(seed)
    t = np.arange(frames)[:, None, None] / 60
    rotvec = rng.normal(0, 0.3, (24, 3)) + 0.5 * np.sin(4 * t + rng.uniform(0, 6, (24, 3)))
    pelvis = np.stack([0.8 * t[:, 0, 0], 0.9 + 0.05 * np.sin(6 * t[:, 0, 0]), 0.2 * t[:, 0, 0]], 1)
    return mocap.MotionClip(f"cmu_made{seed}_1", "train", 60.0, rotvec, pelvis)


def _short_motion():
    from blur_motion_ros.learning import short_motion_train as train
    return train.Trainer(train.TrainOptions(steps=12, batch=16, width=16), [_clip()], mocap.NOMINAL_REST)


def _matting():
    from blur_motion_ros.learning import matting_data as md
    from blur_motion_ros.learning import matting_train as train
    rng = np.random.default_rng(0)
    shape = (2, md.SIDE, md.SIDE)
    alpha = np.zeros(shape, np.uint8)
    alpha[:, 40:110, 55:90] = 255
    layers = md.Layers(rng.integers(0, 255, (*shape, 3)).astype(np.uint8), alpha,
                       rng.integers(60, 120, (*shape, 3)).astype(np.uint8), np.full(shape, 255, np.uint8))
    return train.Trainer(train.MattingOptions(layers=2, steps=12, batch=2, side=32, width=4), layers)


def _pose_prior():
    samples = pose_prior.gather([_clip(s, 90) for s in (1, 2, 3)])
    return pose_prior.MixtureFit(samples, pose_prior.MixtureOptions(components=2, iterations=12))


class _Stopped:
    """The same trainee, cut off by a Ctrl-C in the middle of a step."""

    def __init__(self, trainee, at):
        self._trainee, self._at = trainee, at

    def __getattr__(self, name):
        return getattr(self._trainee, name)

    def update(self, step):
        values = self._trainee.update(step)
        if step == self._at:
            raise KeyboardInterrupt
        return values


def _flat(state, name=""):
    if isinstance(state, dict):
        return {k: v for key, part in state.items() for k, v in _flat(part, f"{name}.{key}").items()}
    if isinstance(state, (list, tuple)):
        return _flat(dict(enumerate(state)), name)
    return {name: np.asarray(state)}


@pytest.mark.parametrize("make", [_short_motion, _matting, _pose_prior])
def test_an_interrupted_run_ends_with_the_same_numbers(make, tmp_path):
    """Stopped in step 7, between the checkpoints of steps 5 and 10: weights, optimisers and log, bit for bit."""
    whole, first, second = make(), make(), make()
    training.Loop(whole, tmp_path / "whole", log=1, save=5).run()
    with pytest.raises(KeyboardInterrupt):
        training.Loop(_Stopped(first, 7), tmp_path / "parts", log=1, save=5).run()
    resumed = training.Loop(second, tmp_path / "parts", log=1, save=5)
    assert resumed.step == 5
    resumed.run()
    expected, found = _flat(whole.state()), _flat(second.state())
    assert expected.keys() == found.keys() and len(expected) > 2
    for name in expected:
        assert np.array_equal(expected[name], found[name]), name
    logs = [(tmp_path / f / "scalars.csv").read_text() for f in ("whole", "parts")]
    assert logs[0] == logs[1] and logs[0].splitlines()[-1].startswith("12,")
    before = _flat(make().state())
    assert any(not np.array_equal(before[n], found[n]) for n in before if n in found), "training changes something"


def test_finished_and_foreign_checkpoints(tmp_path):
    fit = _pose_prior()
    training.Loop(fit, tmp_path, log=1, save=5).run()
    again = _pose_prior()
    loop = training.Loop(again, tmp_path)
    assert loop.step == 12 and loop.run() == loop.seconds, "nothing is left to do"
    assert np.array_equal(again.means, fit.means)
    again.options = replace(again.options, shrinkage=0.9)
    with pytest.raises(ValueError, match="other settings .shrinkage."):
        training.Loop(again, tmp_path)
    (tmp_path / "checkpoint.pt").write_bytes(b"nonsense")
    with pytest.raises(ValueError, match="no checkpoint of this command"):
        training.Loop(fit, tmp_path)


def test_seed_decides_the_examples():
    draws = [torch.rand(3, generator=training.torch_generator(s, i)) for s, i in ((0, 1), (0, 1), (0, 2), (1, 1))]
    assert torch.equal(draws[0], draws[1])
    assert not torch.equal(draws[0], draws[2]) and not torch.equal(draws[0], draws[3])


@pytest.mark.parametrize("name", ["pose-prior", "prior", "matting"])
def test_training_commands_share_their_options(name):
    module_name, _ = train_command.TRAINABLES[name]
    parser = argparse.ArgumentParser()
    importlib.import_module(module_name).add_arguments(parser)
    options = vars(parser.parse_args([]))
    assert COMMON <= options.keys()
    assert options["device"] == "auto" and options["out"].is_absolute()


def test_device_is_named_when_missing(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert training.device() == "cpu" == training.device("cpu")
    with pytest.raises(ValueError, match="no CUDA device"):
        training.device("cuda")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert training.device() == "cuda" and training.device("cpu") == "cpu"


def test_training_on_a_gpu_agrees_with_the_cpu():
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    samples = pose_prior.gather([_clip(s, 90) for s in (1, 2, 3)])
    options = pose_prior.MixtureOptions(components=2, iterations=5)
    ours, theirs = (pose_prior.fit_mixture(samples, options, d) for d in ("cpu", "cuda"))
    assert np.allclose(ours.means, theirs.means, atol=1e-6)


def test_command_writes_weights_card_and_log(tmp_path, monkeypatch):
    """`blur-motion train pose-prior` on made-up clips, end to end; started twice it says the same."""
    monkeypatch.setattr(mocap, "load_training_clips", lambda *_, **__: [_clip(s, 90) for s in (1, 2, 3)])
    arguments = ["--out", str(tmp_path / "p.npz"), "--run", str(tmp_path / "run"), "--evaluate", "0",
                 "--components", "2", "--iterations", "4"]
    for _ in range(2):
        args = argparse.Namespace(what="pose-prior", arguments=arguments)
        assert train_command.run(args) == 0
    card = json.loads((tmp_path / "p.json").read_text())
    assert card["metrics"]["train_clips"] == 3 and card["settings"]["iterations"] == 4
    lines = (tmp_path / "run" / "scalars.csv").read_text().splitlines()
    assert [line.split(",")[0] for line in lines] == ["1", "2", "3", "4"]
    written = prior_files.load_pose_prior(tmp_path / "p.npz")
    plain = pose_prior.fit_mixture(pose_prior.gather([_clip(s, 90) for s in (1, 2, 3)]),
                                   pose_prior.MixtureOptions(components=2, iterations=4))
    assert np.allclose(written.means, plain.means, atol=1e-6)
