"""The whole pipeline and the `fit` command on recordings with known truth (skipped where those are not at hand)."""

import json
import os
import shutil
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from blur_motion_ros import cli, config
from blur_motion_ros.body.joints import lsp14
from blur_motion_ros.camera.camera import Camera
from blur_motion_ros.camera.sampling import crop_map
from blur_motion_ros.data import sequence
from blur_motion_ros.fit.both_ways import mirrored
from blur_motion_ros.fit.window import make_target
from blur_motion_ros.matting.masked import MASK_SIGMA
from blur_motion_ros.offline import fit_recording, measure_recording, with_plate
from blur_motion_ros.pipeline import Pipeline
from blur_motion_ros.trajectory import sample
from blur_motion_ros.types import Exposure, Frame, Status

DEVSET = Path(os.environ.get("BLUR_MOTION_DEVSET", Path(__file__).parents[2] / "shared" / "devset"))
needs_devset = pytest.mark.skipif(not (DEVSET / "b08_walk").is_dir(),
                                  reason="the development sequences are not here; set BLUR_MOTION_DEVSET")


@pytest.fixture(scope="module")
def walk():
    recording = sequence.read(DEVSET / "b08_walk")
    return recording, list(recording)[:9]


def fitted(recording, frames, plate=True):
    pipeline = Pipeline()
    if plate:
        pipeline.set_background(recording.plate)
    return pipeline, [pipeline.process(frame) for frame in frames]


def middle(pipeline, estimate):
    return sample(estimate, pipeline.skeleton, np.array([estimate.exposures[-1].middle]))


def read_alpha(index: int) -> np.ndarray:
    """True coverage [H, W] of a frame of the walk."""
    image = cv2.imread(str(DEVSET / "b08_walk" / f"alpha_{index:03d}.png"), cv2.IMREAD_GRAYSCALE)
    return image.astype(np.float32) / 255


@pytest.fixture(scope="module")
def walk_fit(walk):
    return fitted(*walk)


@needs_devset
def test_a_matte_made_ahead_is_the_one_that_the_fit_would_make(walk, walk_fit):
    recording, frames = walk
    pipeline = Pipeline()
    pipeline.set_background(recording.plate)
    seen = [pipeline.matte(pipeline.see(frame)) for frame in frames]
    assert all(s.matted is not None for s in seen)
    for ahead, alone in zip(map(pipeline.fit, seen), walk_fit[1], strict=True):
        np.testing.assert_array_equal(ahead.coefficients, alone.coefficients)
        np.testing.assert_array_equal(ahead.covariance, alone.covariance)


@needs_devset
def test_joints_and_speeds_of_a_walk(walk, walk_fit):
    truth = np.load(DEVSET / "b08_walk" / "gt.npz")
    pipeline, estimates = walk_fit
    for i in range(3, 9):
        found = middle(pipeline, estimates[i])
        joints, real = lsp14(found.positions)[0], truth["joints"][i, 4]
        error = np.linalg.norm((joints - joints[2:4].mean(0)) - (real - real[2:4].mean(0)), axis=1).mean()
        assert error < 0.09, (i, error)  # a left/right swap or a mirrored axis costs 0.15 and more
        assert np.linalg.norm(joints[2:4].mean(0) - real[2:4].mean(0)) < 0.35  # stature is unknown: 9 % of the depth
        travel = truth["joints_smpl24"][i, 8] - truth["joints_smpl24"][i, 0]
        assert float((found.linear_velocity[0] * travel).sum()) > 0, i


@needs_devset
def test_reversed_frames_come_out_reversed(walk, walk_fit):
    recording, frames = walk
    end = frames[-1].exposure.close
    backwards = [replace(f, exposure=Exposure(end - f.exposure.close, end - f.exposure.open), index=i)
                 for i, f in enumerate(reversed(frames))]
    pipeline, estimates = walk_fit
    other, reversed_estimates = fitted(recording, backwards)
    products = []
    for i in range(3, 7):
        ahead = middle(pipeline, estimates[i]).linear_velocity[0]
        back = middle(other, reversed_estimates[len(frames) - 1 - i]).linear_velocity[0]
        products.append(float((ahead * back).sum()))
    assert max(products) < 0, products


