"""Camera, crops, light and exposure against OpenCV, analytic images and hand-made clocks."""

from __future__ import annotations

import json
import time

import cv2
import numpy as np
import pytest

from blur_motion_ros import light
from blur_motion_ros.camera.camera import Camera, Crop, checked_camera
from blur_motion_ros.camera.exposure import (
    ClockJump,
    ExposureModel,
    JumpKind,
    checked_exposures,
    frame_period,
    sequence_exposures,
)
from blur_motion_ros.camera.load import camera_from_info, load_camera
from blur_motion_ros.camera.sampling import crop_map
from blur_motion_ros.camera.settings import CameraSettings

K = np.array([[580.0, 0, 322.3], [0, 575.0, 238.1], [0, 0, 1]])
PLUMB = np.array([-0.28, 0.11, 0.0012, -0.0018, 0.01])
RATIONAL = np.array([0.4, -0.2, 0.001, -0.001, 0.02, 0.7, -0.1, 0.03])
FISHEYE = np.array([0.08, -0.02, 0.004, -0.001])
CAMERAS = {
    "pinhole": Camera(640, 480, K),
    "plumb_bob": camera_from_info(640, 480, K.ravel(), PLUMB, "plumb_bob"),
    "rational": camera_from_info(640, 480, K.ravel(), RATIONAL, "rational_polynomial"),
    "fisheye": camera_from_info(640, 480, K.ravel(), FISHEYE, "equidistant"),
}


def points_in_view(n: int = 200) -> np.ndarray:
    rng = np.random.default_rng(0)
    z = rng.uniform(1.0, 6.0, n)
    return np.stack([rng.uniform(-0.45, 0.45, n) * z, rng.uniform(-0.35, 0.35, n) * z, z], 1)


def brown_conrady(points: np.ndarray, d: np.ndarray) -> np.ndarray:
    """Slow reference of the OpenCV lens model, written from its formula."""
    d = np.concatenate([d, np.zeros(8 - len(d))])
    x, y = points[:, 0] / points[:, 2], points[:, 1] / points[:, 2]
    r2 = x * x + y * y
    radial = (1 + d[0] * r2 + d[1] * r2**2 + d[4] * r2**3) / (1 + d[5] * r2 + d[6] * r2**2 + d[7] * r2**3)
    u = x * radial + 2 * d[2] * x * y + d[3] * (r2 + 2 * x * x)
    v = y * radial + d[2] * (r2 + 2 * y * y) + 2 * d[3] * x * y
    return np.stack([K[0, 0] * u + K[0, 2], K[1, 1] * v + K[1, 2]], 1)


@pytest.mark.parametrize("name, dist", [("pinhole", np.zeros(5)), ("plumb_bob", PLUMB), ("rational", RATIONAL)])
def test_projection_follows_the_lens_formula(name, dist):
    points = points_in_view()
    np.testing.assert_allclose(CAMERAS[name].project(points), brown_conrady(points, dist), atol=1e-6)


def test_fisheye_follows_the_equidistant_formula():
    points = points_in_view()
    x, y = points[:, 0] / points[:, 2], points[:, 1] / points[:, 2]
    r = np.hypot(x, y)
    th = np.arctan(r)
    scale = th * (1 + FISHEYE @ np.stack([th**2, th**4, th**6, th**8])) / r
    expected = np.stack([K[0, 0] * x * scale + K[0, 2], K[1, 1] * y * scale + K[1, 2]], 1)
    np.testing.assert_allclose(CAMERAS["fisheye"].project(points), expected, atol=1e-6)


@pytest.mark.parametrize("name", CAMERAS)
def test_undistort_inverts_project(name):
    points = points_in_view().reshape(10, 20, 3)
    rays = CAMERAS[name].undistort(CAMERAS[name].project(points))
    np.testing.assert_allclose(rays, points[..., :2] / points[..., 2:], atol=1e-6)


