"""The clean plate of a fixed camera: given, captured or learned; matched to each frame's brightness; watched.

Everything is linear light. Only pixels outside the (dilated) person are ever learned; what the plate cannot know
has a large sigma instead of a guess that looks certain.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import Enum
from pathlib import Path

import cv2
import numpy as np
from numba import njit

from blur_motion_ros import light
from blur_motion_ros.background.capture import capture_plate
from blur_motion_ros.background.drift import CELLS, Drift, columns_of, fit_drift, spread
from blur_motion_ros.background.learn import FREE, PERSON, learn
from blur_motion_ros.background.settings import BackgroundSettings
from blur_motion_ros.types import Frame, Landmarks, Plate

UNKNOWN_SIGMA = 1.0  # linear light: says nothing about the pixel
_LEAST_KNOWN = 0.3  # share of the image that must be known before there is a plate
_EDGE = 0.12  # px of vibration or interpolation that noise at edges allows for
_REFRESH = 10  # updates between two recomputations of the noise and the base sigma
_MOST_NOISE = 8.0  # code values: more is not noise but a wrong plate
_LEARN_S = 1 / 15  # a pixel is learned about this often: at higher frame rates every row waits for its turn
_FOLLOW_S = 1 / 5  # and once all are known for long, what changes lastingly is followed this often
_SETTLED = 60  # updates of a plate after which its noise is known too
_MOST_TURNS = 6
_USUAL, _LARGEST = 640 * 480, 8  # px, times: larger images are learned in so many more turns, no more pixels at once
_MASK_WIDTH = 640  # px: the network's mask is dilated at about this width
_SAMPLE_COLUMNS = 96  # of the grid of samples that the drift is fitted to
_CERTAIN_AGE = 30  # sightings that a given or captured plate counts as


class PlateStatus(Enum):
    EMPTY = "empty"  # nothing known
    LEARNING = "learning"  # a part of the image is still unknown
    READY = "ready"
    STALE = "stale"  # no longer explains the scene: the camera or the scene has moved; capture again


class BackgroundModel:
    """One camera's plate. Not thread-safe: call from one thread."""

    def __init__(self, settings: BackgroundSettings | None = None, response: str = "srgb"):
        self.settings, self.response = settings or BackgroundSettings(), response
        self._table = light.decode_table(response)
        self.reset()

    def reset(self) -> None:
        """Forget everything learned; a plate file named in the settings is loaded anew."""
        self._plate: np.ndarray | None = None
        self._noise = (light.slope(self._table, self.response) * self.settings.noise).astype(np.float32)
        self._measured_noise = False
        self._drift, self._drift_image = Drift.none(), None
        self._explained, self._unexplained_since = 1.0, None
        self._updates, self._now = 0, 0.0
        self._opened: float | None = None
        self._status = PlateStatus.EMPTY
        if self.settings.plate:
            self.load(self.settings.plate)

    @property
    def status(self) -> PlateStatus:
        return self._status

    @property
    def explained(self) -> float:
        """Share of the known scene outside the person that the plate explains, smoothed over frames."""
        return self._explained

    @property
    def known(self) -> float:
        """Share of the image whose background is known."""
        return 0.0 if self._plate is None else float((self._age > 0).mean())

    @property
    def drift(self) -> Drift:
        """Brightness of the last frame against the plate."""
        return self._drift

    def set_plate(self, image: np.ndarray, known: np.ndarray | None = None) -> None:
        """Use `image` [H, W, 3] uint8 RGB of the empty scene; known [H, W] bool: where it is (None: everywhere).
        ValueError when it is not such an image."""
        plate = light.to_linear(_colour_image(image, "plate"), self.response)
        if known is not None and known.shape != plate.shape[:2]:
            raise ValueError(f"known is {known.shape}; it must have the plate's size {plate.shape[:2]}")
        self._start(plate, True if known is None else known)

    def load(self, path: str | Path) -> None:
        """Use an image file of the empty scene. ValueError when it cannot be read."""
        image = cv2.imread(str(path), cv2.IMREAD_COLOR)
        if image is None:
            raise ValueError(f"plate file {path} cannot be read as an image; check setting background.plate")
        self.set_plate(np.ascontiguousarray(image[..., ::-1]))

    def capture(self, frames: Sequence[Frame | np.ndarray]) -> None:
        """Make the plate from frames of the empty scene. CaptureError when something moved (the old plate stays)."""
        images = [_colour_image(_image(f), "captured frame") for f in frames]
        plate, noise = capture_plate(images, self.response, self.settings.capture_motion)
        self._start(plate)
        self._noise = (light.slope(self._table, self.response) * noise).astype(np.float32)
        self._measured_noise = True

    def plate(self, frame: Frame | np.ndarray) -> Plate | None:
        """The plate as this frame would show it (brightness matched), or None while too little is known.

        ValueError when the frame has another size than the plate.
        """
        image = self._checked(frame)
        if self._plate is None or self._status is PlateStatus.EMPTY:
            return None
        drift = self._drift_of(image)
        h, w = image.shape[:2]
        sigma = self._sigma * spread(drift.scale, w, h)
        if self._unknown is not None:
            sigma[self._unknown] = UNKNOWN_SIGMA
        return Plate(drift.applied(self._shown), sigma)

    def update(self, frame: Frame | np.ndarray, person: Landmarks | np.ndarray | None) -> None:
        """Learn from a frame. person: landmarks with a mask, or a mask [H, W] (all zero: surely nobody there),
        or None (nobody was found, which may be wrong: only unknown pixels are learned, after `replace` seconds)."""
        image = self._checked(frame)
        period = self._advance(frame)
        mask = person_mask(person, image.shape[:2], self.settings.margin)
        if self._plate is None:
            if not self.settings.learn:
                return
            self._start(light.to_linear(image, self.response), known=False)
        self._person = mask
        drift = self._drift_of(image)
        self._watch(drift)
        if self.settings.learn:
            learn(_one_kind(image), self._table, self._noise, drift.gain, drift.offset, *columns_of(image.shape[1]),
                  mask, person is not None, self._now, self.settings.settle, self.settings.replace, self._plate,
                  self._age, self._scatter, self._candidate, self._since, self._sightings, *self._turn(period))
        self._updates += 1
        if self._updates % _REFRESH == 0 or self._status is PlateStatus.EMPTY:
            self._refresh()

    # --- inside ---------------------------------------------------------------------------------------------------

    def _start(self, plate: np.ndarray, known: bool | np.ndarray = True) -> None:
        h, w = plate.shape[:2]
        self._plate = np.ascontiguousarray(plate, np.float32)
        self._age = np.where(np.broadcast_to(known, (h, w)), _CERTAIN_AGE, 0).astype(np.int32)
        self._scatter = np.ones((h, w), np.float32)
        self._candidate, self._since = np.zeros((h, w, 3), np.float32), np.zeros((h, w), np.float64)
        self._sightings = np.zeros((h, w), np.int32)
        self._person = np.full((h, w), FREE, np.uint8)
        self._grid = _sample_grid(h, w)
        self._drift, self._drift_image = Drift.none(), None
        self._explained, self._unexplained_since, self._updates = 1.0, None, 0
        self._refresh()

    def _refresh(self) -> None:
        """Recompute what changes slowly: which pixels are unknown, the plate to show there, base sigma, status."""
        unknown = self._age == 0
        share = float(unknown.mean())
        self._unknown = unknown if share > 0 else None
        self._shown = self._plate if self._unknown is None else _filled(self._plate, unknown)
        self._sigma = _base_sigma(self._shown, self._noise, self.response) * np.sqrt(self._scatter)
        if share > 1.0 - _LEAST_KNOWN:
            self._status = PlateStatus.EMPTY
        elif self._status is not PlateStatus.STALE:
            self._status = PlateStatus.LEARNING if share > 0.05 else PlateStatus.READY

    def _drift_of(self, image: np.ndarray) -> Drift:
        """Drift of this image, fitted once per image; also refines the noise while the plate fits."""
        if self._drift_image is image:
            return self._drift
        self._drift_image = image
        if self.settings.drift == "none":
            return self._drift
        frame, plate, sigma, cell = _samples(_one_kind(image), self._plate, self._sigma, self._age, self._person,
                                             self._table, *self._grid)
        if len(frame) < 50:
            return self._drift
        self._drift = fit_drift(frame, plate, sigma, cell, self.settings.drift == "local")
        if self._updates % _REFRESH == 0 and (self._drift.explained > 0.8 or not self._measured_noise):
            self._learn_noise(frame, plate, cell)
        return self._drift

    def _learn_noise(self, frame: np.ndarray, plate: np.ndarray, cell: np.ndarray) -> None:
        """Follow the noise of quiet pixels, by brightness (16 bins): sensor, compression and response together."""
        gain, offset = self._drift.gain.reshape(-1, 3)[cell], self._drift.offset.reshape(-1, 3)[cell]
        residual = np.abs(frame - gain * plate - offset).mean(1) / 0.798
        code = light.to_codes(plate.mean(1), self.response) // 16
        ratio = np.full(16, np.nan)
        for k in range(16):
            mine = residual[code == k]
            if len(mine) > 60:
                ratio[k] = np.median(mine) / self._noise[16 * k:16 * k + 16].mean()
        if np.isnan(ratio).all():
            return
        good = ~np.isnan(ratio)
        change = np.interp(np.arange(256), np.arange(16)[good] * 16 + 8, ratio[good])
        rate = 0.1 if self._measured_noise else 1.0
        code_step = light.slope(self._table, self.response)
        noise = np.clip(self._noise * change**rate, 0.5 * code_step, _MOST_NOISE * code_step)
        self._noise = noise.astype(np.float32)
        self._measured_noise = True

    def _watch(self, drift: Drift) -> None:
        """Follow how much of the scene the plate explains; stale when too little for too long."""
        if drift.samples < 50:
            return
        self._explained += 0.2 * (drift.explained - self._explained)
        if self._explained >= self.settings.stale:
            self._unexplained_since = None
            if self._status is PlateStatus.STALE:
                self._status = PlateStatus.READY
            return
        if self._unexplained_since is None:
            self._unexplained_since = self._now
        if self._now - self._unexplained_since >= self.settings.stale_after:
            self._status = PlateStatus.STALE

    def _advance(self, frame: Frame | np.ndarray) -> float:
        """Go on by the time since the last frame, s, and return it. Long enough to learn where there is none to tell:
        of bare images, at the first frame, and where the frames' clock has jumped back."""
        if not isinstance(frame, Frame):
            self._now += 1.0 / 30.0
            return _LEARN_S
        before, self._opened = self._opened, frame.exposure.open
        period = _LEARN_S if before is None or self._opened < before else self._opened - before
        self._now += period
        return period

    def _turn(self, period: float) -> tuple[int, int]:
        """First row and step of the rows whose turn it is, at `period` s between frames."""
        wanted = _FOLLOW_S if self._unknown is None and self._updates >= _SETTLED else _LEARN_S
        larger = min(max(round(self._age.size / _USUAL), 1), _LARGEST)
        step = min(max(round(wanted / max(period, 1e-3)), 1), _MOST_TURNS) * larger
        return self._updates % step, step

    def _checked(self, frame: Frame | np.ndarray) -> np.ndarray:
        image = _colour_image(_image(frame), "frame")
        if self._plate is not None and image.shape != self._plate.shape:
            h, w = self._plate.shape[:2]
            raise ValueError(f"frame is {image.shape[1]} x {image.shape[0]} but the plate is {w} x {h}; set or capture"
                             " a plate of the new size, or reset the background")
        return image


