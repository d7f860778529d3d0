"""Clean plate: buffer, capture, running estimate, drift, staleness; on made scenes with known answers."""

from __future__ import annotations

import threading
import time

import cv2
import numpy as np
import pytest

from blur_motion_ros import light
from blur_motion_ros.background import BackgroundModel, BackgroundSettings, CaptureError, FrameBuffer, PlateStatus
from blur_motion_ros.background.model import person_mask
from blur_motion_ros.background.recorded import Sample, plate_of, sample_count
from blur_motion_ros.camera.camera import Camera
from blur_motion_ros.types import UNKNOWN_BACKGROUND, Exposure, Frame, Landmarks

H, W = 120, 160
CAMERA = Camera(W, H, np.array([[150.0, 0, 79.5], [0, 150, 59.5], [0, 0, 1]]))


def scene(seed: int = 0) -> np.ndarray:
    """[H, W, 3] linear light: smooth colours with some texture, away from black and white."""
    rng = np.random.default_rng(seed)
    smooth = cv2.resize(rng.uniform(0.05, 0.6, (5, 6, 3)).astype(np.float32), (W, H), interpolation=cv2.INTER_CUBIC)
    return np.clip(smooth + rng.normal(0, 0.015, (H, W, 1)), 0.02, 0.7).astype(np.float32)


def shot(linear: np.ndarray, rng: np.random.Generator, noise: float = 1.5) -> np.ndarray:
    return np.clip(light.to_codes(linear) + rng.normal(0, noise, linear.shape), 0, 255).round().astype(np.uint8)


def stamped(image: np.ndarray, index: int, rate: float = 10.0) -> Frame:
    return Frame(image, Exposure(index / rate, index / rate + 0.03), CAMERA, index)


def with_person(linear: np.ndarray, x: int, colour: tuple = (0.8, 0.1, 0.1)) -> tuple[np.ndarray, np.ndarray]:
    """Scene with an opaque body 24 px wide, and its mask a little too small."""
    image, mask = linear.copy(), np.zeros((H, W), np.float32)
    image[30:110, x:x + 24] = colour
    mask[32:108, x + 2:x + 22] = 1.0
    return image, mask


def test_buffer_newest_wins_and_counts_drops():
    buffer = FrameBuffer()
    assert buffer.get(timeout=0.0) is None
    for i in range(5):
        buffer.put(i)
    assert buffer.get(timeout=0.0) == 4 and buffer.get(timeout=0.0) is None
    assert (buffer.received, buffer.dropped) == (5, 4)


def test_buffer_wakes_waiting_threads_and_close_ends_them():
    buffer, got = FrameBuffer(), []
    thread = threading.Thread(target=lambda: got.extend([buffer.get(5.0), buffer.get(5.0)]))
    thread.start()
    buffer.put("a")
    while not got and buffer.received and thread.is_alive() and buffer._full:
        time.sleep(0.001)
    buffer.close()
    thread.join(2.0)
    assert not thread.is_alive() and got[0] in ("a", None) and got[1] is None
    buffer.put("b")
    assert buffer.get(0.0) is None


def test_capture_averages_noise_and_measures_it():
    rng, linear = np.random.default_rng(0), scene()
    model = BackgroundModel()
    model.capture([shot(linear, rng, 3.0) for _ in range(20)])
    plate = model.plate(shot(linear, rng, 3.0))
    codes = light.to_codes(linear).astype(float)
    error = light.to_codes(plate.image).astype(float) - codes
    assert np.sqrt((error**2).mean()) < 1.3, f"rms {np.sqrt((error ** 2).mean()):.2f} codes; one frame has 3"
    measured = np.median(plate.sigma / light.slope(plate.image.mean(2)))
    assert 2.4 < measured < 3.9, f"noise measured as {measured:.2f} codes, true 3"


def test_capture_refuses_motion_and_keeps_the_old_plate():
    rng, linear = np.random.default_rng(0), scene()
    model = BackgroundModel()
    model.set_plate(shot(linear, rng, 0.0))
    with pytest.raises(CaptureError, match=r"moved.*x 2\d\.\.\d+, y 3\d\.\.10\d.*capture again"):
        model.capture([shot(with_person(linear, 20 + 3 * i)[0], rng) for i in range(12)])
    np.testing.assert_allclose(light.to_codes(model.plate(shot(linear, rng)).image), light.to_codes(linear), atol=6)
    with pytest.raises(CaptureError, match="too few"):
        model.capture([shot(linear, rng)])


