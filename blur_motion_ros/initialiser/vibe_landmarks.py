"""The landmark variant of VIBE: BlazePose's 33 landmarks instead of ResNet features, so that no image domain matters.

The regressor starts from the registration of the same landmarks (`registration`), as VIBE's starts from a mean pose: it
corrects what registration frame by frame gets wrong (depth, jitter, swaps, blur), knowing the frames before.

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
from blur_motion_ros.motion.rotations_torch import from_6d, to_6d
from blur_motion_ros.types import Landmarks

FEATURES = 33 * 6 + 6 + 157  # landmarks, scalars, start: pose (6D), shape, camera
UNCERTAIN = 75  # translation (3, metres of the virtual view, depth last) and rotation tangents (24 x 3)
_DERIVED = 99  # world landmarks in the body's axes
_CENTRE = (11, 12, 23, 24)  # shoulders and hips
_SPREAD = (0, 11, 12, 13, 14, 15, 16, 23, 24, 25, 26, 27, 28)  # nose and limbs: the apparent size is their RMS
_SMALLEST = 0.01  # least apparent size (tangent of the half angle): a person of 170 m distance


@dataclass(frozen=True)
class View:
    """Virtual view. rotation: [3, 3], camera axes -> view axes; size: tangent of the person's apparent half size."""

    rotation: np.ndarray
    size: float

    @property
    def mirrored(self) -> "View":
        """The view of the same person in the mirrored world (x of the camera reversed)."""
        flip = np.diag([-1.0, 1.0, 1.0])
        return View(flip @ self.rotation @ flip, self.size)


@dataclass(frozen=True)
class LandmarkSizes:
    """Compact defaults of the shipped streaming encoder (about 1.5 M numbers). bidirectional: the encoder also reads
    the frames that come later, so it takes whole sequences and carries no state (`initialiser.hindsight`)."""

    feature: int = 256
    hidden: int = 256
    layers: int = 2
    regressor: int = 384
    iterations: int = 3
    dropout: float = 0.1
    bidirectional: bool = False


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


@dataclass(frozen=True)
class Start:
    """A registered body in the camera frame: local [24, 3, 3] (root included), betas [10], pelvis [3] m."""

    local: np.ndarray
    betas: np.ndarray
    pelvis: np.ndarray


def features_of(landmarks: Landmarks, camera: Camera, step: float, exposure: float,
                start: Start) -> tuple[np.ndarray, View]:
    """Network input [FEATURES] float32 of one frame, and its view.

    step: seconds since the frame before (0 for the first); exposure: shutter time in seconds.
    World landmarks enter as they are: BlazePose estimates them from a crop, in the axes of a camera that looks at it.
    """
    view, flat = view_of(landmarks, camera)
    centre = view.rotation[2, :2] / view.rotation[2, 2]
    scalars = [np.log(view.size), centre[0], centre[1], landmarks.score, 30 * step, 30 * exposure]
    pose = start.local.copy()
    pose[0] = view.rotation @ pose[0]
    cam = camera_of(view.rotation @ start.pelvis, np.float64(view.size))
    parts = [flat.ravel(), landmarks.world.ravel(), landmarks.visibility, scalars, pose[:, :, :2].ravel(), start.betas,
             np.clip(cam, -5, 5)]
    return np.concatenate(parts).astype(np.float32), view


