"""Settings of trajectory sampling and prediction."""

from __future__ import annotations

from dataclasses import dataclass

from blur_motion_ros.settings import setting


@dataclass(frozen=True)
class TrajectorySettings:
    """Sampling of the fitted motion."""

    samples: int = setting(5, "points per exposure of a published or saved trajectory", low=2, high=65,
                           dynamic=True)
    horizon: float = setting(0.1, "how far past the shutter closing a trajectory is predicted", unit="s",
                             low=0.0, high=1.0, dynamic=True)
    horizon_samples: int = setting(2, "points on the predicted part", low=0, high=33, dynamic=True)
    acceleration_sigma: float = setting(12.0, "unknown joint acceleration that makes a prediction age",
                                        unit="m/s^2", low=0.0, high=200.0)
    inflation: float = setting(1.5, "factor on the fit's own standard deviations of velocities: its pixels and "
                               "landmarks err together (measured)", low=0.1, high=20.0)
    pose_inflation: float = setting(2.2, "the same of positions, whose errors last from frame to frame", low=0.1,
                                    high=20.0)
    model_sigma: float = setting(0.03, "error of every joint that the fit cannot see: clothes, where a joint is",
                                 unit="m", low=0.0, high=1.0)
    scale_sigma: float = setting(0.05, "error of the scene's scale, as a share (unknown stature; 0.01 if it is known)",
                                 low=0.0, high=1.0)
