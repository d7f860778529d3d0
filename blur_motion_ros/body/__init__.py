"""SMPL-format bodies and joint tables."""

from blur_motion_ros.body.error import BodyError
from blur_motion_ros.body.load import load_body
from blur_motion_ros.body.model import BodyModel
from blur_motion_ros.body.skeleton import Skeleton

__all__ = ["BodyError", "BodyModel", "Skeleton", "load_body"]
