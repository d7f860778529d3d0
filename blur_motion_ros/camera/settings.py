"""Settings of the camera stage."""

from __future__ import annotations

from dataclasses import dataclass

from blur_motion_ros.settings import setting


@dataclass(frozen=True)
class CameraSettings:
    """What the camera does to light and time."""

    response: str = setting("srgb", "how code values relate to light: srgb, linear, or a gamma such as 2.2")
    exposure: float = setting(0.0, "time the shutter is open per frame; 0 = use duty", unit="s", low=0.0, high=1.0)
    duty: float = setting(0.9, "open share of the frame period, used when exposure is 0", low=0.01, high=1.0)
    exposure_mode: str = setting("given", "given: exposures are as stated (settings, topic, recording); estimate: "
                                 "those are where a running estimate from the blur begins",
                                 choices=("given", "estimate"))
    exposure_sigma: float = setting(0.3, "estimate: one sigma of the stated exposure, as a share of it", low=0.01,
                                    high=2.0)
    exposure_drift: float = setting(0.05, "estimate: how far the exposure may wander from window to window, as a share",
                                    low=0.0, high=1.0)
    reference: str = setting("start", "what an image stamp marks", choices=("start", "middle", "end"))
    rate: float = setting(0.0, "frame rate assumed until it is measured; 0 = 30", unit="Hz", low=0.0, high=1000.0)
    max_gap: float = setting(1.0, "a longer silence restarts the motion window", unit="s", low=0.05, high=60.0)
