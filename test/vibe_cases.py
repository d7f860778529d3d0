"""Seeded weights and inputs shared by the parity tests and by whoever runs the official code beside ours.

Numbers come from numpy's PCG64 by name, so that they do not depend on torch's generators; the golden outputs of the
official implementation for exactly these are in `test/vibe_golden.npz`.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from blur_motion_ros.initialiser.vibe_model import EncoderSizes, RegressorSizes, ResNetFeatures, Vibe
from blur_motion_ros.learning.vibe_discriminator import DiscriminatorSizes, MotionDiscriminator

SEED = 20200419


@dataclass(frozen=True)
class VibeCase:
    """One configuration the official code can run (its feature width and regressor sizes are fixed)."""

    name: str
    encoder: EncoderSizes
    regressor: RegressorSizes = RegressorSizes()
    shapes: tuple[tuple[int, int], ...] = ((1, 16), (2, 4), (1, 1))

    def build(self) -> Vibe:
        model = Vibe(self.encoder, self.regressor)
        seed_weights(model, self.name)
        load_mean_params(model)
        return model.eval()


VIBE_CASES = {c.name: c for c in (
    VibeCase("released", EncoderSizes()),
    VibeCase("bidirectional", EncoderSizes(bidirectional=True, hidden=512)),
    VibeCase("one_layer", EncoderSizes(hidden=256, layers=1)),
    VibeCase("plain_2048", EncoderSizes(hidden=2048, layers=1, linear=False)),
    VibeCase("no_residual", EncoderSizes(hidden=128, residual=False), shapes=((1, 3), (3, 1))),
)}
DISCRIMINATOR_CASES = {
    "disc_released": DiscriminatorSizes(),
    "disc_small": DiscriminatorSizes(hidden=48, attention=48, attention_layers=2),
    "disc_concat": DiscriminatorSizes(hidden=64, layers=1, pool="concat"),
    "disc_last": DiscriminatorSizes(hidden=32, pool="last"),
}
BACKBONE_BLOCKS = (3, 4, 6, 3)


def generator(name: str) -> np.random.Generator:
    return np.random.default_rng([SEED, zlib.crc32(name.encode())])


def seed_weights(module: nn.Module, name: str) -> None:
    """Fill every parameter and float buffer: fan-in scaled normals, small heads, batch-norm statistics near 1."""
    state = module.state_dict()
    for key in sorted(state):
        value = state[key]
        if not value.is_floating_point():
            continue
        noise = torch.from_numpy(generator(f"{name}.{key}").standard_normal(value.shape).astype(np.float32))
        fan_in = max(1, value[0].numel()) if value.dim() > 1 else 100
        gain = 1.4 if value.dim() == 4 else 0.1 if ".dec" in key else 1.0
        if key.endswith("running_var") or (value.dim() == 1 and ".bn" in f".{key}" and key.endswith("weight")):
            value.copy_(1 + 0.1 * noise.clamp(-3, 3))
        else:
            value.copy_(gain * noise / fan_in**0.5)


def mean_params() -> dict[str, np.ndarray]:
    """A made-up `smpl_mean_params.npz`: identity-like 6D pose, small shape, scale about 0.9."""
    noise = generator("mean").standard_normal(157).astype(np.float32) * 0.05
    pose = np.tile(np.array([1, 0, 0, 1, 0, 0], np.float32), 24) + noise[:144]
    return {"pose": pose, "shape": noise[144:154], "cam": np.array([0.9, 0, 0], np.float32) + noise[154:]}


def load_mean_params(model: Vibe) -> None:
    for key, value in mean_params().items():
        getattr(model.regressor, f"init_{key}").copy_(torch.from_numpy(value)[None])


def features(name: str, n: int, t: int, f: int) -> Tensor:
    """Input [n, t, f], standard normal."""
    return torch.from_numpy(generator(f"{name}.input.{n}x{t}x{f}").standard_normal((n, t, f)).astype(np.float32))


def build_discriminator(name: str) -> MotionDiscriminator:
    model = MotionDiscriminator(DISCRIMINATOR_CASES[name])
    seed_weights(model, name)
    return model.eval()


def build_backbone() -> ResNetFeatures:
    model = ResNetFeatures(BACKBONE_BLOCKS)
    seed_weights(model, "backbone")
    return model.eval()
