"""VIBE behind the initialiser interface: on the development sequences, the image variant, and on nothing at all."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from blur_motion_ros.assets import AssetError, asset, packaged  # noqa: E402
from blur_motion_ros.body import load_body  # noqa: E402
from blur_motion_ros.camera.camera import Camera  # noqa: E402
from blur_motion_ros.initialiser import vibe  # noqa: E402
from blur_motion_ros.initialiser.vibe_camera import SquareCrop  # noqa: E402
from blur_motion_ros.initialiser.vibe_model import (  # noqa: E402
    EncoderSizes,
    ImageVibe,
    RegressorSizes,
    ResNetFeatures,
    Vibe,
)
from blur_motion_ros.learning import eval_command, export_command  # noqa: E402
from blur_motion_ros.types import Exposure, Frame, Landmarks  # noqa: E402

DEVSET = Path(os.environ.get("BLUR_MOTION_DEVSET", Path(__file__).parents[1].parent / "shared" / "devset"))
CAMERA = Camera(640, 480, np.array([[600.0, 0, 320], [0, 600, 240], [0, 0, 1]]))


@pytest.fixture(autouse=True)
def one_thread():
    torch.set_num_threads(1)


def need_networks():
    try:
        packaged(vibe.LANDMARK_NETWORK)
        asset("pose_landmark_full.tflite")
        asset("pose_detection.tflite")
    except (AssetError, OSError) as error:
        pytest.skip(str(error))


def test_better_and_calmer_than_blazepose_on_the_development_sequences():
    """A quarter off both errors of BlazePose (as it comes) in the sequences' readme, and half of its jitter."""
    if not (DEVSET / "b04_run" / "gt.npz").is_file():
        pytest.skip(f"no development sequences in {DEVSET}; set BLUR_MOTION_DEVSET")
    need_networks()
    scores = eval_command.score_sequences([DEVSET], None, True)
    mean = {m: {k: np.mean([s[k] for s in rows.values()]) for k in ("mpjpe", "pa", "accel")}
            for m, rows in scores.items()}
    ours, raw = mean["VIBE"], mean["BlazePose"]
    assert ours["mpjpe"] < 0.80 * raw["mpjpe"], mean
    assert ours["pa"] < 0.85 * raw["pa"], mean
    assert ours["accel"] < 0.5 * raw["accel"], mean


def test_nobody_is_nobody():
    need_networks()
    from blur_motion_ros.initialiser.blazepose import BlazePose
    from blur_motion_ros.initialiser.person import PersonTracker

    initialiser = vibe.VibeInitialiser(PersonTracker(BlazePose.pretrained()), vibe.LandmarkStream.load(), load_body())
    frame = Frame(np.full((480, 640, 3), 120, np.uint8), Exposure(0, 0.03), CAMERA)
    assert initialiser.measure(frame) is None
    initialiser.reset()


def image_network(scale=0.9):
    """A small image network whose heads say: upright body, scale `scale`, centred."""
    model = ImageVibe(ResNetFeatures((1, 1, 1, 1), 8), Vibe(EncoderSizes(256, 16), RegressorSizes(256, 16))).eval()
    for head in ("decpose", "decshape", "deccam"):
        torch.nn.init.zeros_(getattr(model.vibe.regressor, head).weight)
        torch.nn.init.zeros_(getattr(model.vibe.regressor, head).bias)
    model.vibe.regressor.init_cam[:] = torch.tensor([[scale, 0.0, 0.0]])
    model.vibe.regressor.init_pose[0, :6] = torch.tensor([1.0, 0, 0, -1, 0, 0])
    return model


def seen():
    points = np.random.default_rng(0).uniform([250, 100], [330, 400], (33, 2))
    return Landmarks(points, np.zeros((33, 3)), np.ones(33), 1.0, None, np.zeros((2, 3)),
                     np.array([250.0, 100, 330, 400]))


def test_image_stream_lifts_the_camera_with_the_crop_it_cut():
    image = np.random.default_rng(0).integers(0, 255, (480, 640, 3), np.uint8)
    stream = vibe.ImageStream(image_network())
    out = stream.step(Frame(image, Exposure(0, 0.03), CAMERA), seen())
    side = SquareCrop.around(seen().box).side
    assert out.pelvis[2] == pytest.approx(2 * 600 / (side * 0.9), rel=1e-5)
    np.testing.assert_allclose(CAMERA.project(out.pelvis), [290, 250], atol=1e-3)
    np.testing.assert_allclose(out.local[0], np.diag([1.0, -1, -1]), atol=1e-6)


def test_a_file_that_is_no_network_is_named(tmp_path):
    (tmp_path / "x.ts").write_text("nonsense")
    with pytest.raises(ValueError, match="x.ts: not a TorchScript"):
        vibe.load_network(tmp_path / "x.ts")
    with pytest.raises(ValueError, match="no such file"):
        vibe.load_network(tmp_path / "y.ts")


def test_export_of_official_layout_files(tmp_path):
    """Full-size random numbers in the official files -> one TorchScript file with the same answers."""
    import vibe_cases as cases

    model = cases.VIBE_CASES["released"].build()
    backbone = cases.build_backbone()
    torch.save({"gen_state_dict": model.state_dict(), "epoch": 3}, tmp_path / "vibe.pth.tar")
    torch.save({"model": backbone.state_dict()}, tmp_path / "spin.pth.tar")
    out = tmp_path / "out" / "vibe.ts"
    assert export_command.export_official(tmp_path / "vibe.pth.tar", tmp_path / "spin.pth.tar", None, out) == 0
    crops = 0.2 * torch.from_numpy(cases.generator("crops").standard_normal((1, 2, 3, 224, 224)).astype(np.float32))
    with torch.no_grad():
        expected = ImageVibe(backbone, model)(crops)[0]
        found = vibe.load_network(out)(crops)[0]
    assert (found.rotmat - expected.rotmat).abs().max() < 1e-5
    assert out.with_suffix(".json").is_file()


def test_export_says_what_is_missing(tmp_path):
    with pytest.raises(ValueError, match="--backbone"):
        export_command.export_official(tmp_path / "a", None, None, tmp_path / "b")
    with pytest.raises(ValueError, match="checkpoint.pt"):
        export_command.export_run(tmp_path, tmp_path / "b")
