"""The free matting network: a small U-Net with Background-Matting-V2's inputs and outputs. Torch."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class MattingNet(nn.Module):
    """src, bgr [B, 3, H, W] sRGB in [0, 1] -> pha [B, 1, H, W], fgr [B, 3, H, W], err [B, 1, H, W].

    H and W are multiples of 4. err: expected absolute error of pha. Works at half resolution and below; the last layer
    sees the picture itself.
    """

    def __init__(self, width: int = 14):
        super().__init__()
        w = width
        self.enter = _block(9, w, 2)
        self.down1, self.down2, self.down3 = _block(w, 2 * w, 2), _block(2 * w, 4 * w, 2), _block(4 * w, 6 * w, 2)
        self.middle = _block(6 * w, 6 * w)
        self.scene = nn.Linear(6 * w, 6 * w)  # the whole picture: light, noise, the person's colours
        self.up3, self.up2, self.up1 = _block(10 * w, 4 * w), _block(6 * w, 2 * w), _block(3 * w, w)
        self.leave = nn.Sequential(nn.Conv2d(w + 9, w, 3, padding=1), nn.SiLU(), nn.Conv2d(w, 5, 3, padding=1))

    def forward(self, src: Tensor, bgr: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        x0 = torch.cat([src, bgr, 4 * (src - bgr)], 1)
        x1 = self.enter(x0)
        x2 = self.down1(x1)
        x3 = self.down2(x2)
        x4 = self.middle(self.down3(x3))
        x4 = x4 + self.scene(x4.mean((2, 3)))[:, :, None, None]
        x = self.up3(torch.cat([_like(x4, x3), x3], 1))
        x = self.up2(torch.cat([_like(x, x2), x2], 1))
        x = self.up1(torch.cat([_like(x, x1), x1], 1))
        out = self.leave(torch.cat([_like(x, x0), x0], 1))
        pha, err = torch.sigmoid(out[:, :1]), 0.5 * torch.sigmoid(out[:, 1:2] - 2)
        return pha, (src + out[:, 2:]).clamp(0, 1), err


def _block(inside: int, outside: int, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(inside, outside, 3, stride, 1, bias=False), nn.BatchNorm2d(outside), nn.SiLU(),
                         nn.Conv2d(outside, outside, 3, 1, 1, bias=False), nn.BatchNorm2d(outside), nn.SiLU())


def _like(x: Tensor, other: Tensor) -> Tensor:
    """Bilinear resize to the other's height and width."""
    return nn.functional.interpolate(x, size=other.shape[2:], mode="bilinear", align_corners=False)
