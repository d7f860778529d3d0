"""The truth that benchmarks/four_cameras.py makes, on cameras and bodies that are known."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from blur_motion_ros.body import load_body
from blur_motion_ros.camera.camera import Camera
from blur_motion_ros.initialiser.kinematics import LandmarkBody
from blur_motion_ros.motion import rotations

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "benchmarks"))

import four_cameras  # noqa: E402

CAMERA = Camera(1088, 1920, np.array([[1680.0, 0, 540], [0, 1680.0, 950], [0, 0, 1]]))


def ring(angles=(0.0, 1.4, 3.0, 4.4)) -> list[four_cameras.View]:
    """Cameras 4 m away from the origin, at these angles about the vertical (y)."""
    turns = [rotations.exp(np.array([0, a, 0])) for a in angles]
    return [four_cameras.View(CAMERA, R, np.array([0, 0, 4.0])) for R in turns]


def seen(points: np.ndarray, views: list[four_cameras.View]) -> np.ndarray:
    return np.stack([v.camera.project(points @ v.R.T + v.T) for v in views])


def test_points_are_found_though_one_camera_errs():
    rng = np.random.default_rng(0)
    points, views = rng.uniform(-0.8, 0.8, (5, 12, 3)), ring()
    pixels = seen(points, views)
    pixels[1, 2:4] += 150
    found, certainty, apart = four_cameras.triangulated(pixels, np.ones(pixels.shape[:3]), views, rounds=10)
    assert np.abs(found - points).max() < 0.003
    assert np.linalg.norm(apart[1, 2:4], axis=-1) == pytest.approx(212, abs=3)
    assert certainty.min() > 0.9  # three others agree


def test_principal_points_are_moved_until_the_rays_meet():
    rng = np.random.default_rng(1)
    points, views = rng.uniform(-0.8, 0.8, (20, 12, 3)), ring()
    wrong = np.array([[20.0, -5], [-10, 5], [-15, 3], [5, -3]])
    pixels = seen(points, views) + wrong[:, None, None]
    aligned = four_cameras.aligned(pixels, np.ones(pixels.shape[:3]), views)
    before = np.linalg.norm(four_cameras.triangulated(pixels, np.ones(pixels.shape[:3]), views)[2], axis=-1)
    after = np.linalg.norm(four_cameras.triangulated(pixels, np.ones(pixels.shape[:3]), aligned)[2], axis=-1)
    assert np.median(after) < 0.4 * np.median(before)


def test_the_body_of_known_landmarks_is_the_body():
    model = load_body(None, lod="fit")
    body, rng = LandmarkBody.of(model), np.random.default_rng(2)
    betas, truth, points = 0.5 * rng.normal(size=10), [], []
    for i in range(4):
        local = np.tile(np.eye(3), (24, 1, 1))
        local[0] = rotations.exp(np.array([0.1, 2.0 + 0.1 * i, 0.0]))
        local[[16, 17]] = rotations.exp(np.array([[0, 0, -1.1 + 0.1 * i], [0, 0, 1.1]]))
        posed = body.posed(np.array([0.1 * i, 0, 1.0]), local, betas)
        truth.append(posed.joints)
        points.append(posed.points)
    joints, missed = four_cameras.bodies(np.stack(points), np.ones((4, 33)), model)
    limbs = [1, 2, 4, 5, 7, 8, 16, 17, 18, 19, 20, 21]
    assert np.linalg.norm(joints - np.stack(truth), axis=-1)[:, limbs].max() < 0.03
    assert np.median(missed[:, four_cameras.LIMBS]) < 0.01


def test_a_qualisys_calibration_is_read():
    text = """<calibration><cameras><camera serial="a">
      <fov_video bottom="1919" left="0" right="1087" top="0"/>
      <transform r11="1" r12="0" r13="0" r21="0" r22="0" r23="1" r31="0" r32="-1" r33="0" x="0" y="-3000" z="1000"/>
      <intrinsic focalLengthU="107520" focalLengthV="107520" centerPointU="34560" centerPointV="60800"/>
      </camera></cameras></calibration>"""
    view, = four_cameras.read_qualisys(text)
    assert (view.camera.width, view.camera.height) == (1088, 1920)
    np.testing.assert_allclose(view.camera.K, replace(CAMERA).K)
    np.testing.assert_allclose(-view.R.T @ view.T, [0, -3, 1], atol=1e-9)  # where the camera stands
    assert np.linalg.det(view.R) == pytest.approx(1.0)
