"""Is the stated covariance true? Normalised errors and reliability curves of joint positions or velocities."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

LEVELS = np.linspace(0.05, 0.95, 19)


@dataclass(frozen=True)
class Calibration:
    """nees: mean of e' C^-1 e / 3, 1 when honest, above 1 when overconfident.  depth, plane: the same for the viewing
    direction alone and the two image axes.  levels [L] and observed [L]: share of errors inside the ellipsoid that
    should hold that share.  count: errors used."""

    nees: float
    plane: float
    depth: float
    levels: np.ndarray
    observed: np.ndarray
    count: int


def calibration(errors: np.ndarray, covariances: np.ndarray) -> Calibration:
    """Errors [..., 3] (predicted - true, camera axes) against stated covariances [..., 3, 3] of the same unit squared.

    Non-finite entries are left out. ValueError when a covariance is not positive definite.
    """
    errors, covariances = np.asarray(errors, np.float64), np.asarray(covariances, np.float64)
    if covariances.shape != errors.shape + (3,):
        raise ValueError(f"covariances {covariances.shape} do not fit errors {errors.shape}; expected [..., 3, 3]")
    e, c = errors.reshape(-1, 3), covariances.reshape(-1, 3, 3)
    good = np.isfinite(e).all(1) & np.isfinite(c).all((1, 2))
    e, c = e[good], c[good]
    if not len(e):
        return Calibration(*[float("nan")] * 3, LEVELS, np.full(len(LEVELS), np.nan), 0)
    if np.linalg.eigvalsh(c).min() <= 0:
        raise ValueError("a covariance is not positive definite; add the noise floor before judging it")
    squared = _mahalanobis(e, c)
    return Calibration(float(squared.mean() / 3), float(_mahalanobis(e[:, :2], c[:, :2, :2]).mean() / 2),
                       float((e[:, 2] ** 2 / c[:, 2, 2]).mean()), LEVELS, coverage(squared, 3, LEVELS), len(e))


@dataclass(frozen=True)
class Normalised:
    """Squared errors in squared sigmas of the two image axes together, plane [n] (2 when honest, on average), and of
    the viewing direction alone, depth [n] (1)."""

    plane: np.ndarray
    depth: np.ndarray


def normalised(errors: np.ndarray, covariances: np.ndarray) -> Normalised:
    """Errors [..., 3] (camera axes) and covariances [..., 3, 3] with the non-finite left out."""
    e, c = np.reshape(errors, (-1, 3)).astype(float), np.reshape(covariances, (-1, 3, 3)).astype(float)
    good = np.isfinite(e).all(1) & np.isfinite(c).all((1, 2))
    e, c = e[good], c[good]
    return Normalised(_mahalanobis(e[:, :2], c[:, :2, :2]), e[:, 2] ** 2 / c[:, 2, 2])


def coverage(squared: np.ndarray, dimensions: int, levels: np.ndarray) -> np.ndarray:
    """[L] share of squared Mahalanobis distances [n] inside the ellipsoid that should hold each level [L]."""
    from scipy.stats import chi2

    if not len(squared):
        return np.full(len(levels), np.nan)
    return (squared[:, None] <= chi2.ppf(levels, dimensions)).mean(0)


def _mahalanobis(e: np.ndarray, c: np.ndarray) -> np.ndarray:
    return (e * np.linalg.solve(c, e[..., None])[..., 0]).sum(-1)
