"""The landmark variant of VIBE: BlazePose's 33 landmarks instead of ResNet features, so that no image domain matters.

Every frame is seen through a *virtual view*: a camera turned (without roll) so that its axis passes through the
person, image points as rays in it divided by the person's apparent size. Real intrinsics and lens distortion are thus
used up before the network, and its outputs are lifted back by the same view: orientation by the view's rotation,
weak-perspective camera (s, tx, ty) by tz = 1 / (size s).
"""

# No `from __future__ import annotations` here: TorchScript cannot read the NamedTuple's types as strings.
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from blur_motion_ros.camera.camera import Camera
from blur_motion_ros.initialiser.vibe_model import EncoderSizes, RegressorSizes, SmplPrediction, Vibe
from blur_motion_ros.motion.rotations_torch import from_6d, skew, to_6d
from blur_motion_ros.types import Landmarks

FEATURES = 33 * 6 + 6
UNCERTAIN = 75  # translation (3, metres of the virtual view, depth last) and rotation tangents (24 x 3)
_DERIVED = 99 + 6 + 48  # world landmarks in trunk axes, the trunk (6D), eight limb rotations (6D)
# Unit directions in the free body's rest pose: thighs, shanks, upper arms, forearms (left, right each).
_REST_BONES = [[0.03, -1.0, 0.0], [-0.03, -1.0, 0.0], [0.0, -1.0, -0.06], [0.0, -1.0, -0.06],
               [1.0, 0.0, 0.0], [-1.0, 0.0, 0.0], [1.0, 0.0, 0.0], [-1.0, 0.0, 0.0]]
_CENTRE = (11, 12, 23, 24)  # shoulders and hips
_SPREAD = (0, 11, 12, 13, 14, 15, 16, 23, 24, 25, 26, 27, 28)  # nose and limbs: the apparent size is their RMS
_SMALLEST = 0.01  # least apparent size (tangent of the half angle): a person of 170 m distance


@dataclass(frozen=True)
class View:
    """Virtual view. rotation: [3, 3], camera axes -> view axes; size: tangent of the person's apparent half size."""

    rotation: np.ndarray
    size: float


@dataclass(frozen=True)
class LandmarkSizes:
    """Compact defaults of the shipped encoder (about 1.5 M numbers)."""

    feature: int = 256
    hidden: int = 256
    layers: int = 2
    regressor: int = 384
    iterations: int = 3
    dropout: float = 0.1


def view_of(landmarks: Landmarks, camera: Camera) -> tuple[View, np.ndarray]:
    """The view of a person, and their landmarks in it: [33, 2] rays divided by `size` (about -2 .. 2)."""
    rays = camera.undistort(landmarks.image)
    centre = rays[list(_CENTRE)].mean(0)
    rotation = turn_to(centre)
    turned = np.concatenate([rays, np.ones((33, 1))], 1) @ rotation.T
    flat = turned[:, :2] / np.maximum(turned[:, 2:], 0.1)
    size = max(float(np.sqrt((flat[list(_SPREAD)] ** 2).sum(1).mean())), _SMALLEST)
    return View(rotation, size), flat / size


def turn_to(centre: np.ndarray) -> np.ndarray:
    """Rotation [3, 3] without roll that takes the ray (x, y, 1) to the z axis: first about y, then about x."""
    x, y = centre
    yaw = np.arctan2(x, 1.0)
    pitch = np.arctan2(y, np.hypot(x, 1.0))
    cy, sy, cp, sp = np.cos(yaw), np.sin(yaw), np.cos(pitch), np.sin(pitch)
    about_y = np.array([[cy, 0, -sy], [0, 1, 0], [sy, 0, cy]])
    about_x = np.array([[1, 0, 0], [0, cp, -sp], [0, sp, cp]])
    return about_x @ about_y


def features_of(landmarks: Landmarks, camera: Camera, step: float, exposure: float) -> tuple[np.ndarray, View]:
    """Network input [FEATURES] float32 of one frame, and its view.

    step: seconds since the frame before (0 for the first); exposure: shutter time in seconds.
    World landmarks enter as they are: BlazePose estimates them from a crop, in the axes of a camera that looks at it.
    """
    view, flat = view_of(landmarks, camera)
    centre = view.rotation[2, :2] / view.rotation[2, 2]
    scalars = [np.log(view.size), centre[0], centre[1], landmarks.score, 30 * step, 30 * exposure]
    parts = [flat.ravel(), landmarks.world.ravel(), landmarks.visibility, scalars]
    return np.concatenate(parts).astype(np.float32), view


