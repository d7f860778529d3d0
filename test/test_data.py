"""Sequences on disk: what is read, what is never read, and what is said when something is missing."""

import json

import cv2
import numpy as np
import pytest

from blur_motion_ros.camera.camera import Camera
from blur_motion_ros.data import sequence
from blur_motion_ros.data.sequence import (
    SequenceError,
    backwards,
    guessed_camera,
    read,
    read_sequence,
    read_video,
    write_sequence,
)
from blur_motion_ros.types import Exposure

CAMERA = Camera(48, 32, np.array([[50.0, 0, 23.5], [0, 50, 15.5], [0, 0, 1]]), np.array([0.1, 0, 0, 0]))


def made(folder, count=3, **extra):
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (count, 32, 48, 3), dtype=np.uint8)
    exposures = [Exposure(i / 25, i / 25 + 0.03) for i in range(count)]
    write_sequence(folder, images, CAMERA, exposures, images[0], quality=0, **extra)
    return images, exposures


def test_what_is_written_is_read_back(tmp_path):
    images, exposures = made(tmp_path / "a", meta={"clip": "walk"})
    found = read_sequence(tmp_path / "a", use_gt=False)
    assert found.exposures == tuple(exposures) and found.name == "a" and found.meta["clip"] == "walk"
    assert np.array_equal(found.camera.K, CAMERA.K) and np.array_equal(found.camera.dist, CAMERA.dist)
    assert found.meta["fps"] == pytest.approx(25) and found.meta["duty"] == pytest.approx(0.75)
    for i, frame in enumerate(found):
        assert np.array_equal(frame.image, images[i]) and frame.index == i and frame.exposure == exposures[i]
    assert np.array_equal(found[-1].image, images[-1]) and np.array_equal(found.plate, images[0])
    with pytest.raises(IndexError):
        found[3]


def test_channels_are_rgb(tmp_path):
    made(tmp_path / "a")
    red = np.zeros((32, 48, 3), np.uint8)
    red[..., 2] = 255  # OpenCV's red
    cv2.imwrite(str(tmp_path / "a" / "blur_001.png"), red)
    assert read_sequence(tmp_path / "a")[1].image[0, 0].tolist() == [255, 0, 0]


def test_frames_are_read_in_numeric_order_and_lazily(tmp_path):
    images, _ = made(tmp_path / "a", count=12)
    for i in range(12):
        (tmp_path / "a" / f"blur_{i:03d}.png").rename(tmp_path / "a" / f"blur_{i}.png")
    found = read_sequence(tmp_path / "a")
    assert np.array_equal(found[10].image, images[10])
    (tmp_path / "a" / "blur_5.png").write_bytes(b"no image")
    assert np.array_equal(found[4].image, images[4])
    with pytest.raises(SequenceError, match="blur_5.png is damaged"):
        found[5]



def test_of_ground_truth_only_the_exposure_is_opened(tmp_path, monkeypatch):
    made(tmp_path / "a", gt={"joints": np.ones((3, 9, 14, 3)), "times": np.ones((3, 9))})
    rows = [[i / 25 + 1, i / 25 + 1.02] for i in range(3)]
    (tmp_path / "a" / "exposure.json").write_text(json.dumps(rows))
    asked = []
    original = np.lib.npyio.NpzFile.__getitem__
    monkeypatch.setattr(np.lib.npyio.NpzFile, "__getitem__", lambda s, k: (asked.append(k), original(s, k))[1])
    assert read_sequence(tmp_path / "a").exposures[1].open == pytest.approx(0.04)
    assert asked == ["exposure"]
    assert read_sequence(tmp_path / "a", use_gt=False).exposures[1].open == pytest.approx(1.04)
    assert asked == ["exposure"]
    (tmp_path / "a" / "gt.npz").unlink()
    assert read_sequence(tmp_path / "a").exposures[1].open == pytest.approx(1.04)


def test_nominal_timing_is_the_last_resort(tmp_path):
    made(tmp_path / "a")
    (tmp_path / "a" / "exposure.json").unlink()
    assert read_sequence(tmp_path / "a").exposures[2].close == pytest.approx(2 / 25 + 0.03)
    meta = json.loads((tmp_path / "a" / "meta.json").read_text())
    del meta["exposure_s"]
    (tmp_path / "a" / "meta.json").write_text(json.dumps(meta))
    with pytest.raises(SequenceError, match="exposure.json.*fps.*exposure_s"):
        read_sequence(tmp_path / "a")


