"""The numbers of benchmarks/real_clip.py, on motions whose errors are known."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

from blur_motion_ros.body.joints import LSP14
from blur_motion_ros.camera.camera import Camera

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "benchmarks"))

import real_clip  # noqa: E402

CAMERA = Camera(640, 480, np.array([[500.0, 0, 320], [0, 500.0, 240], [0, 0, 1]]))


def moving(exposures: int = 4) -> tuple[np.ndarray, np.ndarray]:
    """Joints [F, 9, 14, 3] 3 m away that go right at 2 m/s, at times [F, 9]."""
    times = np.linspace(0, 0.03, 9) + 0.1 * np.arange(exposures)[:, None]
    joints = np.zeros((exposures, 9, 14, 3))
    joints[..., 0], joints[..., 2] = 2 * times[..., None], 3.0
    return joints, times


def test_between_frames_is_linear_and_unknown_stays_unknown():
    frames = np.arange(4.0)[:, None, None] * np.ones((14, 3))
    frames[3] = np.nan
    out = real_clip.between(frames, np.array([[0.0, 0.25], [1.5, 2.5], [-0.1, 3.2]]))
    assert out[:2, :, 0, 0].tolist()[0] == [0.0, 0.25] and out[1, 0, 5, 1] == 1.5
    assert np.isnan(out[1, 1]).all() and np.isnan(out[2]).all()


def test_errors_across_the_view_are_lengths_at_the_person():
    truth, times = moving()
    found = truth.copy()
    wrist = LSP14.index("left_wrist")
    found[1:, :, wrist, 1] += 0.2  # 20 cm too low
    found[..., 2] *= 1.5  # depth is not judged: the same picture half as far away again
    found[..., :2] *= 1.5
    got = real_clip.errors(found, truth, times, CAMERA)
    assert got.across[0].max() == pytest.approx(0, abs=1e-9)
    assert got.across[2, wrist] == pytest.approx(20.0)
    assert got.speed == pytest.approx(np.full(4, 2 / 3 * 500))
    assert got.speed_error == pytest.approx(np.zeros(4), abs=1e-6)
    found[3] = np.nan  # nobody found
    cells = real_clip.row(0.03, "all", "live", real_clip.errors(found, truth, times, CAMERA), (0.0, 1.0)).split(" | ")
    assert cells[3] == "3 of 4" and cells[6:9] == ["33 %", "0 %", "0 % |"]  # 2 of 3 exposures, one arm of two
    assert real_clip.row(0.03, "x", "y", got, (0.1, 0.25)).split(" | ")[3] == "2 of 2"