def test_capture_tolerates_mains_flicker():
    rng, linear = np.random.default_rng(0), scene()
    model = BackgroundModel()
    model.capture([np.clip(shot(linear, rng).astype(int) + 6 * (i % 2), 0, 255).astype(np.uint8) for i in range(12)])
    assert model.status is PlateStatus.READY


def test_a_person_standing_still_under_the_mask_is_never_absorbed():
    rng, linear = np.random.default_rng(1), scene()
    model = BackgroundModel(BackgroundSettings(settle=0.5, replace=2.0))
    image, mask = with_person(linear, 60)
    for i in range(150):  # 15 s, far longer than settle and replace
        model.update(stamped(shot(image, rng), i), mask)
    plate = model.plate(stamped(shot(image, rng), 150))
    body = mask > 0.5
    assert (plate.sigma[body] > 0.5).all(), "what is behind the person is not known and must say so"
    away = cv2.dilate(mask, np.ones((31, 31))) == 0
    assert np.abs(plate.image - linear)[away].max() < 0.05
    for i in range(151, 200):  # the person walks away: now it can be seen
        model.update(stamped(shot(linear, rng), i), np.zeros((H, W), np.float32))
    plate = model.plate(stamped(shot(linear, rng), 200))
    assert model.status is PlateStatus.READY
    assert np.abs(plate.image - linear)[body].max() < 0.06 and plate.sigma[body].max() < 0.05


def test_a_person_walking_without_any_mask_is_not_learned():
    rng, linear = np.random.default_rng(2), scene()
    model = BackgroundModel()
    for i in range(60):
        image, _ = with_person(linear, 2 * i % 130)
        model.update(stamped(shot(image, rng), i), None)
    for i in range(60, 130):
        model.update(stamped(shot(linear, rng), i), None)
    plate = model.plate(stamped(shot(linear, rng), 130))
    assert model.known > 0.99
    wrong = (np.abs(plate.image - linear).max(2) > 0.08) & (plate.sigma < 0.5)
    assert wrong.mean() < 0.002, f"{100 * wrong.mean():.2f} % of the plate shows the person"


def test_a_known_plate_does_not_absorb_someone_the_network_misses():
    rng, linear = np.random.default_rng(3), scene()
    model = BackgroundModel(BackgroundSettings(replace=1.0))
    model.set_plate(light.to_codes(linear))
    image, _ = with_person(linear, 60)
    for i in range(80):
        model.update(stamped(shot(image, rng), i), None)
    assert np.abs(model.plate(stamped(shot(image, rng), 80)).image - linear).max() < 0.08


def test_moved_furniture_is_learned_after_a_while():
    rng, linear = np.random.default_rng(4), scene()
    model = BackgroundModel(BackgroundSettings(replace=2.0))
    model.set_plate(light.to_codes(linear))
    changed, nobody = linear.copy(), np.zeros((H, W), np.float32)
    changed[40:70, 100:130] = (0.1, 0.5, 0.2)
    for i in range(15):
        model.update(stamped(shot(changed, rng), i), nobody)
    assert np.abs(model.plate(stamped(shot(changed, rng), 15)).image - linear).max() < 0.08, "too early"
    for i in range(16, 40):
        model.update(stamped(shot(changed, rng), i), nobody)
    assert np.abs(model.plate(stamped(shot(changed, rng), 40)).image - changed).max() < 0.08


def test_what_is_learned_does_not_depend_on_where_the_clock_starts_or_that_it_jumped_back():
    empty, nobody = scene(), np.zeros((H, W), np.float32)
    changed = empty.copy()
    changed[40:70, 100:130] = (0.1, 0.5, 0.2)

    def learned(opens: np.ndarray) -> np.ndarray:
        rng, model = np.random.default_rng(4), BackgroundModel(BackgroundSettings(replace=2.0))
        model.set_plate(light.to_codes(empty))
        for i, t in enumerate(opens.tolist()):
            model.update(Frame(shot(changed, rng), Exposure(t, t + 0.03), CAMERA, i), nobody)
        return model._plate

    times = np.arange(40) / 8.0
    plate = learned(times)
    assert np.abs(plate - changed).max() < 0.08
    np.testing.assert_array_equal(learned(times + 4096.0), plate)
    assert np.abs(learned(np.where(times < 1.0, times + 4096.0, times)) - changed).max() < 0.08


