"""The demo's own parts: the slow shutter against a known scene, the pictures, the check of the results."""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np
import pytest

from blur_motion_ros import light
from blur_motion_ros.camera.camera import Camera
from blur_motion_ros.demo import check, command, results
from blur_motion_ros.demo.live import Usage
from blur_motion_ros.demo.results import Run
from blur_motion_ros.demo.stream import Shutter, blurred, clean_plate
from blur_motion_ros.evaluation import overlay
from blur_motion_ros.evaluation.overlay import Shown, View
from blur_motion_ros.types import Status

SPEED = 6  # px per video frame
CAMERA = Camera(320, 240, np.array([[300.0, 0, 160], [0, 300.0, 120], [0, 0, 1]]))


class Scroll:
    """A textured square moving right at SPEED px per frame over a textured wall; looks like a VideoFile."""

    fps = 30.0

    def __init__(self, count: int = 9) -> None:
        rng = np.random.default_rng(3)
        self.wall = cv2.GaussianBlur(rng.integers(0, 120, (96, 160, 3)).astype(np.uint8), (0, 0), 2)
        self.patch = cv2.GaussianBlur(rng.integers(0, 255, (40, 40, 3)).astype(np.uint8), (0, 0), 1.5) // 2 + 120
        self._count = count

    def __len__(self) -> int:
        return self._count

    def left(self, time: float) -> float:
        return 20 + SPEED * time

    def at(self, time: float) -> np.ndarray:
        image = self.wall.copy()
        x = round(self.left(time))
        image[28:68, x:x + 40] = self.patch
        return image

    def __iter__(self):
        return (self.at(i) for i in range(self._count))


def truth(scene: Scroll, shutter: Shutter, period: int) -> np.ndarray:
    """Linear-light mean of exactly rendered images (whole pixels) over the open part of an exposure."""
    times = (period + shutter.duty * (np.arange(60) + 0.5) / 60) * shutter.frames
    return np.mean([light.to_linear(scene.at(t)) for t in times], 0)


def test_slow_shutter_is_the_linear_mean_over_the_open_part():
    scene, shutter = Scroll(), Shutter(window=(0, 0, 160, 96), size=(160, 96))
    images = list(blurred(scene, shutter, 4))
    assert len(images) == 4
    for i, image in enumerate(images):
        expected = truth(scene, shutter, i)
        error = np.abs(light.to_linear(image) - expected)[30:66]
        sharp = np.abs(light.to_linear(scene.at(2 * i)) - expected)[30:66]
        assert error.mean() < 0.25 * sharp.mean(), f"frame {i}: {error.mean():.4f} against {sharp.mean():.4f}"
        # averaging code values instead of light would be darker in the mixed zone
        mixed = np.s_[30:66, round(scene.left(2 * i)) + 1:round(scene.left(2 * i)) + 10]
        codes = np.mean([scene.at((i + 0.9 * (k + 0.5) / 60) * 2) for k in range(60)], 0)
        wrong = light.to_linear(np.rint(codes).astype(np.uint8))[mixed]
        bias = light.to_linear(image)[mixed].mean() - expected[mixed].mean()
        assert abs(bias) < 0.5 * abs(wrong.mean() - expected[mixed].mean())


def test_clean_plate_is_the_empty_scene():
    scene = Scroll(16)  # the square covers no pixel for more than seven frames
    plate = clean_plate(scene, Shutter(window=(0, 0, 160, 96), size=(160, 96)), every=1)
    difference = np.abs(plate.astype(int) - scene.wall)
    assert np.median(difference) == 0 and (difference.max(-1) > 8).mean() < 0.01


def person(x: float = 0.0) -> Shown:
    """A fake body: 24 joints in a column at depth 3 m, and a triangle as its mesh at opening and closing."""
    column = np.stack([np.full(24, x), np.linspace(-0.8, 0.8, 24), np.full(24, 3.0)], -1)
    joints = np.stack([column, column + [0.3, 0, 0]])
    mesh = np.array([[x - 0.2, -0.5, 3.0], [x + 0.2, -0.5, 3.0], [x, 0.5, 3.0]])
    return Shown(joints, np.stack([np.zeros(24), np.full(24, 6.0)]), (mesh, mesh + [0.8, 0, 0]),
                 np.array([[0, 1, 2]]), Status.OK, 1.5)


def test_meshes_are_drawn_where_they_project_and_in_their_colours():
    black = np.zeros((240, 320, 3), np.uint8)
    picture = overlay.draw_meshes(black, CAMERA, person(), 0.5).astype(int)
    opening = np.argwhere(picture[..., 2] > picture[..., 0] + 20)
    closing = np.argwhere(picture[..., 0] > picture[..., 2] + 20)
    expected = CAMERA.project(np.array([[0.0, -0.5 / 3, 3.0], [0.8, -0.5 / 3, 3.0]]))
    np.testing.assert_allclose(opening.mean(0)[::-1], expected[0], atol=1.5)
    np.testing.assert_allclose(closing.mean(0)[::-1], expected[1], atol=1.5)


