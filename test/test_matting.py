"""Soft alpha: exact blends, blurred synthetic people, shadows and bystanders, and the development sequences."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

import cv2
import numpy as np
import pytest

from blur_motion_ros import light
from blur_motion_ros.camera.camera import Crop
from blur_motion_ros.camera.load import load_camera
from blur_motion_ros.camera.sampling import crop_map
from blur_motion_ros.matting import MattingSettings, difference, make_matter
from blur_motion_ros.matting.difference import DifferenceMatter, mask_from_difference
from blur_motion_ros.matting.masked import MASK_SIGMA, completed, masked
from blur_motion_ros.matting.see_through import see_through
from blur_motion_ros.types import Matte

S = 128
DEVSET = Path(os.environ.get("BLUR_MOTION_DEVSET", Path(__file__).parents[2] / "shared" / "devset"))
SHIRT, TROUSERS, SKIN = np.array([0.5, 0.1, 0.12]), np.array([0.05, 0.07, 0.2]), np.array([0.5, 0.3, 0.2])


def plate(seed: int = 0) -> np.ndarray:
    """[S, S, 3] linear light: smooth greens and greys with texture, no colour of the person."""
    rng = np.random.default_rng(seed)
    smooth = cv2.resize(rng.uniform(0.12, 0.4, (5, 5)).astype(np.float32), (S, S), interpolation=cv2.INTER_CUBIC)
    colour = smooth[..., None] * np.array([0.8, 1.1, 0.9], np.float32)
    return np.clip(colour * (1 + 0.1 * rng.normal(0, 1, (S, S, 1))), 0.02, 0.9).astype(np.float32)


def body(angle: float, shift: float) -> tuple[np.ndarray, np.ndarray]:
    """One instant of a person with one arm at `angle` (rad from down): colour premultiplied [S, S, 3], coverage."""
    n = 4 * S
    colour, cover = np.zeros((n, n, 3), np.float32), np.zeros((n, n), np.float32)
    hand = np.array([70 + shift + 34 * np.sin(angle), 45 + 34 * np.cos(angle)])
    parts = [((60, 75), (56, 112), 9, TROUSERS), ((66, 75), (70, 112), 9, TROUSERS), ((63, 45), (63, 72), 20, SHIRT),
             ((63, 26), (63, 32), 13, SKIN), ((70, 45), hand - (shift, 0), 7, SKIN)]
    for a, b, width, tint in parts:
        ends = [tuple(int(4 * v + 2) for v in (p[0] + shift, p[1])) for p in (a, b)]
        line = cv2.line(np.zeros((n, n), np.uint8), *ends, 255, 4 * width, cv2.LINE_AA)
        mask = line.astype(np.float32)[..., None] / 255
        colour, cover = colour * (1 - mask) + mask * tint.astype(np.float32), np.maximum(cover, mask[..., 0])
    return tuple(cv2.resize(v, (S, S), interpolation=cv2.INTER_AREA) for v in (colour, cover))


def exposure(background: np.ndarray, swing: float, slide: float, noise: float = 2.0,
             seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Blurred image [S, S, 3] linear (noisy, 8 bit), true alpha, and a pose network's mask: the middle instant."""
    instants = [body(1.2 + swing * t, slide * t) for t in np.linspace(-0.5, 0.5, 24)]
    colour, alpha = (np.mean(v, axis=0) for v in zip(*instants, strict=True))
    image = colour + (1 - alpha[..., None]) * background
    codes = light.to_codes(image) + np.random.default_rng(seed).normal(0, noise, image.shape)
    mask = cv2.GaussianBlur(body(1.2, 0.0)[1], (0, 0), 1.2)
    return light.to_linear(np.clip(codes, 0, 255).round().astype(np.uint8)), alpha, mask


def noise_of(background: np.ndarray, codes: float = 2.0) -> np.ndarray:
    return (light.slope(background.mean(2)) * codes).astype(np.float32)


