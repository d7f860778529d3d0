"""Settings of the background stage."""

from __future__ import annotations

from dataclasses import dataclass

from blur_motion_ros.settings import setting


@dataclass(frozen=True)
class BackgroundSettings:
    """The clean plate: where it comes from and how it follows the light."""

    plate: str = setting("", "image file of the empty scene; empty: capture it or let it be learned")
    learn: bool = setting(True, "keep learning the plate where no person is")
    drift: str = setting("local", "brightness changes followed: none; gain: one gain and offset per colour;"
                         " local: and how they vary over the image", choices=("none", "gain", "local"))
    noise: float = setting(2.0, "noise of a pixel until it is measured, code values", low=0.2, high=50.0)
    settle: float = setting(1.0, "an unknown pixel is believed after being still for this long", unit="s", low=0.1,
                            high=60.0)
    replace: float = setting(6.0, "a changed pixel replaces the plate after being still for this long; so does an"
                             " unknown one when nobody was found", unit="s",
                             low=0.5, high=600.0)
    margin: float = setting(0.03, "no learning this close to the person, share of the image width", low=0.0, high=0.3)
    capture_frames: int = setting(20, "frames of a capture", low=3, high=300)
    capture_motion: float = setting(0.004, "a capture with a larger moving share of the image is refused", low=0.0,
                                    high=1.0)
    stale: float = setting(0.6, "the plate is stale when it explains less than this share of the scene", low=0.0,
                           high=1.0)
    stale_after: float = setting(2.0, "and has done so for this long", unit="s", low=0.0, high=60.0)
