"""Torch twin of `fit.kinematics.pose`, differentiable in motion and shape, on any device."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from blur_motion_ros.fit.kinematics import FitBody
from blur_motion_ros.fit.layout import FREE_ROWS
from blur_motion_ros.motion import rotations_torch


@dataclass(frozen=True)
class TorchBody:
    """`FitBody` as tensors: rest_vertices [V, 3], rest_joints [24, 3] m, weights [V, 24], faces [F, 3] int32.

    levels: joints and their parents by depth in the tree, so that a whole level is turned at once.
    """

    rest_vertices: Tensor
    rest_joints: Tensor
    weights: Tensor
    faces: Tensor
    parents: tuple[int, ...]
    levels: tuple[tuple[list[int], list[int]], ...]

    @staticmethod
    def of(body: FitBody, device: torch.device | str = "cpu") -> TorchBody:
        weights = np.zeros((len(body.rest_vertices), 24), np.float32)
        np.add.at(weights, (np.arange(len(weights))[:, None], body.weight_joints), body.weights)
        return TorchBody(_tensor(body.rest_vertices, device), _tensor(body.rest_joints, device),
                         _tensor(weights, device), torch.from_numpy(np.array(body.faces, np.int32)).to(device),
                         tuple(int(p) for p in body.parents), _levels(body.parents))


def pose(body: TorchBody, local: Tensor, transl: Tensor, rest_vertices: Tensor | None = None,
         rest_joints: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Skinned bodies: local rotations [M, 24, 3, 3], transl [M, 3] m -> (vertices [M, V, 3], joints [M, 24, 3]).

    rest_vertices, rest_joints: another shape than the body's own.
    """
    vertices = body.rest_vertices if rest_vertices is None else rest_vertices
    rest = body.rest_joints if rest_joints is None else rest_joints
    turned, joints = chain(body, local, transl, rest)
    offset = joints - (turned @ rest[..., None])[..., 0]
    # One product of matrices does the skinning: every vertex' weights times its homogeneous position, [V, 24 * 4].
    spread = (body.weights[:, :, None] * torch.cat([vertices, torch.ones_like(vertices[:, :1])], 1)[:, None]).flatten(1)
    rigid = torch.cat([turned, offset[..., None]], -1).permute(1, 3, 0, 2).flatten(0, 1).flatten(1)  # [24 * 4, M * 3]
    return (spread @ rigid).unflatten(1, (-1, 3)).transpose(0, 1).contiguous(), joints


def chain(body: TorchBody, local: Tensor, transl: Tensor, rest: Tensor) -> tuple[Tensor, Tensor]:
    """Forward kinematics, smplx semantics: -> joint-to-camera rotations [M, 24, 3, 3], joints [M, 24, 3]."""
    order, turned, placed = [0], local[:, :1], (rest[0] + transl)[:, None]
    for joints, parents in body.levels:
        at = [order.index(p) for p in parents]
        above = turned[:, at]
        bone = rest[joints] - rest[parents]
        placed = torch.cat([placed, placed[:, at] + (above @ bone[..., None])[..., 0]], 1)
        turned = torch.cat([turned, above @ local[:, joints]], 1)
        order += joints
    back = np.argsort(order).tolist()
    return turned[:, back], placed[:, back]


def widen(free: Tensor) -> Tensor:
    """[21, K, 3] -> [25, K, 3] with the joints that are not solved for at rest (`solver.widen`)."""
    out = free.new_zeros((25,) + free.shape[1:])
    return out.index_copy(0, torch.from_numpy(FREE_ROWS).to(free.device), free)


def local_rotations(reference: Tensor, coefficients: Tensor, basis: Tensor) -> tuple[Tensor, Tensor]:
    """`R_ref exp(p(t))`: reference [24, 3, 3], coefficients [25, K, 3], basis [M, K] -> ([M, 24, 3, 3], [M, 3])."""
    value = torch.einsum("mk,jkc->mjc", basis, coefficients)
    return reference @ rotations_torch.exp(value[:, 1:]), value[:, 0]


def _levels(parents: np.ndarray) -> tuple[tuple[list[int], list[int]], ...]:
    levels, known = [], {0}
    while len(known) < len(parents):
        joints = [j for j in range(len(parents)) if j not in known and int(parents[j]) in known]
        if not joints:
            raise ValueError("parents: not one tree with root 0")
        levels.append((joints, [int(parents[j]) for j in joints]))
        known.update(joints)
    return tuple(levels)


def _tensor(array: np.ndarray, device: torch.device | str) -> Tensor:
    return torch.from_numpy(np.array(array, np.float32)).to(device)
