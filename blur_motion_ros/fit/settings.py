"""Settings of the blur fit."""

from __future__ import annotations

from dataclasses import dataclass

from blur_motion_ros.settings import setting


@dataclass(frozen=True)
class FitSettings:
    """Blur fit (Human from Blur). Constants were chosen by measurement: docs/fit.md has the ablation."""

    frames: int = setting(2, "exposures per window; two decide the time direction", low=1, high=6)
    degree: int = setting(2, "degree of the motion polynomials", low=1, high=4)
    subframes: int = setting(4, "rendered sub-frames per exposure (N); 8 beyond 40 cm of travel", low=1, high=64)
    size: int = setting(64, "side of the finest fitting image", unit="px", low=16, high=256)
    coarse_size: int = setting(32, "side of the first pyramid level; equal to size: no pyramid", unit="px",
                               low=16, high=256)
    iterations: int = setting(2, "Gauss-Newton steps per pyramid level on a warm start", low=1, high=50)
    cold_iterations: int = setting(10, "Gauss-Newton steps per pyramid level on a cold start", low=1, high=100)
    sigma_image: float = setting(0.06, "colour noise incl. what the body model cannot explain", unit="linear light",
                                 low=0.001, high=1.0)
    sigma_alpha: float = setting(0.15, "least noise of the observed alpha", low=0.01, high=1.0)
    cutoff: float = setting(4.0, "Geman-McClure cut-off of image residuals", unit="sigma", low=0.5, high=100.0)
    data_weight: float = setting(0.02, "weight of one pixel at 64 px (neighbouring pixels are not independent)",
                                 low=0.0, high=1.0)
    motion_widening: float = setting(3.0, "spread of human motion, as a multiple of everyday mocap",
                                     low=0.1, high=100.0)
    restart_above: float = setting(250.0, "squared distance of the initialiser's pose (63: as expected) above which "
                                   "the window is also started from it, and the better result kept", low=0.0, high=1e9)
    restart_cost: float = setting(300.0, "what beginning anew must gain over going on, in squared sigmas", low=0.0,
                                  high=1e6)
    measurement_weight: float = setting(2.0, "weight of the initialiser's pose", low=0.0, high=100.0)
    short_motion: bool = setting(True, "one exposure per window: expect the motion that the learned prior expects")
    pose_prior_weight: float = setting(0.0, "weight of the static pose prior at mid-exposure", low=0.0, high=100.0)
    velocity_carry: float = setting(1.0, "share of the last velocity used past the previous window",
                                    low=0.0, high=1.0)
    colour_every: int = setting(3, "vertex colours are solved every n-th window", unit="windows", low=1, high=1000)
    inflation: float = setting(0.01, "cloth thickness added to the body", unit="m", low=0.0, high=0.1)
    crop_size: int = setting(128, "side of the crop that matting works on", unit="px", low=32, high=512)
    margin: float = setting(0.15, "border around the person's box, as a share of it", low=0.0, high=1.0)
    patience: int = setting(3, "frames a person may go unseen by the initialiser before the track is given up",
                            unit="frames", low=0, high=100)
    stillness: bool = setting(True, "hold what does not change between two exposures")
    low_blur: float = setting(0.1, "blur rate below which velocity is not measured from blur", low=0.0, high=1.0)
    poor_fit: float = setting(3.0, "root mean square image residual (expected noise = 1) called a poor fit",
                              unit="sigma", low=0.1, high=100.0)
