"""What all nodes share: typed parameters from the settings tree, problems that are logged and counted, clean ends."""

from __future__ import annotations

from typing import Any

from rcl_interfaces.msg import FloatingPointRange, IntegerRange, ParameterDescriptor, SetParametersResult
from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, HistoryPolicy, QoSProfile, ReliabilityPolicy

from blur_motion_ros import config
from blur_motion_ros import settings as setting_tools
from blur_motion_ros.messages.diagnostics import Problems

_HUGE = 1e18


class BaseNode(Node):
    """A node whose parameters are `config.Settings`; subclasses add topics and a thread or two.

    finished / exit_code: set to end the process.  problem(): log throttled, count, keep for diagnostics.
    """

    def __init__(self, name: str, **kwargs: Any) -> None:
        super().__init__(name, **kwargs)
        self.finished = False
        self.exit_code = 0
        self.problems = Problems()
        self.settings = declare(self)
        self.add_on_set_parameters_callback(self._on_parameters)

    def problem(self, kind: str, message: str) -> None:
        """Report something wrong without stopping: a log line at most every five seconds per kind."""
        if self.problems.report(kind, message):
            self.get_logger().warning(message)

    def close(self, timeout: float) -> None:
        """Stop threads and release files; called after the executor has stopped."""

    def settings_changed(self) -> None:
        """`self.settings` has new values of live parameters."""

    def _on_parameters(self, parameters: list) -> SetParametersResult:
        known = {leaf.name for leaf in config.leaves()}
        changes = {p.name: p.value for p in parameters if p.name in known}
        try:
            self.settings = setting_tools.replace(self.settings, changes)
        except ValueError as error:
            return SetParametersResult(successful=False, reason=str(error))
        if changes:
            self.settings_changed()
        return SetParametersResult(successful=True)


def declare(node: Node) -> config.Settings:
    """Declare every setting as a parameter and return the tree with the values given at start.

    Raises SettingError (one sentence) for a value of the wrong type or out of range.
    """
    tree = config.Settings()
    # Declared loosely first: a whole number for a float is fine, and errors come from `settings.replace`, in our words.
    loose = ParameterDescriptor(dynamic_typing=True)
    given = {leaf.name: node.declare_parameter(leaf.name, leaf.value, loose).value for leaf in config.leaves(tree)}
    tree = setting_tools.replace(tree, given)
    for leaf in config.leaves(tree):
        node.undeclare_parameter(leaf.name)
        node.declare_parameter(leaf.name, leaf.value, descriptor(leaf), ignore_override=True)
    return tree


def descriptor(leaf: setting_tools.Leaf) -> ParameterDescriptor:
    """Unit, range, choices and meaning of a setting as a ROS parameter descriptor."""
    info = leaf.info
    out = ParameterDescriptor(name=leaf.name, read_only=not info.dynamic)
    out.description = f"{info.doc} [{info.unit}]" if info.unit else info.doc
    if info.choices:
        out.additional_constraints = "one of: " + ", ".join(info.choices)
    if isinstance(leaf.value, bool) or (info.low is None and info.high is None):
        return out
    low = -_HUGE if info.low is None else info.low
    high = _HUGE if info.high is None else info.high
    if isinstance(leaf.value, int):
        out.integer_range = [IntegerRange(from_value=int(low), to_value=int(high), step=0)]
    elif isinstance(leaf.value, float):
        out.floating_point_range = [FloatingPointRange(from_value=float(low), to_value=float(high), step=0.0)]
    return out


def quality(reliability: str, depth: int, latched: bool = False) -> QoSProfile:
    """QoS profile: keep last `depth`, 'reliable' or 'best_effort', optionally kept for late subscribers."""
    return QoSProfile(
        history=HistoryPolicy.KEEP_LAST, depth=depth,
        reliability=ReliabilityPolicy.RELIABLE if reliability == "reliable" else ReliabilityPolicy.BEST_EFFORT,
        durability=DurabilityPolicy.TRANSIENT_LOCAL if latched else DurabilityPolicy.VOLATILE)