@pytest.mark.parametrize("width, height", [(640, 480), (480, 640)])
def test_a_guessed_field_of_view_is_seen_across_the_longer_side(width, height):
    camera = Camera.of_field(width, height, 60.0)
    middle = np.array([(width - 1) / 2, (height - 1) / 2])
    edge = middle + np.where(np.array([width, height]) == 640, 320, 0)
    x, y = camera.undistort(edge)
    assert np.degrees(np.arctan(np.hypot(x, y))) == pytest.approx(30.0)
    assert camera.undistort(middle) == pytest.approx([0, 0])
    with pytest.raises(ValueError, match="between 5 and 150"):
        Camera.of_field(width, height, 180.0)


def test_points_behind_the_camera_have_no_pixel():
    pixels = CAMERAS["plumb_bob"].project(np.array([[0.1, 0.2, -1.0], [0.0, 0.0, 0.0], [0.1, 0.2, 2.0]]))
    assert np.isnan(pixels[:2]).all() and np.isfinite(pixels[2]).all()


def blob_image(camera: Camera, point: np.ndarray, sigma: float = 3.0) -> np.ndarray:
    u, v = camera.project(point)
    y, x = np.mgrid[:camera.height, :camera.width]
    return np.exp(-((x - u) ** 2 + (y - v) ** 2) / (2 * sigma**2)).astype(np.float32)[..., None].repeat(3, 2)


@pytest.mark.parametrize("name", CAMERAS)
@pytest.mark.parametrize("side, size", [(90, 128), (300, 128), (300, 64), (470, 37), (430, 24)])
def test_a_projected_point_lands_at_crop_project(name, side, size):
    camera = CAMERAS[name]
    point = np.array([-0.21, 0.13, 2.5])
    centre = camera.undistorted_pixels(camera.project(point)) + [12.0, -9.0]
    crop = Crop.around(camera, centre, side, size)
    view = crop_map(camera, crop).sample(blob_image(camera, point, 3.0 + side / size))[..., 0].astype(np.float64)
    y, x = np.mgrid[:size, :size]
    found = np.array([(view * x).sum(), (view * y).sum()]) / view.sum()
    np.testing.assert_allclose(found, crop.project(point), atol=0.03 + 0.06 * (camera.distorted))


