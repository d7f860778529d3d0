"""Clean plate of the scene behind the person.

model.py: `BackgroundModel`.  buffer.py: latest-wins `FrameBuffer`.  capture.py: plate from a burst.  drift.py:
brightness changes.  learn.py: the running estimate.  settings.py: `BackgroundSettings`.
"""

from blur_motion_ros.background.buffer import FrameBuffer
from blur_motion_ros.background.capture import CaptureError
from blur_motion_ros.background.model import BackgroundModel, PlateStatus
from blur_motion_ros.background.settings import BackgroundSettings

__all__ = ["BackgroundModel", "BackgroundSettings", "CaptureError", "FrameBuffer", "PlateStatus"]
