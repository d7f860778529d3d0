"""Sampling, covariance and prediction of fitted motion."""

from blur_motion_ros.trajectory.sampling import sample

__all__ = ["sample"]
