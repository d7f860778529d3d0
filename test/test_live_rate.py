"""The benchmark of the live rate: the stream that it plays, and what it counts."""

from __future__ import annotations

import sys
from itertools import islice
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "benchmarks"))

import live_rate  # noqa: E402

from blur_motion_ros.camera.camera import Camera  # noqa: E402
from blur_motion_ros.data.sequence import read_sequence, write_sequence  # noqa: E402
from blur_motion_ros.demo.results import Run  # noqa: E402
from blur_motion_ros.types import Exposure  # noqa: E402

CAMERA = Camera(32, 24, np.array([[30.0, 0, 16], [0, 30.0, 12], [0, 0, 1]]))


def test_to_and_fro_repeats_neither_end():
    assert list(islice(live_rate.to_and_fro(4), 9)) == [0, 1, 2, 3, 2, 1, 0, 1, 2]
    assert list(islice(live_rate.to_and_fro(1), 3)) == [0, 0, 0]


def test_stream_keeps_the_share_of_open_shutter_at_every_rate(tmp_path):
    images = [np.full((24, 32, 3), 40 * i, np.uint8) for i in range(3)]
    exposures = [Exposure(5 + i / 30, 5 + i / 30 + 0.02) for i in range(3)]
    write_sequence(tmp_path / "a", images, CAMERA, exposures, images[0], quality=0)
    for rate in (10.0, 60.0):
        stream = read_sequence(live_rate.make_stream(tmp_path / "a", rate, 0.7, tmp_path / f"{rate:g}"))
        assert len(stream) == round(0.7 * rate) and stream.plate is not None
        assert [int(frame.image[0, 0, 0]) for frame in stream][:6] == [0, 40, 80, 40, 0, 40]
        opens = np.array([e.open for e in stream.exposures])
        np.testing.assert_allclose(np.diff(opens), 1 / rate)
        np.testing.assert_allclose([e.duration for e in stream.exposures], 0.6 / rate)


def test_row_counts_what_was_played_after_the_start_and_what_came_back_of_it():
    second = 10**9
    played = [i * second // 10 for i in range(41)]  # 10 Hz, 4 s
    run = Run(played=played, closing={s: s + 60_000_000 for s in played})
    run.trajectories = {s: None for s in played[::2]}
    run.last_diagnostics = {"camera": {"images_superseded": "20"}}
    run.received = {s: s + 100_000_000 for s in run.trajectories}
    cells = [c.strip() for c in live_rate.rate_row(10.0, run, 0.0).strip("| ").split("|")]
    assert cells[:7] == ["10", "10.0", "5.0", "15", "50.0%", "20 / 20", "40 / 40 / 40"]  # 30 images from 1 s on
    times = [live_rate.Times(t / 10, {"player": 0.002 * t, "pipeline": 0.05 * t, "client": 0.0}, {"fit": 0.03 * t})
             for t in range(50)]
    cells = [c.strip() for c in live_rate.cost_row(10.0, run, times).strip("| ").split("|")]
    assert cells == ["10", "2.0", "50.0", "0.0", "100.0", "fit 30.0"]
