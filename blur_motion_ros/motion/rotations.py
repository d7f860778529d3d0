"""Rotations, the only copy (numpy; `rotations_torch` holds the differentiable twins used by the networks).

Convention: rotation matrices act on column vectors, `x_parent = R x_child`; rotation vectors are axis * angle in
radians; perturbations multiply on the right, `R exp(delta)`. All functions take leading batch dimensions.
Quaternions are x, y, z, w (ROS order), w >= 0 on output. 6D is the first two columns of R, interleaved as
`[R00, R01, R10, R11, R20, R21]` (Zhou et al. 2019, in the layout VIBE and SPIN use: `view(-1, 3, 2)`).
"""

from __future__ import annotations

import numpy as np

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
    a2 = (v * v).sum(-1)[..., None, None]
    a = np.sqrt(a2)
    small = a2 < _SMALL
    safe = np.where(small, 1.0, a)
    s = np.where(small, 1 - a2 / 6, np.sin(safe) / safe)
    c = np.where(small, 0.5 - a2 / 24, (1 - np.cos(safe)) / (safe * safe))
    k = skew(v)
    return np.eye(3, dtype=v.dtype) + s * k + c * (k @ k)


def log(r: np.ndarray) -> np.ndarray:
    """Matrix [..., 3, 3] -> rotation vector [..., 3] with angle in [0, pi]; stable near 0 and pi."""
    q = to_quaternion(r)
    n = np.linalg.norm(q[..., :3], axis=-1, keepdims=True)
    angle = 2 * np.arctan2(n, q[..., 3:])
    scale = np.where(n < _SMALL, 2.0, angle / np.where(n < _SMALL, 1.0, n))
    return q[..., :3] * scale


def to_quaternion(r: np.ndarray) -> np.ndarray:
    """Matrix [..., 3, 3] -> unit quaternion [..., 4] (x, y, z, w), w >= 0 (Bar-Itzhack's largest-component form)."""
    r = np.asarray(r, dtype=np.result_type(r, np.float32))
    m = [[r[..., i, j] for j in range(3)] for i in range(3)]
    k = np.stack([
        np.stack([1 + m[0][0] - m[1][1] - m[2][2], m[0][1] + m[1][0], m[0][2] + m[2][0], m[2][1] - m[1][2]], -1),
        np.stack([m[0][1] + m[1][0], 1 - m[0][0] + m[1][1] - m[2][2], m[1][2] + m[2][1], m[0][2] - m[2][0]], -1),
        np.stack([m[0][2] + m[2][0], m[1][2] + m[2][1], 1 - m[0][0] - m[1][1] + m[2][2], m[1][0] - m[0][1]], -1),
        np.stack([m[2][1] - m[1][2], m[0][2] - m[2][0], m[1][0] - m[0][1], 1 + m[0][0] + m[1][1] + m[2][2]], -1),
    ], -2)
    best = np.argmax(np.diagonal(k, axis1=-2, axis2=-1), -1)
    q = np.take_along_axis(k, best[..., None, None], -2)[..., 0, :]
    q = q / np.linalg.norm(q, axis=-1, keepdims=True)
    return np.where(q[..., 3:] < 0, -q, q)


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
    v = np.asarray(v)
    a2 = (v * v).sum(-1)[..., None, None]
    a = np.sqrt(a2)
    small = a2 < 1e-6
    safe = np.where(small, 1.0, a)
    c = np.where(small, 0.5 - a2 / 24, (1 - np.cos(safe)) / safe**2)
    s = np.where(small, 1 / 6 - a2 / 120, (safe - np.sin(safe)) / safe**3)
    k = skew(v)
    return np.eye(3, dtype=v.dtype) - c * k + s * (k @ k)


def inverse_right_jacobian(v: np.ndarray) -> np.ndarray:
    """Inverse of `right_jacobian` for angles below 2 pi."""
    return np.linalg.inv(right_jacobian(v))


def slerp(a: np.ndarray, b: np.ndarray, t: np.ndarray) -> np.ndarray:
    """Geodesic interpolation of matrices [..., 3, 3]; t broadcasts against the batch dimensions."""
    step = log(np.swapaxes(a, -1, -2) @ b)
    return a @ exp(np.asarray(t)[..., None] * step)
