"""VIBE's networks (Kocabas et al. 2020) with typed sizes: ResNet-50 features, temporal encoder, SMPL regressor.

Parameter names equal those of the official checkpoints (`encoder.gru.*`, `encoder.linear.*`, `regressor.fc1.*`, ...,
backbone `conv1`, `bn1`, `layer1` .. `layer4` as in SPIN), so that `vibe_checkpoint` can load them key by key.
Everything here is scriptable. Axes: N batch, T time, F features. Rotations: `motion.rotations_torch`.

Differences from the released code, all deliberate: any feature width (the released encoder is tied to 2048), the SMPL
body is applied by the caller, `average_shape` (the paper averages shape over the sequence, the released forward does
not), and a carried GRU state for streaming.
"""

# No `from __future__ import annotations` here: TorchScript cannot read the NamedTuple's types as strings.
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn

from blur_motion_ros.motion.rotations_torch import from_6d, log

POSE = 24 * 6
SHAPE = 10
CAMERA = 3
THETA = POSE + SHAPE + CAMERA


@dataclass(frozen=True)
class EncoderSizes:
    """Temporal encoder. feature: width in and out; hidden: GRU units; linear: map hidden back to feature."""

    feature: int = 2048
    hidden: int = 1024
    layers: int = 2
    bidirectional: bool = False
    linear: bool = True
    residual: bool = True


@dataclass(frozen=True)
class RegressorSizes:
    """Iterative SMPL regressor. hidden: units of both layers; iterations: refinements from the mean parameters."""

    feature: int = 2048
    hidden: int = 1024
    iterations: int = 3
    dropout: float = 0.5


class SmplPrediction(NamedTuple):
    """pose6d [N, 24, 6], rotmat [N, 24, 3, 3], shape [N, 10], cam [N, 3] (weak perspective s, tx, ty).

    From `Vibe` each has a time axis after N.
    """

    pose6d: Tensor
    rotmat: Tensor
    shape: Tensor
    cam: Tensor


def theta(prediction: SmplPrediction) -> Tensor:
    """The 85 numbers of the official output, [..., 85]: camera 3, rotation vectors 72, shape 10."""
    pose = log(prediction.rotmat).flatten(-2)
    return torch.cat([prediction.cam, pose, prediction.shape], -1)


class Bottleneck(nn.Module):
    """1x1 - 3x3 - 1x1 convolutions with batch norm and a residual; stride on the 3x3 (as SPIN and torchvision)."""

    def __init__(self, inputs: int, width: int, stride: int = 1):
        super().__init__()
        outputs = 4 * width
        self.conv1 = nn.Conv2d(inputs, width, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, stride, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3 = nn.Conv2d(width, outputs, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(outputs)
        self.downsample: nn.Module = nn.Identity()
        if stride != 1 or inputs != outputs:
            self.downsample = nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs))

    def forward(self, x: Tensor) -> Tensor:
        y = torch.relu(self.bn1(self.conv1(x)))
        y = torch.relu(self.bn2(self.conv2(y)))
        return torch.relu(self.bn3(self.conv3(y)) + self.downsample(x))