@pytest.mark.parametrize("rate", [10.0, 30.0, 60.0])
def test_learning_takes_the_same_time_at_any_frame_rate(rate):
    """At high rates the rows take turns: all of a new picture on the wall is learned, after `replace` seconds."""
    rng, empty = np.random.default_rng(11), scene()
    changed = empty.copy()
    changed[20:61, 30:71] += 0.2
    model = BackgroundModel(BackgroundSettings(replace=0.8))
    model.set_plate(light.to_codes(empty))
    nobody, taken = np.zeros((H, W), np.float32), []
    for i in range(round(1.6 * rate)):
        model.update(stamped(shot(changed, rng), i, rate), nobody)
        close = np.abs(model._plate - changed).max(2) < 0.1
        taken.append(close[20:61, 30:71].mean())
    assert taken[round(0.7 * rate)] < 0.05 and taken[-1] > 0.98
    assert close[20:61, 30:71].mean(1).min() > 0.8  # no row is forgotten


def walk_past(linear: np.ndarray, places: list[int | None], shake: int = 0) -> list[Sample]:
    """Samples of somebody at these columns (None: not there), every 0.2 s; the camera jumps by `shake` px."""
    rng, samples = np.random.default_rng(5), []
    for i, x in enumerate(places):
        image, mask = (linear, None) if x is None else with_person(linear, x)
        image = np.roll(image, shake * (i % 3), 1)
        person = None if mask is None else person_mask(mask, (H, W), 0.03)
        samples.append(Sample(0.2 * i, shot(image, rng), person))
    return samples


def test_a_recording_gives_its_own_plate():
    linear = scene()
    plate = plate_of(walk_past(linear, [10 + 5 * i for i in range(24)]), BackgroundSettings())
    assert plate.known.mean() > 0.98
    assert np.abs(light.to_linear(plate.image) - linear)[plate.known].max() < 0.05


def test_what_somebody_always_hides_in_a_recording_stays_unknown():
    linear = scene()
    plate = plate_of(walk_past(linear, [60 + i % 4 for i in range(24)]), BackgroundSettings())
    _, body = with_person(linear, 61)
    assert not plate.known[body > 0.5].any()
    away = cv2.dilate(body, np.ones((41, 41))) == 0
    assert plate.known[away].all()
    model = BackgroundModel()
    model.set_plate(plate.image, plate.known)
    told = model.plate(light.to_codes(linear))
    assert (told.sigma[~plate.known] > UNKNOWN_BACKGROUND).all() and (told.sigma[away] < 0.1).all()


def test_somebody_overlooked_for_a_moment_is_not_taken_for_background():
    samples = walk_past(scene(), [60] * 20)
    overlooked = [s._replace(person=None) if 8 <= i < 12 else s for i, s in enumerate(samples)]
    plate = plate_of(overlooked, BackgroundSettings())
    _, body = with_person(scene(), 60)
    assert not plate.known[body > 0.5].any()


def test_an_empty_scene_before_somebody_comes_in_counts():
    linear = scene()
    plate = plate_of(walk_past(linear, [None] * 12 + [60] * 12), BackgroundSettings())
    assert plate.known.all() and np.abs(light.to_linear(plate.image) - linear).max() < 0.06


def test_a_plate_of_large_images_takes_fewer_of_them():
    assert sample_count(640, 480) == sample_count(1920, 1080) == 40
    assert 8 <= sample_count(3840, 2160) < 20 and sample_count(20000, 20000) == 8


def test_no_plate_of_a_camera_that_moves_or_of_two_frames():
    assert plate_of(walk_past(scene(), [10 + 5 * i for i in range(24)], shake=12), BackgroundSettings()) is None
    assert plate_of(walk_past(scene(), [10, 60]), BackgroundSettings()) is None


