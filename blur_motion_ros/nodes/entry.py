"""Console scripts of the nodes. Signals and environment are set before anything heavy is imported."""

from __future__ import annotations

import importlib
import os
import signal
import sys
import threading
import traceback

from blur_motion_ros import kernel_cache, threads
from blur_motion_ros.nodes import specs

_JOIN_S = 5.0


def pipeline(args: list[str] | None = None) -> int:
    return run_node("blur_motion_ros.nodes.pipeline_node", "PipelineNode", args)


def camera(args: list[str] | None = None) -> int:
    return run_node("blur_motion_ros.nodes.camera_node", "CameraNode", args)


def fitting(args: list[str] | None = None) -> int:
    return run_node("blur_motion_ros.nodes.fitting_node", "FittingNode", args)


def player(args: list[str] | None = None) -> int:
    return run_node("blur_motion_ros.nodes.player_node", "PlayerNode", args)


def run_node(module: str, name: str, args: list[str] | None = None) -> int:
    """Build the node class `name` of `module`, spin it until SIGINT, SIGTERM or its own end; exit status."""
    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    os.environ.update(specs.environment())
    kernel_cache.ensure()
    try:
        import rclpy
    except ImportError as error:
        print(f"rclpy cannot be imported ({error}); source a ROS 2 installation or run './run setup'", file=sys.stderr)
        return 1
    from rclpy.signals import SignalHandlerOptions

    rclpy.init(args=args, signal_handler_options=SignalHandlerOptions.NO)
    try:
        return _spin(getattr(importlib.import_module(module), name), stop, executor())
    finally:
        if rclpy.ok():
            rclpy.shutdown()
        ignore_signals()


def executor():
    """One thread for all callbacks; driven by events where rclpy can (from Kilted on): the other one goes through all
    subscriptions anew for every message, which takes a millisecond per image of the interpreter's time."""
    try:
        from rclpy.experimental import EventsExecutor
    except ImportError:
        from rclpy.executors import SingleThreadedExecutor

        return SingleThreadedExecutor()
    return EventsExecutor()


def ignore_signals() -> None:
    """For the very end: the interpreter restores default handlers while it exits; a second Ctrl-C would kill."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)


def _spin(node_class: type, stop: threading.Event, executor) -> int:
    """Create, spin, and take down in the order that never crashes: executor, worker threads, then the node."""
    threads.share()
    try:
        node = node_class()
    except ValueError as error:  # a bad parameter or file: one clear line, no traceback
        print(f"{node_class.__name__}: {error}", file=sys.stderr)
        return 1
    executor.add_node(node)
    try:
        while not stop.is_set() and not node.finished:
            _spin_once(executor, node)
    finally:
        executor.shutdown(timeout_sec=_JOIN_S)
        node.close(_JOIN_S)
        node.destroy_node()
    return node.exit_code


def _spin_once(executor, node) -> None:
    try:
        executor.spin_once(timeout_sec=0.1)
    except Exception as error:  # an exception in any callback would end the process: say it and live on
        node.problem("callback", f"{type(error).__name__}: {error}")
        node.get_logger().debug(traceback.format_exc())