class ResNetFeatures(nn.Module):
    """ResNet-50 without its classifier: image crops -> features.

    blocks: bottlenecks per stage; width: channels of the first stage (64 in ResNet-50, output 32 * width = 2048).
    forward: [N, 3, H, W] float32, RGB, ImageNet-normalised (`normalise_image`) -> [N, 32 * width].
    """

    def __init__(self, blocks: tuple[int, int, int, int] = (3, 4, 6, 3), width: int = 64):
        super().__init__()
        self.conv1 = nn.Conv2d(3, width, 7, 2, 3, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.maxpool = nn.MaxPool2d(3, 2, 1)
        self.layer1 = _stage(width, width, blocks[0], 1)
        self.layer2 = _stage(4 * width, 2 * width, blocks[1], 2)
        self.layer3 = _stage(8 * width, 4 * width, blocks[2], 2)
        self.layer4 = _stage(16 * width, 8 * width, blocks[3], 2)

    def forward(self, image: Tensor) -> Tensor:
        x = self.maxpool(torch.relu(self.bn1(self.conv1(image))))
        x = self.layer4(self.layer3(self.layer2(self.layer1(x))))
        return x.mean((2, 3))


def _stage(inputs: int, width: int, count: int, stride: int) -> nn.Sequential:
    rest = [Bottleneck(4 * width, width) for _ in range(count - 1)]
    return nn.Sequential(Bottleneck(inputs, width, stride), *rest)


class TemporalEncoder(nn.Module):
    """GRU over per-frame features, mapped back to their width and added to them.

    forward: x [N, T, F], state [layers * directions, N, hidden] or None -> (y [N, T, F], new state).
    Feeding a sequence piece by piece with the returned state equals feeding it at once (unidirectional only).
    """

    def __init__(self, sizes: EncoderSizes = EncoderSizes()):
        super().__init__()
        directions = 2 if sizes.bidirectional else 1
        outputs = sizes.hidden * directions
        self.gru = nn.GRU(sizes.feature, sizes.hidden, sizes.layers, bidirectional=sizes.bidirectional)
        self.mapped = sizes.linear or sizes.bidirectional
        self.linear: nn.Module = nn.Linear(outputs, sizes.feature) if self.mapped else nn.Identity()
        self.residual = sizes.residual and (self.mapped or outputs == sizes.feature)

    def forward(self, x: Tensor, state: Tensor | None = None) -> tuple[Tensor, Tensor]:
        y, state_out = self.gru(x.transpose(0, 1), state)
        y = y.transpose(0, 1)
        if self.mapped:
            y = self.linear(torch.relu(y))
        if self.residual:
            y = y + x
        return y, state_out


class Regressor(nn.Module):
    """Iterative error feedback from mean parameters to SMPL pose (6D), shape and weak-perspective camera.

    forward: features [N, F], start [N, 157] (pose 6D, shape, camera) or None for the mean -> SmplPrediction. The mean
    parameters are buffers `init_pose` [1, 144], `init_shape` [1, 10], `init_cam` [1, 3], loaded from
    `smpl_mean_params.npz` or a checkpoint.
    """

    def __init__(self, sizes: RegressorSizes = RegressorSizes()):
        super().__init__()
        self.iterations = sizes.iterations
        self.fc1 = nn.Linear(sizes.feature + THETA, sizes.hidden)
        self.drop1 = nn.Dropout(sizes.dropout)
        self.fc2 = nn.Linear(sizes.hidden, sizes.hidden)
        self.drop2 = nn.Dropout(sizes.dropout)
        self.decpose = nn.Linear(sizes.hidden, POSE)
        self.decshape = nn.Linear(sizes.hidden, SHAPE)
        self.deccam = nn.Linear(sizes.hidden, CAMERA)
        for head in (self.decpose, self.decshape, self.deccam):
            nn.init.xavier_uniform_(head.weight, gain=0.01)
        identity = torch.tensor([1.0, 0, 0, 1, 0, 0])
        self.register_buffer("init_pose", identity.repeat(24)[None])
        self.register_buffer("init_shape", torch.zeros(1, SHAPE))
        self.register_buffer("init_cam", torch.tensor([[0.9, 0.0, 0.0]]))

    def forward(self, features: Tensor, start: Tensor | None = None) -> SmplPrediction:
        n = features.shape[0]
        if start is None:
            start = torch.cat([self.init_pose, self.init_shape, self.init_cam], 1).expand(n, -1)
        pose, shape, cam = start[:, :144], start[:, 144:154], start[:, 154:]
        for _ in range(self.iterations):
            h = torch.cat([features, pose, shape, cam], 1)
            h = self.drop2(self.fc2(self.drop1(self.fc1(h))))
            pose, shape, cam = pose + self.decpose(h), shape + self.decshape(h), cam + self.deccam(h)
        pose6d = pose.reshape(n, 24, 6)
        return SmplPrediction(pose6d, from_6d(pose6d), shape, cam)


class Vibe(nn.Module):
    """Temporal encoder and regressor: features [N, T, F] -> SmplPrediction with axes [N, T, ...] and the GRU state.

    average_shape: one shape per sequence (mean over T), as in the paper.
    """

    def __init__(self, encoder: EncoderSizes = EncoderSizes(), regressor: RegressorSizes = RegressorSizes(),
                 average_shape: bool = False):
        super().__init__()
        if encoder.feature != regressor.feature:
            raise ValueError(f"regressor.feature is {regressor.feature}; it must equal encoder.feature "
                             f"({encoder.feature})")
        self.encoder = TemporalEncoder(encoder)
        self.regressor = Regressor(regressor)
        self.average_shape = average_shape

    def forward(self, features: Tensor, state: Tensor | None = None) -> tuple[SmplPrediction, Tensor]:
        n, t = features.shape[0], features.shape[1]
        encoded, state_out = self.encoder(features, state)
        p = self.regressor(encoded.reshape(n * t, -1))
        shape = p.shape.reshape(n, t, -1)
        if self.average_shape:
            shape = shape.mean(1, keepdim=True).expand(n, t, -1)
        out = SmplPrediction(p.pose6d.reshape(n, t, 24, 6), p.rotmat.reshape(n, t, 24, 3, 3), shape,
                             p.cam.reshape(n, t, -1))
        return out, state_out


class ImageVibe(nn.Module):
    """Backbone and `Vibe` in one: crops [N, T, 3, H, W] -> (SmplPrediction, state). One backbone pass per frame."""

    def __init__(self, backbone: ResNetFeatures, vibe: Vibe):
        super().__init__()
        self.backbone = backbone
        self.vibe = vibe

    def forward(self, crops: Tensor, state: Tensor | None = None) -> tuple[SmplPrediction, Tensor]:
        n, t = crops.shape[0], crops.shape[1]
        features = self.backbone(crops.flatten(0, 1))
        return self.vibe(features.reshape(n, t, -1), state)


def normalise_image(rgb: Tensor) -> Tensor:
    """uint8 or float [0, 255] RGB [..., H, W, 3] -> ImageNet-normalised float32 [..., 3, H, W]."""
    mean = torch.tensor([0.485, 0.456, 0.406], device=rgb.device)
    std = torch.tensor([0.229, 0.224, 0.225], device=rgb.device)
    return ((rgb.float() / 255 - mean) / std).movedim(-1, -3)
