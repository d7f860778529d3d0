"""Metrics against an independent evaluator, a committed golden case, and answers known on paper."""

import importlib.util
import os
from pathlib import Path

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from blur_motion_ros.evaluation import blur_rate, calibration, images, metrics
from blur_motion_ros.evaluation.ground_truth import evaluated_folders, read_ground_truth

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
