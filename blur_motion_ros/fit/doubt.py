"""How far a fit is to be doubted.

Where it has settled in a wrong minimum (an arm before the trunk that is really overhead), the curvature there says
nothing of its error, and few pixels differ by many sigmas. What tells is how badly its silhouette covers the person:
measured over 27 sequences, the squared error in stated variances grows e-fold with every 0.08 of overlap less. And
speed tells: limbs that come out faster than people mostly move them are more often wrong than fast
(docs/fit.md, "What is doubted").
"""

from __future__ import annotations

import numpy as np

from blur_motion_ros.fit.image_terms import Target
from blur_motion_ros.fit.layout import FREE_COUNT, LIMB_OF_SLOT, LIMBS

_GOOD_OVERLAP = 0.88  # silhouettes that agree this well leave the stated covariance as it is
_DOUBT = 12.0  # logarithm of its growth per unit of overlap less than that
_MOST_DOUBTED = 0.4  # overlap below 0.48 is as good as none
_AGREED = 0.4  # squared distance of a limb from its measurement, per angle, up to which nothing is amiss
_CREDIBLE = 7.0  # m/s against the pelvis, up to which a limb's speed is believed
_ENDS = [limb[-1] for limb in LIMBS]


def silhouette_overlap(target: Target, predicted: np.ndarray) -> float:
    """Soft intersection over union of fitted and matted silhouettes, mean over a window's exposures; pixels that the
    matte does not know speak for the fit (a rim that is known must not stand for the whole). predicted [F, S, S, 4]."""
    known = target.weight[..., 3] > 1.0
    fitted = np.clip(predicted[..., 3], 0, 1)
    matted = np.where(known, np.clip(target.value[..., 3], 0, 1), fitted)
    union = np.maximum(fitted, matted).sum((1, 2))
    shared = np.minimum(fitted, matted).sum((1, 2))
    seen = union > 0
    return float((shared[seen] / union[seen]).mean()) if seen.any() else 1.0


def limb_speeds(joints: np.ndarray, times: np.ndarray) -> np.ndarray:
    """Greatest speed of each limb's end [6], against the pelvis, between the instants of a window, m/s (trunk: of the
    uppermost vertebra). joints [M, 24, 3] m at times [M] s; of one instant nothing is known: 0."""
    if len(times) < 2:
        return np.zeros(len(LIMBS))
    ends = joints[:, _ENDS] - joints[:, :1]
    return (np.linalg.norm(np.diff(ends, axis=0), axis=-1) / np.diff(times)[:, None]).max(0)


def doubted(covariance: np.ndarray, overlap: float, surprises: np.ndarray, speeds: np.ndarray) -> np.ndarray:
    """Covariance [n, n] of a window's coefficients, enlarged where silhouettes do not overlap and, limb by limb, where
    fit and measurements disagree (one of them is wrong) and where a limb is hardly credibly fast.
    surprises [6]: `PoseGaussian.by_limb`, the window's largest.  speeds [6]: `limb_speeds`."""
    root = np.sqrt(np.maximum(np.asarray(surprises) / _AGREED, 1.0)) * np.maximum(speeds / _CREDIBLE, 1.0)
    root[0] = 1.0  # the trunk's coefficients move everything: its doubt is the silhouette's
    each = np.repeat(root[LIMB_OF_SLOT], len(covariance) // FREE_COUNT)
    return doubt(overlap) * each[:, None] * covariance * each


def doubt(overlap: float) -> float:
    """Factor on the whole covariance."""
    return float(np.exp(_DOUBT * np.clip(_GOOD_OVERLAP - overlap, 0.0, _MOST_DOUBTED)))
