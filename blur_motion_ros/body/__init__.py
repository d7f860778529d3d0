"""SMPL-format bodies and joint tables."""

from blur_motion_ros.body.model import BodyError, BodyModel, load_body
from blur_motion_ros.body.skeleton import Skeleton

__all__ = ["BodyError", "BodyModel", "Skeleton", "load_body"]