def test_a_blurred_arm_has_its_true_fractional_alpha():
    """A threshold calls the arm's sweep person or not; the truth is between, and so is the matte."""
    background = plate()
    image, truth, mask = exposure(background, swing=1.0, slide=0.0)
    matte = DifferenceMatter().matte(image, background, noise_of(background), mask)
    band = (truth > 0.1) & (truth < 0.9)
    error = np.abs(matte.alpha - truth)
    threshold = np.abs((np.linalg.norm(image - background, axis=2) > 0.05) - truth)
    assert band.sum() > 300
    assert error[band].mean() < 0.09, f"band error {error[band].mean():.3f}"
    assert error[band].mean() < 0.4 * threshold[band].mean()
    assert abs((matte.alpha - truth)[band].mean()) < 0.05, "biased alpha: gamma or plate mixed up?"
    assert error[truth > 0.98].mean() < 0.03 and error[truth < 0.02].mean() < 0.005


def test_light_must_be_linear():
    """The same blend computed on code values is biased: the test above depends on linear light."""
    background = plate()
    image, truth, mask = exposure(background, swing=1.0, slide=0.0)
    band = (truth > 0.1) & (truth < 0.9)
    codes = [light.to_codes(v).astype(np.float32) / 255 for v in (image, background)]
    alphas = [DifferenceMatter().matte(image, background, noise_of(background), mask).alpha,
              DifferenceMatter().matte(*codes, 2 / 255, mask).alpha]
    linear, coded = (np.abs(a - truth)[band].mean() for a in alphas)
    assert linear < 0.75 * coded, f"linear {linear:.3f}, coded {coded:.3f}"


def test_texture_of_the_plate_shows_through_a_blurred_limb_only():
    """The slope of the image on the plate is 1 - alpha, whatever the limb's colour."""
    rng = np.random.default_rng(0)
    background = rng.uniform(0.1, 0.5, (S, S, 3)).astype(np.float32)
    inside = np.zeros((S, S), np.uint8)
    inside[30:100, 30:60] = 1
    for alpha in (1.0, 0.7, 0.3):
        image = np.where(inside[..., None] > 0, alpha * SKIN + (1 - alpha) * background, background)
        image = (image + rng.normal(0, 0.01, image.shape)).astype(np.float32)
        seen, sd = see_through(image, background, np.full((S, S), 0.01, np.float32), inside, 2.0)
        np.testing.assert_allclose(np.median(seen[40:90, 38:52]), alpha, atol=0.03)
        assert sd[40:90, 38:52].max() < 0.3 and sd[0, 0] > 1.0
    _, sd = see_through(image * 0 + 0.3, background * 0 + 0.3, np.full((S, S), 0.01, np.float32), inside, 2.0)
    assert sd.min() > 1.0, "nothing can be said over a plain wall"


@pytest.mark.parametrize("seed", range(4))
def test_sigma_covers_the_error(seed):
    background = plate(seed)
    image, truth, mask = exposure(background, swing=0.8, slide=10.0, seed=seed)
    matte = DifferenceMatter().matte(image, background, noise_of(background), mask)
    z = (np.abs(matte.alpha - truth) / matte.sigma)[truth > 0.05]
    shares = [float((z < k).mean()) for k in (1, 2)]
    assert shares[0] > 0.6 and shares[1] > 0.88, f"share of pixels within 1 and 2 sigma: {shares}"
    assert matte.sigma[truth > 0.05].mean() < 0.2, "sigma says nothing"


def test_where_person_and_background_look_alike_sigma_says_so():
    background = np.broadcast_to(SHIRT.astype(np.float32), (S, S, 3)).copy()
    image, truth, mask = exposure(background, swing=0.0, slide=14.0)
    matte = DifferenceMatter().matte(image, background, noise_of(background), mask)
    shirt_edge = np.zeros((S, S), bool)
    shirt_edge[48:68, 48:80] = True
    shirt_edge &= (truth > 0.1) & (truth < 0.9)
    legs = np.zeros((S, S), bool)
    legs[85:105] = True
    legs &= (truth > 0.1) & (truth < 0.9)
    assert matte.sigma[shirt_edge].mean() > 0.2 > matte.sigma[legs].mean() + 0.04