def mirror_features(features: np.ndarray) -> np.ndarray:
    """Features [..., FEATURES] of the mirrored scene (left and right exchanged, x negated)."""
    from blur_motion_ros.body.joints import BLAZEPOSE33_MIRROR

    order = list(BLAZEPOSE33_MIRROR)
    flat = features[..., :66].reshape(features.shape[:-1] + (33, 2))[..., order, :] * [-1, 1]
    world = features[..., 66:165].reshape(features.shape[:-1] + (33, 3))[..., order, :] * [-1, 1, 1]
    scalars = features[..., 198:] * [1, -1, 1, 1, 1, 1]
    head = features.shape[:-1]
    return np.concatenate([flat.reshape(head + (66,)), world.reshape(head + (99,)),
                           features[..., 165:198][..., order], scalars], -1).astype(np.float32)


class LandmarkPrediction(NamedTuple):
    """pose6d [N, T, 24, 6], rotmat [N, T, 24, 3, 3] (root in view axes), shape [N, T, 10], cam [N, T, 3].

    log_sigma [N, T, 75]: log standard deviation of the translation (x, y in metres, z as a fraction of the depth) and
    of the rotation tangents (rad).
    """

    pose6d: Tensor
    rotmat: Tensor
    shape: Tensor
    cam: Tensor
    log_sigma: Tensor