@pytest.mark.parametrize("side, size", [(300, 128), (470, 64), (640, 24)])
def test_crop_is_the_area_mean_of_linear_light(side, size):
    """Alternating black and white columns average to half the light, not to half the code."""
    camera = CAMERAS["pinhole"]
    image = np.zeros((480, 640, 3), np.uint8)
    image[:, ::2] = 255
    view = crop_map(camera, Crop.around(camera, np.array([320.0, 240.0]), side, size)).sample(image)
    inner = view[size // 3:-size // 3, size // 3:-size // 3]
    assert abs(inner.mean() - 0.5) < 0.01
    assert inner.std() < 0.13, f"aliasing: standard deviation {inner.std():.3f}"


def share_of_boxes(low: float, width: float, count: int, size: int) -> np.ndarray:
    """[count, size]: how much of each box, from `low` in steps of `width`, lies in each pixel; the first and last pixel
    go on for ever."""
    edges = np.r_[-1e9, np.arange(1, size), 1e9]
    left = low + width * np.arange(count)[:, None]
    return np.clip(np.minimum(left + width, edges[1:]) - np.maximum(left, edges[:-1]), 0, None) / width


@pytest.mark.parametrize("centre, side, size", [((320.3, 240.8), 301.0, 128), ((40.0, 470.0), 500.0, 64),
                                                ((600.0, 30.5), 129.0, 128), ((-300.0, 200.0), 200.0, 32)])
def test_a_crop_is_the_exact_mean_over_its_pixels(centre, side, size):
    """Against the plain matrix product, for codes, colours and one channel, inside and beyond the border."""
    camera, rng = CAMERAS["pinhole"], np.random.default_rng(3)
    crop = Crop.around(camera, np.array(centre), side, size)
    codes = rng.integers(0, 256, (480, 640, 3), dtype=np.uint8)
    scale = np.diag(camera.K)[:2] / np.diag(crop.K)[:2]
    first = camera.K[:2, 2] + 0.5 - scale * (crop.K[:2, 2] + 0.5)  # edge of the first pixel; the image's is 0
    across, down = (share_of_boxes(first[i], scale[i], size, n) for i, n in ((0, 640), (1, 480)))
    linear = light.to_linear(codes).astype(np.float64)
    expected = np.einsum("iy,yxc,jx->ijc", down, linear, across, optimize=True)
    view = crop_map(camera, crop)
    np.testing.assert_allclose(view.sample(codes), expected, atol=2e-6)
    np.testing.assert_allclose(view.sample(linear.astype(np.float32)), expected, atol=2e-6)
    np.testing.assert_allclose(view.sample(linear[..., 1].astype(np.float32)), expected[..., 1], atol=2e-6)


def test_crop_keeps_a_plane_exact_and_marks_what_is_outside():
    camera = CAMERAS["pinhole"]
    y, x = np.mgrid[:480, :640]
    plane = (0.001 * x + 0.0005 * y).astype(np.float32)
    crop = Crop.around(camera, np.array([600.0, 100.0]), 200.0, 80)
    view, where = crop_map(camera, crop).sample(plane), crop_map(camera, crop)
    u, v = where.centres
    inside = where.valid & (u > 2) & (u < 636) & (v > 2)
    np.testing.assert_allclose(view[inside], (0.001 * u + 0.0005 * v)[inside], atol=2e-4)
    assert not where.valid[:, -16:].any() and where.valid[:, :55].all()


def test_crop_colour_channels_and_wrong_size():
    camera = CAMERAS["plumb_bob"]
    image = np.full((480, 640, 3), (255, 188, 0), np.uint8)
    view = crop_map(camera, Crop.around(camera, np.array([320.0, 240.0]), 100.0, 32)).sample(image)
    np.testing.assert_allclose(view.reshape(-1, 3).mean(0), [1.0, 0.5029, 0.0], atol=1e-3)
    with pytest.raises(ValueError, match="320 x 240.*640 x 480"):
        crop_map(camera, Crop.around(camera, np.array([320.0, 240.0]), 100.0, 32)).sample(image[::2, ::2])


@pytest.mark.parametrize("name", CAMERAS)
def test_sample_affine_places_the_mask_where_the_image_is(name):
    camera = CAMERAS[name]
    mask_to_image = np.array([[1.1, -0.3, 150.0], [0.3, 1.1, 40.0]])
    y, x = np.mgrid[:256, :256]
    mask = np.exp(-((x - 140) ** 2 + (y - 110) ** 2) / (2 * 12.0**2)).astype(np.float32)
    pixel = mask_to_image @ [140, 110, 1]
    crop = Crop.around(camera, camera.undistorted_pixels(pixel) + [5, 8], 250, 96)
    view = crop_map(camera, crop).sample_affine(mask, mask_to_image).astype(np.float64)
    y, x = np.mgrid[:96, :96]
    found = np.array([(view * x).sum(), (view * y).sum()]) / view.sum()
    ray = np.append(camera.undistort(pixel), 1.0)
    np.testing.assert_allclose(found, crop.project(ray), atol=0.15)
    assert view.max() > 0.95
    far = crop_map(camera, crop).sample_affine(mask, np.array([[1.0, 0, 2000], [0, 1, 2000]]))
    assert far.max() == 0.0


@pytest.mark.parametrize("name", ["plumb_bob", "rational", "fisheye"])
@pytest.mark.parametrize("centre, side, size", [((320.0, 240.0), 400.0, 128), ((120.0, 380.0), 200.0, 64),
                                                ((520.0, 100.0), 90.0, 128)])
def test_a_crop_through_a_lens_is_the_mean_over_its_pixels(name, centre, side, size):
    """Against 7 x 7 exactly projected bilinear samples per crop pixel, of smooth noise; near the corners too,
    where the lens turns and stretches the pixels' areas, and in a crop that is finer than the source."""
    camera, rng = CAMERAS[name], np.random.default_rng(5)
    image = cv2.GaussianBlur(rng.uniform(0, 1, (480, 640, 3)).astype(np.float32), (0, 0), 1.5)
    crop = Crop.around(camera, np.array(centre), side, size)
    y, x = (np.mgrid[:7 * size, :7 * size] + 0.5) / 7 - 0.5
    rays = np.stack([x, y, np.ones_like(x)], -1) @ np.linalg.inv(crop.K).T
    at = camera.project(rays).astype(np.float32)
    samples = cv2.remap(image, at[..., 0], at[..., 1], cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    expected = samples.reshape(size, 7, size, 7, 3).mean((1, 3))
    view = crop_map(camera, crop).sample(image)
    rms = np.sqrt(((view - expected) ** 2).mean())
    assert rms < 0.05 * expected.std(), f"rms {rms:.5f} of {expected.std():.5f}"


def test_a_crop_reaches_beyond_where_the_lens_model_makes_sense():
    """A rational model with a pole at 0.7 of the focal length: what lies there is some pixel, soon and finite."""
    camera = camera_from_info(640, 480, K.ravel(), np.array([0.0, 0, 0, 0, 0, -2.0, 0, 0]), "rational_polynomial")
    image = np.random.default_rng(0).uniform(0.2, 0.8, (480, 640, 3)).astype(np.float32)
    view = crop_map(camera, Crop.around(camera, np.array([600.0, 240.0]), 900.0, 64))
    found = view.sample(image)
    assert (found > 0.19).all() and (found < 0.81).all()
    assert np.ptp(view.x) > 1e4  # that it is so far off


@pytest.mark.parametrize("name", CAMERAS)
def test_a_300_px_box_is_cropped_to_128_px_in_little_time(name):
    camera, image = CAMERAS[name], np.random.default_rng(0).integers(0, 255, (480, 640, 3), np.uint8)
    times = []
    for _ in range(30):
        start = time.process_time()
        crop_map(camera, Crop.around(camera, np.array([300.0, 250.0]), 300.0, 128)).sample(image)
        times.append(time.process_time() - start)
    assert np.median(times) < 5e-3, f"median {np.median(times) * 1e3:.2f} ms"


def test_scaled_and_windowed_cameras_match_resized_images():
    camera, points = CAMERAS["plumb_bob"], points_in_view()
    pixels = camera.project(points)
    np.testing.assert_allclose(camera.scaled(320, 240).project(points), (pixels + 0.5) / 2 - 0.5, atol=1e-9)
    np.testing.assert_allclose(camera.window(40, 30, 400, 300).project(points), pixels - [40, 30], atol=1e-9)


def test_info_with_binning_and_roi():
    camera = camera_from_info(640, 480, K.ravel(), PLUMB, "plumb_bob", binning=(2, 2), roi=(100, 60, 400, 300))
    points = points_in_view()
    expected = (CAMERAS["plumb_bob"].project(points) - [100, 60] + 0.5) / 2 - 0.5
    assert (camera.width, camera.height) == (200, 150)
    np.testing.assert_allclose(camera.project(points), expected, atol=1e-9)


@pytest.mark.parametrize("change, message", [
    (dict(K=np.zeros(9)), "not calibrated"),
    (dict(K=K.ravel()[:8]), "K has 8 values"),
    (dict(K=K.T.ravel()), "transposed"),
    (dict(K=np.full(9, np.nan)), "K holds NaN"),
    (dict(K=["a"] * 9), "K is not numeric"),
    (dict(width=0), "width and height must be positive"),
    (dict(width=64, height=48), "another resolution"),
    (dict(D=[0.1, 0.2]), "D has 2 values"),
    (dict(D=[0.1] * 5, distortion_model="equidistant"), "D has 5 values"),
    (dict(distortion_model="scaramuzza"), "distortion_model is 'scaramuzza'"),
    (dict(roi=(600, 0, 100, 100)), "roi"),
])
def test_bad_info_names_the_field(change, message):
    values = dict(width=640, height=480, K=K.ravel(), D=PLUMB, distortion_model="plumb_bob") | change
    with pytest.raises(ValueError, match=message):
        camera_from_info(**values)


YAML = """image_width: 640
image_height: 480
camera_name: narrow
camera_matrix: {rows: 3, cols: 3, data: [580.0, 0.0, 322.3, 0.0, 575.0, 238.1, 0.0, 0.0, 1.0]}
distortion_model: plumb_bob
distortion_coefficients: {rows: 1, cols: 5, data: [-0.28, 0.11, 0.0012, -0.0018, 0.01]}
"""
TOML = """[cam_1]
name = "cam_1"
size = [ 640, 480]
matrix = [ [ 580.0, 0.0, 322.3], [ 0.0, 575.0, 238.1], [ 0.0, 0.0, 1.0]]
distortions = [ -0.28, 0.11, 0.0012, -0.0018]
rotation = [ 1.2, 1.2, -1.2]
fisheye = false
[metadata]
error = 0.0
"""


def test_files_give_the_same_camera(tmp_path):
    (tmp_path / "camera.yaml").write_text(YAML)
    (tmp_path / "calib.toml").write_text(TOML)
    (tmp_path / "meta.json").write_text(json.dumps(dict(width=640, height=480, K=K.tolist(), dist=PLUMB[:4].tolist())))
    points = points_in_view()
    np.testing.assert_allclose(load_camera(tmp_path / "camera.yaml").project(points), brown_conrady(points, PLUMB),
                               atol=1e-6)
    for name in ("calib.toml", "meta.json"):
        np.testing.assert_allclose(load_camera(tmp_path / name).project(points), brown_conrady(points, PLUMB[:4]),
                                   atol=1e-6)


@pytest.mark.parametrize("name, text, message", [
    ("a.yaml", YAML.replace("image_width", "w"), "field 'image_width' is missing"),
    ("a.yaml", YAML.replace("data: [580.0", "data: [-580.0"), "focal lengths"),
    ("a.yaml", "- 1\n- 2\n", "named fields"),
    ("a.yaml", "a: [", "camera_info YAML"),
    ("a.toml", "[x]\ny = 1\n", "0 cameras"),
    ("a.toml", "= 3", "not valid TOML"),
    ("a.json", "{", "not valid JSON"),
    ("a.json", "{}", "'width' is missing"),
    ("a.txt", "", "suffix"),
])
def test_bad_files_are_named(tmp_path, name, text, message):
    (tmp_path / name).write_text(text)
    with pytest.raises(ValueError, match=message):
        load_camera(tmp_path / name)


def test_missing_file_and_direct_validation():
    with pytest.raises(ValueError, match="does not exist"):
        load_camera("nowhere.yaml")
    with pytest.raises(ValueError, match="3 distortion coefficients"):
        checked_camera(640, 480, K, [0, 0, 0])


def test_light_round_trip_and_known_values():
    codes = np.arange(256, dtype=np.uint8)
    for response in ("srgb", "linear", "2.2"):
        np.testing.assert_array_equal(light.to_codes(light.to_linear(codes, response), response)[2:], codes[2:])
    assert abs(light.to_linear(np.array([188], np.uint8))[0] - 0.5029) < 1e-3
    assert abs(light.to_linear(np.array([128], np.uint8), "2.2")[0] - (128 / 255) ** 2.2) < 1e-6
    image = np.random.default_rng(0).integers(0, 255, (5, 7, 3), np.uint8)
    np.testing.assert_array_equal(light.to_linear(image), light.decode_table()[image])
    np.testing.assert_allclose(light.slope(np.array([0.5]), "linear"), 1 / 255, rtol=1e-4)
    with pytest.raises(ValueError, match="response is 'film'"):
        light.to_linear(image, "film")
    with pytest.raises(ValueError, match="uint8"):
        light.to_linear(image.astype(np.float32))


@pytest.mark.parametrize("reference, before", [("start", 0.0), ("middle", 0.5), ("end", 1.0)])
def test_reference_places_the_exposure(reference, before):
    model = ExposureModel(CameraSettings(exposure=0.02, reference=reference))
    exposure = model.interval(10.0)
    assert exposure.open == pytest.approx(10.0 - before * 0.02) and exposure.duration == pytest.approx(0.02)


def test_duty_follows_the_measured_period_through_drops_and_jitter():
    rng = np.random.default_rng(1)
    index = np.flatnonzero(rng.random(80) > 0.3)
    model = ExposureModel(CameraSettings(duty=0.5, rate=100.0))
    for i in index:
        exposure = model.interval(i / 25.0 + rng.normal(0, 0.001))
    assert model.period == pytest.approx(0.04, abs=0.0007)
    assert exposure.duration == pytest.approx(0.02, abs=0.0004)
    assert model.gap == pytest.approx(0.02, abs=0.0004)


def test_frame_period_needs_time_to_pass():
    assert frame_period([0.1, 0.2, 0.1, 0.3, 0.1]) == pytest.approx(0.1)
    with pytest.raises(ValueError, match="two frames"):
        frame_period([0.0, -1.0])


def test_clock_signals():
    model = ExposureModel(CameraSettings(exposure=0.01, max_gap=1.0))
    kinds = []
    for stamp in (0.0, 0.1, 0.1, 0.05, 0.2, 5.0, 5.1, 4.9, 4.93, 5.0, 0.0, float("nan"), 0.1):
        try:
            model.interval(stamp)
            kinds.append(None)
        except ClockJump as jump:
            kinds.append(jump.kind)
            assert jump.flush == (jump.kind in (JumpKind.FORWARD, JumpKind.BACKWARD))
            if jump.flush:
                assert jump.exposure.open == pytest.approx(stamp)
    j = JumpKind
    assert kinds == [None, None, j.DUPLICATE, j.LATE, None, j.FORWARD, None, j.LATE, j.BACKWARD, None, j.BACKWARD,
                     j.INVALID, None]


def test_fixed_exposure_never_exceeds_the_measured_period():
    model = ExposureModel(CameraSettings(exposure=0.05))
    for i in range(10):
        exposure = model.interval(i / 30.0)
    assert exposure.duration == pytest.approx(1 / 30.0) and model.gap == 0.0


def test_sequence_exposures(tmp_path):
    (tmp_path / "meta.json").write_text(json.dumps(dict(fps=25.0, duty=0.5, n=3)))
    assert [e.open for e in sequence_exposures(tmp_path)] == pytest.approx([0.0, 0.04, 0.08])
    assert sequence_exposures(tmp_path)[2].close == pytest.approx(0.1)
    np.savez(tmp_path / "gt.npz", exposure=np.array([[0.0, 0.03], [0.033, 0.063]]))
    assert sequence_exposures(tmp_path)[1].open == pytest.approx(0.033)
    (tmp_path / "exposure.json").write_text("[[1.0, 1.01], [1.5, 1.52], [2.0, 2.01]]")
    assert [e.duration for e in sequence_exposures(tmp_path)] == pytest.approx([0.01, 0.02, 0.01])
    for rows, message in (([[0, 0]], "close must follow open"), ([[1, 2], [0, 1]], "time order"), ([1, 2], "shape"),
                          ("x", "list of"), ([[0, float("nan")]], "close must follow")):
        with pytest.raises(ValueError, match=message):
            checked_exposures(rows)


def test_opencv_agrees_on_undistortion_of_an_image():
    """The crop equals cv2.undistort of the whole image where they show the same pixels at the same scale."""
    camera = CAMERAS["plumb_bob"]
    smooth = cv2.GaussianBlur(np.random.default_rng(3).random((480, 640, 3)).astype(np.float32), (0, 0), 6)
    whole = cv2.undistort(smooth, K, PLUMB)
    crop = Crop.around(camera, np.array([319.5, 239.5]), 300, 300)
    view = crop_map(camera, crop).sample(smooth)
    np.testing.assert_allclose(view, whole[90:390, 170:470], atol=2e-3)