def person_mask(person: Landmarks | np.ndarray | None, size: tuple[int, int], margin: float) -> np.ndarray:
    """[H, W] uint8 PERSON / FREE of landmarks or a mask [H, W] (None: nobody), dilated by `margin` image widths.
    ValueError for a mask of another size."""
    h, w = size
    if person is None:
        return np.full((h, w), FREE, np.uint8)
    if isinstance(person, Landmarks):
        return _landmark_mask(person, w, h, margin)
    if person.shape != (h, w):
        raise ValueError(f"person mask is {person.shape}; it must have the frame's size {(h, w)}")
    return _dilated(person, margin)


def _landmark_mask(person: Landmarks, width: int, height: int, margin: float) -> np.ndarray:
    """`person_mask` of landmarks: the network's mask, which is coarse; without one, the person's box."""
    if person.mask is None:
        mask = np.zeros((height, width), np.float32)
        x0, y0, x1, y1 = np.round(person.box).astype(int)
        mask[max(y0, 0):max(y1, 0), max(x0, 0):max(x1, 0)] = 1.0
        return _dilated(mask, margin)
    times = max(width // _MASK_WIDTH, 1)
    small = -(-width // times), -(-height // times)
    to_small = (np.asarray(person.mask_to_image, np.float64) + [[0, 0, 0.5], [0, 0, 0.5]]) / times
    mask = cv2.warpAffine(np.asarray(person.mask, np.float32), to_small - [[0, 0, 0.5], [0, 0, 0.5]], small,
                          flags=cv2.INTER_LINEAR)
    mask = _dilated(mask, margin)
    if times == 1:
        return mask
    whole = cv2.resize(mask, (times * small[0], times * small[1]), interpolation=cv2.INTER_NEAREST)
    return np.ascontiguousarray(whole[:height, :width])


def _dilated(mask: np.ndarray, margin: float) -> np.ndarray:
    radius = int(np.ceil(margin * mask.shape[1]))
    covered = (mask > 0.3).astype(np.uint8) * PERSON
    return cv2.dilate(covered, np.ones((2 * radius + 1, 2 * radius + 1), np.uint8)) if radius else covered


def _image(frame: Frame | np.ndarray) -> np.ndarray:
    return frame.image if isinstance(frame, Frame) else frame


def _one_kind(image: np.ndarray) -> np.ndarray:
    """The image contiguous and read-only, as a view of a message is: numba compiles a kernel anew (a second, at the
    first frame) for every other combination of the two."""
    view = np.ascontiguousarray(image).view()
    view.flags.writeable = False
    return view


def _colour_image(image: np.ndarray, name: str) -> np.ndarray:
    if not isinstance(image, np.ndarray) or image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
        what = f"{image.shape} {image.dtype}" if isinstance(image, np.ndarray) else type(image).__name__
        raise ValueError(f"{name} is {what}; it must be [H, W, 3] uint8 RGB")
    return image


def _sample_grid(h: int, w: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Open index arrays of about 96 x 72 samples and the cell of each [rows, columns]."""
    step = max(w // _SAMPLE_COLUMNS, 1)
    y, x = np.arange(step // 2, h, step), np.arange(step // 2, w, step)
    cell = (y * CELLS[0] // h)[:, None] * CELLS[1] + (x * CELLS[1] // w)[None, :]
    return y[:, None], x[None, :], cell


@njit(cache=True, nogil=True)
def _samples(image, plate, sigma, age, person, table, rows, columns, cells):
    """What the drift is fitted to: light of the frame and of the plate [N, 3], noise and cell [N] of the grid's pixels
    that are known, free of people and neither saturated nor black."""
    most = rows.size * columns.size
    bright, under = np.empty((most, 3), table.dtype), np.empty((most, 3), plate.dtype)
    noise, cell = np.empty(most, sigma.dtype), np.empty(most, cells.dtype)
    n = 0
    for i in range(rows.size):
        for j in range(columns.size):
            y, x = rows[i, 0], columns[0, j]
            usable = age[y, x] > 0 and person[y, x] == FREE
            for c in range(3):
                usable = usable and image[y, x, c] < 250 and 0.003 < plate[y, x, c] < 0.9
            if not usable:
                continue
            for c in range(3):
                bright[n, c] = table[image[y, x, c]]
                under[n, c] = plate[y, x, c]
            noise[n], cell[n] = sigma[y, x], cells[i, j]
            n += 1
    return bright[:n], under[:n], noise[:n], cell[:n]


def _base_sigma(plate: np.ndarray, noise: np.ndarray, response: str) -> np.ndarray:
    """[H, W] noise at the plate's brightness, and at edges what a tiny shift of the image would do."""
    grey, flat = _grey_and_noise(plate, noise, light.encode_table(response))
    gx, gy = cv2.Sobel(grey, cv2.CV_32F, 1, 0, scale=0.125), cv2.Sobel(grey, cv2.CV_32F, 0, 1, scale=0.125)
    return np.sqrt(flat + _EDGE**2 * (gx**2 + gy**2)).astype(np.float32)


@njit(cache=True, nogil=True, error_model="numpy")
def _grey_and_noise(plate, noise, codes):
    """Mean over the colours [H, W] of the plate and of its noise variance; noise [256] by code value, codes: of
    `light.encode_table`."""
    h, w = plate.shape[:2]
    last, third = np.float32(codes.size - 1), np.float32(3.0)
    grey, variance = np.empty((h, w), np.float32), np.empty((h, w), np.float32)
    for y in range(h):
        for x in range(w):
            total, squared = np.float32(0.0), np.float32(0.0)
            for c in range(3):
                value = plate[y, x, c]
                code = codes[int(min(max(value, np.float32(0.0)), np.float32(1.0)) * last + np.float32(0.5))]
                total += value
                squared += noise[code] * noise[code]
            grey[y, x], variance[y, x] = total / third, squared / third
    return grey, variance


def _filled(plate: np.ndarray, unknown: np.ndarray) -> np.ndarray:
    """The plate with unknown pixels painted in smoothly from known ones (only to look at: their sigma is large)."""
    weight = (~unknown).astype(np.float32)
    small = (max(plate.shape[1] // 8, 1), max(plate.shape[0] // 8, 1))
    colour = cv2.resize(plate * weight[..., None], small, interpolation=cv2.INTER_AREA)
    weight = cv2.resize(weight, small, interpolation=cv2.INTER_AREA)
    near, wide = (cv2.GaussianBlur(colour, (0, 0), s) / np.maximum(cv2.GaussianBlur(weight, (0, 0), s), 1e-4)[..., None]
                  for s in (2.0, 12.0))
    enough = np.clip(cv2.GaussianBlur(weight, (0, 0), 2.0) * 20, 0, 1)[..., None]
    paint = cv2.resize(near * enough + wide * (1 - enough), (plate.shape[1], plate.shape[0]))
    return np.where(unknown[..., None], paint, plate).astype(np.float32)
