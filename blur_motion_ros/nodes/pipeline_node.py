"""`blur-motion-pipeline`: camera intake and blur fit in one process."""

from __future__ import annotations

from typing import Any

from blur_motion_ros.nodes import specs
from blur_motion_ros.nodes.fitting import FitNode


class PipelineNode(FitNode):
    """Subscribes to the camera itself."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(specs.PIPELINE.name, **kwargs)