def test_a_cast_shadow_is_not_the_person():
    background = plate(1)
    shadow = cv2.ellipse(np.zeros((S, S), np.float32), (84, 112), (26, 6), 0, 0, 360, 1.0, -1)
    shaded = background * (1 - 0.5 * cv2.GaussianBlur(shadow, (0, 0), 2.5))[..., None]
    image, truth, mask = exposure(shaded, swing=0.3, slide=2.0)
    alpha = {s: DifferenceMatter(MattingSettings(shadows=s)).matte(image, background, noise_of(background), mask).alpha
             for s in (True, False)}
    where = (shadow > 0) & (truth < 0.02)
    assert alpha[True][where].mean() < 0.06
    assert alpha[True][where].mean() < 0.5 * alpha[False][where].mean()


def test_a_bystander_outside_the_mask_is_not_the_person():
    background = plate(2)
    image, truth, mask = exposure(background, swing=0.3, slide=2.0)
    image[20:110, 4:20] = SHIRT  # even in the same shirt
    matte = DifferenceMatter().matte(image, background, noise_of(background), mask)
    assert matte.alpha[20:110, 4:20].mean() < 0.02
    assert np.abs(matte.alpha - truth)[:, 40:].mean() < 0.02


def test_without_a_mask_the_difference_is_enough_on_a_clean_plate():
    background = plate(3)
    image, truth, _ = exposure(background, swing=0.5, slide=4.0)
    matte = DifferenceMatter().matte(image, background, noise_of(background), None)
    assert np.abs(matte.alpha - truth).mean() < 0.03
    seen = mask_from_difference(image, background, noise_of(background))
    assert seen[truth > 0.9].mean() > 0.8 and seen[truth < 0.02].mean() < 0.02


def test_an_unknown_plate_leaves_only_the_mask():
    background = plate(4)
    image, truth, mask = exposure(background, swing=0.3, slide=2.0)
    matte = DifferenceMatter().matte(image, np.full_like(background, 0.5), 1.0, mask)
    assert matte.alpha[mask > 0.95].mean() > 0.6 and matte.alpha[mask < 0.01].mean() < 0.1
    assert matte.sigma[(mask > 0.3) & (mask < 0.7)].mean() > 0.2


def test_nobody_gives_nothing():
    background = plate(5)
    for mask in (np.zeros((S, S), np.float32), None):
        matte = DifferenceMatter().matte(background, background, noise_of(background), mask)
        assert matte.alpha.max() == 0.0 and (matte.sigma > 0).all()


@pytest.mark.parametrize("size", [(96, 96), (192, 160), (480, 640)])
def test_any_size_gives_the_same_matte(size):
    background = plate(6)
    image, truth, mask = exposure(background, swing=0.6, slide=6.0)
    def at(v):
        return cv2.resize(v, size[::-1], interpolation=cv2.INTER_AREA if size[0] < S else cv2.INTER_LINEAR)
    matte = DifferenceMatter().matte(at(image), at(background), at(noise_of(background)), at(mask))
    assert matte.alpha.shape == matte.sigma.shape == size
    assert np.abs(matte.alpha - at(truth.astype(np.float32))).mean() < 0.02


def test_wrong_input_names_the_fix():
    image = plate()
    matter = make_matter(MattingSettings(method="difference"))
    with pytest.raises(ValueError, match="to_linear"):
        matter.matte(light.to_codes(image), image)
    with pytest.raises(ValueError, match="same map"):
        matter.matte(image, image[:64])
    with pytest.raises(ValueError, match="plate_sigma"):
        matter.matte(image, image, np.ones((4, 4)))
    with pytest.raises(ValueError, match="person_mask"):
        matter.matte(image, image, None, np.ones((4, 4)))


def test_a_crop_takes_a_few_milliseconds():
    background = plate()
    image, _, mask = exposure(background, swing=1.0, slide=8.0)
    matter, sigma, times = DifferenceMatter(), noise_of(background), []
    for _ in range(15):
        start = time.process_time()
        matter.matte(image, background, sigma, mask)
        times.append(time.process_time() - start)
    assert np.median(times) < 12e-3, f"median {1e3 * np.median(times):.1f} ms"


