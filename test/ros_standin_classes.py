"""The product's node classes with the stand-in core."""

from ros_standin import Standin

from blur_motion_ros.nodes.fitting_node import FittingNode
from blur_motion_ros.nodes.pipeline_node import PipelineNode


class PipelineStandin(PipelineNode):
    def __init__(self) -> None:
        super().__init__(make_engine=Standin)


class FittingStandin(FittingNode):
    def __init__(self) -> None:
        super().__init__(make_engine=Standin)
