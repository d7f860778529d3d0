"""Soft alpha of the person over a clean plate.

matter.py: the `Matter` interface and `make_matter`.  difference.py: the CPU default.  posterior.py, palette.py: its
compiled parts.  masked.py: where no background is known.  settings.py: `MattingSettings`.
"""

from blur_motion_ros.matting.matter import Matter, make_matter
from blur_motion_ros.matting.settings import MattingSettings

__all__ = ["Matter", "MattingSettings", "make_matter"]