class LandmarkVibe(nn.Module):
    """Landmark features [N, T, FEATURES] and GRU state -> (LandmarkPrediction, new state).

    The regressor does not start from a mean pose but from what the world landmarks say by plain geometry
    (`limb_pose`), with the root relative to the trunk's axes: it only has to correct, in axes that turn with the body.
    """

    def __init__(self, sizes: LandmarkSizes = LandmarkSizes()):
        super().__init__()
        inputs = FEATURES + _DERIVED
        self.embed = nn.Sequential(nn.Linear(inputs, sizes.feature), nn.GELU(),
                                   nn.Linear(sizes.feature, sizes.feature))
        self.vibe = Vibe(EncoderSizes(sizes.feature, sizes.hidden, sizes.layers),
                         RegressorSizes(sizes.feature, sizes.regressor, sizes.iterations, sizes.dropout))
        self.uncertainty = nn.Sequential(nn.Linear(sizes.feature, sizes.feature // 2), nn.GELU(),
                                         nn.Linear(sizes.feature // 2, UNCERTAIN))
        self.register_buffer("input_mean", torch.zeros(inputs))
        self.register_buffer("input_scale", torch.ones(inputs))
        self.register_buffer("rest_bones", torch.tensor(_REST_BONES))
        self.register_buffer("no_turn", torch.tensor([1.0, 0.0, 0.0, 1.0, 0.0, 0.0]))

    def forward(self, features: Tensor, state: Tensor | None = None) -> tuple[LandmarkPrediction, Tensor]:
        inputs, start = self.geometry(features)
        p, log_sigma, state_out = self.network(inputs, start, state)
        return self.compose(p, log_sigma, start), state_out

    def network(self, inputs: Tensor, start: Tensor,
                state: Tensor | None = None) -> tuple[SmplPrediction, Tensor, Tensor]:
        """The learned part (it may run in lower precision): root relative to the trunk, axes [N * T]."""
        n, t = inputs.shape[0], inputs.shape[1]
        x = ((inputs - self.input_mean) * self.input_scale).clamp(-6.0, 6.0)
        encoded, state_out = self.vibe.encoder(self.embed(x), state)
        flat = encoded.reshape(n * t, -1)
        pose = to_6d(start)
        pose[:, :, 0] = self.no_turn
        p = self.vibe.regressor(flat, pose.reshape(n * t, -1))
        return p, self.uncertainty(flat.detach()), state_out

    def compose(self, p: SmplPrediction, log_sigma: Tensor, start: Tensor) -> LandmarkPrediction:
        """Turn the root by the trunk's axes and give everything its time axis."""
        n, t = start.shape[0], start.shape[1]
        local = p.rotmat.reshape(n, t, 24, 3, 3)
        rotmat = torch.cat([(start[:, :, 0] @ local[:, :, 0])[:, :, None], local[:, :, 1:]], 2)
        return LandmarkPrediction(to_6d(rotmat), rotmat, p.shape.reshape(n, t, 10), p.cam.reshape(n, t, 3),
                                  log_sigma.clamp(-6.0, 2.0).reshape(n, t, -1))

    def geometry(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Features [N, T, FEATURES] -> with the derived ones [N, T, FEATURES + derived], and the start pose
        [N, T, 24, 3, 3] (root in view axes): joints that landmarks do not determine take the mean pose."""
        world = features[..., 66:165].unflatten(-1, (33, 3))
        trunk = trunk_axes(world)
        mean = from_6d(self.vibe.regressor.init_pose.reshape(24, 6))
        start = mean.expand(world.shape[0], world.shape[1], 24, 3, 3).clone()
        start[:, :, 0] = trunk
        start = limb_pose(world, trunk, start, self.rest_bones)
        inside = world @ trunk
        parts = [features, inside.flatten(-2), to_6d(trunk), to_6d(start[:, :, _swung()]).flatten(-2)]
        return torch.cat(parts, -1), start


def _swung() -> list[int]:
    """SMPL joints whose rotation the landmarks give: hips, knees, shoulders, elbows."""
    return [1, 2, 4, 5, 16, 17, 18, 19]


def trunk_axes(world: Tensor) -> Tensor:
    """World landmarks [..., 33, 3] -> rotation [..., 3, 3] of the trunk (SMPL axes: x left, y up, z forward)."""
    up = world[..., 11, :] + world[..., 12, :] - world[..., 23, :] - world[..., 24, :]
    left = world[..., 23, :] - world[..., 24, :] + world[..., 11, :] - world[..., 12, :]
    columns = from_6d(torch.stack([up, left], -1).flatten(-2))  # first column along `up`, second in the plane
    y, x = columns[..., 0], columns[..., 1]
    return torch.stack([x, y, torch.linalg.cross(x, y, dim=-1)], -1)


def limb_pose(world: Tensor, trunk: Tensor, start: Tensor, rest: Tensor) -> Tensor:
    """Local rotations [..., 24, 3, 3]: `start` with hips, knees, shoulders and elbows swung (no twist) so that thighs,
    shanks, upper arms and forearms point as the landmarks say. rest: [8, 3] their unit directions in the rest pose."""
    ends = [(1, 23, 25), (2, 24, 26), (4, 25, 27), (5, 26, 28), (16, 11, 13), (17, 12, 14), (18, 13, 15), (19, 14, 16)]
    parents = {4: 1, 5: 2, 18: 16, 19: 17}
    out = start.clone()
    for k, (joint, a, b) in enumerate(ends):
        parent = trunk
        if joint in parents:
            parent = trunk @ out[..., parents[joint], :, :]
        direction = (world[..., b, :] - world[..., a, :])[..., None, :] @ parent
        out[..., joint, :, :] = swing(rest[k], direction[..., 0, :])
    return out


def swing(a: Tensor, b: Tensor) -> Tensor:
    """The smallest rotation [..., 3, 3] that takes direction a [3] to b [..., 3]; near opposite ones: some rotation."""
    a = (a / torch.linalg.vector_norm(a, dim=-1, keepdim=True)).expand_as(b)
    b = b / torch.linalg.vector_norm(b, dim=-1, keepdim=True).clamp(min=1e-4)
    k = skew(torch.linalg.cross(a, b, dim=-1))
    cosine = (a * b).sum(-1)[..., None, None]
    matrix = torch.eye(3, dtype=b.dtype, device=b.device) + k + k @ k / (1 + cosine).clamp(min=0.02)
    return from_6d(to_6d(matrix))


def view_translation(cam: np.ndarray, size: np.ndarray) -> np.ndarray:
    """(s, tx, ty) [..., 3] and apparent size [...] -> pelvis translation [..., 3] m in view axes."""
    cam = np.asarray(cam)
    return np.concatenate([cam[..., 1:], 1 / (np.asarray(size)[..., None] * cam[..., :1])], -1)


def camera_of(translation: np.ndarray, size: np.ndarray) -> np.ndarray:
    """Inverse of `view_translation`: pelvis [..., 3] m in view axes -> (s, tx, ty)."""
    translation = np.asarray(translation)
    return np.concatenate([1 / (np.asarray(size)[..., None] * translation[..., 2:]), translation[..., :2]], -1)
