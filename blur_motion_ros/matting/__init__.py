"""Soft alpha of the person over a clean plate.

matter.py: the `Matter` interface, `make_matter`, and `Matters` for exposures of any length.  difference.py: the CPU
default.  posterior.py, palette.py: its compiled parts.  network.py, runners.py: matting networks.  fused.py: both.
masked.py: where no background is known.  settings.py: `MattingSettings`.
"""

from blur_motion_ros.matting.matter import Matter, Matters, make_matter
from blur_motion_ros.matting.settings import MattingSettings

__all__ = ["Matter", "Matters", "MattingSettings", "make_matter"]
