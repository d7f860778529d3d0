"""Metrics against an independent evaluator, a committed golden case, and answers known on paper."""

import csv
import importlib.util
import json
import os
import pickle
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from blur_motion_ros.body.joints import H36M_TO_J14
from blur_motion_ros.camera.camera import Camera, Crop
from blur_motion_ros.config import Settings
from blur_motion_ros.data.sequence import Sequence
from blur_motion_ros.evaluation import (
    baselines,
    benchmark,
    blur_rate,
    calibration,
    images,
    methods,
    metrics,
    protocols,
    report,
    runs,
)
from blur_motion_ros.evaluation.ground_truth import GroundTruth, evaluated_folders, read_ground_truth
from blur_motion_ros.evaluation.predictions import Prediction, read_prediction, save_prediction
from blur_motion_ros.evaluation.rerender import alpha_agreement
from blur_motion_ros.types import Exposure, Frame, Landmarks

HERE = Path(__file__).resolve().parent
SHARED_COLUMNS = [c for c in metrics.COLUMNS if c != "auc"]


def devset() -> Path:
    path = Path(os.environ.get("BLUR_MOTION_DEVSET", HERE.parent.parent / "shared" / "devset"))
    if not (path / "evaluate.py").is_file():
        pytest.skip("development sequences are not here; set BLUR_MOTION_DEVSET")
    return path


