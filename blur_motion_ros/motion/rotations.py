"""Rotations, the only copy (numpy; `rotations_torch` holds the differentiable twins used by the networks).

Convention: rotation matrices act on column vectors, `x_parent = R x_child`; rotation vectors are axis * angle in
radians; perturbations multiply on the right, `R exp(delta)`. All functions take leading batch dimensions.
Quaternions are x, y, z, w (ROS order), w >= 0 on output. 6D is the first two columns of R, interleaved as
`[R00, R01, R10, R11, R20, R21]` (Zhou et al. 2019, in the layout VIBE and SPIN use: `view(-1, 3, 2)`).
"""

from __future__ import annotations

import numpy as np
from numba import njit

_SMALL = 1e-8


def skew(v: np.ndarray) -> np.ndarray:
    """[..., 3] -> [..., 3, 3] with `skew(v) @ x == cross(v, x)`."""
    v = np.asarray(v)
    out = np.zeros(v.shape[:-1] + (3, 3), v.dtype)
    out[..., 0, 1], out[..., 0, 2] = -v[..., 2], v[..., 1]
    out[..., 1, 0], out[..., 1, 2] = v[..., 2], -v[..., 0]
    out[..., 2, 0], out[..., 2, 1] = -v[..., 1], v[..., 0]
    return out


def exp(v: np.ndarray) -> np.ndarray:
    """Rotation vector [..., 3] -> matrix [..., 3, 3] (Rodrigues)."""
    v = np.asarray(v)
    out = np.empty(v.shape + (3,), np.result_type(v, np.float32))
    exp_into(np.ascontiguousarray(v, out.dtype).reshape(-1, 3), out.reshape(-1, 3, 3))
    return out


def log(r: np.ndarray) -> np.ndarray:
    """Matrix [..., 3, 3] -> rotation vector [..., 3] with angle in [0, pi]; stable near 0 and pi."""
    r = np.asarray(r)
    out = np.empty(r.shape[:-1], np.result_type(r, np.float32))
    log_into(np.ascontiguousarray(r, out.dtype).reshape(-1, 3, 3), out.reshape(-1, 3))
    return out


def to_quaternion(r: np.ndarray) -> np.ndarray:
    """Matrix [..., 3, 3] -> unit quaternion [..., 4] (x, y, z, w), w >= 0 (Bar-Itzhack's largest-component form)."""
    r = np.asarray(r)
    out = np.empty(r.shape[:-2] + (4,), np.result_type(r, np.float32))
    _quaternions_into(np.ascontiguousarray(r, out.dtype).reshape(-1, 3, 3), out.reshape(-1, 4))
    return out


def from_quaternion(q: np.ndarray) -> np.ndarray:
    """Quaternion [..., 4] (x, y, z, w; any norm > 0) -> matrix [..., 3, 3]."""
    q = q / np.linalg.norm(q, axis=-1, keepdims=True)
    k = skew(q[..., :3])
    return np.eye(3, dtype=q.dtype) + 2 * q[..., 3, None, None] * k + 2 * (k @ k)


def to_6d(r: np.ndarray) -> np.ndarray:
    """Matrix [..., 3, 3] -> [..., 6] (interleaved columns)."""
    return r[..., :, :2].reshape(r.shape[:-2] + (6,))


def from_6d(d: np.ndarray) -> np.ndarray:
    """[..., 6] -> matrix [..., 3, 3] by Gram-Schmidt."""
    a, b = d[..., 0::2], d[..., 1::2]
    x = a / np.linalg.norm(a, axis=-1, keepdims=True)
    b = b - (x * b).sum(-1, keepdims=True) * x
    y = b / np.linalg.norm(b, axis=-1, keepdims=True)
    return np.stack([x, y, np.cross(x, y)], -1)


def right_jacobian(v: np.ndarray) -> np.ndarray:
    """[..., 3] -> [..., 3, 3] with `exp(v + d) ~ exp(v) exp(J_r(v) d)`."""
    return _jacobian(v, False)


def inverse_right_jacobian(v: np.ndarray) -> np.ndarray:
    """Inverse of `right_jacobian` for angles below 2 pi."""
    return _jacobian(v, True)


def slerp(a: np.ndarray, b: np.ndarray, t: np.ndarray) -> np.ndarray:
    """Geodesic interpolation of matrices [..., 3, 3]; t broadcasts against the batch dimensions."""
    step = log(np.swapaxes(a, -1, -2) @ b)
    return a @ exp(np.asarray(t)[..., None] * step)