def mirror_features(features: np.ndarray) -> np.ndarray:
    """Features [..., FEATURES] of the mirrored scene (left and right exchanged, x negated)."""
    from blur_motion_ros.body.joints import BLAZEPOSE33_MIRROR, SMPL24_MIRROR

    order, joints = list(BLAZEPOSE33_MIRROR), list(SMPL24_MIRROR)
    head = features.shape[:-1]
    flat = features[..., :66].reshape(head + (33, 2))[..., order, :] * [-1, 1]
    world = features[..., 66:165].reshape(head + (33, 3))[..., order, :] * [-1, 1, 1]
    scalars = features[..., 198:204] * [1, -1, 1, 1, 1, 1]
    # F R F for the reflection F = diag(-1, 1, 1): the first two columns change sign where one index is x
    pose = features[..., 204:348].reshape(head + (24, 3, 2))[..., joints, :, :] * [[1, -1], [-1, 1], [-1, 1]]
    rest = features[..., 348:] * ([1] * 11 + [-1, 1])
    return np.concatenate([flat.reshape(head + (66,)), world.reshape(head + (99,)), features[..., 165:198][..., order],
                           scalars, pose.reshape(head + (144,)), rest], -1).astype(np.float32)


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

    The root is corrected relative to the start's root, so that corrections turn with the body.
    """

    def __init__(self, sizes: LandmarkSizes = LandmarkSizes()):
        super().__init__()
        inputs = FEATURES + _DERIVED
        self.embed = nn.Sequential(nn.Linear(inputs, sizes.feature), nn.GELU(),
                                   nn.Linear(sizes.feature, sizes.feature))
        self.vibe = Vibe(EncoderSizes(sizes.feature, sizes.hidden, sizes.layers, sizes.bidirectional),
                         RegressorSizes(sizes.feature, sizes.regressor, sizes.iterations, sizes.dropout))
        self.uncertainty = nn.Sequential(nn.Linear(sizes.feature, sizes.feature // 2), nn.GELU(),
                                         nn.Linear(sizes.feature // 2, UNCERTAIN))
        self.register_buffer("input_mean", torch.zeros(inputs))
        self.register_buffer("input_scale", torch.ones(inputs))
        self.register_buffer("no_turn", torch.tensor([1.0, 0.0, 0.0, 1.0, 0.0, 0.0]))

    def forward(self, features: Tensor, state: Tensor | None = None) -> tuple[LandmarkPrediction, Tensor]:
        inputs, start, root = self.geometry(features)
        p, log_sigma, state_out = self.network(inputs, start, state)
        return self.compose(p, log_sigma, root), state_out

    def geometry(self, features: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Features [N, T, FEATURES] -> inputs with the derived ones, start [N, T, 157] with the root taken out of the
        pose, and that root [N, T, 3, 3] in view axes."""
        start = features[..., 204:361].clone()
        root = from_6d(start[..., :6])
        start[..., :6] = self.no_turn
        inside = features[..., 66:165].unflatten(-1, (33, 3)) @ root
        return torch.cat([features, inside.flatten(-2)], -1), start, root

    def network(self, inputs: Tensor, start: Tensor,
                state: Tensor | None = None) -> tuple[SmplPrediction, Tensor, Tensor]:
        """The learned part (it may run in lower precision): root relative to the start's, axes [N * T]."""
        n, t = inputs.shape[0], inputs.shape[1]
        x = ((inputs - self.input_mean) * self.input_scale).clamp(-6.0, 6.0)
        encoded, state_out = self.vibe.encoder(self.embed(x), state)
        flat = encoded.reshape(n * t, -1)
        p = self.vibe.regressor(flat, start.reshape(n * t, -1))
        return p, self.uncertainty(flat.detach()), state_out

    def compose(self, p: SmplPrediction, log_sigma: Tensor, root: Tensor) -> LandmarkPrediction:
        """Turn the root back and give everything its time axis."""
        n, t = root.shape[0], root.shape[1]
        local = p.rotmat.reshape(n, t, 24, 3, 3)
        rotmat = torch.cat([(root @ local[:, :, 0])[:, :, None], local[:, :, 1:]], 2)
        return LandmarkPrediction(to_6d(rotmat), rotmat, p.shape.reshape(n, t, 10), p.cam.reshape(n, t, 3),
                                  log_sigma.clamp(-6.0, 2.0).reshape(n, t, -1))


def view_translation(cam: np.ndarray, size: np.ndarray) -> np.ndarray:
    """(s, tx, ty) [..., 3] and apparent size [...] -> pelvis translation [..., 3] m in view axes."""
    cam = np.asarray(cam)
    return np.concatenate([cam[..., 1:], 1 / (np.asarray(size)[..., None] * cam[..., :1])], -1)


def camera_of(translation: np.ndarray, size: np.ndarray) -> np.ndarray:
    """Inverse of `view_translation`: pelvis [..., 3] m in view axes -> (s, tx, ty)."""
    translation = np.asarray(translation)
    return np.concatenate([1 / (np.asarray(size)[..., None] * translation[..., 2:]), translation[..., :2]], -1)
