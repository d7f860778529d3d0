"""VIBE networks against outputs of the official code (`vibe_golden.npz`); streaming, scripting, camera, rotations."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")

import vibe_cases as cases  # noqa: E402
from scipy.spatial.transform import Rotation  # noqa: E402

from blur_motion_ros.camera.camera import Camera  # noqa: E402
from blur_motion_ros.initialiser import vibe_camera  # noqa: E402
from blur_motion_ros.initialiser.vibe_model import (  # noqa: E402
    EncoderSizes,
    ImageVibe,
    RegressorSizes,
    ResNetFeatures,
    TemporalEncoder,
    Vibe,
    theta,
)
from blur_motion_ros.learning.vibe_discriminator import DiscriminatorSizes, MotionDiscriminator  # noqa: E402
from blur_motion_ros.learning.vibe_mposer import MPoser, MPoserSizes, elbo_loss  # noqa: E402
from blur_motion_ros.motion import rotations, rotations_torch  # noqa: E402

GOLDEN = np.load(Path(__file__).parent / "vibe_golden.npz")


@pytest.fixture(autouse=True)
def one_thread():
    torch.set_num_threads(1)


@pytest.mark.parametrize("name", cases.VIBE_CASES)
def test_vibe_equals_the_official_code(name):
    case = cases.VIBE_CASES[name]
    model = case.build()
    for n, t in case.shapes:
        with torch.no_grad():
            out = theta(model(cases.features(name, n, t, case.encoder.feature))[0]).numpy()
        np.testing.assert_allclose(out, GOLDEN[f"{name}.{n}x{t}.theta"], atol=1e-5)


@pytest.mark.parametrize("name", cases.DISCRIMINATOR_CASES)
@pytest.mark.parametrize("n, t", [(1, 16), (3, 16), (2, 5)])
def test_discriminator_equals_the_official_code(name, n, t):
    model = cases.build_discriminator(name)
    with torch.no_grad():
        score = model(cases.features(name, n, t, 69))
    assert score.shape == (n, 1)
    np.testing.assert_allclose(score.numpy(), GOLDEN[f"{name}.{n}x{t}.score"], atol=1e-5)


@pytest.mark.parametrize("n", [1, 2])
def test_backbone_equals_the_official_code(n):
    image = cases.features("backbone", n, 3 * 224, 224).reshape(n, 3, 224, 224)
    with torch.no_grad():
        out = cases.build_backbone()(image).numpy()[:, ::4]
    golden = GOLDEN[f"backbone.{n}"]
    assert np.abs(out - golden).max() < 1e-5 * np.abs(golden).max()


def test_one_sequence_alone_or_in_a_batch_gives_the_same_score():
    model = cases.build_discriminator("disc_small")
    x = cases.features("disc_small", 3, 16, 69)
    with torch.no_grad():
        alone = torch.cat([model(x[i:i + 1]) for i in range(3)])
        assert torch.allclose(alone, model(x), atol=1e-6)


def test_attention_is_a_convex_combination_and_all_pools_have_their_width():
    model = MotionDiscriminator(DiscriminatorSizes(hidden=16, attention=16, pool="attention_concat")).eval()
    states = torch.randn(2, 7, 16)
    summary, weights = model.attention(states)
    assert torch.allclose(weights.sum(1), torch.ones(2), atol=1e-6) and (weights > 0).all()
    assert torch.allclose(summary, torch.einsum("nt,nth->nh", weights, states), atol=1e-6)
    assert model.fc.in_features == 48
    assert model(torch.randn(1, 5, 69)).shape == (1, 1)


def test_streaming_equals_the_batch_and_resets():
    case = cases.VIBE_CASES["released"]
    model = case.build()
    x = cases.features("released", 2, 12, 2048)
    with torch.no_grad():
        whole, _ = model(x)
        state, frames = None, []
        for i in range(12):
            p, state = model(x[:, i:i + 1], state)
            frames.append(theta(p))
        fresh, _ = model(x[:, 5:6])
        again, _ = model(x[:, 5:6], None)
    assert (torch.cat(frames, 1) - theta(whole)).abs().max() < 1e-5
    assert torch.equal(theta(fresh), theta(again)) and (theta(fresh) - frames[5]).abs().max() > 1e-3


def test_average_shape_is_one_shape_per_sequence():
    model = Vibe(EncoderSizes(64, 16), RegressorSizes(64, 32), average_shape=True).eval()
    shape = model(torch.randn(2, 5, 64))[0].shape
    assert torch.allclose(shape, shape[:, :1].expand_as(shape))
    model.average_shape = False
    assert (model(torch.randn(2, 5, 64))[0].shape.std(1) > 0).all()


def test_dropout_only_in_training():
    model = Vibe(EncoderSizes(64, 16), RegressorSizes(64, 32))
    cases.seed_weights(model, "dropout")
    x = torch.randn(1, 3, 64)
    assert torch.equal(model.eval()(x)[0].cam, model(x)[0].cam)
    assert not torch.equal(model.train()(x)[0].cam, model(x)[0].cam)


def test_residual_is_dropped_where_the_widths_differ():
    encoder = TemporalEncoder(EncoderSizes(64, 16, linear=False))
    assert encoder(torch.randn(1, 4, 64))[0].shape == (1, 4, 16)


def test_sizes_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match="regressor.feature"):
        Vibe(EncoderSizes(64, 16), RegressorSizes(32, 32))
    with pytest.raises(ValueError, match="attention is 8"):
        MotionDiscriminator(DiscriminatorSizes(hidden=16, attention=8))
    with pytest.raises(ValueError, match="pool"):
        MotionDiscriminator(DiscriminatorSizes(pool="mean"))


def test_torchscript_runs_in_a_process_without_this_package(tmp_path):
    model = ImageVibe(ResNetFeatures((1, 1, 1, 1), 8), Vibe(EncoderSizes(256, 32), RegressorSizes(256, 64)))
    cases.seed_weights(model, "script")
    model.eval()
    x = torch.randn(1, 2, 3, 64, 64)
    torch.jit.script(model).save(str(tmp_path / "m.ts"))
    torch.save(x, tmp_path / "x.pt")
    code = ("import sys, torch; m = torch.jit.load('m.ts'); out, state = m(torch.load('x.pt'));"
            "assert not any(k.startswith('blur_motion_ros') for k in sys.modules);"
            "torch.save((out.rotmat, out.cam, state), 'y.pt')")
    subprocess.run([sys.executable, "-I", "-W", "ignore", "-c", code], cwd=tmp_path, check=True)
    rotmat, cam, state = torch.load(tmp_path / "y.pt")
    with torch.no_grad():
        out, expected_state = model(x)
    for a, b in ((rotmat, out.rotmat), (cam, out.cam), (state, expected_state)):
        assert (a - b).abs().max() < 1e-5


def test_mposer_has_a_latent_per_step_and_learns():
    torch.manual_seed(0)
    model = MPoser(MPoserSizes(hidden=32, latent=4))
    t = torch.linspace(0, 6, 16)
    motion = 0.3 * torch.sin(t[None, :, None] + torch.rand(32, 1, 69) * 0.5)
    optimiser = torch.optim.Adam(model.parameters(), 3e-3)
    losses = []
    for _ in range(60):
        out, mean, log_variance = model(motion)
        assert mean.shape == (32, 16, 4) and out.shape == motion.shape
        loss = elbo_loss(motion, out, mean, log_variance, 1e-3)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert losses[-1] < 0.3 * losses[0]
    assert model.eval().prior_loss(motion[:1]).dim() == 0


# rotations

def test_torch_rotations_agree_with_numpy_and_scipy():
    v = np.random.default_rng(0).standard_normal((50, 3))
    v[0] = 0
    v[1] = 1e-7
    v[2] *= (np.pi - 1e-6) / np.linalg.norm(v[2])
    t = torch.from_numpy(v)
    r = rotations_torch.exp(t)
    np.testing.assert_allclose(r.numpy(), Rotation.from_rotvec(v).as_matrix(), atol=1e-12)
    np.testing.assert_allclose(rotations_torch.log(r).numpy(), Rotation.from_matrix(r.numpy()).as_rotvec(), atol=1e-8)
    np.testing.assert_allclose(rotations_torch.to_6d(r).numpy(), rotations.to_6d(r.numpy()), atol=0)
    d = torch.from_numpy(np.random.default_rng(1).standard_normal((4, 24, 6)))
    np.testing.assert_allclose(rotations_torch.from_6d(d).numpy(), rotations.from_6d(d.numpy()), atol=1e-12)
    np.testing.assert_allclose(rotations_torch.to_quaternion(r).numpy(), rotations.to_quaternion(r.numpy()), atol=1e-12)


def test_torch_rotations_have_finite_gradients_at_zero():
    v = torch.zeros(2, 3, dtype=torch.float64, requires_grad=True)
    (g,) = torch.autograd.grad(rotations_torch.log(rotations_torch.exp(v)).sum(), v)
    np.testing.assert_allclose(g.numpy(), np.ones((2, 3)), atol=1e-6)


# camera

CAMERA = Camera(640, 480, np.array([[520.0, 0, 331], [0, 520, 236], [0, 0, 1]]))


def test_metric_camera_reprojects_onto_the_weak_perspective_pixels():
    rng = np.random.default_rng(3)
    crop = vibe_camera.SquareCrop.around(np.array([100.0, 80, 220, 400]))
    assert crop.side == pytest.approx(352)
    cam = np.array([0.85, 0.03, -0.1])
    points = rng.uniform(-0.8, 0.8, (20, 3))
    translation = vibe_camera.weak_perspective_to_translation(cam, crop, CAMERA)
    flat = points * [1, 1, 0]
    np.testing.assert_allclose(CAMERA.project(flat + translation),
                               vibe_camera.weak_perspective_project(flat, cam, crop), atol=1e-6)
    assert translation[2] == pytest.approx(2 * 520 / (352 * 0.85))


def test_a_body_keeps_its_size_in_the_image_with_the_true_crop():
    """A 1.7 m body seen from 4 m: its weak-perspective camera gives back 4 m (unscaled box: 10 % more)."""
    truth = np.array([0.6, -0.2, 4.0])
    body = np.array([[0, -0.85, 0], [0, 0.85, 0], [0.4, 0, 0], [-0.4, 0, 0.0]])
    pixels = CAMERA.project(body + truth)
    box = np.concatenate([pixels.min(0), pixels.max(0)])
    crop = vibe_camera.SquareCrop.around(box)
    normalised = (pixels - crop.centre) / (0.5 * crop.side)
    s = np.ptp(normalised[:, 1]) / 1.7
    t = normalised[0] / s - body[0, :2]
    np.testing.assert_allclose(
        vibe_camera.weak_perspective_to_translation(np.array([s, *t]), crop, CAMERA), truth, atol=1e-6)
    unscaled = vibe_camera.SquareCrop.around(box, scale=1.0)
    wrong = vibe_camera.weak_perspective_to_translation(np.array([s, *t]), unscaled, CAMERA)
    assert wrong[2] == pytest.approx(4.4, abs=1e-6)


def test_unequal_focal_lengths_and_distortion_reproject():
    camera = Camera(640, 480, np.array([[500.0, 0, 320], [0, 510, 240], [0, 0, 1]]))
    crop = vibe_camera.SquareCrop(np.array([400.0, 300]), 200.0)
    cam = np.array([1.1, 0.05, 0.02])
    root = vibe_camera.weak_perspective_to_translation(cam, crop, camera)
    expected = vibe_camera.weak_perspective_project(np.zeros((1, 3)), cam, crop)[0]
    np.testing.assert_allclose(camera.project(root), expected, atol=1e-6)
    bent = Camera(640, 480, camera.K, np.array([-0.2, 0.05, 0, 0, 0]))
    centred = vibe_camera.weak_perspective_to_translation(np.array([1.1, 0, 0]), crop, bent)
    np.testing.assert_allclose(bent.project(centred), crop.centre, atol=1e-3)


def test_crop_cuts_what_it_says():
    image = np.zeros((480, 640, 3), np.uint8)
    image[195:206, 295:306] = 255
    crop = vibe_camera.SquareCrop(np.array([300.0, 200]), 112.0)
    patch = crop.cut(image)[..., 0].astype(float)
    ys, xs = np.mgrid[:224, :224]
    centre = np.array([(patch * xs).sum(), (patch * ys).sum()]) / patch.sum()
    np.testing.assert_allclose(centre, [112, 112], atol=0.1)
    assert patch.sum() / 255 == pytest.approx(121 * 4, rel=0.02)


@pytest.mark.parametrize("box", [[0, 0, 0, 5], [0, 0, np.nan, 5], [5, 0, 1, 5]])
def test_bad_boxes_and_scales_are_refused(box):
    with pytest.raises(ValueError, match="box"):
        vibe_camera.SquareCrop.around(np.array(box, float))
    crop = vibe_camera.SquareCrop(np.array([1.0, 1]), 10.0)
    with pytest.raises(ValueError, match="scale"):
        vibe_camera.weak_perspective_to_translation(np.array([-1.0, 0, 0]), crop, CAMERA)
