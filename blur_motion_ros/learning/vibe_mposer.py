"""MPoser: the paper's ablation prior, a sequential variational auto-encoder of body motion with a latent per step."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class MPoserSizes:
    inputs: int = 69
    hidden: int = 512
    layers: int = 2
    latent: int = 32


class MPoser(nn.Module):
    """GRU encoder -> (mean, log variance) per step [N, T, latent] -> GRU decoder -> motion [N, T, inputs]."""

    def __init__(self, sizes: MPoserSizes = MPoserSizes()):
        super().__init__()
        self.encoder = nn.GRU(sizes.inputs, sizes.hidden, sizes.layers, batch_first=True, bidirectional=True)
        self.mean = nn.Linear(2 * sizes.hidden, sizes.latent)
        self.log_variance = nn.Linear(2 * sizes.hidden, sizes.latent)
        self.decoder = nn.GRU(sizes.latent, sizes.hidden, sizes.layers, batch_first=True)
        self.output = nn.Linear(sizes.hidden, sizes.inputs)

    def encode(self, motion: Tensor) -> tuple[Tensor, Tensor]:
        h = self.encoder(motion)[0]
        return self.mean(h), self.log_variance(h).clamp(-12, 8)

    def decode(self, latent: Tensor) -> Tensor:
        return self.output(self.decoder(latent)[0])

    def forward(self, motion: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Returns (reconstruction, mean, log variance); the latent is sampled in training and the mean in eval."""
        mean, log_variance = self.encode(motion)
        latent = mean
        if self.training:
            latent = mean + torch.randn_like(mean) * torch.exp(0.5 * log_variance)
        return self.decode(latent), mean, log_variance

    def prior_loss(self, motion: Tensor) -> Tensor:
        """How implausible a motion is: squared norm of its latent, mean over batch and time (paper: L_MPoser)."""
        return (self.encode(motion)[0] ** 2).sum(-1).mean()


def elbo_loss(motion: Tensor, reconstruction: Tensor, mean: Tensor, log_variance: Tensor, beta: float) -> Tensor:
    """Negative evidence lower bound per step: squared error + beta * KL(q || N(0, 1))."""
    kl = 0.5 * (mean**2 + log_variance.exp() - 1 - log_variance).sum(-1).mean()
    return ((reconstruction - motion) ** 2).sum(-1).mean() + beta * kl
