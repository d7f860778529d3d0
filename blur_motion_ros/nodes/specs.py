"""What runs where: nodes, topics and environment, as plain data shared by the launch file, the console scripts and
the documentation. No ROS import."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from blur_motion_ros import threads

PACKAGE = "blur_motion_ros"
_PROFILE_VARIABLES = ("FASTDDS_DEFAULT_PROFILES_FILE", "FASTRTPS_DEFAULT_PROFILES_FILE")


@dataclass(frozen=True)
class NodeSpec:
    """One executable: its name under lib/<package>, its node name, what it is for, and how it is started.

    parameters: parameter files (str) and {name: value} tables, later ones win.
    """

    executable: str
    name: str
    purpose: str
    remappings: dict[str, str] = field(default_factory=dict)
    parameters: list[Any] = field(default_factory=list)
    arguments: list[str] = field(default_factory=list)
    package: str = PACKAGE


PIPELINE = NodeSpec("blur-motion-pipeline", "blur_motion", "camera intake and blur fit in one process (default)")
CAMERA = NodeSpec("camera_node", "blur_motion_camera", "checks, converts and times images; captures the clean plate")
FITTING = NodeSpec("fitting_node", "blur_motion", "blur fit of the camera node's frames",
                   {"image": "frame/image", "camera_info": "frame/camera_info", "exposure": "frame/exposure"},
                   [{"camera.reference": "start", "ros.reliability": "reliable"}])
PLAYER = NodeSpec("camera_player", "camera_player", "publishes a video or a sequence folder as a camera would")

# name -> (default, description)
LAUNCH_ARGUMENTS: dict[str, tuple[str, str]] = {
    "image": ("image", "image topic of the camera"),
    "camera_info": ("", "CameraInfo topic; empty: camera_info beside the image topic"),
    "composed": ("true", "one process (true) or camera and fitting apart (false)"),
    "params_file": ("", "YAML file of parameters; empty: config/pipeline.yaml of the package"),
    "reliability": ("", "best_effort or reliable image subscription; empty: as in the parameter file"),
    "namespace": ("", "namespace of all nodes"),
    "play": ("", "sequence folder or video to play instead of a camera"),
    "play_camera": ("", "calibration file of the video given to play"),
    "loop": ("true", "play it again and again"),
    "rviz": ("false", "start RViz with the package's view"),
}


def launch_nodes(values: Mapping[str, str]) -> list[NodeSpec]:
    """The nodes of a launch with argument `values` (names of LAUNCH_ARGUMENTS)."""
    parameters: list[Any] = [values["params_file"] or str(shared_file("config", "pipeline.yaml"))]
    if values["reliability"]:
        parameters.append({"ros.reliability": values["reliability"]})
    composed = values["composed"].lower() in ("true", "1")
    nodes = [replace(n, parameters=parameters + n.parameters)
             for n in composition(composed, values["image"], values["camera_info"])]
    if values["play"]:
        nodes.append(_player(values))
    if values["rviz"].lower() in ("true", "1"):
        nodes.append(NodeSpec("rviz2", "rviz", "shows the outputs", package="rviz2",
                              arguments=["-d", str(shared_file("rviz", "pipeline.rviz"))]))
    return nodes


def composition(composed: bool, image_topic: str, info_topic: str = "") -> list[NodeSpec]:
    """The nodes of the pipeline with their remappings: one process, or camera and fitting apart."""
    camera = camera_remappings(image_topic, info_topic)
    return [replace(PIPELINE, remappings=camera)] if composed else [replace(CAMERA, remappings=camera), FITTING]


def camera_remappings(image_topic: str, info_topic: str = "") -> dict[str, str]:
    """Remappings for a camera; its CameraInfo and exposure are siblings of the image topic unless named."""
    return {"image": image_topic, "camera_info": info_topic or sibling(image_topic, "camera_info"),
            "exposure": sibling(image_topic, "exposure")}


def sibling(topic: str, name: str) -> str:
    """`/cam/image_raw`, `camera_info` -> `/cam/camera_info` (ROS convention)."""
    head, slash, _ = topic.rpartition("/")
    return f"{head}{slash}{name}"


def _player(values: Mapping[str, str]) -> NodeSpec:
    parameters = {"input": values["play"], "camera": values["play_camera"],
                  "loop": values["loop"].lower() in ("true", "1")}
    return replace(PLAYER, remappings=camera_remappings(values["image"], values["camera_info"]),
                   parameters=[parameters])


def shared_file(*parts: str) -> Path:
    """A file of config/, rviz/ or launch/: beside the package in a checkout, under share/ when installed."""
    for parent in Path(__file__).resolve().parents[2:]:
        for base in (parent, parent / "share" / PACKAGE):
            if base.joinpath(*parts).is_file() and (base / "package.xml").is_file():
                return base.joinpath(*parts)
    raise FileNotFoundError(f"{'/'.join(parts)} of {PACKAGE} is missing; reinstall the package")


def environment() -> dict[str, str]:
    """Variables needed before a node starts: single-threaded linear algebra, and shared memory large enough for images
    (Fast DDS). What the user has set already wins.
    """
    out = {name: "1" for name in threads.VARIABLES if name not in os.environ}
    if not any(name in os.environ for name in _PROFILE_VARIABLES):
        # Fast DDS 2 (up to Jazzy) reads the old name, Fast DDS 3 (from Kilted on) the new one.
        old = os.environ.get("ROS_DISTRO", "") in ("humble", "iron", "jazzy")
        out[_PROFILE_VARIABLES[old]] = str(shared_file("config", "fastdds.xml"))
    return out