@pytest.mark.parametrize("drift", ["gain", "local"])
def test_gain_and_white_balance_are_recovered_with_a_person_and_a_bystander(drift):
    rng, linear = np.random.default_rng(5), scene()
    model = BackgroundModel(BackgroundSettings(drift=drift))
    model.set_plate(light.to_codes(linear))
    gain = np.array([1.3, 1.15, 0.8])
    image, mask = with_person(linear, 60)
    image, _ = with_person(image, 110, (0.05, 0.3, 0.6))  # nobody masks this one
    frame = stamped(shot(np.clip(image * gain, 0, 1), rng), 0)
    model.update(frame, mask)
    plate = model.plate(frame)
    clear = np.ones((H, W), bool)
    clear[25:115, 55:140] = False
    error = np.abs(plate.image - linear * gain)[clear]
    assert np.median(error) < 0.006 and np.quantile(error, 0.99) < 0.03
    if drift == "gain":
        np.testing.assert_allclose(model.drift.gain.mean((0, 1)), gain, rtol=0.04)


def test_veiling_light_that_varies_over_the_image_is_followed_only_locally():
    rng, linear = np.random.default_rng(6), scene()
    veil = 0.06 * np.linspace(0, 1, W, dtype=np.float32)[None, :, None]
    errors = {}
    for drift in ("none", "gain", "local"):
        model = BackgroundModel(BackgroundSettings(drift=drift))
        model.set_plate(light.to_codes(linear))
        plate = model.plate(stamped(shot(linear + veil, rng), 0))
        errors[drift] = np.sqrt(((plate.image - linear - veil) ** 2).mean())
    assert errors["local"] < 0.5 * errors["gain"] < 0.5 * errors["none"], errors


def test_without_drift_the_plate_stays_as_given():
    rng, linear = np.random.default_rng(7), scene()
    model = BackgroundModel()
    model.set_plate(light.to_codes(linear))
    given = light.to_linear(light.to_codes(linear))
    assert np.abs(model.plate(stamped(shot(linear, rng), 0)).image - given).max() < 0.012


def test_sigma_is_the_spread_of_frames_about_the_plate():
    rng, linear = np.random.default_rng(8), scene()
    model = BackgroundModel(BackgroundSettings(noise=1.0))
    model.set_plate(light.to_codes(linear))
    nobody = np.zeros((H, W), np.float32)
    for i in range(60):
        model.update(stamped(shot(linear, rng, 4.0), i), nobody)
    image = shot(linear, rng, 4.0)
    plate = model.plate(stamped(image, 60))
    z = (light.to_linear(image) - plate.image) / plate.sigma[..., None]
    assert 0.7 < z.std() < 1.15, f"residual / sigma has standard deviation {z.std():.2f}"


def test_stale_when_the_camera_was_moved_and_ready_again_after_a_new_plate():
    rng, linear = np.random.default_rng(9), scene()
    model = BackgroundModel(BackgroundSettings(stale_after=1.0, learn=False))
    model.set_plate(light.to_codes(linear))
    moved, nobody = np.roll(linear, (25, 40), (0, 1)), np.zeros((H, W), np.float32)
    for i in range(10):
        model.update(stamped(shot(linear, rng), i), nobody)
    assert model.status is PlateStatus.READY and model.explained > 0.95
    for i in range(10, 40):
        model.update(stamped(shot(moved, rng), i), nobody)
    assert model.status is PlateStatus.STALE and model.explained < 0.6
    model.set_plate(light.to_codes(moved))
    model.update(stamped(shot(moved, rng), 40), nobody)
    assert model.status is PlateStatus.READY


def test_landmarks_mask_the_person_through_their_affine():
    rng, linear = np.random.default_rng(10), scene()
    image, mask = with_person(linear, 60)
    to_image = np.array([[0.5, 0.0, 40.0], [0.0, 0.5, 10.0]])
    net = cv2.warpAffine(mask, to_image, (256, 256), flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP)
    person = Landmarks(np.zeros((33, 2)), np.zeros((33, 3)), np.ones(33), 1.0, net, to_image,
                       np.array([58.0, 28.0, 86.0, 112.0]))
    model = BackgroundModel(BackgroundSettings(settle=0.5))
    for i in range(30):
        model.update(stamped(shot(image, rng), i), person)
    plate = model.plate(stamped(shot(image, rng), 30))
    assert (plate.sigma[32:108, 62:82] > 0.5).all() and plate.sigma[:, :40].max() < 0.1


