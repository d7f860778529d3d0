"""How well a fitted motion explains the picture: silhouette overlap and PSNR of the re-rendered blur."""

from __future__ import annotations

import numpy as np


def soft_iou(alpha: np.ndarray, truth: np.ndarray) -> float:
    """sum(min) / sum(max) of two average silhouettes [H, W] in [0, 1]: 1 only when they are equal.

    (The product form ab / (a + b - ab) is not used: at a = 0.5 it prefers b = 1 to b = 0.5.)
    """
    high = np.maximum(alpha, truth).sum()
    return float(np.minimum(alpha, truth).sum() / high) if high > 0 else 1.0


def silhouette_iou(silhouettes: np.ndarray, truth: np.ndarray) -> float:
    """Mean IoU of sub-frame silhouettes [N, H, W] (bool or coverage), taken in the same order."""
    a, b = np.asarray(silhouettes) > 0.5, np.asarray(truth) > 0.5
    union = np.maximum((a | b).sum((1, 2)), 1)
    return float(((a & b).sum((1, 2)) / union).mean())


def psnr(image: np.ndarray, truth: np.ndarray, mask: np.ndarray | None = None) -> float:
    """dB against a peak of 1 (float images) or 255 (uint8), [H, W, 3]; mask [H, W]: the pixels that count."""
    peak = 255.0 if image.dtype == np.uint8 else 1.0
    square = (np.asarray(image, np.float64) - np.asarray(truth, np.float64)) ** 2
    square = square if mask is None else square[np.asarray(mask) > 0]
    if not square.size:
        return float("nan")
    mse = square.mean()
    return float("inf") if mse == 0 else float(10 * np.log10(peak**2 / mse))
