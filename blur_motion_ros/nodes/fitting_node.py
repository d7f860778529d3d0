"""`fitting_node`: the blur fit alone, fed by `camera_node` (reliable topics of checked rgb8 frames)."""

from __future__ import annotations

from typing import Any

from rclpy.parameter import Parameter

from blur_motion_ros.nodes import specs
from blur_motion_ros.nodes.fitting import FitNode


class FittingNode(FitNode):
    """Takes `frame/image`, `frame/camera_info`, `frame/exposure` and `background`; settings as in `specs.FITTING`.

    What the command line or a parameter file says wins over these defaults.
    """

    def __init__(self, **kwargs: Any) -> None:
        remappings = [w for a, b in specs.FITTING.remappings.items() for w in ("-r", f"{a}:={b}")]
        kwargs.setdefault("cli_args", ["--ros-args", *remappings])
        kwargs.setdefault("parameter_overrides", [Parameter(name, value=value)
                                                  for name, value in specs.FITTING.parameters[0].items()])
        super().__init__(specs.FITTING.name, **kwargs)
