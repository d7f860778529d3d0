"""Differentiable, scriptable twins (torch) of the functions of `rotations` that the networks use.

Same convention as `rotations`: column vectors, rotation vectors in radians, 6D interleaved `[R00, R01, R10, R11, R20,
R21]`. All functions take leading batch dimensions and keep dtype and device. (Thresholds are literals: TorchScript
cannot read module constants.)
"""

from __future__ import annotations

import torch
from torch import Tensor


def from_6d(d: Tensor) -> Tensor:
    """[..., 6] -> rotation matrix [..., 3, 3] by Gram-Schmidt (first column kept, second made orthogonal)."""
    columns = d.unflatten(-1, (3, 2))
    a, b = columns[..., 0], columns[..., 1]
    x = a / torch.linalg.vector_norm(a, dim=-1, keepdim=True).clamp(min=1e-6)
    b = b - (x * b).sum(-1, keepdim=True) * x
    y = b / torch.linalg.vector_norm(b, dim=-1, keepdim=True).clamp(min=1e-6)
    return torch.stack([x, y, torch.linalg.cross(x, y, dim=-1)], dim=-1)


def to_6d(r: Tensor) -> Tensor:
    """Matrix [..., 3, 3] -> [..., 6]."""
    return r[..., :, :2].flatten(-2)


def exp(v: Tensor) -> Tensor:
    """Rotation vector [..., 3] -> matrix [..., 3, 3] (Rodrigues); finite gradients at zero."""
    a2 = (v * v).sum(-1)[..., None, None]
    small = a2 < 1e-8
    safe2 = torch.where(small, torch.ones_like(a2), a2)
    a = safe2.sqrt()
    s = torch.where(small, 1 - a2 / 6, torch.sin(a) / a)
    c = torch.where(small, 0.5 - a2 / 24, (1 - torch.cos(a)) / safe2)
    k = skew(v)
    return torch.eye(3, dtype=v.dtype, device=v.device) + s * k + c * (k @ k)


def skew(v: Tensor) -> Tensor:
    """[..., 3] -> [..., 3, 3] with `skew(v) @ x == cross(v, x)`."""
    x, y, z = v[..., 0], v[..., 1], v[..., 2]
    o = torch.zeros_like(x)
    return torch.stack([o, -z, y, z, o, -x, -y, x, o], -1).unflatten(-1, (3, 3))


def to_quaternion(r: Tensor) -> Tensor:
    """Matrix [..., 3, 3] -> unit quaternion [..., 4] (x, y, z, w), w >= 0 (largest of four equivalent forms)."""
    m00, m11, m22 = r[..., 0, 0], r[..., 1, 1], r[..., 2, 2]
    s01, s02, s12 = r[..., 0, 1] + r[..., 1, 0], r[..., 0, 2] + r[..., 2, 0], r[..., 1, 2] + r[..., 2, 1]
    dx, dy, dz = r[..., 2, 1] - r[..., 1, 2], r[..., 0, 2] - r[..., 2, 0], r[..., 1, 0] - r[..., 0, 1]
    rows = torch.stack([
        torch.stack([1 + m00 - m11 - m22, s01, s02, dx], -1),
        torch.stack([s01, 1 - m00 + m11 - m22, s12, dy], -1),
        torch.stack([s02, s12, 1 - m00 - m11 + m22, dz], -1),
        torch.stack([dx, dy, dz, 1 + m00 + m11 + m22], -1),
    ], -2)
    best = torch.diagonal(rows, dim1=-2, dim2=-1).argmax(-1)
    index = best[..., None, None].expand(rows[..., :1, :].shape)
    q = rows.gather(-2, index)[..., 0, :]
    q = q / torch.linalg.vector_norm(q, dim=-1, keepdim=True)
    return torch.where(q[..., 3:] < 0, -q, q)


def log(r: Tensor) -> Tensor:
    """Matrix [..., 3, 3] -> rotation vector [..., 3] with angle in [0, pi]."""
    q = to_quaternion(r)
    v, w = q[..., :3], q[..., 3:]
    n2 = (v * v).sum(-1, keepdim=True)
    small = n2 < 1e-16
    n = torch.where(small, torch.ones_like(n2), n2).sqrt()
    return v * torch.where(small, 2 / w, 2 * torch.atan2(n, w) / n)