def reference_evaluator():
    spec = importlib.util.spec_from_file_location("reference_evaluate", devset() / "evaluate.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def perturbations(times, joints, rng):
    """Predictions of every kind that the evaluator treats in its own way."""
    noise = joints + rng.normal(0, 0.04, joints.shape) + rng.normal(0, 0.1, joints.shape[:2] + (1, 3))
    gone = noise.copy()
    gone[[1, 4]] = np.nan
    gone[2, 3, 5, 1] = np.nan
    fine = np.linspace(times[:, 0], times[:, -1], 17, axis=1)
    coarse = np.linspace(times[:, 0] - 0.004, times[:, -1] + 0.002, 4, axis=1)
    shuffled = coarse[:, [2, 0, 3, 1]]
    some = rng.normal(0, 0.1, (len(times), 17, 14, 3)) + joints[:, :1]
    return {"noise": (times, noise), "missing": (times, gone), "reversed": (times, joints[:, ::-1]),
            "held": (times[:, 4:5], noise[:, 4:5]), "frozen": (times, np.repeat(noise[:, 4:5], 9, 1)),
            "fine": (fine, some), "coarse": (coarse, some[:, :4]), "unordered": (shuffled, some[:, :4]),
            "scaled": (times, 1.3 * joints @ Rotation.random(random_state=1).as_matrix()),
            "mirrored": (times, joints * [-1, 1, 1]), "behind": (times, joints - [0, 0, 6.0])}


def test_agrees_with_the_independent_evaluator():
    reference, rng = reference_evaluator(), np.random.default_rng(0)
    for folder in evaluated_folders([devset()]):
        truth = read_ground_truth(folder)
        raw = dict(np.load(folder / "gt.npz"))
        for kind, (times, joints) in perturbations(truth.times, truth.joints, rng).items():
            expected, _ = reference.evaluate_sequence(raw, times, joints)
            found = metrics.evaluate(times, joints, truth.times, truth.joints, truth.K)
            for column in SHARED_COLUMNS:
                assert found[column] == pytest.approx(expected[column], abs=1e-6, rel=1e-9, nan_ok=True), \
                    f"{folder.name} {kind} {column}"


def test_golden_case():
    """The independent evaluator's numbers for a motion made up by formula (so this holds without its file)."""
    times, truth, predicted, K = golden_motion()
    found = metrics.evaluate(times, predicted, times, truth, K)
    assert set(GOLDEN) == set(SHARED_COLUMNS)
    for column, value in GOLDEN.items():
        assert found[column] == pytest.approx(value, abs=1e-6), column


def golden_motion():
    times = np.arange(5)[:, None] / 30 + np.linspace(0, 0.03, 9)
    k, t = np.arange(42).reshape(14, 3), times[..., None, None]
    truth = 0.4 * np.sin(1.7 * k + 0.13 * k**2 + 9 * t) + np.array([0.1, 0.2, 3.5])
    predicted = 0.37 * np.sin(1.7 * k + 0.13 * k**2 + 8 * t + 0.1 * np.cos(k)) + np.array([0.15, 0.18, 3.7])
    predicted[3] = np.nan
    return times, truth, predicted, np.array([[600.0, 0, 320], [0, 610, 240], [0, 0, 1]])


GOLDEN = {
    "mpjpe": 76.65667021, "mpjpe12": 71.72778261, "pa": 45.9915908, "pa_exp": 46.01383531, "mid": 76.37173919,
    "pa_mid": 45.86884343, "root": 240.0162672, "root_rel": 39.31987001, "vel": 1.149630547, "vel_abs": 0.8852641988,
    "vel_gt": 5.79817323, "acc": 13.26215791, "acc_gt": 44.4812908, "pck50": 0.255952381, "pck150": 0.9444444444,
    "reproj": 13.48834583, "rev_mpjpe": 118.124616, "rev_vel": 10.56194223, "dir_acc": 1, "best_mpjpe": 76.65667021,
    "missing": 0.2,
}


def test_a_shift_moves_only_the_root_and_a_similarity_leaves_pa_at_zero():
    times, truth, _, K = golden_motion()
    shifted = metrics.evaluate(times, truth + [0.03, -0.04, 0.12], times, truth, K)
    assert shifted["root"] == pytest.approx(130) and shifted["root_rel"] == pytest.approx(0, abs=1e-9)
    assert shifted["mpjpe"] == pytest.approx(0, abs=1e-9) and shifted["pck50"] == 1 and shifted["auc"] > 0.96
    turned = metrics.evaluate(times, 0.8 * truth @ Rotation.random(random_state=3).as_matrix(), times, truth, K)
    assert turned["pa"] == pytest.approx(0, abs=1e-6) and turned["pa_exp"] == pytest.approx(0, abs=1e-6)
    assert turned["mpjpe"] > 100
    mirrored = metrics.evaluate(times, truth * [-1, 1, 1], times, truth, K)
    assert mirrored["pa"] > 50, "a mirror image must not be forgiven"


def test_velocity_of_a_uniformly_turning_arm_is_omega_times_r():
    times = np.linspace(0, 0.03, 9)[None]
    truth = np.zeros((1, 9, 14, 3))
    angle = 5.0 * times[0]
    truth[0, :, 6] = 0.5 * np.stack([np.cos(angle), np.sin(angle), 0 * angle], -1)  # right wrist, 5 rad/s at 0.5 m
    rows = metrics.per_exposure(np.zeros_like(truth), truth, times)
    assert rows["vel"][0] == pytest.approx(2.5 / 14, rel=1e-3) and rows["vel"][0] == rows["vel_gt"][0]
    assert rows["acc_gt"][0] == pytest.approx(12.5 / 14, rel=1e-3)


def test_direction_of_time():
    times, truth, _, _ = golden_motion()
    back = metrics.evaluate(times, truth[:, ::-1], times, truth)
    assert back["dir_acc"] == 0 and back["rev_mpjpe"] == pytest.approx(0, abs=1e-9) and back["best_mpjpe"] < 1e-6
    assert metrics.evaluate(times, truth, times, truth)["dir_acc"] == 1
    frozen = metrics.evaluate(times[:, :1], truth[:, :1], times, truth)
    assert np.isnan(frozen["dir_acc"]) and frozen["vel"] == pytest.approx(frozen["vel_gt"])


def test_bad_predictions_are_named():
    times, truth, _, _ = golden_motion()
    with pytest.raises(ValueError, match="do not belong together"):
        metrics.evaluate(times, truth[:, :3], times, truth)
    with pytest.raises(ValueError, match="14, 3"):
        metrics.per_exposure(truth[:, :, :13], truth, times)
    with pytest.raises(ValueError, match="no gt.npz"):
        read_ground_truth(HERE)


def test_vertex_error_after_moving_the_roots():
    rng = np.random.default_rng(0)
    vertices = rng.normal(size=(4, 50, 3))
    assert metrics.pve(vertices + [0, 0, 0.01], vertices) == pytest.approx(10)
    root = rng.normal(size=(4, 3))
    assert metrics.pve(vertices + root[:, None], vertices, root, np.zeros((4, 3))) == pytest.approx(0, abs=1e-9)


def test_surface_error_of_a_prediction_and_who_has_none():
    """10 mm off at one exposure, 30 at the next, a third not predicted: 20 mm, wherever the body stands."""
    rng = np.random.default_rng(0)
    times = np.arange(3)[:, None] / 30 + np.linspace(0, 0.03, 9)
    vertices, joints = rng.normal(size=(3, 50, 3)), rng.normal(size=(3, 9, 24, 3))
    truth = GroundTruth("x", times, line_of_people(times), joints, np.zeros(3), times[:, [0, -1]], np.eye(3), vertices)
    away = np.array([0.3, 0.1, -0.5])
    found = vertices + away + np.array([[[0.01, 0, 0]], [[0, 0.03, 0]], [[np.nan] * 3]])
    whole = Prediction(times, truth.joints, joints + away, vertices=found)
    assert benchmark.surface_error(whole, truth) == pytest.approx(20)
    assert np.isnan(benchmark.surface_error(replace(whole, vertices=None), truth))
    assert np.isnan(benchmark.surface_error(replace(whole, vertices=found[:, :40]), truth))
    result = benchmark.score("ours", whole, truth)
    assert result.pve == pytest.approx(20)
    table = report.surface_table(benchmark.Benchmark((result, benchmark.score("joints", replace(whole, vertices=None),
                                                                              truth))))
    assert table[2:] == ["| ours | 20.0 | 1 |"]


def test_blur_rate_of_a_sliding_square():
    """A 10 px square that slides 5 px: intersection 5 x 10, union 15 x 10."""
    silhouettes = np.zeros((6, 20, 40), bool)
    for i in range(6):
        silhouettes[i, 5:15, 3 + i:13 + i] = True
    assert blur_rate.blur_rate(silhouettes) == pytest.approx(1 - 50 / 150)
    assert blur_rate.blur_rate(silhouettes[::-1]) == pytest.approx(1 - 50 / 150)
    assert blur_rate.blur_rate_first(silhouettes) == pytest.approx(np.mean([1, 2, 3, 4, 5]) / 10)
    assert blur_rate.blur_rate_from_alpha(silhouettes.mean(0)) == pytest.approx(1 - 50 / 150)
    assert blur_rate.blur_rate(silhouettes[:1]) == 0 and np.isnan(blur_rate.blur_rate(0 * silhouettes))
    silhouettes[3:] = np.roll(silhouettes[3:], 20, 2)
    assert blur_rate.blur_rate(silhouettes) == 1


def test_soft_iou_prefers_the_true_coverage():
    half = np.full((8, 8), 0.5)
    scores = {b: images.soft_iou(np.full((8, 8), b), half) for b in (0.3, 0.5, 0.7, 1.0)}
    assert max(scores, key=scores.get) == 0.5 and scores[0.5] == 1 and scores[1.0] == 0.5


def test_silhouette_iou_and_psnr():
    a = np.zeros((2, 4, 4), bool)
    a[:, :2] = True
    b = np.zeros((2, 4, 4), bool)
    b[:, 1:3] = True
    assert images.silhouette_iou(a, b) == pytest.approx(1 / 3)
    flat = np.full((4, 4, 3), 0.5)
    assert images.psnr(flat + 0.1, flat) == pytest.approx(20)
    assert images.psnr((255 * flat).astype(np.uint8), (255 * flat).astype(np.uint8)) == np.inf
    assert images.psnr(flat + a[0, :, :, None] * 0.1, flat, a[0]) == pytest.approx(20)


def test_calibration_tells_honest_from_overconfident():
    rng = np.random.default_rng(0)
    root = rng.normal(size=(3000, 3, 3)) * 0.02
    covariance = root @ root.swapaxes(1, 2) + 1e-5 * np.eye(3)
    errors = (np.linalg.cholesky(covariance) @ rng.normal(size=(3000, 3, 1)))[..., 0]
    honest = calibration.calibration(errors, covariance)
    for value in (honest.nees, honest.plane, honest.depth):
        assert value == pytest.approx(1, abs=0.08)
    assert np.abs(honest.observed - honest.levels).max() < 0.03
    proud = calibration.calibration(errors, covariance / 4)
    assert proud.nees == pytest.approx(4 * honest.nees) and (proud.observed < honest.levels - 0.02).all()
    depth = errors * [1, 1, 3]
    assert calibration.calibration(depth, covariance).depth == pytest.approx(9 * honest.depth)
    assert calibration.calibration(depth, covariance).plane == pytest.approx(honest.plane)
    with pytest.raises(ValueError, match="positive definite"):
        calibration.calibration(errors, 0 * covariance)


# ------------------------------------------------------------------------------------------ published protocol


def test_protocol_roots_differ_and_pa_does_not():
    rng = np.random.default_rng(0)
    truth = rng.normal(0, 0.3, (20, 17, 3))
    predicted = truth + rng.normal(0, 0.03, truth.shape)
    predicted[:, 0] += [0.05, 0, 0]  # only joint 0 of the 17 is displaced
    vibe = protocols.evaluate_14(predicted, truth, root="hip_midpoint")
    spin = protocols.evaluate_14(predicted, truth, root="h36m_root")
    assert spin.mpjpe > vibe.mpjpe + 10 and spin.pa_mpjpe == pytest.approx(vibe.pa_mpjpe)
    fourteen = protocols.evaluate_14(predicted[:, list(H36M_TO_J14)], truth[:, list(H36M_TO_J14)])
    assert fourteen.mpjpe == pytest.approx(vibe.mpjpe) and np.isnan(fourteen.pve)
    with pytest.raises(ValueError, match="all 17"):
        protocols.evaluate_14(predicted[:, :14], truth[:, :14], root="h36m_root")


def test_protocol_acceleration_counts_only_whole_neighbourhoods():
    truth = np.zeros((6, 14, 3))
    predicted = truth.copy()
    predicted[:, 6, 0] = 0.014 * np.arange(6) ** 2  # second difference 28 mm for one joint of 14
    assert protocols.evaluate_14(predicted, truth).accel == pytest.approx(2.0)
    predicted[3, 6, 0] += 1.0
    valid = np.array([True, True, True, False, True, True])
    assert protocols.evaluate_14(predicted, truth, valid).accel == pytest.approx(2.0)
    assert protocols.evaluate_14(predicted, truth, valid).frames == 5


def test_3dpw_bodies_land_where_the_world_camera_sees_them(tmp_path):
    """smplx-style posing in the camera frame equals posing in the world and moving the points."""
    rng = np.random.default_rng(0)
    poses, trans = rng.normal(0, 0.3, (4, 72)), rng.normal(0, 1, (4, 3))
    cameras = np.tile(np.eye(4), (4, 1, 1))
    cameras[:, :3, :3], cameras[:, :3, 3] = Rotation.random(4, random_state=0).as_matrix(), rng.normal(0, 1, (4, 3))
    file = tmp_path / "s.pkl"
    file.write_bytes(pickle.dumps({"poses": [poses], "trans": [trans], "betas": [np.zeros(10)], "cam_poses": cameras,
                                   "cam_intrinsics": np.eye(3), "campose_valid": [np.array([1, 1, 0, 1])]}, protocol=2))
    pelvis, point = np.array([0.0, -0.24, 0.03]), np.array([0.1, 0.5, 0.2])
    (actor,) = protocols.read_3dpw_actors(file, pelvis)

    def posed(turn, shift):
        return Rotation.from_rotvec(turn).apply(point - pelvis) + pelvis + shift

    world = np.einsum("tab,tb->ta", cameras[:, :3, :3], posed(poses[:, :3], trans)) + cameras[:, :3, 3]
    assert np.allclose(posed(actor.pose[:, 0], actor.transl), world)
    assert np.allclose(actor.pose[:, 1:].reshape(4, 69), poses[:, 3:]) and actor.valid.tolist() == [1, 1, 0, 1]
    file.write_bytes(pickle.dumps({"poses": [poses]}))
    with pytest.raises(ValueError, match="no field 'trans'"):
        protocols.read_3dpw_actors(file, pelvis)


# ------------------------------------------------------------------------------------------ methods and tables


def line_of_people(times, speed=2.0):
    """Truth that slides along x at `speed` m/s, wrists twice as fast."""
    rng = np.random.default_rng(3)
    shape = rng.normal(0, 0.3, (14, 3)) + [0, 0, 4.0]
    share = np.ones(14)
    share[[6, 11]] = 2
    return shape + (times[..., None] * share)[..., None] * np.array([speed, 0, 0])


def test_held_and_interpolated_schedules_know_time():
    exposures = tuple(Exposure(i / 30, i / 30 + 0.03) for i in range(4))
    camera = Camera(8, 8, np.eye(3))
    images = [np.zeros((8, 8, 3), np.uint8)] * 4
    sequence = Sequence("x", camera, exposures, images)
    pose_at = {e.middle: line_of_people(np.array(e.middle)[None])[0] for e in exposures}

    def make(settings):
        return lambda frame, plate: None if frame.index == 2 else pose_at[frame.exposure.middle]

    still = runs.held(sequence, Settings(), make)
    assert np.ptp(still.joints[0], axis=0).max() == 0 and np.allclose(still.joints[1, 0], pose_at[exposures[1].middle])
    assert np.isnan(still.joints[2]).all() and np.isfinite(still.joints[3]).all()
    moving = runs.interpolated(sequence, Settings(), make)
    assert np.allclose(moving.times[1], np.linspace(exposures[1].open, exposures[1].close, 9))
    assert np.allclose(moving.joints[1], line_of_people(moving.times[1]), atol=1e-9)
    assert np.isnan(moving.joints[2]).all()
    late = moving.times[3] > exposures[3].middle
    assert np.allclose(moving.joints[3, late], pose_at[exposures[3].middle]), "nothing is extrapolated"


def test_placing_world_landmarks_recovers_the_translation():
    rng = np.random.default_rng(0)
    camera = Camera(640, 480, np.array([[600.0, 0, 320], [0, 580, 240], [0, 0, 1]]), np.array([0.1, -0.05, 0, 0]))
    world = rng.normal(0, 0.4, (33, 3))
    there = world + [0.3, -0.2, 4.2]
    seen = Landmarks(camera.project(there), world, np.full(33, 0.9), 1.0, None, np.zeros((2, 3)), np.zeros(4))
    assert np.allclose(baselines.placed(seen, camera), there, atol=1e-6)


def test_deconvolution_sharpens_along_the_kernel():
    rng = np.random.default_rng(0)
    sharp = cv2.GaussianBlur(rng.random((96, 128, 3)).astype(np.float32), (0, 0), 2.0)
    sharp = 0.5 + 0.15 * (sharp - sharp.mean()) / sharp.std()
    kernel = baselines.line_kernel(np.array([9.0, 3.0]))
    assert kernel.sum() == pytest.approx(1) and kernel.shape[0] % 2 == 1
    y, x = np.mgrid[:kernel.shape[0], :kernel.shape[1]] - kernel.shape[0] // 2
    assert (kernel * x * y).sum() > 0.5, "down and to the right, in image axes"
    blurred = cv2.filter2D(sharp, -1, kernel[::-1, ::-1].copy(), borderType=cv2.BORDER_REFLECT)
    wrong = baselines.line_kernel(np.array([-3.0, 9.0]))
    for restore in (baselines.wiener, baselines.richardson_lucy):
        inner = (slice(24, -24), slice(24, -24))
        error = {n: np.abs(r - sharp)[inner].mean() for n, r in
                 (("blurred", blurred), ("restored", restore(blurred, kernel)), ("wrong", restore(blurred, wrong)))}
        assert error["restored"] < 0.7 * error["blurred"] < error["wrong"]


def small_benchmark(tmp_path):
    times = np.arange(6)[:, None] / 30 + np.linspace(0, 0.03, 9)
    truth = GroundTruth("seq", times, line_of_people(times), None, np.array([0.05, 0.15, 0.3, 0.3, 0.7, 0.7]),
                        times[:, [0, -1]], np.array([[600.0, 0, 320], [0, 600, 240], [0, 0, 1]]))
    exact = benchmark.score("exact", Prediction(times, truth.joints), truth)
    frozen = benchmark.score("frozen", Prediction(times[:, 4:5], truth.joints[:, 4:5] + [0.01, 0, 0]), truth)
    return benchmark.Benchmark((exact, frozen))


def test_tables_bin_by_blur_rate_and_mark_the_best(tmp_path):
    result = small_benchmark(tmp_path)
    value, count = result.binned("frozen", "mpjpe")
    assert count.tolist() == [1, 1, 2, 0, 2] and np.isnan(value[3]) and value[0] > 0
    assert result.overall("exact")["mpjpe"] == pytest.approx(0, abs=1e-9)
    frozen = result.of("frozen")[0]
    assert frozen.along[0] > frozen.along[4] < frozen.along[8] and frozen.along[4] == pytest.approx(0, abs=1e-9)
    assert np.allclose(result.of("exact")[0].speeds[:, 0], result.of("exact")[0].speeds[:, 1])
    path = report.write_all(result, tmp_path / "out", "blur-motion benchmark x")
    text = path.read_text()
    assert "0.6-1 (2)" in text and "| exact | **" in text and "`blur-motion benchmark x`" in text
    rows = list(csv.DictReader(open(tmp_path / "out" / "results.csv")))
    assert len(rows) == 12 and {r["method"] for r in rows} == {"exact", "frozen"}
    assert float(rows[8]["vel"]) == pytest.approx(frozen.rows["vel"][2], rel=1e-4)
    data = json.loads((tmp_path / "out" / "results.json").read_text())
    assert data["methods"]["frozen"]["exposures_in_bin"] == [1, 1, 2, 0, 2]
    assert data["methods"]["frozen"]["overall"]["dir_acc"] is None


def test_predictions_survive_the_disk_and_bad_ones_are_named(tmp_path):
    rng = np.random.default_rng(0)
    wanted = Prediction(rng.random((3, 9)), rng.random((3, 9, 14, 3)), rng.random((3, 9, 24, 3)), None, 0.05)
    save_prediction(tmp_path / "a" / "x.npz", wanted)
    found = read_prediction(tmp_path / "a" / "x.npz")
    assert np.array_equal(found.joints, wanted.joints) and np.array_equal(found.smpl24, wanted.smpl24)
    assert found.covariance is None and found.seconds == 0.05
    np.savez(tmp_path / "b.npz", times=np.zeros((3, 9)))
    with pytest.raises(ValueError, match="no array 'joints'"):
        read_prediction(tmp_path / "b.npz")
    with pytest.raises(ValueError, match="unknown method 'nothing'"):
        methods.select(["nothing"])


def test_agreement_of_silhouettes_is_one_for_the_truth_and_falls_with_a_shift(tmp_path):
    camera = Camera(160, 120, np.array([[150.0, 0, 79.5], [0, 150, 59.5], [0, 0, 1]]))
    truth = np.zeros((120, 160), np.uint8)
    truth[30:90, 60:80], truth[30:90, 80:90] = 255, 128
    cv2.imwrite(str(tmp_path / "alpha_000.png"), truth)
    crop = Crop.around(camera, np.array([74.5, 59.5]), 100.0, 100)
    alpha = np.zeros((2, 100, 100))
    alpha[0, 20:80, 35:55], alpha[0, 20:80, 55:65] = 1, 128 / 255  # the view starts at pixel (25, 10)
    found = alpha_agreement(alpha, np.stack([crop.K] * 2), tmp_path, camera)
    assert found[0] == pytest.approx(1, abs=0.01) and np.isnan(found[1]), "no alpha_001.png"
    shifted = alpha_agreement(np.roll(alpha, 5, 2)[:1], crop.K[None], tmp_path, camera)
    assert shifted[0] == pytest.approx(20 / 30, abs=0.01)


def test_rigid_baselines_move_rigidly_and_ours_does_not():
    from blur_motion_ros.assets import ASSETS, cache_dir
    from blur_motion_ros.data.sequence import read_sequence

    if not all((cache_dir() / name).is_file() for name in ASSETS if name.endswith(".tflite")):
        pytest.skip("pose networks are not in the cache; run blur-motion assets")
    whole = read_sequence(devset() / "b04_run")
    short = replace(whole, exposures=whole.exposures[:3])

    def bending(prediction):
        """How much distances between joints change during an exposure, m."""
        between = np.linalg.norm(prediction.smpl24[2][:, :, None] - prediction.smpl24[2][:, None], axis=-1)
        return np.ptp(between, axis=0).max()

    rigid, single = baselines.run_rigid_two(short, Settings()), baselines.run_rigid_one(short, Settings())
    assert bending(rigid) < 0.002 < 0.05 < bending(runs.run_pipeline(short, Settings()))
    assert bending(single) < 0.002, "nor does any limb alone, with the direction of time undecided"
    assert np.linalg.norm(rigid.smpl24[2, -1, 0] - rigid.smpl24[2, 0, 0]) > 0.02, "the runner moves on"
    assert rigid.alpha.shape[0] == 3 and (rigid.psnr > 5).all() and rigid.seconds > 0


def test_a_learned_deblurring_network_fits_the_slot(tmp_path, monkeypatch):
    """A network that swaps red and blue shows the channel order, the range and the layout that the slot uses."""
    onnx = pytest.importorskip("onnx")
    from onnx import TensorProto, helper

    from blur_motion_ros.assets import ASSETS, cache_dir

    if not all((cache_dir() / name).is_file() for name in ASSETS if name.endswith(".tflite")):
        pytest.skip("pose networks are not in the cache; run blur-motion assets")
    shape = [1, 3, "h", "w"]
    gather = helper.make_node("Gather", ["image", "order"], ["out"], axis=1)
    graph = helper.make_graph([gather], "swap", [helper.make_tensor_value_info("image", TensorProto.FLOAT, shape)],
                              [helper.make_tensor_value_info("out", TensorProto.FLOAT, shape)],
                              [helper.make_tensor("order", TensorProto.INT64, [3], [2, 1, 0])])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    onnx.save(model, tmp_path / "swap.onnx")
    assert "deblur_onnx_held" not in [m.name for m in methods.select(None)]
    with pytest.raises(ValueError, match="BLUR_MOTION_DEBLUR_ONNX"):
        baselines.OnnxFrames(Settings())
    monkeypatch.setenv("BLUR_MOTION_DEBLUR_ONNX", str(tmp_path / "swap.onnx"))
    image = np.random.default_rng(0).integers(0, 256, (20, 30, 3), dtype=np.uint8)
    frame = Frame(image, Exposure(0, 0.03), Camera(30, 20, np.eye(3)))
    assert np.array_equal(baselines.OnnxFrames(Settings()).prepare(frame, None), image[..., ::-1])
