"""Adversarial short-motion prior (Human from Blur): networks, realistic corruptions, losses. Torch.

A short motion is a mid-window pose with Legendre coefficients c_1 (half the travel) and c_2 (bend):
    rotations   [B, 22, 3, 3]   local, joints 0..21 of SMPL; joint 0 = body to camera (only its "down" is looked at)
    motion      [B, 2, 23, 3]   row 0 = pelvis translation (m) in the pelvis' axes, then joints (rad, right tangent)
    duration    [B]             s
The *discriminator* says how real the whole motion is, and for each of five limbs whether its motion fits. The
*corrector* (generator) turns an unrealistic motion into a realistic one: a rotation of each joint's mid pose and a
change of its coefficients.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from blur_motion_ros.data.mocap import MotionClip
from blur_motion_ros.learning.pose_prior import kind_of, window_coefficients
from blur_motion_ros.motion import rotations, rotations_torch

JOINTS = 22
ROWS = 23
LIMBS = ((0, 3, 6, 9, 12, 15), (13, 16, 18, 20), (14, 17, 19, 21), (1, 4, 7, 10), (2, 5, 8, 11))  # trunk, arms, legs
_PARENTS = (-1, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 9, 9, 12, 13, 14, 16, 17, 18, 19)
REFERENCE_DURATION = 2.0 / 30.0
SPREAD_FREEDOM = 4.0  # of the Student-t around an expected motion: bodies surprise


# --------------------------------------------------------------------------------------------- networks


class Trunk(nn.Module):
    """Features of a short motion: [B, 126 + 3 + 138 + 1] -> [B, width], two residual layers."""

    def __init__(self, width: int):
        super().__init__()
        self.enter = nn.Linear(21 * 6 + 3 + 2 * ROWS * 3 + 1, width)
        self.layers = nn.ModuleList([nn.Sequential(nn.LayerNorm(width), nn.Linear(width, width), nn.SiLU(),
                                                   nn.Linear(width, width)) for _ in range(2)])

    def forward(self, pose: Tensor, down: Tensor, motion: Tensor, log_duration: Tensor) -> Tensor:
        x = self.enter(torch.cat([pose.flatten(1), down, torch.asinh(motion).flatten(1), log_duration[:, None]], 1))
        for layer in self.layers:
            x = x + layer(x)
        return torch.nn.functional.silu(x)


class ShortMotionNet(nn.Module):
    """Discriminator and corrector with the scaling of their inputs, so that a caller hands over plain units."""

    def __init__(self, sigma: Tensor, width: int = 256):
        """sigma [2, 23, 3]: deviations of c_1 and c_2 in windows of 2/30 s."""
        super().__init__()
        self.register_buffer("sigma", sigma)
        self.register_buffer("members", limb_masks(), persistent=False)
        self.judge = Trunk(width)
        self.whole = nn.Linear(width, 1)
        self.limbs = nn.Linear(width, len(LIMBS))
        self.corrector = Trunk(width)
        self.turn = nn.Linear(width, 21 * 3)
        self.change = nn.Linear(width, 2 * ROWS * 3)
        self.spread = nn.Linear(width, len(LIMBS))
        for layer in (self.turn, self.change, self.spread):
            nn.init.normal_(layer.weight, std=1e-3)
            nn.init.zeros_(layer.bias)

    def forward(self, rotmats: Tensor, motion: Tensor, duration: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """-> logits real [B] and limbs [B, 5], corrected rotations [B, 22, 3, 3] and motion [B, 2, 23, 3].

        Each limb is corrected by the share that the discriminator doubts it: what is right is better left alone.
        """
        whole, limbs = self.discriminate(rotmats, motion, duration)
        doubt = torch.sigmoid(-limbs) @ self.members
        turned, changed = self._corrected(rotmats, motion, duration, doubt)
        return whole, limbs, turned, changed

    def discriminate(self, rotmats: Tensor, motion: Tensor, duration: Tensor) -> tuple[Tensor, Tensor]:
        pose, down, scaled, log_duration = self.inputs(rotmats, motion, duration)
        x = self.judge(pose, down, scaled, log_duration)
        return self.whole(x)[:, 0], self.limbs(x)

    def correct(self, rotmats: Tensor, motion: Tensor, duration: Tensor) -> tuple[Tensor, Tensor]:
        """The corrector alone, everywhere in full: what is trained."""
        return self._corrected(rotmats, motion, duration, torch.ones_like(rotmats[:, :, 0, 0]))

    @torch.jit.export
    def expect(self, rotmats: Tensor, duration: Tensor) -> tuple[Tensor, Tensor]:
        """The motion of a body of which only the pose is known: mean [B, 2, 23, 3], spread [B, 5] of each limb's c_1.

        spread: scale of a Student-t around the mean, in the limb's usual sizes (`sigma`, window's length counted).
        """
        nothing = torch.zeros_like(self.sigma).expand(rotmats.shape[0], -1, -1, -1)
        pose, down, scaled, log_duration = self.inputs(rotmats, nothing, duration)
        x = self.corrector(pose, down, scaled, log_duration)
        mean = self.change(x).view(-1, 2, 23, 3) * self.sigma[None] * self._ratio(duration)
        return mean, torch.exp(self.spread(x))

    def _corrected(self, rotmats: Tensor, motion: Tensor, duration: Tensor, share: Tensor) -> tuple[Tensor, Tensor]:
        """share [B, 22]: of the correction, for each joint (the translation goes with the pelvis)."""
        pose, down, scaled, log_duration = self.inputs(rotmats, motion, duration)
        x = self.corrector(pose, down, scaled, log_duration)
        turn = torch.tanh(self.turn(x)).view(-1, 21, 3)  # at most one radian
        local = rotmats[:, 1:] @ rotations_torch.exp(turn * share[:, 1:, None])
        change = self.change(x).view(-1, 2, 23, 3)
        unit = self.sigma[None] * self._ratio(duration)
        rows = torch.cat([share[:, :1], share], 1)[:, None, :, None]
        return torch.cat([rotmats[:, :1], local], 1), motion + change * unit * rows

    def inputs(self, rotmats: Tensor, motion: Tensor, duration: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        pose = rotmats[:, 1:, :, :2].flatten(2)
        down = rotmats[:, 0, 1, :]  # the camera's y axis (down) in the pelvis' axes
        return pose, down, motion / (self.sigma[None] * self._ratio(duration)), torch.log(duration / 0.0667)

    def _ratio(self, duration: Tensor) -> Tensor:
        r = duration / 0.0666667
        return torch.stack([r, r * r], 1)[:, :, None, None]


def subframe_joints(rotmats: Tensor, motion: Tensor, offsets: Tensor, at: Tensor) -> tuple[Tensor, Tensor]:
    """Local rotations [B, T, 22, 3, 3] and joints [B, T, 22, 3] (m, in the mid-window pelvis' axes) at x in [-1, 1].

    offsets [22, 3]: rest bones (joint minus parent).
    """
    basis = torch.stack([at, 1.5 * at * at - 0.5], 0)
    values = torch.einsum("kt,bkrc->btrc", basis, motion)
    local = rotmats[:, None] @ rotations_torch.exp(values[:, :, 1:])
    pelvis = torch.swapaxes(rotmats[:, None, 0], -1, -2) @ local[:, :, 0]
    turned, joints = [pelvis], [values[:, :, 0]]
    for j in range(1, JOINTS):
        p = _PARENTS[j]
        joints.append(joints[p] + (turned[p] @ offsets[j][:, None])[..., 0])
        turned.append(turned[p] @ local[:, :, j])
    return local, torch.stack(joints, 2)


# --------------------------------------------------------------------------------------------- examples


class Windows:
    """Short windows of recordings, fitted by polynomials: arrays over all windows of all durations."""

    def __init__(self, clips: list[MotionClip], durations: tuple[float, ...] = (1 / 30, 2 / 30, 0.1, 4 / 30),
                 stride: float = 1 / 20):
        rotmats, motion, length, kinds = [], [], [], []
        for clip in clips:
            for one in (clip, clip.mirrored()):
                for d in durations if clip.fps > 25 else ():
                    c, r = window_coefficients(one, d, stride)
                    rotmats.append((r @ rotations.exp(c[:, 1:, 0]))[:, :JOINTS].astype(np.float32))
                    motion.append(np.swapaxes(c[:, :ROWS, 1:], 1, 2).astype(np.float32))
                    length.append(np.full(len(c), d, np.float32))
                    kinds += [kind_of(clip.name)] * len(c)
        self.rotmats, self.motion = torch.from_numpy(np.concatenate(rotmats)), torch.from_numpy(np.concatenate(motion))
        self.duration = torch.from_numpy(np.concatenate(length))
        self.kinds = np.array(kinds)
        _, inverse, counts = np.unique(self.kinds, return_inverse=True, return_counts=True)
        # Motions that hardly move teach nothing and are most of the data.
        effort = (self.motion[:, 0, 1:].flatten(1).norm(dim=1) / self.duration).numpy()
        weight = counts[inverse] ** -0.5 * np.clip(effort / 5.0, 0.1, 2.0)
        self.weight = torch.from_numpy(weight / weight.sum())

    def __len__(self) -> int:
        return len(self.duration)

    def draw(self, count: int, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
        """A random batch (rotations, motion, duration) with the body turned at random about the vertical, y down."""
        index = torch.multinomial(self.weight, count, True, generator=generator)
        return facing_camera(self.rotmats[index], generator), self.motion[index].clone(), self.duration[index]


def facing_camera(rotmats: Tensor, generator: torch.Generator, tilt: float = 0.2) -> Tensor:
    """World (y up) to a camera (y down) at a random bearing, tilted by `tilt` rad (one sigma)."""
    n = len(rotmats)
    bearing = torch.zeros(n, 3)
    bearing[:, 1] = (torch.rand(n, generator=generator) * 2 - 1) * torch.pi
    flip = torch.diag(torch.tensor([1.0, -1.0, -1.0]))
    lean = rotations_torch.exp(torch.randn(n, 3, generator=generator) * tilt)
    out = rotmats.clone()
    out[:, 0] = lean @ flip @ rotations_torch.exp(bearing) @ rotmats[:, 0]
    return out


def limb_masks() -> Tensor:
    """[5, 22] which joints' motion belongs to which limb (the pelvis belongs to the trunk)."""
    mask = torch.zeros(len(LIMBS), JOINTS)
    for i, limb in enumerate(LIMBS):
        mask[i, list(limb)] = 1
    return mask


def limb_squares(motion: Tensor, members: Tensor) -> tuple[Tensor, Tensor]:
    """Sums of squares [B, 5] over each limb of motion [B, 23, 3] (translation counts as trunk), and how many numbers
    each limb has [5]; members [5, 22]: `limb_masks`."""
    rows = torch.cat([members[:, :1], members], 1)
    return motion.square().sum(-1) @ rows.T, 3 * rows.sum(1)


def corrupt(rotmats: Tensor, motion: Tensor, duration: Tensor, sigma: Tensor, generator: torch.Generator,
            ) -> tuple[Tensor, Tensor, Tensor]:
    """What a single-frame fit gets wrong: (rotations, motion, limbs [B, 5] with 1 = motion untouched).

    A quarter of the examples have lost their motion altogether (all coefficients zero) and have an uncertain pose: a
    fit that begins. Of the others, half have limbs reversed in time, and each of these happens to a part as well:
    joints of the mid pose perturbed, limbs mirrored in depth, speeds wrong.
    """
    n = len(rotmats)

    def some(share: float, *shape: int) -> Tensor:
        return (torch.rand((n, *shape), generator=generator) < share).float()
    reversed_ = some(0.4, len(LIMBS)) * some(0.5, 1)
    whole = some(0.15, 1)
    reversed_ = torch.maximum(reversed_, whole.expand(n, len(LIMBS)))
    motion = flip_limbs(motion, reversed_)
    lost_all = some(0.25, 1)
    noisy = torch.maximum(some(0.35, 1) * some(0.3, len(LIMBS)), lost_all)
    spread = noisy @ limb_masks() * torch.rand(n, 1, generator=generator) * 0.4
    turn = torch.randn(n, JOINTS - 1, 3, generator=generator) * spread[:, 1:, None]
    rotmats = torch.cat([rotmats[:, :1], rotmats[:, 1:] @ rotations_torch.exp(turn)], 1)
    rotmats, motion, deep = mirror_depth(rotmats, motion, some(0.35, 1) * some(0.3, 4))
    motion, lost = wrong_speed(motion, duration, sigma, some(0.3, 1), some(0.15, 1), generator)
    motion = motion * (1 - lost_all[:, :, None, None])
    fine = (1 - reversed_) * (1 - noisy) * (1 - torch.cat([torch.zeros(n, 1), deep], 1)) * (1 - lost)
    return rotmats, motion, fine


def flip_limbs(motion: Tensor, flips: Tensor) -> Tensor:
    """Reverse in time (c_1 -> -c_1) the limbs marked in flips [B, 5]; the translation goes with the trunk."""
    sign = 1 - 2 * (flips @ limb_masks())
    rows = torch.cat([sign[:, :1], sign], 1)
    return torch.stack([motion[:, 0] * rows[:, :, None], motion[:, 1]], 1)


def mirror_depth(rotmats: Tensor, motion: Tensor, chosen: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Mirror the upper bone of chosen [B, 4] limbs (arms, legs) in camera depth: the same picture, another pose.

    Its motion is mirrored likewise: an angular velocity w becomes -M w with M = I - 2 z z^T.
    """
    rotmats, motion = rotmats.clone(), motion.clone()
    reflect = torch.diag(torch.tensor([1.0, 1.0, -1.0]))
    for limb, (joint, bone) in enumerate(((16, (1.0, 0, 0)), (17, (-1.0, 0, 0)), (1, (0, -1.0, 0)), (2, (0, -1.0, 0)))):
        parent = rotmats[:, 0]
        for j in _chain(joint)[1:-1]:
            parent = parent @ rotmats[:, j]
        own = parent @ rotmats[:, joint]
        a = own @ torch.tensor(bone)
        b = a @ reflect
        axis = torch.linalg.cross(a, b)
        sine = axis.norm(dim=1, keepdim=True).clamp_min(1e-6)
        turned = rotations_torch.exp(axis / sine * torch.atan2(sine, (a * b).sum(1, keepdim=True))) @ own
        local = torch.swapaxes(parent, 1, 2) @ turned
        use = chosen[:, limb, None, None] > 0
        moved = torch.swapaxes(turned, 1, 2) @ (-reflect) @ own
        row = motion[:, :, joint + 1]
        motion[:, :, joint + 1] = torch.where(use, torch.einsum("bij,bkj->bki", moved, row), row)
        rotmats[:, joint] = torch.where(use, local, rotmats[:, joint])
    return rotmats, motion, chosen


def _chain(joint: int) -> list[int]:
    chain = [joint]
    while chain[0] > 0:
        chain.insert(0, _PARENTS[chain[0]])
    return chain


def wrong_speed(motion: Tensor, duration: Tensor, sigma: Tensor, noisy: Tensor, scaled: Tensor,
                generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Coefficients with noise of up to half their usual size, or all scaled by 0..2. -> (motion, spoilt [B, 1])."""
    n = len(motion)
    r = duration / REFERENCE_DURATION
    unit = sigma[None] * torch.stack([r, r * r], 1)[:, :, None, None]
    level = torch.rand(n, 1, 1, 1, generator=generator) * 0.5 * noisy[:, :, None, None]
    motion = motion + torch.randn(motion.shape, generator=generator) * unit * level
    factor = torch.where(scaled > 0, 2 * torch.rand(n, 1, generator=generator), torch.ones(n, 1))
    return motion * factor[:, :, None, None], torch.maximum(noisy, scaled)