def test_what_is_distrusted_is_drawn_grey():
    black = np.zeros((240, 320, 3), np.uint8)
    doubted = replace(person(), status=Status.POOR_FIT)
    for picture in (overlay.draw_meshes(black, CAMERA, doubted), overlay.draw_skeleton(black, CAMERA, doubted),
                    overlay.draw_trails(black, CAMERA, [doubted])):
        assert picture.any() and (np.ptp(picture.astype(int), axis=-1) <= 1).all()
    assert np.ptp(overlay.draw_skeleton(black, CAMERA, person()).astype(int), axis=-1).max() > 50


def test_the_sheet_shows_what_is_trusted_and_moves_as_a_whole():
    def shown(fastest: float, others: float, status: Status) -> Shown:
        return replace(person(), speeds=np.tile(np.r_[fastest, np.full(23, others)], (2, 1)), status=status)

    outlier, moving, lost = shown(40, 0, Status.OK), shown(3, 3, Status.OK), shown(9, 9, Status.POOR_FIT)
    assert command._most_telling([outlier, moving, lost, None, lost, shown(5, 5, Status.OCCLUDED)], rows=2) == [1, 4]


def test_the_fastest_joint_is_that_of_a_frame_that_is_trusted():
    run = Run(statuses={1: {"status": "OK", "blur_rate": "0.2"}})
    lost = replace(person(), speeds=np.full((2, 24), 28.0), status=Status.POOR_FIT, time=6.93)
    lines = results._body_lines(run, [person(), lost])
    assert lines[0].startswith("Fastest joint: 6.0 m/s at 1.50 s (of the 1 frames that are trusted)")
    assert "28.0 m/s at 6.93 s (no frame is trusted)" in results._body_lines(run, [lost])[0]


def test_views_enlarge_without_moving_anything():
    view = View.around(CAMERA, person().joints, (400, 400))
    small = view.camera(CAMERA)
    image = np.zeros((240, 320, 3), np.uint8)
    u, v = np.rint(CAMERA.project(np.array([0.1, 0.2, 3.0]))).astype(int)
    image[v, u] = 255
    found = np.argwhere(view.image(image)[..., 0] > 128).mean(0)[::-1]
    ray = CAMERA.undistort(np.array([u, v], float))
    np.testing.assert_allclose(found, small.project(np.array([*ray, 1.0])), atol=0.8)
    x, y, w, h = view.window
    assert x >= 0 and y >= 0 and x + w <= 320 and y + h <= 240


def test_pictures_of_nobody_and_of_people_behind_the_camera_do_not_fail():
    nobody = Shown(None, None, None, None, Status.LOST, 0.0)
    behind = person()
    behind = Shown(behind.joints * [1, 1, -1], behind.speeds, behind.meshes, behind.faces, Status.POOR_FIT, 0.0)
    image = np.full((240, 320, 3), 90, np.uint8)
    for trail in ([nobody], [person(), nobody], [behind]):
        picture = overlay.frame_picture(image, CAMERA, trail, View.whole(CAMERA))
        assert picture.shape == (720, 960, 3)
    with pytest.raises(ValueError, match="no frame with a body"):
        overlay.contact_sheet([])


def test_contact_sheet_has_a_row_per_frame():
    image = np.full((240, 320, 3), 90, np.uint8)
    sheet = overlay.contact_sheet([(image, CAMERA, person()), (image, CAMERA, person(0.3))], (200, 150))
    assert sheet.shape == (34 + 2 * 150, 600, 3)


def test_overlay_video_is_h264_at_the_given_rate(tmp_path):
    import av

    overlay.write_video(tmp_path / "v.mp4", (np.full((120, 160, 3), 10 * i, np.uint8) for i in range(12)), 15.0)
    with av.open(str(tmp_path / "v.mp4")) as container:
        stream = container.streams.video[0]
        assert stream.codec_context.name in ("h264", "mpeg4") and float(stream.average_rate) == 15.0
        levels = [f.to_ndarray(format="rgb24").mean() for f in container.decode(video=0)]
    np.testing.assert_allclose(levels, 10 * np.arange(12), atol=4)


def test_check_names_what_is_missing(tmp_path):
    assert "overlay.mp4" in check.problems(tmp_path)[0]


class Plays:
    """What `demo.command` sees of live runs: at a pace, of 44 frames so many estimated."""

    def __init__(self, *estimated: int) -> None:
        self.paces: list[float] = []
        self._estimated = list(estimated)

    def __call__(self, pace: float) -> tuple[Run, Usage]:
        self.paces.append(pace)
        run = Run(played=list(range(44)), trajectories={i: None for i in range(self._estimated.pop(0))})
        return run, Usage(0.0, 0.0, 0.0, pace)


@pytest.mark.parametrize("estimated, paces", [((40,), [1.0]), ((22,), [1.0]), ((21, 40), [1.0, 0.7 * 21 / 44]),
                                              ((3, 30), [1.0, 0.1]), ((0, 0), [1.0, 0.1])])
def test_demo_plays_again_slower_where_real_time_was_too_fast(estimated, paces):
    plays, said = Plays(*estimated), []
    run, usage = command._unhurried(plays, said.append)
    assert plays.paces == pytest.approx(paces) and usage.pace == plays.paces[-1]
    assert len(run.trajectories) == estimated[-1]
    assert [f"only {estimated[0]} of 44 frames" in s for s in said] == [True] * (len(paces) - 1)
