"""A clean plate from a short burst of frames of the empty scene, refused when something moved."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np

from blur_motion_ros import light

_MOVED = 6.0  # a pixel moved when a frame is this many noise sd from the median
_MOST = 25  # frames used: more only cost time


class CaptureError(ValueError):
    """The burst cannot be a clean plate; the message says why and what to do."""


def capture_plate(frames: Sequence[np.ndarray], response: str = "srgb",
                  most_motion: float = 0.004) -> tuple[np.ndarray, float]:
    """Robust mean of still frames [H, W, 3] uint8: plate [H, W, 3] float32 linear light, noise in code values.

    CaptureError with fewer than three frames, different sizes, or when more than `most_motion` of the image moved.
    """
    if len(frames) < 3:
        raise CaptureError(f"{len(frames)} frames are too few for a plate; capture at least 3")
    if any(f.shape != frames[0].shape for f in frames):
        raise CaptureError("the frames have different sizes; capture again after the camera has settled")
    step = -(-len(frames) // _MOST)
    stack = np.stack(frames[::step]).astype(np.float32)
    stack -= _flicker(stack)
    median = _median(stack)
    noise = _noise(stack, median)
    deviation = np.abs(stack - median)
    _refuse_motion(deviation.max(0).max(2), noise, most_motion)
    near = deviation <= 3.0 * noise
    codes = (stack * near).sum(0) / np.maximum(near.sum(0), 1)
    codes = np.where(near.any(0), codes, median)
    table = light.decode_table(response)
    plate = np.interp(codes.ravel(), np.arange(256), table).reshape(codes.shape).astype(np.float32)
    return plate, noise


def _flicker(stack: np.ndarray) -> np.ndarray:
    """[N, 1, 1, 3] code offset of each frame from the burst: mains flicker is not motion."""
    sample = stack[:, ::8, ::8]
    offset = np.median(sample - np.median(sample, axis=0), axis=(1, 2), keepdims=True)
    return offset


def _median(stack: np.ndarray) -> np.ndarray:
    """Median over frames, by bands of rows to bound memory."""
    return np.concatenate([np.median(stack[:, y:y + 64], axis=0) for y in range(0, stack.shape[1], 64)])


def _noise(stack: np.ndarray, median: np.ndarray) -> float:
    """Noise of a pixel, code values: quantisation is its floor."""
    return float(max(1.4826 * np.median(np.abs(stack[:, ::4, ::4] - median[::4, ::4])), 0.7))


def _refuse_motion(deviation: np.ndarray, noise: float, most: float) -> None:
    moved = cv2.morphologyEx((deviation > _MOVED * noise).astype(np.uint8), cv2.MORPH_OPEN, np.ones((3, 3), np.uint8))
    share = float(moved.mean())
    if share > most:
        y, x = np.nonzero(moved)
        raise CaptureError(f"something moved while the plate was captured ({100 * share:.1f} % of the image, within"
                           f" x {x.min()}..{x.max()}, y {y.min()}..{y.max()}); clear the view and capture again")
