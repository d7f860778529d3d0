"""Losses of VIBE: 2D keypoints, 3D joints, SMPL pose and shape; and what the landmark variant adds to them."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from blur_motion_ros.body.joints import LSP14_FROM_SMPL24, SMPL24_PARENTS
from blur_motion_ros.motion import rotations_torch
from blur_motion_ros.settings import setting


@dataclass(frozen=True)
class LossWeights:
    """Released configuration of VIBE as defaults; the last six are ours and off in it."""

    keypoints_2d: float = setting(300.0, "squared error of projected joints, crop spans -1 .. 1", low=0)
    joints_3d: float = setting(300.0, "squared error of root-aligned joints", unit="1/m^2", low=0)
    pose: float = setting(60.0, "squared error of rotation matrix entries", low=0)
    shape: float = setting(0.06, "squared error of the shape coefficients", low=0)
    adversarial: float = setting(0.5, "least-squares adversarial term", low=0)
    distance: float = setting(0.0, "mean distance of root-aligned joints (the metric itself)", unit="1/m", low=0)
    velocity: float = setting(0.0, "mean distance of joint steps between frames", unit="1/m", low=0)
    acceleration: float = setting(0.0, "mean distance of joint second differences between frames", unit="1/m", low=0)
    bones: float = setting(0.0, "mean distance of unit bone directions (a limb pointing the wrong way costs 2)", low=0)
    depth: float = setting(0.0, "absolute error of log depth", low=0)
    likelihood: float = setting(0.0, "Gaussian negative log likelihood of the residuals (trains only log sigma)", low=0)


LANDMARK_WEIGHTS = LossWeights(keypoints_2d=4.0, joints_3d=20.0, pose=4.0, shape=0.02, adversarial=0.05, distance=20.0,
                               velocity=10.0, acceleration=5.0, bones=3.0, depth=2.0, likelihood=0.2)


_BONES = ((16, 17, 18, 19, 1, 2, 4, 5, 7, 8, 0, 24), (18, 19, 20, 21, 4, 5, 7, 8, 10, 11, 12, 25))  # from, to


@dataclass(frozen=True)
class Skeleton:
    """Joints of a body as torch sees them: rest joints = template [24, 3] + shapes [24, 3, 10] @ betas."""

    template: Tensor
    shapes: Tensor

    def joints(self, rotmat: Tensor, shape: Tensor) -> Tensor:
        """Local rotations [..., 24, 3, 3], betas [..., 10] -> joints [..., 24, 3] with the pelvis at the origin."""
        rest = self.template + torch.einsum("jak,...k->...ja", self.shapes, shape)
        turned, positions = [rotmat[..., 0, :, :]], [torch.zeros_like(rest[..., 0, :])]
        for j in range(1, 24):
            p = SMPL24_PARENTS[j]
            bone = (rest[..., j, :] - rest[..., p, :])[..., None]
            positions.append(positions[p] + (turned[p] @ bone)[..., 0])
            turned.append(turned[p] @ rotmat[..., j, :, :])
        return torch.stack(positions, -2)


def with_lsp(joints: Tensor) -> Tensor:
    """[..., 24, 3] -> [..., 26, 3]: SMPL joints, then LSP's neck and head."""
    extra = torch.as_tensor(LSP14_FROM_SMPL24[12:], dtype=joints.dtype, device=joints.device)
    return torch.cat([joints, extra @ joints], -2)


def hip_aligned(joints: Tensor) -> Tensor:
    """Joints minus the middle of the hips (VIBE's root)."""
    return joints - 0.5 * (joints[..., 1:2, :] + joints[..., 2:3, :])


def weighted_mean(values: Tensor, weight: Tensor) -> Tensor:
    """Mean of [N, T, ...] over everything, frames weighted by [N, T]."""
    while weight.dim() < values.dim():
        weight = weight[..., None]
    weight = weight.expand_as(values)
    return (values * weight).sum() / weight.sum().clamp(min=1e-6)


@dataclass(frozen=True)
class Target:
    """Truth of a batch in view axes.

    rotmat [N, T, 24, 3, 3], shape [N, 10], pelvis [N, T, 3] m, size [N, T] apparent size, view [N, T, 3, 3] camera
    axes -> view axes, weight [N, T] (0 = no person found).
    """

    rotmat: Tensor
    shape: Tensor
    pelvis: Tensor
    size: Tensor
    view: Tensor
    weight: Tensor


