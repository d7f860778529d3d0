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
from blur_motion_ros.initialiser.vibe_model import EncoderSizes, RegressorSizes, Vibe
from blur_motion_ros.types import Landmarks

FEATURES = 33 * 6 + 6
UNCERTAIN = 75  # translation (3, metres of the virtual view, depth last) and rotation tangents (24 x 3)
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
    """Landmark features [N, T, FEATURES] and GRU state -> (LandmarkPrediction, new state)."""

    def __init__(self, sizes: LandmarkSizes = LandmarkSizes()):
        super().__init__()
        self.embed = nn.Sequential(nn.Linear(FEATURES, sizes.feature), nn.GELU(),
                                   nn.Linear(sizes.feature, sizes.feature))
        self.vibe = Vibe(EncoderSizes(sizes.feature, sizes.hidden, sizes.layers),
                         RegressorSizes(sizes.feature, sizes.regressor, sizes.iterations, sizes.dropout))
        self.uncertainty = nn.Sequential(nn.Linear(sizes.feature, sizes.feature // 2), nn.GELU(),
                                         nn.Linear(sizes.feature // 2, UNCERTAIN))
        self.register_buffer("input_mean", torch.zeros(FEATURES))
        self.register_buffer("input_scale", torch.ones(FEATURES))

    def forward(self, features: Tensor, state: Tensor | None = None) -> tuple[LandmarkPrediction, Tensor]:
        n, t = features.shape[0], features.shape[1]
        x = ((features - self.input_mean) * self.input_scale).clamp(-6.0, 6.0)
        encoded, state_out = self.vibe.encoder(self.embed(x), state)
        flat = encoded.reshape(n * t, -1)
        p = self.vibe.regressor(flat)
        log_sigma = self.uncertainty(flat.detach()).clamp(-6.0, 2.0)
        return LandmarkPrediction(p.pose6d.reshape(n, t, 24, 6), p.rotmat.reshape(n, t, 24, 3, 3),
                                  p.shape.reshape(n, t, 10), p.cam.reshape(n, t, 3),
                                  log_sigma.reshape(n, t, -1)), state_out


def view_translation(cam: np.ndarray, size: np.ndarray) -> np.ndarray:
    """(s, tx, ty) [..., 3] and apparent size [...] -> pelvis translation [..., 3] m in view axes."""
    cam = np.asarray(cam)
    return np.concatenate([cam[..., 1:], 1 / (np.asarray(size)[..., None] * cam[..., :1])], -1)


def camera_of(translation: np.ndarray, size: np.ndarray) -> np.ndarray:
    """Inverse of `view_translation`: pelvis [..., 3] m in view axes -> (s, tx, ty)."""
    translation = np.asarray(translation)
    return np.concatenate([1 / (np.asarray(size)[..., None] * translation[..., 2:]), translation[..., :2]], -1)
