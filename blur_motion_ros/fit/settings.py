"""Settings of the blur fit."""

from __future__ import annotations

from dataclasses import dataclass, field

from blur_motion_ros.settings import setting
from blur_motion_ros.types import LONG_EXPOSURE


@dataclass(frozen=True)
class LossWeights:
    """Weights of the joint loss of Human from Blur (`fit.losses`, one function per name); 0: off.

    By default the first-order path minimises what Levenberg-Marquardt does (`data` and `evidence`, squared sigmas).
    `FirstOrderSettings.paper()` has the paper's own terms instead; the paper gives no weights, these are ours.
    """

    data: float = setting(1.0, "robust image residuals, as the lm solver has them", low=0.0, high=1e9)
    evidence: float = setting(1.0, "priors, the last window's motion, measured poses", low=0.0, high=1e9)
    formation: float = setting(0.0, "image formation: mean squared error of the image", low=0.0, high=1e9)
    matting: float = setting(0.0, "matting: one minus soft intersection over union with the matte", low=0.0, high=1e9)
    texture: float = setting(0.0, "surface texture smoothness (1 is a good value); above 0 the texture is solved with "
                             "the motion, in one loss, else in turn", low=0.0, high=1e9)
    pose: float = setting(0.0, "static pose prior at each mid-exposure", low=0.0, high=1e9)
    shape: float = setting(0.0, "squared norm of the shape coefficients", low=0.0, high=1e9)
    polynomial_l1: float = setting(0.0, "absolute values of the motion's coefficients", low=0.0, high=1e9)
    polynomial_frobenius: float = setting(0.0, "Frobenius norm of the motion's coefficients", low=0.0, high=1e9)
    background: float = setting(0.0, "person on pixels that show the plate", low=0.0, high=1e9)
    adversarial: float = setting(0.0, "adversarial short-motion prior (exposures that stand alone)", low=0.0, high=1e9)


@dataclass(frozen=True)
class FirstOrderSettings:
    """Adam on the joint loss, as in the paper. Much slower than lm on one window: docs/first_order.md."""

    iterations: int = setting(25, "Adam steps per pyramid level on a warm start", low=1, high=100000)
    cold_iterations: int = setting(60, "Adam steps per pyramid level on a cold start", low=1, high=100000)
    rate: float = setting(0.3, "step of the motion, in the priors' sigmas (precondition) or rad and m", low=1e-5,
                          high=10.0)
    precondition: bool = setting(True, "step in coordinates in which the priors and measurements are round")
    texture: str = setting("texels", "what is coloured where weights.texture is above 0: texels (vertices, for a body "
                           "without texture coordinates) or vertices", choices=("texels", "vertices"))
    texture_size: int = setting(64, "side of that texture", unit="texels", low=16, high=4096)
    colour_rate: float = setting(0.01, "step of the colours where they are free", unit="linear light", low=1e-5,
                                 high=1.0)
    shape_rate: float = setting(0.02, "step of shape coefficients where they are free", low=1e-5, high=1.0)
    decay: float = setting(0.05, "last step as a share of the first (cosine in between)", low=0.0, high=1.0)
    tolerance: float = setting(1e-4, "stop when 20 steps lower the loss by less than this share", low=0.0, high=1.0)
    background_sigma: float = setting(0.02, "image noise below which a pixel shows the plate", unit="linear light",
                                      low=1e-4, high=1.0)
    weights: LossWeights = field(default_factory=LossWeights)

    @staticmethod
    def paper() -> FirstOrderSettings:
        """The terms of Human from Blur for fixed colours and shape; the measured pose in place of an initialisation."""
        return FirstOrderSettings(weights=LossWeights(data=0.0, formation=1e5, matting=1e3, background=3e3, pose=0.3,
                                                      polynomial_l1=0.1, polynomial_frobenius=0.1))


