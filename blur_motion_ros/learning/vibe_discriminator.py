"""VIBE's motion discriminator: real or regressed motion? Parameter names equal the official checkpoint's.

Input: body pose rotation vectors without the root, [N, T, 69]; output: score [N, 1] (least-squares targets 1 and 0).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

POOLS = ("attention", "concat", "attention_concat", "last")


@dataclass(frozen=True)
class DiscriminatorSizes:
    """pool: 'attention' (released configuration), 'concat' (average and max), 'attention_concat' (all three), 'last'.

    attention_layers counts the scoring layer: 3 = two hidden layers and one that scores.
    """

    inputs: int = 69
    hidden: int = 1024
    layers: int = 2
    pool: str = "attention"
    attention: int = 1024
    attention_layers: int = 3
    attention_dropout: float = 0.2


class SelfAttention(nn.Module):
    """Scores every time step and returns the convex combination: [N, T, H] -> (summary [N, H], weights [N, T])."""

    def __init__(self, size: int, layers: int, dropout: float):
        super().__init__()
        widths = [size] * layers + [1]
        modules: list[nn.Module] = []
        for a, b in zip(widths[:-1], widths[1:], strict=True):
            modules += [nn.Linear(a, b), nn.Tanh(), nn.Dropout(dropout)]
        self.attention = nn.Sequential(*modules)
        for m in self.attention:
            if isinstance(m, nn.Linear):
                nn.init.uniform_(m.weight, -0.1, 0.1)
                nn.init.constant_(m.bias, 0.01)

    def forward(self, states: Tensor) -> tuple[Tensor, Tensor]:
        weights = torch.softmax(self.attention(states)[..., 0], dim=-1)
        return (states * weights[..., None]).sum(1), weights


class MotionDiscriminator(nn.Module):
    """GRU over the motion, pooled over time (see `DiscriminatorSizes.pool`), linear score."""

    def __init__(self, sizes: DiscriminatorSizes = DiscriminatorSizes()):
        super().__init__()
        if sizes.pool not in POOLS:
            raise ValueError(f"pool is '{sizes.pool}'; choose one of {', '.join(POOLS)}")
        attends = sizes.pool.startswith("attention")
        if attends and sizes.attention != sizes.hidden:
            raise ValueError(f"attention is {sizes.attention}; it reads the GRU's states, so it must equal hidden "
                             f"({sizes.hidden})")
        self.pool = sizes.pool
        self.gru = nn.GRU(sizes.inputs, sizes.hidden, sizes.layers)
        if attends:
            self.attention = SelfAttention(sizes.attention, sizes.attention_layers, sizes.attention_dropout)
        widths = {"attention": 1, "last": 1, "concat": 2, "attention_concat": 3}
        self.fc = nn.Linear(sizes.hidden * widths[sizes.pool], 1)

    def forward(self, motion: Tensor) -> Tensor:
        states = self.gru(motion.transpose(0, 1))[0].transpose(0, 1)
        if self.pool == "last":
            return self.fc(states[:, -1])
        if self.pool == "attention":
            return self.fc(self.attention(states)[0])
        positive = torch.relu(states)
        parts = [positive.mean(1), positive.amax(1)]
        if self.pool == "attention_concat":
            parts = [self.attention(states)[0]] + parts
        return self.fc(torch.cat(parts, 1))


def discriminator_loss(real: Tensor, fake: Tensor) -> Tensor:
    """Least squares, scores [N, 1]: real to 1, fake to 0, averaged over the batch."""
    return ((real - 1) ** 2).sum() / real.shape[0] + (fake**2).sum() / fake.shape[0]


def adversarial_loss(fake: Tensor) -> Tensor:
    """Least squares, scores [N, 1] of generated motion to 1."""
    return ((fake - 1) ** 2).sum() / fake.shape[0]