@pytest.mark.parametrize("size", [(720, 1280), (1081, 1923)])
def test_in_large_images_the_person_is_masked_as_in_full_resolution(size):
    """The mask of a leaning ellipse against the plain one, warped and dilated at the image's own size."""
    h, w = size
    net = cv2.ellipse(np.zeros((128, 128), np.float32), (60, 66), (22, 50), 20, 0, 360, 1.0, -1)
    to_image = np.array([[4.1, 0.3, 420.0], [-0.3, 4.1, 160.0]])
    person = Landmarks(np.zeros((33, 2)), np.zeros((33, 3)), np.ones(33), 1.0, net, to_image, np.zeros(4))
    radius = int(np.ceil(0.03 * w))
    plain = (cv2.warpAffine(net, to_image, (w, h)) > 0.3).astype(np.uint8)
    plain = cv2.dilate(plain, np.ones((2 * radius + 1, 2 * radius + 1), np.uint8)) > 0
    found = person_mask(person, size, 0.03) > 0
    assert found.shape == size
    assert (found & plain).sum() > 0.97 * (found | plain).sum()
    inside, outside = (cv2.distanceTransform(m.astype(np.uint8), cv2.DIST_C, 3) for m in (plain, ~plain))
    assert outside[found].max() <= 5 and inside[~found].max() <= 5


def test_a_large_scene_is_learned_a_part_at_a_time_and_wholly():
    """No more pixels at once than of a usual image; all of them are known in a second or two."""
    empty = cv2.resize(scene(), (1280, 960))
    image, nobody = light.to_codes(empty), np.zeros((960, 1280), np.float32)
    model, most, period = BackgroundModel(BackgroundSettings(settle=0.5)), 0, 1 / 30
    for i in range(60):
        before = None if i == 0 else model._sightings + model._age
        model.update(Frame(image, Exposure(i * period, i * period + 0.02), CAMERA, i), nobody)
        if before is not None:
            most = max(most, int((model._sightings + model._age != before).sum()))
    assert 0 < most <= 640 * 480
    assert model.known == 1.0
    plate = model.plate(Frame(image, Exposure(2.1, 2.12), CAMERA, 60))
    assert np.abs(plate.image - empty).max() < 0.02


def test_a_plate_file_is_read_as_rgb_and_comes_back_after_reset(tmp_path):
    image = np.zeros((H, W, 3), np.uint8)
    image[:] = (200, 100, 30)
    cv2.imwrite(str(tmp_path / "plate.png"), image[..., ::-1])
    model = BackgroundModel(BackgroundSettings(plate=str(tmp_path / "plate.png")))
    model.reset()
    np.testing.assert_allclose(light.to_codes(model.plate(image).image)[60, 80], (200, 100, 30), atol=1)
    with pytest.raises(ValueError, match="cannot be read.*background.plate"):
        BackgroundModel(BackgroundSettings(plate=str(tmp_path / "none.png")))


def test_wrong_input_names_the_fix():
    model = BackgroundModel()
    frame = np.zeros((H, W, 3), np.uint8)
    assert model.status is PlateStatus.EMPTY and model.plate(frame) is None
    with pytest.raises(ValueError, match="uint8 RGB"):
        model.set_plate(np.zeros((H, W, 3), np.float32))
    with pytest.raises(ValueError, match="uint8 RGB"):
        model.set_plate(np.zeros((H, W), np.uint8))
    model.set_plate(frame)
    for call in (model.plate, lambda f: model.update(f, None)):
        with pytest.raises(ValueError, match="frame is 80 x 60 but the plate is 160 x 120; .*reset"):
            call(np.zeros((60, 80, 3), np.uint8))
    with pytest.raises(ValueError, match="person mask"):
        model.update(frame, np.zeros((5, 5), np.float32))
    model.reset()
    assert model.status is PlateStatus.EMPTY and model.plate(np.zeros((60, 80, 3), np.uint8)) is None