@pytest.mark.parametrize("break_it, message", [
    (lambda d: (d / "meta.json").unlink(), "no meta.json"),
    (lambda d: (d / "meta.json").write_text("{"), "meta.json is not valid JSON"),
    (lambda d: (d / "meta.json").write_text('{"width": 48, "height": 32}'), "K"),
    (lambda d: (d / "blur_001.png").unlink(), "blur_001 is missing"),
    (lambda d: [p.unlink() for p in d.glob("blur_*")], "blur_000"),
    (lambda d: (d / "exposure.json").write_text("[[0, 0.03]]"), "3 blurred frames but 1 exposures"),
    (lambda d: (d / "exposure.json").write_text("[[0, 0.03], [0.2, 0.1], [0.3, 0.4]]"), "entry 1"),
    (lambda d: cv2.imwrite(str(d / "background.png"), np.zeros((5, 5, 3))), "background.png is 5 x 5"),
])
def test_broken_sequences_say_what_is_wrong(tmp_path, break_it, message):
    made(tmp_path / "a")
    break_it(tmp_path / "a")
    with pytest.raises(ValueError, match=message):
        read_sequence(tmp_path / "a")


def test_a_frame_of_another_size_is_named(tmp_path):
    made(tmp_path / "a")
    cv2.imwrite(str(tmp_path / "a" / "blur_001.png"), np.zeros((30, 48, 3), np.uint8))
    with pytest.raises(SequenceError, match="frame 1 is 48 x 30"):
        read_sequence(tmp_path / "a")[1]


def test_no_plate_is_allowed(tmp_path):
    made(tmp_path / "a")
    (tmp_path / "a" / "background.png").unlink()
    assert read_sequence(tmp_path / "a").plate is None


@pytest.fixture
def video(tmp_path):
    path = tmp_path / "v.avi"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"MJPG"), 20, (48, 32))
    for i in range(6):
        writer.write(np.full((32, 48, 3), [200, 40 * i, 10], np.uint8))
    writer.release()
    return path


def test_video_frames_open_at_their_times(video):
    found = read_video(video, CAMERA, exposure=0.02)
    frames = list(found)
    assert len(found) == len(frames) == 6
    assert [f.exposure.open for f in frames] == pytest.approx([i / 20 for i in range(6)])
    assert frames[3].exposure.duration == pytest.approx(0.02)
    assert np.abs(frames[4].image[5, 5].astype(int) - [10, 160, 200]).max() < 12, "RGB"
    assert np.array_equal(found[4].image, frames[4].image)
    assert read_video(video, CAMERA).exposures[0].duration == pytest.approx(0.045)


@pytest.mark.parametrize("run", [2, 32])
def test_backwards_shows_every_frame_at_its_mirrored_time(video, run):
    found = read_video(video, CAMERA, exposure=0.02)
    reverse, total = backwards(found)
    reverse.images._run = run
    frames, there = list(found), list(reverse)
    assert len(reverse) == len(there) == 6 and [f.index for f in there] == list(range(6))
    for f, r in zip(frames, there[::-1], strict=True):
        assert np.array_equal(f.image, r.image)
        assert (total - r.exposure.close, total - r.exposure.open) == pytest.approx((f.exposure.open, f.exposure.close))
    assert np.array_equal(reverse[1].image, frames[4].image)
    opens = [f.exposure.open for f in there]
    assert opens == sorted(opens)


def test_a_video_without_calibration_gets_the_camera_that_was_guessed(video):
    camera = guessed_camera(video, 65.0)
    assert (camera.width, camera.height) == (48, 32)
    assert read(video, camera)[0].camera is camera


def test_video_errors(video, tmp_path):
    with pytest.raises(SequenceError, match="frame period"):
        read_video(video, CAMERA, exposure=0.2)
    with pytest.raises(SequenceError, match="--camera FILE .*--fov"):
        read(video)
    with pytest.raises(SequenceError, match="does not exist"):
        read_video(tmp_path / "none.mp4", CAMERA)
    with pytest.raises(SequenceError, match="neither"):
        read(tmp_path / "none.txt")
    (tmp_path / "bad.mp4").write_bytes(b"nothing")
    with pytest.raises(SequenceError, match="bad.mp4"):
        read_video(tmp_path / "bad.mp4", CAMERA)


def test_writing_counts_images_and_exposures(tmp_path):
    with pytest.raises(SequenceError, match="2 images but 1 exposures"):
        write_sequence(tmp_path / "a", np.zeros((2, 32, 48, 3), np.uint8), CAMERA, [Exposure(0, 1)])
    with pytest.raises(SequenceError, match="float"):
        sequence.write_image(tmp_path / "x.png", np.zeros((4, 4, 3)))
