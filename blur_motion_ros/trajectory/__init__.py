"""Sampling, covariance and prediction of fitted motion."""

from blur_motion_ros.trajectory.sampling import joints_at, pose_at, sample

__all__ = ["joints_at", "pose_at", "sample"]
