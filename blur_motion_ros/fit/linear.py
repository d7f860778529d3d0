"""Symmetric positive definite systems through LAPACK, without the checks and copies of the general routines."""

from __future__ import annotations

import numpy as np
from numba import njit
from scipy.linalg import lapack


def solve(matrix: np.ndarray, right: np.ndarray) -> np.ndarray | None:
    """x [n] with matrix [n, n] x = right [n]; None where the matrix is not positive definite. Overwrites `matrix`."""
    factor, failed = lapack.dpotrf(matrix.T, lower=0, clean=0, overwrite_a=1)
    if failed:
        return None
    return lapack.dpotrs(factor, right, lower=0)[0]


def inverse(matrix: np.ndarray) -> np.ndarray:
    """Inverse [n, n] of a covariance or information matrix; where rounding made it indefinite, by LU as any other."""
    matrix = np.asarray(matrix, np.float64)
    factor, failed = lapack.dpotrf(matrix.T, lower=0, clean=0)
    if not failed:
        out, failed = lapack.dpotri(factor, lower=0, overwrite_c=1)
    if failed:
        return np.linalg.inv(matrix)
    _mirror(out.T)
    return out.T


@njit(cache=True)
def _mirror(matrix):
    """Copy the lower triangle to the upper."""
    for i in range(matrix.shape[0]):
        for j in range(i):
            matrix[j, i] = matrix[i, j]