def pelvis_of(cam: Tensor, size: Tensor) -> Tensor:
    """(s, tx, ty) -> pelvis [..., 3] m in view axes; the scale is kept positive."""
    depth = 1 / (size * cam[..., 0].clamp(min=0.05))
    return torch.cat([cam[..., 1:], depth[..., None]], -1)


def landmark_losses(p, target: Target, body: Skeleton) -> dict[str, Tensor]:
    """Unweighted terms named as in `LossWeights`. p: LandmarkPrediction."""
    truth = with_lsp(body.joints(target.rotmat, target.shape[:, None].expand(-1, target.rotmat.shape[1], -1)))
    ours = with_lsp(body.joints(p.rotmat, p.shape))
    w = target.weight
    pelvis = pelvis_of(p.cam, target.size)
    back = target.view.transpose(-1, -2)
    a, b = hip_aligned(ours) @ back.transpose(-1, -2), hip_aligned(truth) @ back.transpose(-1, -2)
    error = a - b
    both = w[:, 1:] * w[:, :-1]
    step = error[:, 1:] - error[:, :-1]
    three = both[:, 1:] * both[:, :-1]
    flat = project(ours + pelvis[..., None, :], target.size) - project(truth + target.pelvis[..., None, :], target.size)
    log_depth = torch.log(pelvis[..., 2]) - torch.log(target.pelvis[..., 2])
    return {
        "keypoints_2d": weighted_mean(huber(flat, 0.2), w),
        "joints_3d": weighted_mean(error**2, w),
        "distance": weighted_mean(norm(error), w),
        "velocity": weighted_mean(norm(step), both),
        "acceleration": weighted_mean(norm(step[:, 1:] - step[:, :-1]), three),
        "bones": weighted_mean(norm(directions(ours) - directions(truth)), w),
        "pose": weighted_mean((p.rotmat - target.rotmat) ** 2, w),
        "shape": weighted_mean((p.shape - target.shape[:, None]) ** 2, w),
        "depth": weighted_mean(log_depth.abs(), w),
        "likelihood": likelihood(p, pelvis, target),
    }


def project(points: Tensor, size: Tensor) -> Tensor:
    """Points [N, T, J, 3] m in view axes -> [N, T, J, 2] in units of the apparent size."""
    return points[..., :2] / points[..., 2:].clamp(min=0.2) / size[..., None, None]


def norm(v: Tensor) -> Tensor:
    """Length of [..., 3], differentiable at zero."""
    return ((v * v).sum(-1) + 1e-8).sqrt()


def directions(joints: Tensor) -> Tensor:
    """[..., 26, 3] -> [..., 12, 3] unit vectors of upper arms, forearms, thighs, shins, feet, trunk and head."""
    bones = joints[..., _BONES[1], :] - joints[..., _BONES[0], :]
    return bones / norm(bones)[..., None]


def huber(x: Tensor, width: float) -> Tensor:
    """x^2 / (2 width) inside, |x| - width / 2 outside: truncated limbs project anywhere."""
    a = x.abs()
    return torch.where(a < width, 0.5 * a * a / width, a - 0.5 * width)


def residuals(p, pelvis: Tensor, target: Target) -> Tensor:
    """[N, T, 75]: translation error (x, y in m, z as a fraction of the depth), then rotation tangents
    log(R_mean^T R_true) in rad."""
    shift = target.pelvis - pelvis
    shift = torch.cat([shift[..., :2], shift[..., 2:] / pelvis[..., 2:]], -1)
    tangent = rotations_torch.log(p.rotmat.transpose(-1, -2) @ target.rotmat)
    return torch.cat([shift, tangent.flatten(-2)], -1)


def likelihood(p, pelvis: Tensor, target: Target) -> Tensor:
    """Student-like Gaussian NLL of the residuals; the means are held so that they do not trade accuracy for it."""
    with torch.no_grad():
        r = residuals(p, pelvis, target)
    return weighted_mean(p.log_sigma + 0.5 * (r * torch.exp(-p.log_sigma)) ** 2, target.weight)


def total(terms: dict[str, Tensor], weights: LossWeights) -> Tensor:
    return sum(getattr(weights, name) * value for name, value in terms.items())
