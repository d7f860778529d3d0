"""Sampling, covariance and prediction of fitted motion."""

from blur_motion_ros.trajectory.sampling import pose_at, sample

__all__ = ["pose_at", "sample"]
