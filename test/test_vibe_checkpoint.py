"""Official-layout checkpoints made of random numbers: loaded exactly, or refused with the key in the message."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch")

import vibe_cases as cases  # noqa: E402

from blur_motion_ros.initialiser import vibe_checkpoint as ck  # noqa: E402
from blur_motion_ros.initialiser.vibe_model import EncoderSizes, RegressorSizes, ResNetFeatures, Vibe, theta  # noqa: E402

SMALL = (EncoderSizes(64, 24), RegressorSizes(64, 32))


def official(model):
    """The layout of `vibe_model_w_3dpw.pth.tar`, body model buffers and numpy scalar included."""
    state = dict(model.state_dict())
    state["regressor.smpl.betas"] = torch.zeros(64, 10)
    state["regressor.smpl.J_regressor_extra"] = torch.zeros(9, 30)
    return {"epoch": 22, "gen_state_dict": state, "performance": np.float64(56.5), "gen_optimizer": {"state": {}},
            "disc_motion_state_dict": {}, "disc_motion_optimizer": {}}


def same(a, b):
    x, y = a.state_dict(), b.state_dict()
    return x.keys() == y.keys() and all(torch.equal(x[k], y[k]) for k in x)


@pytest.fixture
def model():
    model = Vibe(*SMALL)
    cases.seed_weights(model, "checkpoint")
    return model.eval()


@pytest.mark.parametrize("zipped", [True, False])
def test_official_layout_loads_with_sizes_read_from_it(tmp_path, model, zipped):
    path = tmp_path / "vibe.pth.tar"
    torch.save(official(model), path, _use_new_zipfile_serialization=zipped)
    loaded = ck.load_vibe(path)
    x = cases.features("checkpoint", 1, 5, 64)
    with torch.no_grad():
        assert torch.equal(theta(loaded(x)[0]), theta(model(x)[0]))
    assert not loaded.training


def test_full_size_and_data_parallel_prefix(tmp_path):
    model = cases.VIBE_CASES["released"].build()
    torch.save({"gen_state_dict": {f"module.{k}": v for k, v in model.state_dict().items()}}, tmp_path / "v.pth.tar")
    loaded = ck.load_vibe(tmp_path / "v.pth.tar", EncoderSizes(), RegressorSizes())
    assert same(loaded, model)


def test_every_kind_of_wrong_key_is_named(tmp_path, model):
    data = official(model)
    state = data["gen_state_dict"]
    del state["regressor.decpose.bias"]
    state["regressor.surprise"] = torch.zeros(1)
    state["encoder.linear.weight"] = torch.zeros(3, 4)
    state["regressor.fc2.bias"] = torch.full((32,), float("nan"))
    torch.save(data, tmp_path / "bad.pth.tar")
    with pytest.raises(ck.CheckpointError) as error:
        ck.load_vibe(tmp_path / "bad.pth.tar")
    text = str(error.value)
    for part in ("1 missing: regressor.decpose.bias", "1 unexpected: regressor.surprise",
                 "encoder.linear.weight is [3, 4], expected [64, 24]", "not finite: regressor.fc2.bias", "bad.pth.tar"):
        assert part in text


def test_sizes_that_are_asked_for_are_enforced(tmp_path, model):
    torch.save(official(model), tmp_path / "v.pth.tar")
    with pytest.raises(ck.CheckpointError, match=r"encoder.gru.weight_hh_l0 is \[72, 24\], expected \[3072, 1024\]"):
        ck.load_vibe(tmp_path / "v.pth.tar", EncoderSizes(), RegressorSizes())


def test_mean_parameters_replace_the_checkpoint_s(tmp_path, model):
    mean = cases.mean_params()
    np.savez(tmp_path / "smpl_mean_params.npz", **mean)
    torch.save(official(model), tmp_path / "v.pth.tar")
    loaded = ck.load_vibe(tmp_path / "v.pth.tar", mean=ck.load_mean_params(tmp_path / "smpl_mean_params.npz"))
    for key in ("pose", "shape", "cam"):
        np.testing.assert_array_equal(getattr(loaded.regressor, f"init_{key}")[0].numpy(), mean[key])


def test_bad_mean_parameters_are_refused(tmp_path):
    mean = cases.mean_params()
    np.savez(tmp_path / "a.npz", pose=mean["pose"], shape=mean["shape"])
    np.savez(tmp_path / "b.npz", pose=mean["pose"][:72], shape=mean["shape"], cam=mean["cam"])
    np.savez(tmp_path / "c.npz", pose=mean["pose"], shape=mean["shape"] * np.nan, cam=mean["cam"])
    (tmp_path / "d.npz").write_bytes(b"not an archive")
    for name, match in (("a", "'cam' is missing"), ("b", "'pose'"), ("c", "'shape'"), ("d", "not a readable"),
                        ("e", "no such file")):
        with pytest.raises(ck.CheckpointError, match=match):
            ck.load_mean_params(tmp_path / f"{name}.npz")


def test_spin_backbone_and_regressor(tmp_path):
    backbone = ResNetFeatures()
    cases.seed_weights(backbone, "spin")
    vibe = Vibe()
    cases.seed_weights(vibe, "spin")
    state = {**backbone.state_dict(), **vibe.regressor.state_dict(), "smpl.betas": torch.zeros(1, 10)}
    torch.save({"model": state, "optimizer": {}}, tmp_path / "spin.pth.tar")
    loaded = ck.load_spin_backbone(tmp_path / "spin.pth.tar")
    assert same(loaded, backbone)
    other = Vibe()
    ck.load_spin_regressor(other, tmp_path / "spin.pth.tar")
    assert torch.equal(other.regressor.decpose.weight, vibe.regressor.decpose.weight)
    del state["layer3.0.conv2.weight"]
    torch.save({"model": state}, tmp_path / "spin.pth.tar")
    with pytest.raises(ck.CheckpointError, match="missing: layer3.0.conv2.weight"):
        ck.load_spin_backbone(tmp_path / "spin.pth.tar")


class Evil:
    def __reduce__(self):
        return (exec, ("raise SystemExit('executed')",))


def test_code_in_a_checkpoint_is_not_executed(tmp_path):
    torch.save({"gen_state_dict": Evil()}, tmp_path / "evil.pth.tar")
    with pytest.raises(ck.CheckpointError, match="safely"):
        ck.load_vibe(tmp_path / "evil.pth.tar")


def test_files_that_are_something_else(tmp_path):
    (tmp_path / "text.pth.tar").write_text("hello")
    torch.save([1, 2], tmp_path / "list.pth.tar")
    torch.save({"weights": {}}, tmp_path / "other.pth.tar")
    for name, match in (("text", "safely"), ("list", "list"), ("other", "gen_state_dict.*found weights"),
                        ("none", "no such file")):
        with pytest.raises(ck.CheckpointError, match=match):
            ck.load_vibe(tmp_path / f"{name}.pth.tar")
