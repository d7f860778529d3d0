"""The launch file: what it declares, recorded through stand-ins for the `launch` API, or the real one where installed.

PyPI has no ROS `launch`; the recorders below only remember their arguments.
"""

from __future__ import annotations

import importlib.util
import runpy
import sys
import types
from pathlib import Path

import pytest

from blur_motion_ros.nodes import specs

LAUNCH_FILE = Path(__file__).resolve().parents[1] / "launch" / "pipeline.launch.py"


class Recorded:
    """Anything constructed from the launch API: its arguments."""

    def __init__(self, *args, **kwargs):
        self.args, self.kwargs = args, kwargs


def recorders() -> dict[str, types.ModuleType]:
    made = {"launch": ["LaunchDescription"], "launch.actions": ["DeclareLaunchArgument", "OpaqueFunction",
                                                                "SetEnvironmentVariable"],
            "launch.substitutions": ["LaunchConfiguration"], "launch_ros": [], "launch_ros.actions": ["Node"]}
    modules = {}
    for name, classes in made.items():
        modules[name] = types.ModuleType(name)
        for c in classes:
            setattr(modules[name], c, type(c, (Recorded,), {}))
    modules["launch.substitutions"].LaunchConfiguration.perform = lambda self, context: context[self.args[0]]
    return modules


def described(monkeypatch, **values: str):
    """Run the launch file with recorded actions; returns (declared arguments, environment, nodes)."""
    for name, module in recorders().items():
        monkeypatch.setitem(sys.modules, name, module)
    monkeypatch.delenv("FASTDDS_DEFAULT_PROFILES_FILE", raising=False)
    monkeypatch.delenv("FASTRTPS_DEFAULT_PROFILES_FILE", raising=False)
    monkeypatch.delenv("ROS_DISTRO", raising=False)
    actions = runpy.run_path(str(LAUNCH_FILE))["generate_launch_description"]().args[0]
    by_kind = {k: [a for a in actions if type(a).__name__ == k] for k in
               ("DeclareLaunchArgument", "SetEnvironmentVariable", "OpaqueFunction")}
    defaults = {a.args[0]: a.kwargs["default_value"] for a in by_kind["DeclareLaunchArgument"]}
    nodes = by_kind["OpaqueFunction"][0].kwargs["function"](defaults | values)
    environment = dict(a.args for a in by_kind["SetEnvironmentVariable"])
    return defaults, environment, [n.kwargs for n in nodes]


def test_default_is_one_process_with_the_middleware_profile(monkeypatch):
    defaults, environment, nodes = described(monkeypatch)
    assert defaults["composed"] == "true"
    profile = Path(environment["FASTDDS_DEFAULT_PROFILES_FILE"])
    assert profile.name == "fastdds.xml" and "33554432" in profile.read_text()
    assert [n["executable"] for n in nodes] == ["blur-motion-pipeline"]
    assert nodes[0]["package"] == "blur_motion_ros" and Path(nodes[0]["parameters"][0]).is_file()


def test_camera_topics_are_remapped_with_their_siblings(monkeypatch):
    _, _, nodes = described(monkeypatch, image="/cam/image_raw", namespace="cell")
    assert dict(nodes[0]["remappings"]) == {"image": "/cam/image_raw", "camera_info": "/cam/camera_info",
                                            "exposure": "/cam/exposure"}
    assert nodes[0]["namespace"] == "cell"


def test_split_nodes_meet_on_the_frame_topics(monkeypatch):
    _, _, nodes = described(monkeypatch, composed="false", image="/cam/image", params_file="mine.yaml")
    camera, fitting = nodes
    assert (camera["executable"], fitting["executable"]) == ("camera_node", "fitting_node")
    assert dict(camera["remappings"])["image"] == "/cam/image"
    assert dict(fitting["remappings"]) == {"image": "frame/image", "camera_info": "frame/camera_info",
                                           "exposure": "frame/exposure"}
    assert camera["parameters"] == ["mine.yaml"]
    # The camera node has already turned stamps into openings; this must win over the file.
    assert fitting["parameters"][0] == "mine.yaml" and fitting["parameters"][-1]["camera.reference"] == "start"


def test_player_and_rviz(monkeypatch):
    _, _, nodes = described(monkeypatch, play="/data/seq", rviz="true", image="/cam/image", reliability="reliable")
    by_name = {n["executable"]: n for n in nodes}
    assert by_name["camera_player"]["parameters"][0]["input"] == "/data/seq"
    assert dict(by_name["camera_player"]["remappings"])["image"] == "/cam/image"
    assert by_name["rviz2"]["package"] == "rviz2" and Path(by_name["rviz2"]["arguments"][1]).is_file()
    assert {"ros.reliability": "reliable"} in by_name["blur-motion-pipeline"]["parameters"]


def test_every_executable_is_installed_where_launch_looks():
    text = (LAUNCH_FILE.parents[1] / "setup.py").read_text()
    for node in (specs.PIPELINE, specs.CAMERA, specs.FITTING, specs.PLAYER):
        assert f"{node.executable} = " in text
    assert "$base/lib/blur_motion_ros" in (LAUNCH_FILE.parents[1] / "setup.cfg").read_text()


def test_a_profile_of_the_user_wins(monkeypatch):
    monkeypatch.setenv("FASTDDS_DEFAULT_PROFILES_FILE", "/mine.xml")
    assert not any("PROFILES" in name for name in specs.environment())


@pytest.mark.skipif(importlib.util.find_spec("launch_ros") is None, reason="ROS 2's launch is not installed here")
def test_with_the_real_launch():
    from launch import LaunchDescription

    description = runpy.run_path(str(LAUNCH_FILE))["generate_launch_description"]()
    assert isinstance(description, LaunchDescription)
    assert {a.name for a in description.get_launch_arguments()} == set(specs.LAUNCH_ARGUMENTS)
