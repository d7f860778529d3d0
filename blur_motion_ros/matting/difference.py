"""Soft alpha by background difference: what blends over the plate, and how sure that is.

In a motion-blurred image almost no pixel of a fast limb is opaque, so no threshold can be right. The plate B is
known; given the person's colour F, alpha = <I - B, F - B> / |F - B|^2. F comes from where the pose network's mask is
sure (nearby, and a small palette of the whole person); every explanation of a pixel is weighed (`posterior.py`), and
the spread of the explanations is sigma. Without a mask the difference itself says where the person is.
"""

from __future__ import annotations

import cv2
import numpy as np
from numba import njit

from blur_motion_ros.matting.palette import palette_of
from blur_motion_ros.matting.posterior import posterior
from blur_motion_ros.matting.see_through import channel_dot, see_through
from blur_motion_ros.matting.settings import MattingSettings
from blur_motion_ros.types import Matte

_BLENDED = np.array([0.68, 0.33, 0.23], np.float32)  # alpha where blended: mean inside the mask, outside, and sd
_FAR = 1e6  # px: of a mask without an inside OpenCV says the largest number there is
_NEAR = 0.07  # prior probability of the person that counts as their surroundings


class DifferenceMatter:
    """Matter for the CPU: stateless, any image size, about 2 ms at 128 x 128."""

    def __init__(self, settings: MattingSettings | None = None):
        self.settings = settings or MattingSettings()

    def matte(self, image: np.ndarray, plate: np.ndarray, plate_sigma: np.ndarray | float | None = None,
              person_mask: np.ndarray | None = None) -> Matte:
        """Alpha of the person in `image` [H, W, 3] float32 linear over `plate` [H, W, 3].

        plate_sigma: [H, W] or number, expected noise of image - plate where nothing changed (None: the `noise`
        setting). person_mask: [H, W] soft, coarse probability (None: everything that differs is the person).
        ValueError when shapes disagree.
        """
        image, plate, sigma = _checked(image, plate, plate_sigma, self.settings.noise)
        if person_mask is None:
            person_mask = mask_from_difference(image, plate, sigma)
        elif person_mask.shape != sigma.shape:
            raise ValueError(f"person_mask is {person_mask.shape}; it must have the image's size {sigma.shape}")
        mask = np.ascontiguousarray(person_mask, np.float32)
        if float(mask.max(initial=0.0)) < 0.3:
            return Matte(np.zeros(sigma.shape, np.float32), np.full(sigma.shape, 0.1, np.float32))
        return self._matte(image, plate, sigma, mask)

    def _matte(self, image: np.ndarray, plate: np.ndarray, sigma: np.ndarray, mask: np.ndarray) -> Matte:
        scale = float(np.sqrt(mask.sum()))
        inside = (mask > 0.5).astype(np.uint8)
        depth = cv2.distanceTransform(inside, cv2.DIST_L2, 3) / scale
        away = np.minimum(cv2.distanceTransform(1 - inside, cv2.DIST_L2, 3), _FAR) / scale
        blurred = _blurriness(_changed(image, plate, sigma), away, scale)
        person, opaque = _priors(inside, depth, away, blurred, self.settings.reach)
        texture, texture_sd = see_through(image, plate, sigma, inside, 0.055 * scale)
        veto = np.exp(-0.5 * (np.maximum(1.0 - texture, 0.0) / texture_sd) ** 2)
        sure = cv2.erode(mask, _disc(0.05 * scale)) ** 2 * veto
        # nearby colours from deep inside: those next to a pixel would include its own, mixed one
        deep = sure * np.minimum(depth / 0.1, 1.5) ** 2
        local, spread, weight = _local_colours(image, deep, scale)
        colours, colour_spread, share = palette_of(image, sure, self.settings.colours)
        smooth = cv2.GaussianBlur(image - plate, (5, 5), 1.0)
        alpha, alpha_sd = np.empty_like(mask), np.empty_like(mask)
        posterior(image, plate, smooth, sigma, person, opaque, _BLENDED, local, spread, weight, colours,
                  colour_spread, share, texture, texture_sd, self.settings.shadows, alpha, alpha_sd)
        _drop_strays(alpha, alpha_sd, person > _NEAR)
        return _smoothed(alpha, alpha_sd, scale)


def mask_from_difference(image: np.ndarray, plate: np.ndarray, sigma: np.ndarray) -> np.ndarray:
    """[H, W] soft mask of everything that clearly differs from the plate and is not a mere shadow of it."""
    seen = cv2.morphologyEx(_changed(image, plate, sigma), cv2.MORPH_OPEN, np.ones((3, 3), np.uint8))
    return cv2.morphologyEx(seen, cv2.MORPH_CLOSE, _disc(0.03 * max(sigma.shape)))


@njit(cache=True, nogil=True, error_model="numpy")
def _changed(image, plate, sigma):
    """[H, W] float32 in [0, 1]: the pixel differs from the plate by more than noise and more than a shadow would."""
    h, w = sigma.shape
    out = np.zeros((h, w), np.float32)
    for y in range(h):
        for x in range(w):
            squared, dot, power, own = 0.0, 0.0, 0.0, 0.0
            for c in range(3):
                i, p = image[y, x, c], plate[y, x, c]
                squared += (i - p) ** 2
                dot += i * p
                power += p * p
                own += i * i
            shadow = dot < power and dot > 0.25 * power and dot > 0.985 * np.sqrt(own * power + 1e-9)
            if not shadow:
                out[y, x] = min(max((np.sqrt(squared) / sigma[y, x] - 4.0) / 4.0, 0.0), 1.0)
    return out


