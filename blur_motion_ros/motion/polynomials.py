"""Low-degree polynomials of pose over a window, in the Legendre basis.

A motion is `p(t) = sum_k c_k P_k(x)` with `x = 2 tau - 1` in [-1, 1] and `tau = (t - start) / (end - start)`.
Coefficients are [..., K, 3] with K = degree + 1; `P_k` are Legendre polynomials, orthogonal on the window, so
c_0 is the mean pose, c_1 half the travel, c_2 the bend. (Human from Blur uses monomials on [0, 1]; the two are
linear maps of each other: `monomials_from_legendre`.)
"""

from __future__ import annotations

import numpy as np
from numba import njit

from blur_motion_ros.motion import rotations


def basis(times: np.ndarray, start: float, end: float, degree: int) -> np.ndarray:
    """[T] seconds -> [T, degree + 1] values of P_k."""
    return _legendre(_unit(times, start, end), degree)[0]


def basis_rate(times: np.ndarray, start: float, end: float, degree: int) -> np.ndarray:
    """[T] seconds -> [T, degree + 1] time derivatives dP_k/dt in 1/s."""
    return _legendre(_unit(times, start, end), degree)[1] * (2.0 / (end - start))


def evaluate(coefficients: np.ndarray, times: np.ndarray, start: float, end: float) -> np.ndarray:
    """Coefficients [..., K, 3], times [T] -> values [T, ..., 3]."""
    b = basis(times, start, end, coefficients.shape[-2] - 1)
    return np.einsum("tk,...kc->t...c", b, coefficients)


def rate(coefficients: np.ndarray, times: np.ndarray, start: float, end: float) -> np.ndarray:
    """Time derivative of `evaluate`, per second."""
    b = basis_rate(times, start, end, coefficients.shape[-2] - 1)
    return np.einsum("tk,...kc->t...c", b, coefficients)


def reverse(coefficients: np.ndarray) -> np.ndarray:
    """The same motion run backwards over the window, t -> start + end - t: odd terms change sign."""
    sign = (-1.0) ** np.arange(coefficients.shape[-2])
    return coefficients * sign[:, None]


def nodes(start: float, end: float, degree: int) -> np.ndarray:
    """[degree + 1] times (Chebyshev) at which the values of a polynomial determine it well."""
    x = np.cos(np.pi * (np.arange(degree + 1) + 0.5) / (degree + 1))
    return start + (x + 1) / 2 * (end - start)


def shift_matrix(old: tuple[float, float], new: tuple[float, float], degree: int) -> np.ndarray:
    """[K, K] matrix M with `new_coefficients = M @ old_coefficients`: the same curve on another interval (exact)."""
    times = nodes(*new, degree)
    return np.linalg.solve(basis(times, *new, degree), basis(times, *old, degree))


def monomials_from_legendre(degree: int) -> np.ndarray:
    """[K, K] matrix from Legendre coefficients on the window to monomial coefficients in tau on [0, 1]."""
    tau = np.linspace(0, 1, degree + 1)
    return np.linalg.solve(np.vander(tau, degree + 1, increasing=True), basis(tau, 0.0, 1.0, degree))


def fit(values: np.ndarray, times: np.ndarray, start: float, end: float, degree: int) -> np.ndarray:
    """Least-squares coefficients [..., K, 3] of samples [T, ..., 3] at times [T] (T > degree)."""
    pinv = np.linalg.pinv(basis(times, start, end, degree))
    return np.einsum("kt,t...c->...kc", pinv, values)


def fit_rotations(rotmats: np.ndarray, times: np.ndarray, start: float, end: float, degree: int
                  ) -> tuple[np.ndarray, np.ndarray]:
    """Rotations [T, ..., 3, 3] -> (R_ref [..., 3, 3], coefficients [..., K, 3]) with `R(t) ~ R_ref exp(p(t))`.

    R_ref is the sample nearest the middle of the window, so that p stays small and cannot wrap.
    """
    middle = int(np.argmin(np.abs(np.asarray(times) - 0.5 * (start + end))))
    reference = rotmats[middle]
    logs = rotations.log(np.swapaxes(reference, -1, -2) @ rotmats)
    return reference, fit(logs, times, start, end, degree)


def fit_motion(rotmats: np.ndarray, transl: np.ndarray, times: np.ndarray, start: float, end: float, degree: int
               ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Local rotations [T, 24, 3, 3] and translations [T, 3] in order of time -> reference rotations [24, 3, 3],
    reference translation [3] (the middle one) and coefficients [25, K, 3], translation first."""
    reference, turning = fit_rotations(rotmats, times, start, end, degree)
    middle = transl[len(times) // 2]
    moving = fit((transl - middle)[:, None], times, start, end, degree)
    return reference, middle, np.concatenate([moving, turning])


def _unit(times: np.ndarray, start: float, end: float) -> np.ndarray:
    return 2.0 * (np.asarray(times, np.float64) - start) / (end - start) - 1.0


@njit(cache=True)
def _legendre(x, degree):
    """Values P_k(x) and derivatives P_k'(x), [T, degree + 1] each, by Bonnet's recursion."""
    values, slopes = np.ones((len(x), degree + 1)), np.zeros((len(x), degree + 1))
    for t in range(len(x)):
        if degree > 0:
            values[t, 1], slopes[t, 1] = x[t], 1.0
        for k in range(1, degree):
            values[t, k + 1] = ((2 * k + 1) * x[t] * values[t, k] - k * values[t, k - 1]) / (k + 1)
            slopes[t, k + 1] = (2 * k + 1) * values[t, k] + slopes[t, k - 1]
    return values, slopes