@needs_devset
def test_with_hindsight_a_reversed_recording_is_exactly_the_reversed_motion(walk):
    """Fitted both ways, neither direction of time is preferred; one way only, the two differ."""
    short = replace(walk[0], exposures=walk[0].exposures[:7])
    settings = config.load(offline=True)
    measured = measure_recording(short, settings)
    reverse, total = sequence.backwards(short)
    apart = {}
    for both in (True, False):
        ahead, pipeline = fit_recording(short, settings, measurements=measured, both_ways=both)
        back, other = fit_recording(reverse, settings, measurements=measured[::-1], both_ways=both)
        t = np.array([ahead[3].exposures[-1].middle])
        here = sample(ahead[3], pipeline.skeleton, t)
        there = sample(mirrored(back[3], total), other.skeleton, t)
        apart[both] = np.abs(here.linear_velocity - there.linear_velocity).max()
    assert apart[True] < 0.01 < apart[False]  # m/s


@needs_devset
def test_a_still_person_comes_out_still(walk):
    recording, _ = walk
    image = sequence.read_image(DEVSET / "b08_walk" / "sharp_008.jpg").astype(float)
    rng = np.random.default_rng(0)
    frames = [Frame(np.clip(image + rng.normal(0, 2.5, image.shape), 0, 255).astype(np.uint8),
                    Exposure(i / 30, i / 30 + 0.03), recording.camera, i) for i in range(6)]
    pipeline, estimates = fitted(recording, frames)
    for estimate in estimates[2:]:
        assert np.linalg.norm(middle(pipeline, estimate).linear_velocity, axis=-1).mean() < 0.05
        assert estimate.status & Status.LOW_BLUR


@needs_devset
def test_without_a_plate_it_says_so_and_goes_on(walk):
    recording, frames = walk
    pipeline, estimates = fitted(recording, frames[:3], plate=False)
    assert all(e.status & Status.NO_BACKGROUND for e in estimates)
    assert np.isfinite(middle(pipeline, estimates[-1]).positions).all()


@needs_devset
def test_without_a_plate_silhouettes_are_the_mask_and_colours_say_nothing(walk):
    recording, frames = walk
    pipeline, seen = Pipeline(), []
    update = pipeline._fit.update
    pipeline._fit.update = lambda observations, until: (seen.append(observations), update(observations, until))[1]
    for frame in frames[:2]:
        pipeline.process(frame)
    alpha = read_alpha(1)
    for size, with_colour in ((64, True), (32, False)):
        target = make_target(seen[-1], size, pipeline.settings.fit, with_colour)
        assert (target.weight[..., :3] == 0).all()
        assert target.weight[..., 3][target.value[..., 3] > 0.5] == pytest.approx(1 / MASK_SIGMA)
    crop = seen[-1][-1].crop
    truth = crop_map(recording.camera, crop).sample(alpha)
    overlap = np.minimum(truth, seen[-1][-1].alpha).sum() / np.maximum(truth, seen[-1][-1].alpha).sum()
    assert overlap > 0.75


@needs_devset
def test_somebody_there_from_the_start_is_followed_while_the_background_is_learned(walk):
    """What is behind them is not known for as long as they stand there, and the status says so."""
    recording, frames = walk
    rng, image = np.random.default_rng(0), frames[0].image.astype(float)
    still = [replace(frames[0], image=np.clip(image + rng.normal(0, 1.5, image.shape), 0, 255).astype(np.uint8),
                     exposure=Exposure(0.1 * i, 0.1 * i + 0.03), index=i) for i in range(25)]
    pipeline, estimates = fitted(recording, still, plate=False)
    assert pipeline.background.plate(still[-1]) is not None
    assert not any(e.status & (Status.LOST | Status.OCCLUDED | Status.POOR_FIT) for e in estimates)
    assert all(e.status & Status.NO_BACKGROUND for e in estimates)


