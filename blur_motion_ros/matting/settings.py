"""Settings of the matting stage."""

from __future__ import annotations

from dataclasses import dataclass

from blur_motion_ros.settings import setting
from blur_motion_ros.types import LONG_EXPOSURE


@dataclass(frozen=True)
class MattingSettings:
    """The person's share of every pixel (alpha)."""

    method: str = setting("auto", "difference: background difference (CPU); network: Background-Matting-V2 file; "
                          "fused: both; auto: the difference, and the network where exposures are long",
                          choices=("auto", "difference", "network", "fused"))
    long_exposure: float = setting(LONG_EXPOSURE, "exposure from which auto takes the network", unit="s", low=0.0,
                                   high=10.0)
    model: str = setting("", "network file (.onnx or TorchScript .pt) for the methods network and fused; empty: the "
                         "package's own")
    noise: float = setting(0.006, "colour noise, linear light, assumed where the plate does not say",
                           low=1e-4, high=0.2)
    colours: int = setting(8, "foreground colours kept for one frame", low=2, high=24)
    reach: float = setting(0.25, "how far blur may carry the person out of the mask, in square roots of its area",
                           low=0.02, high=2.0)
    shadows: bool = setting(True, "explain darker pixels of unchanged colour outside the person as shadow")