def _jacobian(v: np.ndarray, inverse: bool) -> np.ndarray:
    v = np.asarray(v)
    out = np.empty(v.shape + (3,), np.result_type(v, np.float32))
    right_jacobian_into(np.ascontiguousarray(v, out.dtype).reshape(-1, 3), inverse, out.reshape(-1, 3, 3))
    return out


@njit(cache=True, nogil=True)
def _combine(x, y, z, s, c, out):
    """out = I + s [v] + c [v]^2 for v = (x, y, z)."""
    out[0, 0] = 1 - c * (y * y + z * z)
    out[1, 1] = 1 - c * (x * x + z * z)
    out[2, 2] = 1 - c * (x * x + y * y)
    out[0, 1] = c * x * y - s * z
    out[1, 0] = c * x * y + s * z
    out[0, 2] = c * x * z + s * y
    out[2, 0] = c * x * z - s * y
    out[1, 2] = c * y * z - s * x
    out[2, 1] = c * y * z + s * x


@njit(cache=True)
def exp_into(v, out):
    """`exp` of v [N, 3] into out [N, 3, 3]; for callers that are compiled themselves."""
    for i in range(v.shape[0]):
        x, y, z = v[i, 0], v[i, 1], v[i, 2]
        squared = x * x + y * y + z * z
        if squared < _SMALL:
            s, c = 1 - squared / 6, 0.5 - squared / 24
        else:
            a = np.sqrt(squared)
            s, c = np.sin(a) / a, (1 - np.cos(a)) / squared
        _combine(x, y, z, s, c, out[i])


@njit(cache=True, inline="always")
def _quaternion(m):
    """x, y, z, w >= 0 of a matrix [3, 3], not of unit length, by the largest component (well conditioned)."""
    trace = m[0, 0] + m[1, 1] + m[2, 2]
    if trace >= m[0, 0] and trace >= m[1, 1] and trace >= m[2, 2]:
        x, y, z, w = m[2, 1] - m[1, 2], m[0, 2] - m[2, 0], m[1, 0] - m[0, 1], 1 + trace
    elif m[0, 0] >= m[1, 1] and m[0, 0] >= m[2, 2]:
        x, y, z, w = 1 + 2 * m[0, 0] - trace, m[0, 1] + m[1, 0], m[0, 2] + m[2, 0], m[2, 1] - m[1, 2]
    elif m[1, 1] >= m[2, 2]:
        x, y, z, w = m[0, 1] + m[1, 0], 1 + 2 * m[1, 1] - trace, m[1, 2] + m[2, 1], m[0, 2] - m[2, 0]
    else:
        x, y, z, w = m[0, 2] + m[2, 0], m[1, 2] + m[2, 1], 1 + 2 * m[2, 2] - trace, m[1, 0] - m[0, 1]
    if w < 0:
        return -x, -y, -z, -w
    return x, y, z, w


@njit(cache=True)
def _quaternions_into(r, out):
    """`to_quaternion` of r [N, 3, 3] into out [N, 4]."""
    for i in range(r.shape[0]):
        x, y, z, w = _quaternion(r[i])
        n = np.sqrt(x * x + y * y + z * z + w * w)
        out[i, 0], out[i, 1], out[i, 2], out[i, 3] = x / n, y / n, z / n, w / n


@njit(cache=True)
def log_into(r, out):
    """`log` of r [N, 3, 3] into out [N, 3]."""
    for i in range(r.shape[0]):
        x, y, z, w = _quaternion(r[i])
        n = np.sqrt(x * x + y * y + z * z)
        scale = 2 / w if n < 1e-8 * w else 2 * np.arctan2(n, w) / n
        out[i, 0], out[i, 1], out[i, 2] = scale * x, scale * y, scale * z


@njit(cache=True)
def right_jacobian_into(v, inverse, out):
    """`right_jacobian` (or its inverse) of v [N, 3] into out [N, 3, 3]."""
    for i in range(v.shape[0]):
        x, y, z = v[i, 0], v[i, 1], v[i, 2]
        squared = x * x + y * y + z * z
        a = np.sqrt(squared)
        if inverse:
            s = 0.5
            c = 1 / 12 + squared / 720 if squared < 1e-4 else 1 / squared - (1 + np.cos(a)) / (2 * a * np.sin(a))
        elif squared < 1e-6:
            s, c = -0.5 + squared / 24, 1 / 6 - squared / 120
        else:
            s, c = -(1 - np.cos(a)) / squared, (a - np.sin(a)) / (squared * a)
        _combine(x, y, z, s, c, out[i])