def _blurriness(changed: np.ndarray, away: np.ndarray, scale: float) -> np.ndarray:
    """[H, W] in [0, 1]: how much of the rim just outside the mask has changed (a sharp outline leaves it clean)."""
    rim = ((away > 0.04) & (away < 0.13)).astype(np.float32)
    side = 2 * max(int(round(0.2 * scale)), 1) + 1
    return cv2.blur(rim * changed, (side, side)) / np.maximum(cv2.blur(rim, (side, side)), 1e-4)


def _priors(inside: np.ndarray, depth: np.ndarray, away: np.ndarray, blurred: np.ndarray,
            reach: float) -> tuple[np.ndarray, np.ndarray]:
    """Probability that the person contributes to a pixel, and that it is opaque there if so ([H, W] each).

    Functions of the distance to the mask's outline (docs/experiments/matting.md). inside [H, W] uint8; depth, away
    [H, W]: distance to the outline from inside, from outside, in square roots of the mask's area.
    """
    person = 0.6 * np.exp(-away / 0.04) + 0.1 * np.exp(-away / reach)
    person = np.where(inside > 0, 1.0 - 0.3 * np.exp(-depth / 0.015) - 0.003, person)
    opaque = np.where(inside > 0, 1.0 - np.exp(-depth / (0.04 + 0.12 * blurred)), 0.01)
    return person.astype(np.float32), opaque.astype(np.float32)


def _local_colours(image: np.ndarray, sure: np.ndarray, scale: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Colours of nearby sure pixels at two ranges: [2, H, W, 3], their spread [2, H, W] and weight [2, H, W]."""
    h, w = sure.shape
    colours, spreads = np.empty((2, h, w, 3), np.float32), np.empty((2, h, w), np.float32)
    weights = np.empty((2, h, w), np.float32)
    # colours in three channels, their power in the fourth; the weight apart
    stack = np.dstack([image, channel_dot(image, image)]) * sure[..., None]
    for k, (reach, share) in enumerate(((0.07, 0.5), (0.25, 0.2))):
        mean, near = _shrunk_blur(stack, reach * scale), _shrunk_blur(sure, reach * scale)
        mean /= np.maximum(near, 1e-6)[..., None]
        spread = np.sqrt(np.maximum(mean[..., 3] - channel_dot(mean[..., :3], mean[..., :3]), 0.0) / 3.0) + 0.01
        colours[k] = cv2.resize(mean[..., :3], (w, h))
        spreads[k] = cv2.resize(spread, (w, h))
        weights[k] = cv2.resize(share * np.clip(near / 0.02, 0.0, 1.0), (w, h))
    return colours, spreads, weights


def _shrunk_blur(image: np.ndarray, radius: float) -> np.ndarray:
    """Gaussian blur of [H, W(, 4)] at a resolution at which `radius` is one to two pixels: nothing finer is left."""
    h, w = image.shape[:2]
    f = max(int(radius), 1)
    small = cv2.resize(image, (max(w // f, 1), max(h // f, 1)), interpolation=cv2.INTER_AREA) if f > 1 else image
    return cv2.GaussianBlur(small, (0, 0), max(radius / f, 0.7))


def _drop_strays(alpha: np.ndarray, sd: np.ndarray, near: np.ndarray) -> None:
    """Clear, in place, islands that do not reach the person's surroundings: they are someone or something else."""
    count, label = cv2.connectedComponents((alpha > 0.1).astype(np.uint8))
    ours = np.zeros(count, bool)
    ours[0] = True
    ours[label[near]] = True
    stray = ~ours[label]
    sd[stray] = np.maximum(sd[stray], alpha[stray])
    alpha[stray] = 0.0


def _smoothed(alpha: np.ndarray, sd: np.ndarray, scale: float) -> Matte:
    """Let uncertain pixels follow certain neighbours, as blur makes alpha smooth; neighbours share their doubt."""
    weight = 1.0 / (sd**2 + 0.1**2)
    stack = np.dstack([weight, weight * alpha, weight * alpha**2])
    total, first, second = cv2.split(cv2.GaussianBlur(stack, (0, 0), max(0.028 * scale, 0.5)))
    mean = first / total
    spread = np.maximum(second / total - mean**2, 0.0) + 0.05**2
    trust = spread / (spread + sd**2)
    doubt = np.maximum(sd, np.sqrt(cv2.GaussianBlur(sd**2, (0, 0), max(0.042 * scale, 0.7))))
    return Matte(trust * alpha + (1.0 - trust) * mean, doubt)


def _disc(radius: float) -> np.ndarray:
    side = 2 * max(int(round(radius)), 1) + 1
    return cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (side, side))


def _checked(image: np.ndarray, plate: np.ndarray, sigma: np.ndarray | float | None,
             noise: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    if image.ndim != 3 or image.shape[2] != 3 or image.dtype == np.uint8:
        raise ValueError(f"image is {image.shape} {image.dtype}; the matte takes [H, W, 3] float linear light"
                         " (light.to_linear)")
    if plate.shape != image.shape:
        raise ValueError(f"plate is {plate.shape} but the image is {image.shape}; crop both with the same map")
    size = image.shape[:2]
    sigma = np.asarray(noise if sigma is None else sigma, np.float32)
    if sigma.ndim and sigma.shape != size:
        raise ValueError(f"plate_sigma is {sigma.shape}; it must have the image's size {size}")
    sigma = np.broadcast_to(sigma, size)
    sigma = np.maximum(sigma, 1e-3).astype(np.float32)
    return np.ascontiguousarray(image, np.float32), np.ascontiguousarray(plate, np.float32), sigma