@dataclass(frozen=True)
class FitSettings:
    """Blur fit (Human from Blur). Constants were chosen by measurement: docs/fit.md has the ablation."""

    frames: int = setting(2, "exposures per window; two decide the time direction", low=1, high=6)
    degree: int = setting(2, "highest degree of the motion polynomials", low=1, high=4)
    degree_one_below: float = setting(0.0, "a joint whose motion is expected to blur less than this gets degree 1; 0: "
                                      "none", unit="px", low=0.0, high=1e3)
    degree_three_above: float = setting(0.0, "with degree 3 or 4: a joint expected to blur less gets degree 2",
                                        unit="px", low=0.0, high=1e3)
    subframes: int = setting(4, "rendered sub-frames per exposure (N); 8 beyond 40 cm of travel", low=1, high=64)
    size: int = setting(64, "side of the finest fitting image", unit="px", low=16, high=256)
    coarse_size: int = setting(32, "side of the first pyramid level; equal to size: no pyramid", unit="px",
                               low=16, high=256)
    coarse_subframes: int = setting(2, "most sub-frames per exposure there", low=1, high=64)
    iterations: int = setting(2, "Gauss-Newton steps per pyramid level on a warm start", low=1, high=50)
    long_exposure: float = setting(LONG_EXPOSURE, "exposure from which a warm start takes long_iterations", unit="s",
                                   low=0.0, high=10.0)
    long_iterations: int = setting(5, "Gauss-Newton steps per pyramid level there, where bodies move further between "
                                   "images and there is more time", low=1, high=50)
    cold_iterations: int = setting(10, "Gauss-Newton steps per pyramid level on a cold start", low=1, high=100)
    sigma_image: float = setting(0.06, "colour noise incl. what the body model cannot explain", unit="linear light",
                                 low=0.001, high=1.0)
    sigma_alpha: float = setting(0.15, "least noise of the observed alpha", low=0.01, high=1.0)
    cutoff: float = setting(4.0, "Geman-McClure cut-off of image residuals", unit="sigma", low=0.5, high=100.0)
    data_weight: float = setting(0.1, "weight of one pixel at 64 px (neighbouring pixels are not independent)",
                                 low=0.0, high=1.0)
    motion_widening: float = setting(3.0, "spread of human motion, as a multiple of everyday mocap",
                                     low=0.1, high=100.0)
    restart_above: float = setting(250.0, "squared distance of the initialiser's pose (63: as expected) above which "
                                   "the window is also started from it, and the better result kept", low=0.0, high=1e9)
    restart_cost: float = setting(150.0, "what beginning anew must gain over going on, in squared sigmas", low=0.0,
                                  high=1e6)
    limb_above: float = setting(0.6, "squared distance of a limb from the initialiser's pose, per angle (1: as "
                                "expected), above which the window is also started with that limb as measured", low=0.0,
                                high=1e9)
    limb_cost: float = setting(20.0, "what that must gain, for each such limb, in squared sigmas", low=0.0, high=1e6)
    measurement_weight: float = setting(2.0, "weight of the initialiser's pose", low=0.0, high=100.0)
    short_motion: bool = setting(True, "windows without history: expect the motion that the learned prior expects of "
                                 "the pose (degree 2 or more)")
    pose_prior_weight: float = setting(0.0, "weight of the static pose prior at mid-exposure", low=0.0, high=100.0)
    direction_window: int = setting(5, "single exposures that decide each other's direction of time", unit="exposures",
                                    low=2, high=100)
    direction_log_odds: float = setting(2.2, "log-odds from which a limb's direction of time counts as decided (2.2: "
                                        "nine to one)", low=0.0, high=30.0)
    direction_every: int = setting(0, "every n-th window of several exposures also tries limbs running the other way; "
                                   "0: never", unit="windows", low=0, high=1000)
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
    solver: str = setting("lm", "lm: Levenberg-Marquardt, real time; adam: first order, as in the paper",
                          choices=("lm", "adam"))
    device: str = setting("cpu", "where adam renders (cuda needs nvdiffrast); lm is always on the cpu",
                          choices=("cpu", "cuda"))
    first_order: FirstOrderSettings = field(default_factory=FirstOrderSettings)
    poor_fit: float = setting(3.0, "root mean square image residual (expected noise = 1) called a poor fit",
                              unit="sigma", low=0.1, high=100.0)
    poor_overlap: float = setting(0.65, "overlap (intersection over union) of fitted and matted silhouette below which "
                                  "the fit is called poor", low=0.0, high=1.0)
    poor_speed: float = setting(12.0, "speed of a hand, foot or the head against the pelvis above which the fit is "
                                "called poor: such limbs are mostly lost ones", unit="m/s", low=1.0, high=100.0)
    texture_size: int = setting(256, "side of the texture written by `fit --texture`", unit="texels", low=16, high=4096)
    texture_frames: int = setting(24, "exposures at most that the texture is solved from", low=1, high=1000)
    texture_smoothness: float = setting(0.1, "weight of differences between neighbouring texels", low=0.0, high=1e3)