def devset_crop(folder: Path, index: int) -> tuple[np.ndarray, ...]:
    """Crop of one frame: image, plate, truth, and a stand-in for the network's mask made from the sharp instant's
    neighbourhood: the truth above one half, blurred."""
    camera = load_camera(folder / "meta.json")
    truth = cv2.imread(str(folder / f"alpha_{index:03d}.png"), cv2.IMREAD_GRAYSCALE).astype(np.float32) / 255
    y, x = np.nonzero(truth > 0.02)
    centre, side = np.array([x.min() + x.max(), y.min() + y.max()]) / 2, 1.35 * max(np.ptp(x), np.ptp(y))
    where = crop_map(camera, Crop.around(camera, centre, side, S))
    image, background = (cv2.imread(str(folder / name))[..., ::-1].copy() for name in (f"blur_{index:03d}.jpg",
                                                                                     "background.png"))
    mask = cv2.GaussianBlur((truth > 0.5).astype(np.float32), (0, 0), 2.0)
    return tuple(where.sample(v) for v in (image, background, truth, mask))


@pytest.mark.skipif(not DEVSET.is_dir(), reason=f"no development sequences at {DEVSET} (set BLUR_MOTION_DEVSET)")
def test_alpha_of_the_development_sequences():
    errors, bands, inside = [], [], []
    for folder in sorted(p for p in DEVSET.iterdir() if (p / "meta.json").is_file()):
        for index in range(0, json.loads((folder / "meta.json").read_text())["n"], 3):
            image, background, truth, mask = devset_crop(folder, index)
            matte = DifferenceMatter().matte(image, background, noise_of(background, 2.5), mask)
            error, band = np.abs(matte.alpha - truth), (truth > 0.05) & (truth < 0.95)
            errors.append(error.mean())
            bands.append(error[band].mean())
            inside.append((error < 2 * matte.sigma)[truth > 0.05].mean())
    assert np.mean(errors) < 0.016, f"mean absolute error {np.mean(errors):.4f}"
    assert np.mean(bands) < 0.16, f"in the blur band {np.mean(bands):.3f}"
    assert np.mean(inside) > 0.9, f"within two sigma {np.mean(inside):.2f}"


def test_changed_pixels_are_far_from_the_plate_and_no_shadow():
    """Compiled code against NumPy that says the same."""
    rng = np.random.default_rng(8)
    plate = rng.uniform(0.02, 0.8, (40, 60, 3)).astype(np.float32)
    image = plate * rng.uniform(0.1, 1.2, (40, 60, 1)) + rng.normal(0, 0.03, plate.shape)
    image, sigma = image.astype(np.float32), rng.uniform(0.004, 0.03, (40, 60)).astype(np.float32)
    distance = np.linalg.norm(image - plate, axis=2) / sigma
    dot, power = (image * plate).sum(2), (plate**2).sum(2)
    cosine = dot / np.linalg.norm(image, axis=2) / np.linalg.norm(plate, axis=2)
    shadow = (cosine > 0.985) & (dot < power) & (dot > 0.25 * power)
    wanted = np.where(shadow, 0.0, np.clip(distance / 4 - 1, 0, 1))
    assert 0.1 < shadow.mean() < 0.9 and 0.1 < (wanted > 0).mean() < 0.9
    assert (np.abs(difference._changed(image, plate, sigma) - wanted) > 1e-4).mean() < 2e-3  # the thresholds' rounding


# ---------------------------------------------------------------- without a background


def test_where_no_background_is_known_the_mask_is_the_alpha():
    mask = np.linspace(-0.1, 1.2, 64).reshape(8, 8)
    matte = masked(mask)
    np.testing.assert_allclose(matte.alpha, np.clip(mask, 0, 1), atol=1e-6)
    assert (matte.sigma == MASK_SIGMA).all() and (matte.behind == 0).all()


def test_a_matte_is_completed_only_where_the_background_is_unknown():
    matte = Matte(np.full((4, 4), 0.5, np.float32), np.full((4, 4), 0.05, np.float32))
    assert completed(matte, np.zeros((4, 4), bool)) is matte
    unknown = np.zeros((4, 4), bool)
    unknown[1:3] = True
    out = completed(matte, unknown)
    assert (out.sigma[unknown] == MASK_SIGMA).all() and (out.sigma[~unknown] == np.float32(0.05)).all()
    np.testing.assert_array_equal(out.behind, 1.0 - unknown)
