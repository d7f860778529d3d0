"""Blur rate: how much of the body's footprint moved during one exposure. Two formulas, both from sub-frame silhouettes.

`blur_rate` (ours, and that of the sequences' ground truth):   1 - |intersection of S_1..S_N| / |union of S_1..S_N|.
  0 = nothing moved; 1 = no pixel is covered for the whole exposure. Symmetric in time.
`blur_rate_first` (Human from Blur's idea, relative to the first silhouette):   mean over i >= 2 of
  |S_i \\ S_1| / |S_1|, the area newly covered in units of the body's own area. It depends on the time direction and
  exceeds 1 when the body leaves its own footprint and grows.

Both grow with N, quickly at first, then hardly: compare only rates of about the same N (ground truth: 9).
"""

from __future__ import annotations

import numpy as np


def blur_rate(silhouettes: np.ndarray, threshold: float = 0.5) -> float:
    """1 - |intersection| / |union| of silhouettes [N, H, W] (coverage or bool); NaN where nothing is covered."""
    covered = _covered(silhouettes, threshold)
    union = np.count_nonzero(covered.any(0))
    return float("nan") if union == 0 else 1.0 - np.count_nonzero(covered.all(0)) / union


def blur_rate_first(silhouettes: np.ndarray, threshold: float = 0.5) -> float:
    """Mean over later silhouettes of newly covered area / area of the first; NaN where the first one is empty."""
    covered = _covered(silhouettes, threshold)
    first = np.count_nonzero(covered[0])
    if first == 0 or len(covered) < 2:
        return float("nan") if first == 0 else 0.0
    return float(np.mean([np.count_nonzero(s & ~covered[0]) for s in covered[1:]]) / first)


def blur_rate_from_alpha(alpha: np.ndarray, tolerance: float = 0.02) -> float:
    """`blur_rate` from the average silhouette alone: 1 - |alpha ~ 1| / |alpha > 0|.

    Exact for a noise-free average [H, W] of binary silhouettes; edge pixels that anti-aliasing leaves fractional
    raise it.
    """
    union = np.count_nonzero(alpha > tolerance)
    return float("nan") if union == 0 else 1.0 - np.count_nonzero(alpha >= 1.0 - tolerance) / union


def _covered(silhouettes: np.ndarray, threshold: float) -> np.ndarray:
    silhouettes = np.asarray(silhouettes)
    if silhouettes.ndim != 3 or not len(silhouettes):
        raise ValueError(f"silhouettes have shape {silhouettes.shape}; expected [N, H, W] with N >= 1")
    return silhouettes if silhouettes.dtype == bool else silhouettes > threshold