@needs_devset
def test_a_recording_without_a_plate_is_fitted_with_its_own(walk):
    recording, _ = walk
    bare = with_plate(replace(recording, plate=None), config.load(offline=True))
    apart = np.abs(bare.plate.astype(int) - recording.plate).max(2)
    assert bare.known.mean() > 0.8 and np.percentile(apart[bare.known], 99) < 25
    assert with_plate(recording, config.load(offline=True)) is recording


@needs_devset
def test_a_person_who_appears_is_found(walk):
    """The window then holds a frame from before, in which there was nobody to matte around."""
    recording, frames = walk
    nobody = replace(frames[0], image=recording.plate)
    pipeline, estimates = fitted(recording, [nobody, *frames[1:4]])
    assert estimates[0].status == Status.LOST
    assert np.isfinite(middle(pipeline, estimates[1]).positions).all()
    assert np.isfinite(middle(pipeline, estimates[3]).positions).all()


def test_nobody_there_is_lost_not_an_error():
    camera = Camera(320, 240, np.array([[300.0, 0, 159.5], [0, 300.0, 119.5], [0, 0, 1]]))
    empty = np.full((240, 320, 3), 90, np.uint8)
    pipeline = Pipeline()
    pipeline.set_background(empty)
    for i in range(2):
        estimate = pipeline.process(Frame(empty, Exposure(i / 30, i / 30 + 0.03), camera, i))
        assert estimate.status == Status.LOST
        assert np.isnan(middle(pipeline, estimate).positions).all()


@needs_devset
def test_fit_command_reads_nothing_but_inputs(tmp_path):
    folder = tmp_path / "clip"
    folder.mkdir()
    source = DEVSET / "b08_walk"
    for i in range(4):
        shutil.copy(source / f"blur_{i:03d}.jpg", folder)
    for name in ("background.png", "meta.json"):
        shutil.copy(source / name, folder)
    exposures = np.load(source / "gt.npz")["exposure"][:4]
    (folder / "exposure.json").write_text(json.dumps(exposures.tolist()))
    out, video = tmp_path / "motion.npz", tmp_path / "overlay.mp4"
    assert cli.main(["fit", str(folder), "--out", str(out), "--overlay", str(video), "--no-gt", "--quiet"]) == 0
    result = np.load(out)
    assert result["times"].shape == (4, 9) and result["joints"].shape == (4, 9, 14, 3)
    assert result["joints_smpl24"].shape == result["velocities"].shape == (4, 9, 24, 3)
    assert np.allclose(result["times"][:, [0, -1]], exposures)
    assert np.allclose(lsp14(result["joints_smpl24"]), result["joints"])
    numeric = np.gradient(result["joints_smpl24"][2], axis=0) / np.gradient(result["times"][2])[:, None, None]
    assert np.abs(numeric - result["velocities"][2])[1:-1].max() < 0.2
    reader = cv2.VideoCapture(str(video))
    assert int(reader.get(cv2.CAP_PROP_FRAME_COUNT)) >= 4


def test_fit_command_names_what_is_missing(tmp_path, capsys):
    assert cli.main(["fit", str(tmp_path / "nowhere"), "--out", str(tmp_path / "x.npz")]) != 0
    assert "nowhere" in capsys.readouterr().err


@needs_devset
def test_a_gap_in_time_starts_a_new_motion(walk):
    recording, frames = walk
    later = [replace(f, exposure=Exposure(f.exposure.open + 60, f.exposure.close + 60)) for f in frames[4:6]]
    _, estimates = fitted(recording, frames[:3] + later)
    assert len(estimates[3].exposures) == 1 and estimates[3].status & Status.COLD_START
    assert all(np.isfinite(e.coefficients).all() for e in estimates)
